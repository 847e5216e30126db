"""Ensembles are declared rightly, step purely, and refuse what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from models import regression, regression_data
from purepyro import Ensemble, random
from purepyro._core._trees import leaves_of, named_leaves, with_leaves
from purepyro._errors import DeclarationError, DtypeError, KeyReuseError, KeyTypeError, ShapeError
from purepyro.ensemble import EnsembleState
from purepyro.infer import SVI, AutoNormal, Predictive, load, save, scale

DATA = regression_data()
KEYS = random.split(random.key(0), 3)


def model(y: Tensor, shift: float = 0.0, *, noise: Tensor | None = None) -> None:
    loc = pyro.sample("loc", dist.Normal(shift, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0 if noise is None else noise), obs=y)


Y = torch.tensor([1.0, 2.0, 3.0, 4.0])
SVI_OF_MODEL = SVI(model, AutoNormal(model), torchopt.adam(0.1))
ENSEMBLE = Ensemble(SVI_OF_MODEL, progress_bar=False)


def assert_equal(one: object, other: object) -> None:
    ours, theirs = named_leaves(one), named_leaves(other)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        assert torch.equal(cast("Tensor", leaf), cast("Tensor", theirs[name])), name


def of_rate(rate: Tensor) -> SVI[...]:
    return SVI(model, AutoNormal(model), torchopt.chain(torchopt.adam(1.0), scale(rate)))


def test_a_state_has_the_members_first() -> None:
    state = ENSEMBLE.init(KEYS, Y)
    assert all(cast("Tensor", leaf).shape[0] == 3 for leaf in leaves_of(state))
    assert state.alive.tolist() == [True] * 3
    assert torch.equal(state.svi.key, KEYS)


def test_a_step_is_pure() -> None:
    state = ENSEMBLE.init(KEYS, Y)
    before = with_leaves(state, [cast("Tensor", leaf).clone() for leaf in leaves_of(state)])
    first, losses = ENSEMBLE.step(state, Y)
    again, losses_again = ENSEMBLE.step(state, Y)
    assert losses.shape == (3,)
    assert torch.equal(losses, losses_again)
    assert_equal(state, before)
    assert_equal(first, again)


@pytest.mark.parametrize("how", ["vmap", "loop"])
@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_steps_are_a_run(how: Literal["vmap", "loop"], chunk_size: int | None) -> None:
    ensemble = attrs.evolve(ENSEMBLE, map=how, chunk_size=chunk_size)
    state, losses = ensemble.init(KEYS, Y), []
    for _ in range(4):
        state, loss = ensemble.step(state, Y)
        losses.append(loss)
    result = ensemble.run(KEYS, 4, Y)
    torch.testing.assert_close(torch.stack(losses), result.losses)
    for name, value in state.svi.params.items():
        torch.testing.assert_close(value, result.state.svi.params[name])


def test_a_step_can_be_traced() -> None:
    state = ENSEMBLE.init(KEYS, Y)

    def step(*leaves: Tensor) -> tuple[list[object], Tensor]:
        after, losses = ENSEMBLE.step(with_leaves(state, leaves[1:]), leaves[0])
        return leaves_of(after), losses

    leaves = cast("list[Tensor]", leaves_of(state))
    traced = make_fx(step)(Y, *leaves)
    new = torch.tensor([5.0, 6.0, 7.0, 8.0])
    expected_state, expected = ENSEMBLE.step(state, new)
    after, losses = traced(new, *leaves)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(after, leaves_of(expected_state))


def test_a_run_within_vmap() -> None:
    def run(y: Tensor) -> Tensor:
        return ENSEMBLE.run(KEYS, 2, y).losses

    both = torch.vmap(run)(torch.stack([Y, Y + 1]))
    torch.testing.assert_close(both[1], run(Y + 1))


@pytest.mark.parametrize("in_dims", [(0, None), (-2, None)])
def test_data_of_each_member(in_dims: tuple[int | None, ...]) -> None:
    own = torch.stack([Y, Y + 1, Y + 2])
    ensemble = attrs.evolve(ENSEMBLE, in_dims=in_dims, chunk_size=2)
    losses = ensemble.run(KEYS, 3, own, 0.5, noise=torch.ones(4)).losses
    alone = SVI_OF_MODEL.run(KEYS[2], 3, own[2], 0.5, noise=torch.ones(4)).losses
    torch.testing.assert_close(losses[:, 2], alone)


def test_arguments_by_name_of_each_member() -> None:
    own = torch.stack([Y, Y + 1, Y + 2])
    noise = torch.tensor([[1.0], [2.0], [3.0]])
    ensemble = attrs.evolve(ENSEMBLE, in_dims=0, chunk_size=2)
    losses = ensemble.run(KEYS, 3, own, shift=0.5, noise=noise).losses
    alone = SVI_OF_MODEL.run(KEYS[2], 3, own[2], 0.5, noise=noise[2]).losses
    torch.testing.assert_close(losses[:, 2], alone)


def test_a_member_goes_on_alone_and_predicts() -> None:
    net = regression()
    svi = SVI(net, AutoNormal(net), torchopt.adam(0.05))
    ensemble = Ensemble(svi, progress_bar=False)
    state = ensemble.run(KEYS, 5, *DATA).state
    alone = svi.run_from(ensemble.member(state, 1), 5, *DATA)
    whole = ensemble.run_from(state, 5, *DATA)
    torch.testing.assert_close(alone.losses, whole.losses[:, 1])
    params = ensemble.member(state, -1).params
    draws = Predictive(net, guide=svi.guide, params=params, num_samples=4)(KEYS[0], DATA[0])
    assert draws["obs"].shape == (4, 20)


@pytest.mark.parametrize("settings", [False, True])
def test_a_saved_run_goes_on_bit_for_bit(settings: bool, tmp_path: Path) -> None:
    rates = torch.tensor([0.1, 0.2, 0.3])
    ensemble: Ensemble[...] = Ensemble(of_rate, members=rates) if settings else ENSEMBLE
    save(tmp_path / "half.pt", ensemble.run(KEYS, 4, Y).state)
    half = load(tmp_path / "half.pt", like=ensemble.init(random.split(random.key(9), 3), Y))
    assert isinstance(half, EnsembleState)
    assert_equal(ensemble.run_from(half, 4, Y).state, ensemble.run(KEYS, 8, Y).state)


def test_no_steps() -> None:
    state = ENSEMBLE.init(KEYS, Y)
    result = ENSEMBLE.run_from(state, 0, Y)
    assert result.state is state
    assert result.losses.shape == (0, 3)


def test_in_double_precision() -> None:
    def wide(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=torch.float64), 10.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    ensemble = Ensemble(SVI(wide, AutoNormal(wide), torchopt.adam(0.1)))
    state, losses = ensemble.run(KEYS, 2, Y.double())
    assert losses.dtype is torch.float64
    assert state.svi.params["locs.loc"].dtype is torch.float64


def test_a_key_that_two_members_share_is_found_in_the_debug_check() -> None:
    ENSEMBLE_OF_ONE_KEY = KEYS[torch.tensor([0, 0])]
    with random.forbid_reuse(), pytest.raises(KeyReuseError, match=r"Ensemble\.init"):
        ENSEMBLE.init(ENSEMBLE_OF_ONE_KEY, Y)
    with random.forbid_reuse():
        attrs.evolve(ENSEMBLE, map="loop").init(KEYS, Y)


# ------------------------------------------------------------------------------------------ errors


def test_one_key_is_not_enough() -> None:
    with pytest.raises(KeyTypeError, match=r"int64\[2\], which is one key.*random\.split"):
        ENSEMBLE.init(random.key(0), Y)
    with pytest.raises(KeyTypeError, match="more than one for each"):
        ENSEMBLE.init(random.split(KEYS, 2), Y)
    with pytest.raises(KeyTypeError, match="is the integer 3"):
        ENSEMBLE.run(cast("random.Key", 3), 1, Y)
    with pytest.raises(ShapeError, match="got no key"):
        ENSEMBLE.init(KEYS[:0], Y)


def test_keys_and_settings_of_different_number() -> None:
    ensemble = Ensemble(of_rate, members=torch.tensor([0.1, 0.2]))
    with pytest.raises(ShapeError, match=r"3 keys, but settings for 2 members.*split\(key, 2\)"):
        ensemble.init(KEYS, Y)


def test_settings_that_are_none() -> None:
    with pytest.raises(DtypeError, match=r"setting 'rate' is 0\.1, which has no dimension"):
        Ensemble(of_rate, members={"rate": 0.1})
    with pytest.raises(DtypeError, match=r"setting is float32\[\]"):
        Ensemble(of_rate, members=torch.tensor(0.1))
    with pytest.raises(ShapeError, match=r"different numbers of members.*'b': 3"):
        Ensemble(of_rate, members={"a": torch.ones(2), "b": torch.ones(3)})


def test_an_svi_and_settings() -> None:
    with pytest.raises(DeclarationError, match="an SVI and members"):
        Ensemble(SVI_OF_MODEL, members=torch.ones(2))
    with pytest.raises(DeclarationError, match="but no members"):
        Ensemble(of_rate)
    none: Ensemble[[Tensor]] = Ensemble(cast("Any", lambda rate: None), members=KEYS)
    with pytest.raises(DeclarationError, match="make_svi returned None"):
        none.init(KEYS, Y)


def test_a_callback_would_not_be_called() -> None:
    svi = attrs.evolve(SVI_OF_MODEL, callback=print)
    with pytest.raises(DeclarationError, match="callback, which would never be called"):
        Ensemble(svi).init(KEYS, Y)


def test_a_wrong_map_and_chunk() -> None:
    with pytest.raises(DeclarationError, match=r"map is 'vmp'.*Did you mean 'vmap'"):
        Ensemble(SVI_OF_MODEL, map=cast("Any", "vmp"))
    with pytest.raises(ShapeError, match="chunk_size is 0"):
        Ensemble(SVI_OF_MODEL, chunk_size=0)
    with pytest.raises(ShapeError, match="num_steps is -1"):
        ENSEMBLE.run(KEYS, -1, Y)


def test_arguments_that_do_not_fit_the_members() -> None:
    with pytest.raises(ShapeError, match=r"Argument 0 is float32\[4\], with 4 in dimension 0"):
        attrs.evolve(ENSEMBLE, in_dims=0).init(KEYS, Y)
    with pytest.raises(ShapeError, match=r"float32\[4\], which has no dimension 1"):
        attrs.evolve(ENSEMBLE, in_dims=(1,)).init(KEYS, Y)
    with pytest.raises(ShapeError, match="2 arguments, but the call has 1"):
        attrs.evolve(ENSEMBLE, in_dims=(0, None)).init(KEYS, Y)
    with pytest.raises(ShapeError, match=r"Argument 'noise' is float32\[\], which has no"):
        attrs.evolve(ENSEMBLE, in_dims=0).init(KEYS, torch.ones(3, 4), noise=torch.tensor(1.0))

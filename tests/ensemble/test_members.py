"""Members selected, dropped and appended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purepyro import Ensemble, random
from purepyro._core._trees import leaves_of
from purepyro._errors import DeclarationError, DtypeError, ShapeError, UnknownNameError
from purepyro.ensemble import EnsembleState
from purepyro.infer import SVI, AutoNormal, scale


def model(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0).expand([y.shape[-1]]).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)


Y = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
SVI_OF_MODEL = SVI(model, AutoNormal(model), torchopt.adam(0.1))
ENSEMBLE = Ensemble(SVI_OF_MODEL, progress_bar=False)
KEYS = random.split(random.key(0), 5)
STATE = ENSEMBLE.run(KEYS, 3, Y).state


def of_rate(rate: Tensor) -> SVI[[Tensor]]:
    return SVI(model, AutoNormal(model), torchopt.chain(torchopt.adam(1.0), scale(rate)))


def keys_of(state: EnsembleState) -> list[list[int]]:
    found: list[list[int]] = state.svi.key.tolist()
    return found


def assert_members(state: EnsembleState, numbers: list[int]) -> None:
    for leaf, whole in zip(leaves_of(state), leaves_of(STATE), strict=True):
        assert torch.equal(cast("Tensor", leaf), cast("Tensor", whole)[torch.tensor(numbers)])


@pytest.mark.parametrize(
    "indices",
    [
        [3, 1],
        [-2, 1],
        (3, 1),
        torch.tensor([3, 1]),
        torch.tensor([3, 1], dtype=torch.int32),
    ],
    ids=str,
)
def test_select_by_number(indices: Tensor | Sequence[int]) -> None:
    assert_members(ENSEMBLE.select(STATE, indices), [3, 1])


def test_select_and_drop_by_mask() -> None:
    mask = [True, False, False, True, False]
    assert_members(ENSEMBLE.select(STATE, mask), [0, 3])
    assert_members(ENSEMBLE.select(STATE, torch.tensor(mask)), [0, 3])
    assert_members(ENSEMBLE.drop(STATE, mask), [1, 2, 4])
    assert_members(ENSEMBLE.drop(STATE, [0, -1]), [1, 2, 3])
    assert_members(ENSEMBLE.drop(STATE, []), [0, 1, 2, 3, 4])


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
)
def test_what_is_dropped_and_what_is_selected_is_all(numbers: list[int]) -> None:
    kept = ENSEMBLE.drop(STATE, numbers)
    taken = ENSEMBLE.select(STATE, numbers)
    both = ENSEMBLE.append(kept, taken)
    assert sorted(keys_of(both)) == sorted(keys_of(STATE))


def test_append_states_and_single_runs() -> None:
    more = SVI_OF_MODEL.run(random.key(7), 3, Y).state
    for other in (more, [more]):
        both = ENSEMBLE.append(STATE, other)
        assert both.alive.tolist() == [True] * 6
        assert torch.equal(both.svi.key[5], more.key)
        assert torch.equal(both.svi.params["locs.loc"][5], more.params["locs.loc"])
    losses = ENSEMBLE.run_from(ENSEMBLE.append(STATE, more), 2, Y).losses
    torch.testing.assert_close(losses[:, 5], SVI_OF_MODEL.run_from(more, 2, Y).losses)
    assert_members(ENSEMBLE.append(STATE, ENSEMBLE.select(STATE, [1])), [0, 1, 2, 3, 4, 1])


def test_a_selection_goes_on_as_the_whole() -> None:
    rates = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    for ensemble in (ENSEMBLE, Ensemble(of_rate, members=rates, progress_bar=False)):
        state = ensemble.run(KEYS, 3, Y).state
        some = ensemble.run_from(ensemble.select(state, [4, 0]), 3, Y)
        whole = ensemble.run_from(state, 3, Y)
        torch.testing.assert_close(some.losses, whole.losses[:, [4, 0]])


def test_members_are_selected_within_vmap() -> None:
    def first_of(order: Tensor) -> Tensor:
        return ENSEMBLE.select(STATE, order).svi.key[0]

    found = torch.vmap(first_of)(torch.tensor([[2, 1], [4, 0]]))
    assert torch.equal(found, KEYS[torch.tensor([2, 4])])


# ------------------------------------------------------------------------------------------ errors


def test_there_is_no_such_member() -> None:
    with pytest.raises(UnknownNameError, match=r"no member 5 in an ensemble of 5.*0 to 4"):
        ENSEMBLE.member(STATE, 5)
    with pytest.raises(UnknownNameError, match=r"no members \[7, -6\]"):
        ENSEMBLE.select(STATE, [1, 7, -6])
    with pytest.raises(UnknownNameError, match="no member 9"):
        ENSEMBLE.drop(STATE, torch.tensor([9]))


def test_what_is_no_number_of_a_member() -> None:
    with pytest.raises(DtypeError, match="The member is 'a'"):
        ENSEMBLE.member(STATE, cast("int", "a"))
    with pytest.raises(DtypeError, match=r"float32\[1\], which numbers no members"):
        ENSEMBLE.select(STATE, torch.tensor([0.5]))
    with pytest.raises(DtypeError, match=r"int64\[\], which numbers no members"):
        ENSEMBLE.select(STATE, torch.tensor(1))
    with pytest.raises(ShapeError, match="mask of 2 for 5 members"):
        ENSEMBLE.select(STATE, [True, False])


def test_no_member_left() -> None:
    with pytest.raises(ShapeError, match=r"select with \[\] would leave no member"):
        ENSEMBLE.select(STATE, [])
    with pytest.raises(ShapeError, match=r"drop with .* would leave no member"):
        ENSEMBLE.drop(STATE, range(5))
    with pytest.raises(ShapeError, match="append got no member"):
        ENSEMBLE.append(STATE, [])


def test_members_of_another_structure() -> None:
    wide = Y.repeat(1, 2)
    other = ENSEMBLE.init(KEYS, wide)
    with pytest.raises(
        ShapeError, match=r"svi/params/locs\.loc: float32\[2\] here, float32\[4\] there"
    ):
        ENSEMBLE.append(STATE, other)
    with pytest.raises(ShapeError, match=r"params/locs\.loc: float32\[2\] here, float32\[4\]"):
        ENSEMBLE.append(STATE, SVI_OF_MODEL.init(random.key(0), wide))
    sgd = SVI(model, AutoNormal(model), torchopt.sgd(0.1)).init(random.key(0), Y)
    with pytest.raises(ShapeError, match=r"opt_state/0/mu/0: float32\[2\] here, none there"):
        ENSEMBLE.append(STATE, [sgd])


def test_members_without_their_settings() -> None:
    ensemble = Ensemble(of_rate, members=torch.full((5,), 0.1))
    state = ensemble.init(KEYS, Y)
    with pytest.raises(DeclarationError, match="members without their settings"):
        ensemble.append(state, ensemble.member(state, 0))

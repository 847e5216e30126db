"""The posterior of summed-out sites: responsibilities, chains, nested plates, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer as pyro_infer
from pyro import poutine
from pyro.infer import config_enumerate, infer_discrete
from torch import Tensor

from purepyro import Module, PyroParam, apply, init, random
from purepyro._errors import DeclarationError
from purepyro.infer import AutoNormal, Predictive, TraceEnum_ELBO

DRAWS = 20_000
MARKED: Any = {"enumerate": "parallel"}
DTYPES = [torch.float32, torch.float64]
elbo = TraceEnum_ELBO()


def nothing(y: Tensor) -> None:
    """No site at all."""


def draws_of(
    model: Callable[..., object], guide: Callable[..., object], key: random.Key, *args: Tensor
) -> dict[str, Tensor]:
    """Many draws, by vmap over keys."""

    def one(key: Tensor) -> dict[str, Tensor]:
        return elbo.sample_posterior(model, guide, {}, random.Key(key), *args)

    found: dict[str, Tensor] = torch.vmap(one)(random.split(key, DRAWS))
    return found


def close(found: Tensor, expected: Tensor) -> None:
    """Frequencies of 20,000 draws: 5 standard errors of the widest, 0.0035."""
    torch.testing.assert_close(found, expected, atol=0.018, rtol=0, check_dtype=False)


class Mixture(Module):
    """Two normals with learnable places."""

    locs = PyroParam(torch.tensor([0.0, 2.0]))

    def forward(self, y: Tensor) -> None:
        locs = self.locs
        with pyro.plate("rows", len(y)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=MARKED)
            pyro.sample("y", dist.Normal(locs[k], 1.0), obs=y)


def responsibilities(locs: Tensor, y: Tensor) -> Tensor:
    """By Bayes' rule."""
    joint = torch.tensor([0.3, 0.7]) * dist.Normal(locs, 1.0).log_prob(y[:, None]).exp()
    return joint / joint.sum(-1, keepdim=True)


Y = torch.tensor([-0.5, 0.9, 1.1, 3.0])


def test_responsibilities_are_by_bayes_rule(key: random.Key) -> None:
    params = init(Mixture(), key)
    found = elbo.compute_marginals(Mixture(), nothing, params, key, Y)["k"]
    assert isinstance(found, dist.Categorical)
    expected = responsibilities(params["locs"], Y)
    torch.testing.assert_close(found.probs, expected)

    def one(key: Tensor) -> Tensor:
        return elbo.sample_posterior(Mixture(), nothing, params, random.Key(key), Y)["k"]

    k = torch.vmap(one)(random.split(key, DRAWS))
    close((k == 1).double().mean(0), expected[:, 1])


def test_over_params_by_vmap_and_differentiable(key: random.Key) -> None:
    locs = torch.tensor([[0.0, 2.0], [1.0, -1.0], [0.5, 0.5]])

    def probs(locs: Tensor) -> Tensor:
        return elbo.compute_marginals(Mixture(), nothing, {"locs": locs}, key, Y)["k"].probs

    expected = torch.stack([responsibilities(each, Y) for each in locs])
    torch.testing.assert_close(torch.vmap(probs)(locs), expected)
    slopes = torch.func.jacrev(probs)(locs[0])
    exact = torch.func.jacrev(lambda at: responsibilities(at, Y))(locs[0])
    torch.testing.assert_close(slopes, exact)


@config_enumerate
def chain(y: Tensor) -> None:
    """A hidden Markov model of three states."""
    moves = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4]], dtype=y.dtype)
    k: int | Tensor = 0
    for i in pyro.markov(range(len(y))):
        k = pyro.sample(f"k_{i}", dist.Categorical(moves[k]))
        pyro.sample(f"y_{i}", dist.Normal(2.0 * k, 1.5), obs=y[i])


def chain_by_hand(y: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward; the marginals of states, and of pairs that follow each other."""
    moves = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4]], dtype=y.dtype)
    seen = dist.Normal(2.0 * torch.arange(3.0, dtype=y.dtype), 1.5).log_prob(y[:, None]).exp()
    forward = [moves[0] * seen[0]]
    for each in seen[1:]:
        forward.append(forward[-1] @ moves * each)
    backward = [torch.ones(3, dtype=y.dtype)]
    for each in seen.flip(0)[:-1]:
        backward.insert(0, moves @ (each * backward[0]))
    evidence = forward[-1].sum()
    pairs = [
        forward[i][:, None] * moves * (seen[i + 1] * backward[i + 1]) for i in range(len(y) - 1)
    ]
    return torch.stack(forward) * torch.stack(backward) / evidence, torch.stack(pairs) / evidence


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_chain_is_by_forward_and_backward(key: random.Key, dtype: torch.dtype) -> None:
    y = torch.tensor([0.3, 1.7, 4.2, 2.0, -0.3, 1.0], dtype=dtype)
    states, pairs = chain_by_hand(y)
    found = elbo.compute_marginals(chain, nothing, {}, key, y)
    for i, expected in enumerate(states):
        site = found[f"k_{i}"]
        assert isinstance(site, dist.Categorical)
        torch.testing.assert_close(site.probs, expected)
    draws = draws_of(chain, nothing, key, y)
    for i, expected in enumerate(pairs):
        for a, b in product(range(3), repeat=2):
            both = (draws[f"k_{i}"] == a) & (draws[f"k_{i + 1}"] == b)
            close(both.double().mean(), expected[a, b])


TOP, GROUPS = torch.tensor([0.7, 0.3]), torch.tensor([[0.2, 0.8], [0.6, 0.4]])
KINDS = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])


@poutine.scale(scale=3.0)
@config_enumerate
def nested(y: Tensor) -> None:
    """One site for all, one for each group, one for each datum; all scaled, which is outside."""
    top = pyro.sample("top", dist.Bernoulli(TOP[1]))
    with pyro.plate("groups", 2, dim=-2):
        group = pyro.sample("group", dist.Categorical(GROUPS[top.long()]))
        with pyro.plate("data", 3, dim=-1), poutine.mask(mask=y < 4.0):
            kind = pyro.sample("kind", dist.OneHotCategorical(KINDS[group]))
            pyro.sample("y", dist.Normal(kind @ torch.arange(3.0), 0.7), obs=y)


def nested_by_hand(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The marginals."""
    seen = dist.Normal(torch.arange(3.0), 0.7).log_prob(y[..., None]).exp()
    seen = torch.where((y < 4.0)[..., None], seen, 1.0)
    of_kind = KINDS[:, None, None] * seen  # group value, group, datum, kind
    of_group = GROUPS[:, :, None] * of_kind.sum(-1).prod(-1)  # top, group value, group
    of_top = TOP * of_group.sum(1).prod(-1)
    top = of_top / of_top.sum()
    group = (top[:, None, None] * of_group / of_group.sum(1, keepdim=True)).sum(0).T
    given = of_kind / of_kind.sum(-1, keepdim=True)
    return top, group, (group.T[:, :, None, None] * given).sum(0)


def test_nested_plates(key: random.Key) -> None:
    y = torch.tensor([[0.2, 1.4, 2.2], [0.9, 5.0, 0.1]])
    top, group, kind = nested_by_hand(y)
    found = elbo.compute_marginals(nested, nothing, {}, key, y)
    assert isinstance(found["top"], dist.Bernoulli)
    assert isinstance(found["group"], dist.Categorical)
    assert isinstance(found["kind"], dist.OneHotCategorical)
    torch.testing.assert_close(found["top"].probs, top[1])
    torch.testing.assert_close(found["group"].probs[:, 0], group)
    torch.testing.assert_close(found["kind"].probs, kind)
    draws = draws_of(nested, nothing, key, y)
    close(draws["top"].mean(), top[1])
    close((draws["group"][..., 0] == 1).double().mean(0), group[:, 1])
    close(draws["kind"].double().mean(0), kind)
    assert draws["kind"].shape == (DRAWS, 2, 3, 3)
    # Draws are joint: the group's value is that of its data's kinds.
    together = (draws["top"] == 1) & (draws["group"][:, 0, 0] == 0)
    of_group = GROUPS[1, 0] * (KINDS[0] * _seen(y[0])).sum(-1).prod()
    other = GROUPS[1, 1] * (KINDS[1] * _seen(y[0])).sum(-1).prod()
    close(together.double().mean(), top[1] * of_group / (of_group + other))


def _seen(y: Tensor) -> Tensor:
    return dist.Normal(torch.arange(3.0), 0.7).log_prob(y[:, None]).exp()


def test_what_a_guide_drew_is_given(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("clusters", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 5.0))
        with pyro.plate("rows", len(y)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=MARKED)
            pyro.sample("y", dist.Normal(locs[k], 1.0), obs=y)

    guide = AutoNormal(poutine.block(model, hide=["k"]), init_scale=1e-6)
    params = {**init(guide, key, Y), "locs.locs": torch.tensor([0.0, 2.0])}
    found = elbo.compute_marginals(model, guide, params, key, Y)["k"]
    assert isinstance(found, dist.Categorical)
    expected = responsibilities(torch.tensor([0.0, 2.0]), Y)
    torch.testing.assert_close(found.probs, expected, atol=1e-4, rtol=0)


def test_a_binomial_and_a_site_of_one_value(key: random.Key) -> None:
    @config_enumerate
    def model(y: Tensor) -> None:
        k = pyro.sample("k", dist.Binomial(3, torch.tensor(0.4)))
        one = pyro.sample("one", dist.Categorical(torch.ones(1)))
        pyro.sample("y", dist.Normal(k + one, 1.0), obs=y)

    y, values = torch.tensor(1.8), torch.arange(4.0)
    joint = dist.Binomial(3, torch.tensor(0.4)).log_prob(values) + dist.Normal(
        values, 1.0
    ).log_prob(y)
    found = elbo.compute_marginals(model, nothing, {}, key, y)
    assert isinstance(found["k"], dist.Categorical)
    torch.testing.assert_close(found["k"].probs, joint.softmax(-1))
    draws = draws_of(model, nothing, key, y)
    close((draws["k"] == 2.0).double().mean(), joint.softmax(-1)[2])
    assert bool((draws["one"] == 0).all())


# ---------------------------------------------------------------------------------------- refusals


def test_nothing_to_sum_out(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises(DeclarationError, match=r"no site to sum out.*config_enumerate\(model\)"):
        elbo.sample_posterior(model, nothing, {}, key, torch.tensor(1.0))


def test_sites_that_the_guide_enumerates(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        with pyro.plate("rows", len(y)):
            pyro.sample("k", dist.Categorical(torch.ones(2)), infer=MARKED)

    params = init(Mixture(), key)
    with pytest.raises(DeclarationError, match=r"guide enumerates \['k'\].*Leave these sites out"):
        elbo.compute_marginals(Mixture(), guide, params, key, Y)


def test_several_particles(key: random.Key) -> None:
    params = init(Mixture(), key)
    with pytest.raises(DeclarationError, match=r"num_particles=2, .*vmap over keys"):
        TraceEnum_ELBO(2).sample_posterior(Mixture(), nothing, params, key, Y)


# -------------------------------------------------------------------- Pyro's own, inside of a run


def returning(y: Tensor) -> Tensor:
    """The mixture, which returns its assignments."""
    with pyro.plate("rows", len(y)):
        k: Tensor = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=MARKED)
        pyro.sample("y", dist.Normal(torch.tensor([0.0, 2.0])[k], 1.0), obs=y)
    return k


class Returning(Module):
    """The same as a Module."""

    def forward(self, y: Tensor) -> Tensor:
        return returning(y)


@pytest.mark.parametrize("model", [returning, Returning()], ids=["function", "module"])
def test_infer_discrete_of_pyro_runs(key: random.Key, model: Callable[[Tensor], Tensor]) -> None:
    """In a run it draws from the key: the same again, and 20,000 rows from the posterior."""
    y = torch.full((DRAWS,), 1.1)
    draw = infer_discrete(model, first_available_dim=-2)
    before = dict(vars(pyro.poutine.runtime._ENUM_ALLOCATOR))
    k = apply(draw, {}, key, y)
    assert vars(pyro.poutine.runtime._ENUM_ALLOCATOR) == before  # which are Pyro's, process-wide
    assert torch.equal(k, apply(draw, {}, key, y))
    close((k == 1).double().mean(), responsibilities(torch.tensor([0.0, 2.0]), y[:1])[0, 1])
    best = apply(infer_discrete(model, first_available_dim=-2, temperature=0), {}, key, Y)
    assert torch.equal(best, responsibilities(torch.tensor([0.0, 2.0]), Y).argmax(-1))


def test_marginals_of_pyro_run(key: random.Key) -> None:
    def probs(y: Tensor) -> Tensor:
        theirs = pyro_infer.TraceEnum_ELBO(max_plate_nesting=1)
        found: Any = theirs.compute_marginals(returning, nothing, y)["k"]
        probs: Tensor = found.probs
        return probs

    expected = responsibilities(torch.tensor([0.0, 2.0]), Y)
    torch.testing.assert_close(apply(probs, {}, key, Y), expected)


def test_pyros_under_vmap_says_what_to_write(key: random.Key) -> None:
    draw = infer_discrete(returning, first_available_dim=-2)
    with pytest.raises(DeclarationError, match=r"no rule for torch\.vmap.*sample_posterior\("):
        Predictive(draw, num_samples=3)(key, Y)

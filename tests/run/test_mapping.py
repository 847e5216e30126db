"""What vmap refuses, and the loop that takes it: in losses, predictions and ensembles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from purepyro import Ensemble, apply, log_density, random, trace
from purepyro._errors import DeclarationError, ShapeError, SupportError, VmapError
from purepyro.ensemble import EnsemblePredictive
from purepyro.infer import (
    SVI,
    LogLikelihood,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from purepyro.infer.losses._elbo import LossOfParts

How = Literal["vmap", "loop"]
Y = torch.tensor([0.3, -0.2])
LOSSES: list[Callable[..., LossOfParts]] = [
    Trace_ELBO,
    TraceMeanField_ELBO,
    TraceGraph_ELBO,
    TraceEnum_ELBO,
    RenyiELBO,
]
THERE = {"at": torch.tensor(0.1)}


def guide(y: Tensor | None = Y) -> None:
    at = pyro.param("at", torch.tensor(0.1))
    pyro.sample("z", dist.Normal(at, 1.0))


def branching(y: Tensor | None = Y) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    scale = 1.0 if z > 0 else 2.0  # the line that vmap stops at
    with pyro.plate("data", 2):
        pyro.sample("y", dist.Normal(z, scale), obs=y)


def stable(y: Tensor | None = Y) -> None:
    """Pyro's log density of a stable distribution branches on its parameters."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 2):
        pyro.sample("y", dist.StableWithLogProb(1.5, z.tanh(), 1.0, z), obs=y)


HERE = r"(?s)test_mapping\.py:\d+: `scale = 1\.0 if z > 0"


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: str(kind.__name__))
@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no site to enumerate")
def test_losses(kind: Callable[..., LossOfParts], key: random.Key) -> None:
    name = type(kind()).__name__
    with pytest.raises(VmapError, match=HERE) as caught:
        kind(num_particles=3).loss(branching, guide, THERE, key)
    assert f'{name}(..., map="loop")' in str(caught.value)
    assert "asks a tensor for its values" in str(caught.value)
    assert "file an issue" not in str(caught.value)
    found = kind(num_particles=3, map="loop").loss(branching, guide, THERE, key)
    each = [kind(num_particles=1).loss(branching, guide, THERE, k) for k in random.split(key, 3)]
    if not isinstance(kind(), RenyiELBO):
        torch.testing.assert_close(found, torch.stack(each).mean())
    assert bool(found.isfinite())


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: str(kind.__name__))
@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no site to enumerate")
def test_losses_name_the_site_that_is_scored(
    kind: Callable[..., LossOfParts], key: random.Key
) -> None:
    with pytest.raises(VmapError, match=r"stopped at the site 'y' \(StableWithLogProb\)"):
        kind(num_particles=2).loss(stable, guide, THERE, key)
    loss = kind(num_particles=2, map="loop").loss(stable, guide, THERE, key)
    assert bool(loss.isfinite())


def test_predictive(key: random.Key) -> None:
    with pytest.raises(VmapError, match=HERE + r'.*Write Predictive\(\.\.\., map="loop"\)'):
        Predictive(branching, num_samples=3)(key, None)
    draws = Predictive(branching, num_samples=3, map="loop")(key, None)
    assert {name: list(value.shape) for name, value in draws.items()} == {"z": [3], "y": [3, 2]}
    # The same runs as without the branch.
    assert torch.equal(draws["z"], Predictive(stable, num_samples=3)(key, None)["z"])


def test_log_likelihood() -> None:
    samples = {"z": torch.tensor([-1.0, 1.0])}
    with pytest.raises(VmapError, match=HERE + r'.*Write LogLikelihood\(\.\.\., map="loop"\)'):
        LogLikelihood(branching, {}, samples)()
    found = LogLikelihood(branching, {}, samples, map="loop")()["y"]
    wanted = [dist.Normal(-1.0, 2.0).log_prob(Y), dist.Normal(1.0, 1.0).log_prob(Y)]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_ensembles_and_their_predictions(key: random.Key) -> None:
    svi, keys = SVI(branching, guide, torchopt.adam(0.1)), random.split(key, 2)
    with pytest.raises(VmapError, match=HERE + r'.*Write Ensemble\(\.\.\., map="loop"\)'):
        Ensemble(svi).run(keys, 2)
    ensemble = Ensemble(svi, map="loop")
    state = ensemble.run(keys, 2).state
    with pytest.raises(VmapError, match=HERE):
        Ensemble(svi).step(state)
    with pytest.raises(VmapError, match=r'EnsemblePredictive\(\.\.\., map="loop"\)'):
        ensemble.predictive(state, map="vmap").nll(key)
    assert ensemble.predictive(state, num_samples=2).nll(key).shape == (2,)


def test_particles_of_members_need_a_loop_each(key: random.Key) -> None:
    svi = SVI(branching, guide, torchopt.adam(0.1), Trace_ELBO(num_particles=2))
    keys = random.split(key, 2)
    for how in ("vmap", "loop"):
        with pytest.raises(VmapError, match=r'Write Trace_ELBO\(\.\.\., map="loop"\)'):
            Ensemble(svi, map=how).run(keys, 2)
    svi = SVI(branching, guide, torchopt.adam(0.1), Trace_ELBO(num_particles=2, map="loop"))
    with pytest.raises(VmapError, match=r'Write Ensemble\(\.\.\., map="loop"\)'):
        Ensemble(svi).run(keys, 2)
    assert Ensemble(svi, map="loop").run(keys, 2).losses.shape == (2, 2)


@pytest.mark.parametrize("run", ["apply", "trace", "log_density", "init", "step", "loop", "loss"])
def test_a_vmap_of_the_users_own(run: str, key: random.Key) -> None:
    svi = SVI(branching, guide, torchopt.adam(0.1))
    state = svi.init(key)

    def once(key: Tensor) -> Tensor:
        one = random.Key(key)
        if run == "apply":
            apply(branching, {}, one)
        elif run == "log_density":
            return log_density(branching, {}, {"z": random.normal(one)})
        elif run == "init":
            svi.init(one)
        elif run == "step":
            return svi.step(state._replace(key=one))[1]
        elif run == "loop":
            return Predictive(branching, num_samples=2, map="loop")(one, None)["z"]
        elif run == "loss":
            return Trace_ELBO().loss(branching, guide, THERE, one)
        return trace(branching, {}, one)[1].log_density

    with pytest.raises(VmapError, match=HERE + r".*a loop over the runs in place of torch\.vmap"):
        torch.vmap(once)(random.split(key, 2))


class _NoRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


_NO_RULE: Any = _NoRule


def _in_place(z: Tensor) -> Tensor:
    both = torch.zeros(2)
    both[0] = z
    return both


REFUSED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "item": (lambda z: z.item(), "asks a tensor"),
    "float": (float, "asks a tensor"),
    "numpy": (lambda z: z.numpy(), "asks a tensor"),
    "tolist": (lambda z: z.tolist(), "asks a tensor"),
    "mask": (lambda z: z.expand(2)[z.expand(2) > 0], "asks a tensor"),
    "nonzero": (lambda z: z.expand(2).nonzero(), "asks a tensor"),
    "in_place": (_in_place, "a tensor that all runs share"),
    "data": (lambda z: z.data, r"takes the `\.data`"),
    "function": (lambda z: _NO_RULE.apply(z), "autograd.Function"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_vmap_refuses_runs_in_a_loop(name: str, key: random.Key) -> None:
    function, why = REFUSED[name]

    def model() -> None:
        function(pyro.sample("z", dist.Normal(0.0, 1.0)))

    with pytest.raises(VmapError, match=why) as caught:
        Predictive(model, num_samples=2)(key)
    assert 'map="loop"' in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert Predictive(model, num_samples=2, map="loop")(key)["z"].shape == (2,)


def test_errors_of_the_models_own_pass_as_they_are(key: random.Key) -> None:
    def model() -> None:
        raise RuntimeError("the model's own")

    for how in ("vmap", "loop"):
        with pytest.raises(RuntimeError, match=r"^the model's own$"):
            Predictive(model, num_samples=2, map=how)(key)


def test_results_that_differ_in_shape(key: random.Key) -> None:
    def model() -> None:
        count = int(pyro.sample("count", dist.Poisson(3.0)))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([count]).to_event(1))
        pyro.deterministic("sum", torch.tensor(float(count)))

    with pytest.raises(ShapeError, match=r"The site 'x' is float32\[\d\] in run 0 and float32"):
        Predictive(model, num_samples=9, map="loop")(key)
    names = ["count", "sum"]  # the way out
    draws = Predictive(model, num_samples=9, map="loop", return_sites=names)(key)
    assert torch.equal(draws["count"], draws["sum"])


def test_sites_that_some_runs_do_not_have(key: random.Key) -> None:
    def model() -> None:
        if pyro.sample("coin", dist.Bernoulli(0.5)) == 1:
            pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ShapeError, match=r"The site 'x' is .*missing"):
        Predictive(model, num_samples=9, map="loop")(key)


@pytest.mark.parametrize(
    "make",
    [
        *LOSSES,
        lambda map: Predictive(branching, num_samples=2, map=map),
        lambda map: LogLikelihood(branching, {}, {"z": torch.zeros(2)}, map=map),
        lambda map: EnsemblePredictive(branching, {"a": torch.zeros(2)}, map=map),
        lambda map: Ensemble(SVI(branching, guide, torchopt.adam(0.1)), map=map),
    ],
)
def test_a_way_that_is_none(make: Callable[..., object]) -> None:
    with pytest.raises(DeclarationError, match=r"map is 'lop'.*Did you mean 'loop'\?"):
        make(map="lop")


# Checks of distributions, which torch makes by branches.


def covariance(y: Tensor = Y) -> None:
    spread = pyro.sample("spread", dist.LogNormal(0.0, 0.1))
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), spread * torch.eye(2)), obs=y)


def spread_guide(y: Tensor | None = Y) -> None:
    pyro.sample("spread", dist.LogNormal(pyro.param("at", torch.tensor(0.0)), 0.1))


@pytest.mark.parametrize("kind", [Trace_ELBO, TraceGraph_ELBO, RenyiELBO])
def test_a_latent_covariance(kind: Callable[..., LossOfParts], key: random.Key) -> None:
    loss, loop = (
        kind(num_particles=3, map=how).loss(covariance, spread_guide, THERE, key)
        for how in ("vmap", "loop")
    )
    torch.testing.assert_close(loss, loop)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("argument", ["covariance_matrix", "precision_matrix"])
def test_a_covariance_in_a_plate(argument: str, dtype: torch.dtype, key: random.Key) -> None:
    def model() -> None:
        spread = pyro.sample("spread", dist.LogNormal(torch.zeros((), dtype=dtype), 0.1))
        matrix = spread * torch.eye(2, dtype=dtype)
        with pyro.plate("rows", 3):
            loc = torch.zeros(2, dtype=dtype)
            if argument == "covariance_matrix":
                pyro.sample("y", dist.MultivariateNormal(loc, covariance_matrix=matrix))
            else:
                pyro.sample("y", dist.MultivariateNormal(loc, precision_matrix=matrix))

    mapped, loop = (Predictive(model, num_samples=4, map=how)(key) for how in ("vmap", "loop"))
    assert mapped["y"].dtype is dtype
    torch.testing.assert_close(mapped, loop)


def _prior(fn: Callable[[Tensor], TorchDistributionMixin]) -> Callable[[], None]:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", fn(z))

    return model


INVALID: dict[str, tuple[Callable[[Tensor], TorchDistributionMixin], str]] = {
    "scale": (lambda z: dist.Normal(0.0, z - 50), r"scale \(float32\[\]\) of its Normal"),
    "nested": (lambda z: dist.Normal(torch.zeros(2), z - 50).to_event(1), "scale .* of its Normal"),
    "nan": (lambda z: dist.Normal(z * torch.nan, 1.0), "loc .* of its Normal"),
    "probs": (lambda z: dist.Geometric(2 + z.abs()), "probs .* of its Geometric"),
    "skew": (
        lambda z: dist.MultivariateNormal(
            torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]) + 0 * z
        ),
        "covariance_matrix .* of its MultivariateNormal",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_parameter_is_still_seen(name: str, key: random.Key) -> None:
    make, match = INVALID[name]
    model = _prior(make)
    with pytest.raises(ValueError, match="constraint"):  # torch's, or ours
        apply(model, {}, key)
    with pytest.raises(SupportError, match=f"site 'x'.*{match}"):
        Predictive(model, num_samples=2)(key)
    with pyro.validation_enabled(False):
        if name != "skew":
            Predictive(model, num_samples=2)(key)


def test_values_outside_the_support_are_still_seen(key: random.Key) -> None:
    def model(y: Tensor | None = None) -> None:
        rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
        pyro.sample("y", dist.Exponential(rate), obs=y)

    rates = torch.tensor([1.0, 2.0])
    with pytest.raises(SupportError, match=r"site 'y'.*outside the support"):
        LogLikelihood(model, {}, {"rate": rates})(torch.tensor(-1.0))
    samples = {"rate": rates, "y": torch.tensor([1.0, -1.0])}
    with pytest.raises(SupportError, match=r"site 'y'.*outside the support"):
        Predictive(model, posterior_samples=samples, return_sites=["y"])(key)


@pytest.mark.filterwarnings("ignore:There is a performance drop.*isclose")
def test_explicit_checks_that_branch_are_refused_with_the_loop(key: random.Key) -> None:
    def fn(z: Tensor) -> TorchDistributionMixin:
        matrix = torch.eye(2) * z.exp()
        return dist.MultivariateNormal(torch.zeros(2), matrix, validate_args=True)

    with pytest.raises(VmapError, match=r"test_mapping\.py:\d+: `return dist\.Multi"):
        Predictive(_prior(fn), num_samples=2)(key)
    assert Predictive(_prior(fn), num_samples=2, map="loop")(key)["x"].shape == (2, 2)


def test_a_prior_that_insists_on_its_checks(key: random.Key) -> None:
    prior = dist.LKJCholesky(2, 1.0).expand([3])  # made while validation was on

    def model() -> None:
        pyro.sample("x", dist.LKJ(2, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", prior)

    def scores(how: How) -> Tensor:
        def score(key: Tensor) -> Tensor:
            return trace(model, {}, random.Key(key))[1].log_density

        keys = random.split(key, 3)
        return torch.vmap(score)(keys) if how == "vmap" else torch.stack(list(map(score, keys)))

    torch.testing.assert_close(scores("vmap"), scores("loop"))


def test_nothing_is_left_of_it_in_eager_runs(key: random.Key) -> None:
    Predictive(covariance, num_samples=2, return_sites=["y"])(key)
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, -1.0)
    with pytest.raises(ValueError, match="scale"):
        apply(lambda: pyro.sample("x", dist.Normal(0.0, -1.0)), {}, key)


# Log densities that branch on values.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_of_impossible_categories(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [0.5, 0.1, 0.2]], dtype=dtype)
    counts = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], dtype=dtype)

    def model(logits: Tensor, y: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(torch.zeros((), dtype=dtype), 1.0))
        with pyro.plate("rows", 2):
            pyro.sample("y", dist.Multinomial(3, logits=logits + shift), obs=y)

    samples = {"shift": torch.tensor([0.0, 1.0], dtype=dtype)}
    mapped, loop = (
        LogLikelihood(model, {}, samples, map=how)(logits, counts)["y"] for how in ("vmap", "loop")
    )
    torch.testing.assert_close(mapped, loop)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_missing_values(dtype: torch.dtype) -> None:
    nan = torch.nan
    rows = torch.tensor([[0.1, nan, 0.3], [nan, nan, 1.0], [nan] * 3, [0.4, 0.5, 0.6]], dtype=dtype)
    factor = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 1.5]], dtype=dtype)

    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3, dtype=dtype), 1.0).to_event(1))
        with pyro.plate("rows", 4):
            fn = dist.NanMaskedMultivariateNormal(loc, factor @ factor.mT)
            pyro.sample("y", fn, obs=y)
            pyro.sample("single", dist.NanMaskedNormal(loc, 0.5).to_event(1), obs=y)

    samples = {"loc": torch.tensor([[0.0, 0.1, 0.2], [1.0, -1.0, 0.5]], dtype=dtype)}
    mapped, loop = (LogLikelihood(model, {}, samples, map=how)(rows) for how in ("vmap", "loop"))
    torch.testing.assert_close(mapped, loop)

    def total(loc: Tensor) -> Tensor:
        def score(loc: Tensor) -> Tensor:
            return log_density(model, {}, {"loc": loc}, rows)

        found: Tensor = torch.vmap(torch.func.grad(score))(loc)
        return found

    assert bool(total(samples["loc"]).isfinite().all())


def test_the_variance_of_a_members_own_student_t(key: random.Key) -> None:
    """Torch's variance writes into a tensor that all runs share."""

    def model(y: Tensor | None = Y) -> None:
        spread = pyro.sample("spread", dist.LogNormal(0.0, 0.1))
        with pyro.plate("data", 2):
            pyro.sample("y", dist.StudentT(3.0 + spread, 0.0, spread), obs=y)

    svi = SVI(model, spread_guide, torchopt.adam(0.1))
    keys = random.split(key, 2)
    mapped, loop = Ensemble(svi), Ensemble(svi, map="loop")
    state = mapped.run(keys, 2, Y).state
    with pytest.raises(VmapError, match=r"site 'y' \(StudentT\).*EnsemblePredictive\(\.\.\., map="):
        mapped.predictive(state).predict(key, None)
    mean, epistemic, aleatoric = loop.predictive(state).predict(key, None)
    assert torch.equal(mean, torch.zeros(2))
    assert torch.equal(epistemic, torch.zeros(2))
    assert bool((aleatoric > 1).all())
    followed = mapped.predictive(state, map="loop").predict(key, None)
    assert torch.equal(followed.aleatoric, aleatoric)


def test_a_distribution_told_not_to_validate_takes_any_value_in_wrappers(key: random.Key) -> None:
    """As a VAE's pixels between 0 and 1; torch's wrappers do not look at values themselves."""
    x = torch.tensor([[0.25, 0.75, 0.5]] * 2)
    mask = torch.tensor([True, False])

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pixel = dist.Bernoulli(torch.sigmoid(z), validate_args=False)
        with pyro.plate("rows", 2):
            pyro.sample("x", pixel.expand([2, 3]).to_event(1).mask(mask), obs=x)

    def guide() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    seen = [
        Trace_ELBO(num_particles=2, map=how).loss(model, guide, {}, key) for how in ("vmap", "loop")
    ]
    torch.testing.assert_close(*seen)

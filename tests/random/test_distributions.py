"""Every distribution of Pyro: drawn from the key, or refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Protocol

import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from purepyro import random
from purepyro._errors import PurepyroError, UnsupportedDistributionError
from purepyro.random._distributions._entries import UNSUPPORTED

Parameters = tuple[Tensor, ...]

# Bases without a density, and two whose samplers loop until the data say stop: eager only.
ABSTRACT = {dist.Distribution, dist.ExponentialFamily, dist.TorchDistribution}
EAGER_ONLY = {dist.Rejector, dist.SpanningTree}

pytestmark = [
    pytest.mark.usefixtures("unvalidated"),
    # LinearHMM and GeneralizedPareto draw by their own code, where torch loops over the lanes for
    # one operation. Any other draw that did so would fail here by torch's warning.
    pytest.mark.filterwarnings("ignore:There is a performance drop.*aten..(clamp_|isclose)"),
    pytest.mark.filterwarnings("ignore:class LKJCorrCholesky:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Singular sample detected"),
    # The first forward-mode derivative of a process makes torch script its own decompositions.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]


class Case(Protocol):
    @property
    def kind(self) -> type: ...
    @property
    def make(self) -> Callable[..., object]: ...
    @property
    def parameters(self) -> Parameters: ...
    @property
    def maps(self) -> bool: ...
    @property
    def exact(self) -> bool: ...


def _draw(case: Case, key: Tensor, parameters: Parameters, shape: tuple[int, ...]) -> Tensor:
    return random.sample(random.Key(key), case.make(*parameters), shape)


def _loop(case: Case, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.stack([_draw(case, key, case.parameters, shape) for key in keys])


def _same(case: Case, found: Tensor, wanted: Tensor) -> None:
    if case.exact:
        assert torch.equal(found, wanted)
    else:
        torch.testing.assert_close(found, wanted)


def _distributions() -> list[type]:
    exported = (getattr(dist, name) for name in dir(dist))
    bases = (dist.Distribution, torch.distributions.Distribution)
    return [one for one in exported if inspect.isclass(one) and issubclass(one, bases)]


def test_no_distribution_of_pyro_is_missed(request: pytest.FixtureRequest) -> None:
    drawn = {case.kind for case in request.getfixturevalue("cases")}
    for kind in _distributions():
        places = [kind in drawn, kind in UNSUPPORTED, kind in ABSTRACT, kind in EAGER_ONLY]
        assert sum(places) == 1, kind


@pytest.mark.parametrize("kind", UNSUPPORTED, ids=lambda kind: str(kind.__name__))
def test_unsupported_distributions_are_refused_by_name(key: random.Key, kind: type) -> None:
    instance: object = object.__new__(kind)
    with pytest.raises(UnsupportedDistributionError, match=kind.__name__) as caught:
        random.sample(key, instance)
    assert UNSUPPORTED[kind] in str(caught.value)
    assert isinstance(caught.value, PurepyroError)
    assert isinstance(caught.value, NotImplementedError)


@pytest.mark.parametrize("shape", [(), (7,), (3, 2)], ids=str)
def test_vmap_is_a_loop(case: Case, key: random.Key, shape: tuple[int, ...]) -> None:
    keys = random.split(key, 4)
    before = torch.get_rng_state()
    loop = _loop(case, keys, shape)
    mapped = torch.vmap(lambda one: _draw(case, one, case.parameters, shape))(keys)
    _same(case, mapped, loop)
    if case.maps:
        repeated = tuple(one.expand(4, *one.shape).clone() for one in case.parameters)
        both = torch.vmap(lambda one, each: _draw(case, one, each, shape))(keys, repeated)
        _same(case, both, loop)
        last = tuple(one.movedim(0, -1).contiguous() for one in repeated)
        axes = (0, (-1,) * len(last))
        other = torch.vmap(lambda one, each: _draw(case, one, each, shape), axes)(keys, last)
        _same(case, other, loop)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_inside_a_keyed_block_is_the_same(case: Case, key: random.Key) -> None:
    first, second = random.fold_in(key, 0), random.fold_in(key, 1)
    alone = _draw(case, second, case.parameters, (2,))
    with random.keyed(first):
        torch.rand(1)
        assert torch.equal(_draw(case, second, case.parameters, (2,)), alone)
    outer = _draw(case, random.fold_in(second, 1), case.parameters, (64,))
    twin = _draw(case, second, case.parameters, (64,))
    fixed = case.kind in (dist.Delta, dist.Unit)
    assert torch.equal(outer, twin) == fixed


def test_shapes_and_dtypes_are_those_of_pyro(case: Case, key: random.Key) -> None:
    torch.manual_seed(0)
    own = case.make(*case.parameters)
    wanted: Tensor = getattr(own, "sample")(torch.Size([5]))  # noqa: B009
    found = _draw(case, key, case.parameters, (5,))
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)


def test_scalars_draw_scalars(case: Case, key: random.Key) -> None:
    if any(one.dim() > 1 for one in case.parameters):
        pytest.skip("its parameters are vectors or matrices")
    try:
        scalar = case.make(*(one if one.dim() == 0 else one[0] for one in case.parameters))
    except (IndexError, RuntimeError, TypeError, ValueError, AssertionError):
        pytest.skip("its parameters are vectors")
    if getattr(scalar, "batch_shape", None) != ():
        pytest.skip("it has a shape of its own")
    event: tuple[int, ...] = tuple(getattr(scalar, "event_shape"))  # noqa: B009
    assert random.sample(key, scalar).shape == event
    assert random.sample(key, scalar, (3,)).shape == (3, *event)


def test_gradients_are_alike_under_all_transforms(case: Case, key: random.Key) -> None:
    if not getattr(case.make(*case.parameters), "has_rsample", False):
        parameters = tuple(one.clone().requires_grad_() for one in case.parameters)
        # Pyro's Empirical picks from its samples, gradients and all.
        free = case.kind is dist.Empirical
        assert _draw(case, key, parameters, (2,)).requires_grad == free
        return

    def loss(parameters: Parameters, one: Tensor) -> Tensor:
        return _draw(case, one, parameters, (6,)).sin().sum()

    keys = random.split(key, 3)
    loop = []
    for one in keys:
        parameters = tuple(each.clone().requires_grad_() for each in case.parameters)
        plain = torch.autograd.grad(
            loss(parameters, one), parameters, allow_unused=True, materialize_grads=True
        )
        functional = torch.func.grad(loss)(case.parameters, one)
        for first, second in zip(plain, functional, strict=True):
            assert torch.isfinite(first).all()
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
        loop.append(plain)
    if case.exact:
        mapped = torch.vmap(torch.func.grad(loss), (None, 0))(case.parameters, keys)
        for found, *each in zip(mapped, *loop, strict=True):
            torch.testing.assert_close(found, torch.stack(each), rtol=1e-3, atol=1e-4)


# Estimators of their own are not the derivative of the draw; straight-through ones are not either,
# and a Stable number moves by single-precision noise.
_NOT_PATHWISE = {
    dist.AVFMultivariateNormal,
    dist.GaussianScaleMixture,
    dist.MixtureOfDiagNormals,
    dist.MixtureOfDiagNormalsSharedCovariance,
    dist.OMTMultivariateNormal,
    dist.OneHotCategoricalStraightThrough,
    dist.RelaxedBernoulliStraightThrough,
    dist.RelaxedOneHotCategoricalStraightThrough,
}
# Drawn by rejection: a finite difference could change which proposal is taken. Their gradient is
# compared with torch's implicit one below.
_BY_REJECTION = {
    dist.AffineBeta,
    dist.Beta,
    dist.Chi2,
    dist.Dirichlet,
    dist.ExpandedDistribution,
    dist.FisherSnedecor,
    dist.Gamma,
    dist.Independent,
    dist.InverseGamma,
    dist.LinearHMM,
    dist.MaskedMixture,
    dist.MultivariateStudentT,
    dist.StudentT,
    dist.TransformedDistribution,
    dist.Wishart,
}


def test_pathwise_gradients_are_finite_differences(case: Case, key: random.Key) -> None:
    """In float64, central differences of 1e-6."""
    skipped = case.kind in _NOT_PATHWISE | _BY_REJECTION
    if skipped or not getattr(case.make(*case.parameters), "has_rsample", False):
        pytest.skip("no pathwise derivative, or by rejection")
    parameters = tuple(one.double() for one in case.parameters)

    def loss(*each: Tensor) -> Tensor:
        return _draw(case, key, each, (5,)).double().sin().sum()

    slopes = torch.func.grad(loss, tuple(range(len(parameters))))(*parameters)
    for place, (one, slope) in enumerate(zip(parameters, slopes, strict=True)):
        way = torch.linspace(0.5, 1.0, one.numel(), dtype=torch.float64).reshape(one.shape)
        way = way * (one != 0)  # a triangular factor stays one
        moved = [
            loss(*parameters[:place], one + step * way, *parameters[place + 1 :])
            for step in (1e-6, -1e-6)
        ]
        expected = (moved[0] - moved[1]) / 2e-6
        torch.testing.assert_close((slope * way).sum(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("concentration", [0.2, 1.0, 3.0, 40.0])
def test_gamma_gradient_is_torchs_implicit_one(key: random.Key, concentration: float) -> None:
    alpha = torch.full((50,), concentration, dtype=torch.float64, requires_grad=True)
    value = random.sample(key, dist.Gamma(alpha, torch.ones(50, dtype=torch.float64)))
    (found,) = torch.autograd.grad(value.sum(), alpha)
    function: Callable[[Tensor, Tensor], Tensor] = getattr(torch, "_standard_gamma_grad")  # noqa: B009
    torch.testing.assert_close(found, function(alpha.detach(), value.detach()))
    tangent = _tangent(
        lambda a: random.sample(key, dist.Gamma(a, torch.ones(50, dtype=torch.float64))),
        alpha.detach(),
        torch.ones_like(alpha),
    )
    torch.testing.assert_close(tangent, found)


def test_dirichlet_gradient_is_torchs_implicit_one(key: random.Key) -> None:
    alpha = torch.tensor([0.3, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    value = random.sample(key, dist.Dirichlet(alpha))
    (found,) = torch.autograd.grad((value * weights).sum(), alpha)
    backward: Callable[..., Tensor] = getattr(torch.distributions.dirichlet, "_Dirichlet_backward")  # noqa: B009
    expected = backward(value.detach(), alpha.detach(), weights)
    torch.testing.assert_close(found, expected)
    tangent = _tangent(lambda a: random.sample(key, dist.Dirichlet(a)), alpha.detach(), weights)
    jacobian = torch.func.jacrev(lambda a: random.sample(key, dist.Dirichlet(a)))(alpha.detach())
    torch.testing.assert_close(tangent, jacobian @ weights)


def test_second_derivatives_of_gamma_numbers_are_refused(key: random.Key) -> None:
    def draw(alpha: Tensor) -> Tensor:
        return random.sample(key, dist.Gamma(alpha, torch.ones(())))

    with pytest.raises(NotImplementedError, match=r"second derivative.*first one only.*LogNormal"):
        torch.func.grad(torch.func.grad(draw))(torch.tensor(2.0))


def _tangent(function: Callable[[Tensor], Tensor], at: Tensor, way: Tensor) -> Tensor:
    found: tuple[Tensor, ...] = torch.func.jvp(function, (at,), (way,))
    return found[1]


def test_log_prob_of_straight_through_draws_sees_the_soft_value(key: random.Key) -> None:
    probs = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    for kind in (
        dist.RelaxedBernoulliStraightThrough,
        dist.RelaxedOneHotCategoricalStraightThrough,
    ):
        relaxed = kind(torch.tensor(0.7), probs)
        value = random.sample(key, relaxed)
        assert set(value.tolist()) <= {0.0, 1.0}
        assert torch.isfinite(relaxed.log_prob(value)).all()


def test_score_function_draws_carry_no_gradient(key: random.Key) -> None:
    loc = torch.zeros(3, requires_grad=True)
    assert random.sample(key, dist.Normal(loc, 1.0)).requires_grad
    assert not random.sample(key, dist.Normal(loc, 1.0).has_rsample_(False)).requires_grad
    other = torch.distributions.Normal(loc, 1.0)
    assert torch.equal(random.sample(key, other), random.normal(key, 3))


def test_fast_draws_have_the_bits_of_the_redirected_ones(key: random.Key) -> None:
    loc, scale = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.1])
    for distribution in (
        dist.Normal(loc, scale),
        dist.HalfNormal(scale),
        dist.LogNormal(loc, scale),
        dist.Uniform(loc, loc + scale),
        dist.Gamma(scale, scale),
    ):
        with random.keyed(key):
            redirected = distribution.rsample((5,))
        assert torch.equal(random.sample(key, distribution, (5,)), redirected)


def test_a_class_that_draws_in_its_own_way_is_left_to_it(key: random.Key) -> None:
    class Shifted(dist.Normal):
        def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
            return super().rsample(torch.Size(sample_shape)) + 100.0

    found = random.sample(key, Shifted(torch.zeros(3), torch.ones(3)))
    torch.testing.assert_close(found, random.normal(key, 3) + 100.0)


def test_subsampling_draws_from_the_key(key: random.Key) -> None:
    found = random.sample(key, _Subsample(10, 4))
    assert len(set(found.tolist())) == 4
    assert torch.equal(found, random.permutation(key, 10)[:4])
    assert torch.equal(random.sample(key, _Subsample(3, None)), torch.arange(3))
    keys = random.split(key, 3)
    mapped = torch.vmap(lambda one: random.sample(one, _Subsample(10, 4)))(keys)
    assert torch.equal(mapped[1], random.sample(random.Key(keys[1]), _Subsample(10, 4)))


def test_unbounded_rejection_is_keyed_in_eager_mode(key: random.Key) -> None:
    before = torch.get_rng_state()
    half = dist.Rejector(
        dist.Normal(torch.zeros(50), torch.ones(50)),
        lambda value: torch.where(value > 0, 0.0, -torch.inf),
        torch.tensor(0.5).log(),
    )
    first, second = random.sample(key, half), random.sample(key, half)
    assert torch.equal(first, second)
    assert (first > 0).all()
    tree = dist.SpanningTree(torch.zeros(6), {"mcmc_steps": 2})
    assert torch.equal(random.sample(key, tree), random.sample(key, tree))
    assert torch.equal(torch.get_rng_state(), before)

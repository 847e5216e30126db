"""An instance of every distribution that Pyro can draw: a test of a `case` runs on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from torch import Tensor, tensor


class Case(NamedTuple):
    """A distribution as a function of its parameters.

    `maps` says whether its constructor takes parameters batched by vmap (Pyro's or torch's limit,
    not the draw's), `exact` whether its draws are free of matrix factorisations, whose bits
    depend on the batch.
    """

    kind: type
    make: Callable[..., object]
    parameters: tuple[Tensor, ...]
    label: str
    maps: bool
    exact: bool


CASES: list[Case] = []


def _case(kind: type, make: Callable[..., object], *parameters: object, label: str = "") -> None:
    values = tuple(torch.as_tensor(value, dtype=torch.float32) for value in parameters)
    name = label or kind.__name__
    CASES.append(Case(kind, make, values, name, name not in _UNMAPPED, name not in _INEXACT))


_UNMAPPED = {
    "OrderedLogistic",
    "Wishart",
    "SineBivariateVonMises",
    "SineSkewed",
    "GaussianHMM",
    "IndependentHMM",
}
_INEXACT = {"GaussianHMM", "IndependentHMM"}


@pytest.fixture
def cases() -> list[Case]:
    return CASES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[case.label for case in CASES])


A = tensor([0.5, 1.5, 3.0])
B = tensor([2.0, 0.7, 1.1])
L = tensor([-1.0, 0.3, 2.0])
P = tensor([0.2, 0.5, 0.9])
TRIL = tensor([[1.0, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 1.5]])
SPD = TRIL @ TRIL.T
ROW = tensor([0.1, 0.2, 0.3, 0.4])


def _hmm_init() -> dist.Independent:
    return dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)


_case(dist.Normal, dist.Normal, L, A)
_case(dist.HalfNormal, dist.HalfNormal, A)
_case(dist.LogNormal, dist.LogNormal, L, A)
_case(dist.Uniform, lambda low, width: dist.Uniform(low, low + width), L, A)
_case(dist.Laplace, dist.Laplace, L, A)
_case(dist.Logistic, dist.Logistic, L, A)
_case(dist.SkewLogistic, dist.SkewLogistic, L, A, B)
_case(dist.SoftLaplace, dist.SoftLaplace, L, A)
_case(dist.AsymmetricLaplace, dist.AsymmetricLaplace, L, A, B)
_case(dist.SoftAsymmetricLaplace, dist.SoftAsymmetricLaplace, L, A, B, A)
_case(dist.Cauchy, dist.Cauchy, L, A)
_case(dist.HalfCauchy, dist.HalfCauchy, A)
_case(dist.Gumbel, dist.Gumbel, L, A)
_case(dist.Exponential, dist.Exponential, A)
_case(dist.Weibull, dist.Weibull, A, B)
_case(dist.Pareto, dist.Pareto, A, B)
_case(dist.GeneralizedPareto, dist.GeneralizedPareto, L, A, tensor([0.2, 0.1, -0.4]))
_case(dist.Kumaraswamy, dist.Kumaraswamy, A, B)
_case(dist.Gamma, dist.Gamma, A, B)
_case(dist.Chi2, dist.Chi2, A)
_case(dist.InverseGamma, dist.InverseGamma, B + 2, A)
_case(dist.StudentT, dist.StudentT, B + 2, L, A)
_case(dist.FisherSnedecor, dist.FisherSnedecor, B + 2, A + 5)
_case(dist.Beta, dist.Beta, A, B)
_case(dist.AffineBeta, dist.AffineBeta, A, B, L, A)
_case(dist.ContinuousBernoulli, dist.ContinuousBernoulli, P)
_case(dist.VonMises, dist.VonMises, L, A)
_case(dist.Bernoulli, dist.Bernoulli, P)
_case(dist.Geometric, dist.Geometric, P)
_case(dist.Poisson, dist.Poisson, tensor([0.5, 8.0, 40.0]))
_case(dist.Binomial, lambda p: dist.Binomial(7, p), P)
_case(dist.Binomial, lambda p: dist.Binomial(100, p), P, label="Binomial-large")
_case(dist.ExtendedBinomial, lambda p: dist.ExtendedBinomial(7, p), P)
_case(dist.BetaBinomial, lambda a, b: dist.BetaBinomial(a, b, 9), A, B)
_case(dist.ExtendedBetaBinomial, lambda a, b: dist.ExtendedBetaBinomial(a, b, 9), A, B)
_case(dist.NegativeBinomial, lambda p: dist.NegativeBinomial(5.0, p), tensor([0.2, 0.5, 0.7]))
_case(dist.GammaPoisson, dist.GammaPoisson, A, B)
_case(dist.Categorical, dist.Categorical, ROW)
_case(dist.OrderedLogistic, dist.OrderedLogistic, L, tensor([-1.0, 0.0, 1.0]))
_case(dist.OneHotCategorical, dist.OneHotCategorical, ROW)
_case(dist.OneHotCategoricalStraightThrough, dist.OneHotCategoricalStraightThrough, ROW)
_case(dist.RelaxedBernoulli, lambda p: dist.RelaxedBernoulli(tensor(0.7), p), P)
_case(
    dist.RelaxedBernoulliStraightThrough,
    lambda p: dist.RelaxedBernoulliStraightThrough(tensor(0.7), p),
    P,
)
_case(dist.RelaxedOneHotCategorical, lambda p: dist.RelaxedOneHotCategorical(tensor(0.7), p), ROW)
_case(
    dist.RelaxedOneHotCategoricalStraightThrough,
    lambda p: dist.RelaxedOneHotCategoricalStraightThrough(tensor(0.7), p),
    ROW,
)
_case(dist.Multinomial, lambda p: dist.Multinomial(11, p), ROW)
_case(dist.DirichletMultinomial, lambda a: dist.DirichletMultinomial(a, tensor(11)), A)
_case(dist.Dirichlet, dist.Dirichlet, A)
_case(dist.LogisticNormal, dist.LogisticNormal, L, A)
_case(dist.MultivariateNormal, lambda m, c: dist.MultivariateNormal(m, scale_tril=c), L, TRIL)
_case(
    dist.NanMaskedMultivariateNormal,
    lambda m, c: dist.NanMaskedMultivariateNormal(m, scale_tril=c),
    L,
    TRIL,
)
_case(dist.NanMaskedNormal, dist.NanMaskedNormal, L, A)
_case(dist.OMTMultivariateNormal, dist.OMTMultivariateNormal, L, TRIL)
_case(
    dist.AVFMultivariateNormal,
    dist.AVFMultivariateNormal,
    L,
    TRIL,
    tensor([[[0.1, 0.2, 0.3]], [[0.3, 0.1, 0.2]]]),
)
_case(
    dist.LowRankMultivariateNormal,
    dist.LowRankMultivariateNormal,
    L,
    tensor([[1.0, 0.5], [0.2, -0.4], [0.0, 1.0]]),
    A,
)
_case(dist.MultivariateStudentT, dist.MultivariateStudentT, 5.0, L, TRIL)
_case(dist.ProjectedNormal, dist.ProjectedNormal, L)
_case(dist.Wishart, lambda df, c: dist.Wishart(df, scale_tril=c), 5.0, TRIL)
_case(dist.LKJ, lambda c: dist.LKJ(3, c), 1.5)
_case(dist.LKJCholesky, lambda c: dist.LKJCholesky(3, c), 1.5)
_case(dist.LKJCorrCholesky, lambda c: dist.LKJCorrCholesky(3, c), 1.5)
_case(dist.Stable, dist.Stable, tensor([1.5, 0.8, 1.0]), tensor([0.2, -0.5, 0.3]), A, L)
_case(
    dist.StableWithLogProb,
    dist.StableWithLogProb,
    tensor([1.5, 0.8, 1.0]),
    tensor([0.2, -0.5, 0.3]),
    A,
    L,
)
_case(
    dist.SineBivariateVonMises,
    lambda a, b, c, d, w: dist.SineBivariateVonMises(a, b, c, d, weighted_correlation=w),
    0.1,
    -0.4,
    2.0,
    3.0,
    0.5,
)
_case(
    dist.SineSkewed,
    lambda m, s: dist.SineSkewed(dist.VonMises(m, torch.ones(2)).to_event(1), s),
    [0.1, 1.0],
    [0.3, -0.4],
)
_case(dist.Delta, dist.Delta, L)
_case(dist.Unit, dist.Unit, L)
_case(
    dist.Empirical,
    lambda s, w: dist.Empirical(s, torch.log(w)),
    torch.arange(8.0).reshape(4, 2)[:, 0],
    ROW,
)
_case(dist.MaskedDistribution, lambda m, s: dist.Normal(m, s).mask(True), L, A)
_case(dist.ExpandedDistribution, lambda m: dist.ExpandedDistribution(dist.Gamma(m, m), [4, 3]), A)
_case(dist.Independent, lambda m, s: dist.Independent(dist.Gamma(m, s), 1), A, B)
_case(
    dist.TransformedDistribution,
    lambda m, s: dist.TransformedDistribution(dist.Normal(m, s), [transforms.SigmoidTransform()]),
    L,
    A,
)
_case(
    dist.TransformedDistribution,
    lambda m, s: dist.TransformedDistribution(
        dist.Gamma(m, s), [transforms.PowerTransform(tensor(0.7)), transforms.SoftplusTransform()]
    ),
    A,
    B,
    label="TransformedDistribution-gamma",
)
_case(dist.FoldedDistribution, lambda m, s: dist.FoldedDistribution(dist.Normal(m, s)), L, A)
_case(
    dist.MixtureSameFamily,
    lambda p, m, s: dist.MixtureSameFamily(dist.Categorical(p), dist.Normal(m, s)),
    ROW,
    [0.0, 3.0, -2.0, 9.0],
    [1.0, 0.5, 2.0, 0.1],
)
_case(
    dist.MixtureSameFamily,
    lambda p, m: dist.MixtureSameFamily(
        dist.Categorical(p), dist.Independent(dist.Gamma(m, torch.ones(4, 2)), 1)
    ),
    ROW,
    [[1.0, 0.5], [0.3, 2.0], [2.0, 2.0], [9.0, 1.0]],
    label="MixtureSameFamily-gamma",
)
_case(
    dist.MaskedMixture,
    lambda m, s: dist.MaskedMixture(
        tensor([True, False, True]), dist.Normal(m, s), dist.Gamma(s, s)
    ),
    L,
    A,
)
_case(
    dist.MixtureOfDiagNormals,
    dist.MixtureOfDiagNormals,
    [[0.0, 1.0], [3.0, -1.0]],
    [[1.0, 0.5], [0.2, 2.0]],
    [0.3, -0.3],
)
_case(
    dist.MixtureOfDiagNormalsSharedCovariance,
    dist.MixtureOfDiagNormalsSharedCovariance,
    [[0.0, 1.0], [3.0, -1.0]],
    [1.0, 0.5],
    [0.3, -0.3],
)
_case(dist.GaussianScaleMixture, dist.GaussianScaleMixture, [1.0, 0.5], [0.3, -0.3], [1.0, 3.0])
_case(
    dist.ZeroInflatedDistribution,
    lambda g, r: dist.ZeroInflatedDistribution(dist.Poisson(r), gate=g),
    P,
    A,
)
_case(dist.ZeroInflatedPoisson, lambda g, r: dist.ZeroInflatedPoisson(r, gate=g), P, A)
_case(
    dist.ZeroInflatedNegativeBinomial,
    lambda g, p: dist.ZeroInflatedNegativeBinomial(5.0, probs=p, gate=g),
    P,
    tensor([0.2, 0.5, 0.7]),
)
_case(dist.TruncatedPolyaGamma, lambda p: dist.TruncatedPolyaGamma(p), torch.ones(3))
_case(dist.CoalescentTimes, lambda t: dist.CoalescentTimes(t), [0.0, 0.0, 0.1, 0.3, 0.7])
_case(
    dist.DiscreteHMM,
    lambda i, t, m: dist.DiscreteHMM(i, t.expand(5, 2, 2), dist.Normal(m, 1.0), duration=5),
    [0.3, -0.3],
    [[1.0, 0.0], [0.3, 0.7]],
    [0.0, 3.0],
)
_case(
    dist.GaussianHMM,
    lambda f, m: dist.GaussianHMM(_hmm_init(), f, _hmm_init(), m, _hmm_init(), duration=5),
    [[1.0, 0.0], [0.3, 0.7]],
    [[1.0, 0.2], [0.0, 1.0]],
)
_case(
    dist.IndependentHMM,
    lambda f: dist.IndependentHMM(
        dist.GaussianHMM(
            dist.Normal(torch.zeros(3, 2), torch.ones(2)).to_event(1),
            f.expand(3, 1, 2, 2),
            dist.Normal(torch.zeros(3, 1, 2), torch.ones(2)).to_event(1),
            torch.ones(3, 1, 2, 1),
            dist.Normal(torch.zeros(3, 1, 1), torch.ones(1)).to_event(1),
            duration=5,
        )
    ),
    [[1.0, 0.0], [0.3, 0.7]],
)
_case(
    dist.LinearHMM,
    lambda f, m: dist.LinearHMM(
        _hmm_init(),
        f,
        dist.StudentT(torch.full((2,), 5.0)).to_event(1),
        m,
        dist.Laplace(torch.zeros(2), torch.ones(2)).to_event(1),
        duration=5,
    ),
    [[1.0, 0.0], [0.3, 0.7]],
    [[1.0, 0.2], [0.0, 1.0]],
)
_case(dist.OneOneMatching, lambda w: dist.OneOneMatching(w), TRIL)
_case(dist.OneTwoMatching, lambda w: dist.OneTwoMatching(w), torch.ones(6, 3) * L)


@pytest.fixture
def unvalidated() -> Iterator[None]:
    """Validation of arguments reads values, which vmap forbids."""
    torch.distributions.Distribution.set_default_validate_args(False)
    yield
    torch.distributions.Distribution.set_default_validate_args(__debug__)

"""Which distribution has which keyed version, and which has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import pyro.distributions as dist
import torch.distributions as base
from torch import Tensor

from .._source import KeySource
from . import _composed, _counts, _estimators, _scalars, _simple, _vectors

Shape = tuple[int, ...]
Leaf = Callable[[KeySource, object, Shape], Tensor]
Composed = Callable[[Leaf, KeySource, object, Shape], Tensor]

LEAVES: Mapping[type, Leaf] = MappingProxyType(
    {
        kind: cast(Leaf, leaf)
        for kind, leaf in {
            base.Normal: _simple.normal,
            base.HalfNormal: _simple.half_normal,
            base.LogNormal: _simple.log_normal,
            base.Uniform: _simple.uniform,
            base.Gamma: _simple.gamma,
            base.Beta: _scalars.beta,
            base.StudentT: _scalars.student_t,
            base.FisherSnedecor: _scalars.fisher_snedecor,
            base.NegativeBinomial: _scalars.negative_binomial,
            base.VonMises: _scalars.von_mises,
            base.MultivariateNormal: _vectors.multivariate_normal,
            base.LowRankMultivariateNormal: _vectors.low_rank_multivariate_normal,
            base.Dirichlet: _vectors.dirichlet_vector,
            base.LKJCholesky: _vectors.lkj_cholesky,
            base.Wishart: _vectors.wishart,
            base.Multinomial: _counts.multinomial,
            base.OneHotCategorical: _counts.one_hot,
            base.OneHotCategoricalStraightThrough: _counts.one_hot_straight_through,
            dist.AVFMultivariateNormal: _estimators.avf_multivariate_normal,
            dist.BetaBinomial: _counts.beta_binomial,
            dist.CoalescentTimes: _counts.coalescent_times,
            dist.DirichletMultinomial: _counts.dirichlet_multinomial,
            dist.GammaPoisson: _counts.gamma_poisson,
            dist.GaussianScaleMixture: _estimators.gaussian_scale_mixture,
            dist.Logistic: _scalars.by_quantile,
            dist.MixtureOfDiagNormals: _estimators.mixture_of_normals,
            dist.MixtureOfDiagNormalsSharedCovariance: _estimators.mixture_of_normals_shared,
            dist.MultivariateStudentT: _vectors.multivariate_student_t,
            dist.OMTMultivariateNormal: _estimators.omt_multivariate_normal,
            dist.ProjectedNormal: _vectors.projected_normal,
            dist.RelaxedBernoulliStraightThrough: _estimators.relaxed_bernoulli_straight_through,
            dist.RelaxedOneHotCategoricalStraightThrough: (
                _estimators.relaxed_categorical_straight_through
            ),
            dist.SineBivariateVonMises: _vectors.bivariate_von_mises,
            dist.SkewLogistic: _scalars.by_quantile,
            dist.SoftLaplace: _scalars.by_quantile,
            dist.Stable: _scalars.stable,
        }.items()
    }
)
"""Drawn from the key without a function mode."""

KEYLESS: frozenset[type] = frozenset({dist.Delta})
"""Not random: their own code serves, without a function mode."""

COMPOSED: Mapping[type, Composed] = MappingProxyType(
    {
        base.Independent: _composed.of_base,
        base.MixtureSameFamily: _composed.mixture_same_family,
        base.TransformedDistribution: _composed.transformed,
        dist.AffineBeta: _composed.affine_beta,
        dist.DiscreteHMM: _composed.discrete_hmm,
        dist.ExpandedDistribution: _composed.expanded,
        dist.MaskedDistribution: _composed.of_base,
        dist.MaskedMixture: _composed.masked_mixture,
        dist.SineSkewed: _composed.sine_skewed,
        dist.ZeroInflatedDistribution: _composed.zero_inflated,
    }
)
"""Drawn part by part."""

_NO_SAMPLER = "Pyro has no sampler for it"

UNSUPPORTED: Mapping[type, str] = MappingProxyType(
    {
        dist.CoalescentTimesWithRate: _NO_SAMPLER,
        dist.GammaGaussianHMM: _NO_SAMPLER,
        dist.GaussianMRF: _NO_SAMPLER,
        dist.GroupedNormalNormal: _NO_SAMPLER,
        dist.ImproperUniform: "it has no normalised density to draw from",
        dist.LogNormalNegativeBinomial: _NO_SAMPLER,
        dist.VonMises3D: _NO_SAMPLER,
    }
)
"""Not to be drawn, with the reason."""

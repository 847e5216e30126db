import torch
from pyro.distributions.distribution import Distribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ContinuousBernoulli",
    "Dirichlet",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "StudentT",
    "TransformedDistribution",
    "Uniform",
    "VonMises",
    "Weibull",
    "Wishart",
]

class Bernoulli(TorchDistributionMixin, torch.distributions.Bernoulli): ...

class Beta(TorchDistributionMixin, torch.distributions.Beta):
    def conjugate_update(self, other: Distribution) -> tuple[Beta, Tensor]: ...

class Binomial(TorchDistributionMixin, torch.distributions.Binomial):
    approx_sample_thresh: float
    approx_log_prob_tol: float
    def __init__(
        self,
        total_count: Tensor | int = 1,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...

class Categorical(TorchDistributionMixin, torch.distributions.Categorical): ...
class Cauchy(TorchDistributionMixin, torch.distributions.Cauchy): ...
class Chi2(TorchDistributionMixin, torch.distributions.Chi2): ...
class ContinuousBernoulli(TorchDistributionMixin, torch.distributions.ContinuousBernoulli): ...

class Dirichlet(TorchDistributionMixin, torch.distributions.Dirichlet):
    def conjugate_update(self, other: Distribution) -> tuple[Dirichlet, Tensor]: ...

class Exponential(TorchDistributionMixin, torch.distributions.Exponential): ...
class ExponentialFamily(TorchDistributionMixin, torch.distributions.ExponentialFamily): ...
class FisherSnedecor(TorchDistributionMixin, torch.distributions.FisherSnedecor): ...

class Gamma(TorchDistributionMixin, torch.distributions.Gamma):
    def conjugate_update(self, other: Distribution) -> tuple[Gamma, Tensor]: ...

class GeneralizedPareto(TorchDistributionMixin, torch.distributions.GeneralizedPareto):
    loc: Tensor
    scale: Tensor
    concentration: Tensor
    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        concentration: Tensor | float,
        validate_args: bool | None = None,
    ) -> None: ...
    def log_survival_function(self, value: Tensor) -> Tensor: ...
    def log_cdf(self, value: Tensor) -> Tensor: ...

class Geometric(TorchDistributionMixin, torch.distributions.Geometric): ...
class Gumbel(TorchDistributionMixin, torch.distributions.Gumbel): ...
class HalfCauchy(TorchDistributionMixin, torch.distributions.HalfCauchy): ...
class HalfNormal(TorchDistributionMixin, torch.distributions.HalfNormal): ...

class Independent(TorchDistributionMixin, torch.distributions.Independent[TorchDistributionMixin]):
    base_dist: TorchDistributionMixin
    def __init__(
        self,
        base_distribution: TorchDistributionMixin,
        reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ) -> None: ...

class InverseGamma(TorchDistributionMixin, torch.distributions.InverseGamma): ...
class Kumaraswamy(TorchDistributionMixin, torch.distributions.Kumaraswamy): ...
class LKJCholesky(TorchDistributionMixin, torch.distributions.LKJCholesky): ...
class Laplace(TorchDistributionMixin, torch.distributions.Laplace): ...
class LogNormal(TorchDistributionMixin, torch.distributions.LogNormal): ...
class LogisticNormal(TorchDistributionMixin, torch.distributions.LogisticNormal): ...
class LowRankMultivariateNormal(
    TorchDistributionMixin, torch.distributions.LowRankMultivariateNormal
): ...
class MixtureSameFamily(TorchDistributionMixin, torch.distributions.MixtureSameFamily): ...
class Multinomial(TorchDistributionMixin, torch.distributions.Multinomial): ...
class MultivariateNormal(TorchDistributionMixin, torch.distributions.MultivariateNormal): ...

class NegativeBinomial(TorchDistributionMixin, torch.distributions.NegativeBinomial):
    def __init__(
        self,
        total_count: Tensor | float,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...

class Normal(TorchDistributionMixin, torch.distributions.Normal): ...
class OneHotCategorical(TorchDistributionMixin, torch.distributions.OneHotCategorical): ...
class OneHotCategoricalStraightThrough(
    TorchDistributionMixin, torch.distributions.OneHotCategoricalStraightThrough
): ...
class Pareto(TorchDistributionMixin, torch.distributions.Pareto): ...

class Poisson(TorchDistributionMixin, torch.distributions.Poisson):
    is_sparse: bool
    def __init__(
        self, rate: Tensor | float, *, is_sparse: bool = False, validate_args: bool | None = None
    ) -> None: ...

class RelaxedBernoulli(TorchDistributionMixin, torch.distributions.RelaxedBernoulli): ...
class RelaxedOneHotCategorical(
    TorchDistributionMixin, torch.distributions.RelaxedOneHotCategorical
): ...
class StudentT(TorchDistributionMixin, torch.distributions.StudentT): ...
class TransformedDistribution(
    TorchDistributionMixin, torch.distributions.TransformedDistribution
): ...
class Uniform(TorchDistributionMixin, torch.distributions.Uniform): ...

class VonMises(TorchDistributionMixin, torch.distributions.VonMises):
    def __init__(
        self, loc: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None
    ) -> None: ...

class Weibull(TorchDistributionMixin, torch.distributions.Weibull): ...
class Wishart(TorchDistributionMixin, torch.distributions.Wishart): ...

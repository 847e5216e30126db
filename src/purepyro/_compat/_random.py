"""What distributions and layers of torch and Pyro draw by, and keep private."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor

from ._private import Missing, held, private

# torch's own keyed generator.
_found: Any = private("torch.func._random:", "")
KERNELS: ModuleType | None = None if isinstance(_found, Missing) else _found

# Functions of torch that draw, and the derivatives of what they draw.
STANDARD_GAMMA: Any = private("torch:_standard_gamma", "gamma draws")
SAMPLE_DIRICHLET: Any = private("torch:_sample_dirichlet", "Dirichlet draws")
STANDARD_GAMMA_GRAD: Any = private("torch:_standard_gamma_grad", "gradients of gamma draws")
DIRICHLET_GRAD: Any = private("torch:_dirichlet_grad", "gradients of Dirichlet draws")

# Functions by which Pyro's distributions draw with gradients of their own.
OMT_NORMAL: Any = private(
    "pyro.distributions.omt_mvn:_OMTMVNSample", "draws of OMTMultivariateNormal"
)
AVF_NORMAL: Any = private(
    "pyro.distributions.avf_mvn:_AVFMVNSample", "draws of AVFMultivariateNormal"
)
NORMAL_MIXTURE: Any = private(
    "pyro.distributions.diag_normal_mixture:_MixDiagNormalSample",
    "draws of MixtureOfDiagNormals",
)
SHARED_NORMAL_MIXTURE: Any = private(
    "pyro.distributions.diag_normal_mixture_shared_cov:_MixDiagNormalSharedCovarianceSample",
    "draws of MixtureOfDiagNormalsSharedCovariance",
)
SCALE_MIXTURE: Any = private(
    "pyro.distributions.gaussian_scale_mixture:_GSMSample", "draws of GaussianScaleMixture"
)
SEQUENTIAL_INDEX: Any = private("pyro.distributions.hmm:_sequential_index", "draws of DiscreteHMM")


def unbroadcast(distribution: object, name: str) -> Tensor:
    """A matrix or vector of a distribution, without the dimensions it does not depend on."""
    use = f"draws of {type(distribution).__name__}"
    found: Tensor = held(distribution, f"_unbroadcasted_{name}", use)
    return found


def let_unquantize(value: Tensor, soft: Tensor) -> Tensor:
    """``value``, with the relaxed value that the ``log_prob`` of Pyro's distribution looks for."""
    vars(value)["_unquantize"] = soft
    return value

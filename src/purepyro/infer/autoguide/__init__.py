"""Guides made from a model."""

from ._delta import AutoDelta
from ._diagonal import AutoDiagonalNormal
from ._flow import AutoIAFNormal, AutoNormalizingFlow
from ._guide import AutoGuide
from ._initialization import (
    InitSite,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from ._laplace import AutoLaplaceApproximation
from ._list import AutoGuideList
from ._low_rank import AutoLowRankMultivariateNormal
from ._multivariate import AutoMultivariateNormal
from ._normal import AutoNormal

__all__ = [
    "AutoDelta",
    "AutoDiagonalNormal",
    "AutoGuide",
    "AutoGuideList",
    "AutoIAFNormal",
    "AutoLaplaceApproximation",
    "AutoLowRankMultivariateNormal",
    "AutoMultivariateNormal",
    "AutoNormal",
    "AutoNormalizingFlow",
    "InitSite",
    "init_to_feasible",
    "init_to_mean",
    "init_to_median",
    "init_to_sample",
    "init_to_uniform",
    "init_to_value",
]

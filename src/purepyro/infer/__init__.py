"""Inference as pure functions: losses, guides, loops and prediction."""

from ._arviz import to_inference_data
from ._checkpoint import load, save
from ._elbo import ELBO, ELBOParts, Trace_ELBO
from ._enum import TraceEnum_ELBO
from ._graph import TraceGraph_ELBO
from ._log_likelihood import LogLikelihood
from ._mean_field import TraceMeanField_ELBO
from ._optimizers import Optimizer, clip_grad_norm, scale
from ._predictive import Predictive
from ._renyi import RenyiELBO
from ._state import SVIRecord, SVIRunResult, SVIState
from ._svi import SVI
from .autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuide,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
    InitSite,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)

__all__ = [
    "ELBO",
    "SVI",
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
    "ELBOParts",
    "InitSite",
    "LogLikelihood",
    "Optimizer",
    "Predictive",
    "RenyiELBO",
    "SVIRecord",
    "SVIRunResult",
    "SVIState",
    "TraceEnum_ELBO",
    "TraceGraph_ELBO",
    "TraceMeanField_ELBO",
    "Trace_ELBO",
    "clip_grad_norm",
    "init_to_feasible",
    "init_to_mean",
    "init_to_median",
    "init_to_sample",
    "init_to_uniform",
    "init_to_value",
    "load",
    "save",
    "scale",
    "to_inference_data",
]

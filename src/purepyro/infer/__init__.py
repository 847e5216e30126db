"""Inference as pure functions: losses, guides, loops and prediction."""

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
from .losses._elbo import ELBO, ELBOParts
from .losses._enum import TraceEnum_ELBO
from .losses._mean_field import TraceMeanField_ELBO
from .losses._renyi import RenyiELBO
from .losses._trace_elbo import Trace_ELBO
from .losses._trace_graph import TraceGraph_ELBO
from .mcmc import (
    HMC,
    MCMC,
    NUTS,
    ChEES,
    MCMCInfo,
    MCMCResult,
    MCMCState,
    Potential,
    SiteSummary,
    Summary,
    summarize,
)
from .predict._arviz import to_inference_data
from .predict._log_likelihood import LogLikelihood
from .predict._predictive import Predictive
from .svi._checkpoint import load, save
from .svi._optimizers import Optimizer, clip_grad_norm, scale
from .svi._state import SVIRecord, SVIRunResult, SVIState
from .svi._svi import SVI

__all__ = [
    "ELBO",
    "HMC",
    "MCMC",
    "NUTS",
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
    "ChEES",
    "ELBOParts",
    "InitSite",
    "LogLikelihood",
    "MCMCInfo",
    "MCMCResult",
    "MCMCState",
    "Optimizer",
    "Potential",
    "Predictive",
    "RenyiELBO",
    "SVIRecord",
    "SVIRunResult",
    "SVIState",
    "SiteSummary",
    "Summary",
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
    "summarize",
    "to_inference_data",
]

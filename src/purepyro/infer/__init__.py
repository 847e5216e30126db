"""Inference as pure functions: losses, guides, loops and prediction."""

from ._elbo import ELBO, Trace_ELBO
from ._optimizers import Optimizer
from ._predictive import Predictive
from ._svi import SVI, SVIRunResult, SVIState
from .autoguide import AutoNormal

__all__ = [
    "ELBO",
    "SVI",
    "AutoNormal",
    "Optimizer",
    "Predictive",
    "SVIRunResult",
    "SVIState",
    "Trace_ELBO",
]

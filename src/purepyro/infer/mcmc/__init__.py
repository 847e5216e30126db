"""Markov chain Monte Carlo: the log density, kernels, runs of many chains, and diagnostics."""

from ._chees import ChEES
from ._diagnostics import SiteSummary, Summary, summarize
from ._hmc import HMC
from ._mcmc import MCMC
from ._nuts import NUTS
from ._potential import Potential
from ._result import MCMCResult
from ._state import MCMCInfo, MCMCState

__all__ = [
    "HMC",
    "MCMC",
    "NUTS",
    "ChEES",
    "MCMCInfo",
    "MCMCResult",
    "MCMCState",
    "Potential",
    "SiteSummary",
    "Summary",
    "summarize",
]

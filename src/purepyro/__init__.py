"""A typed, functional variant of Pyro's PyroModule for PyTorch."""

from . import random
from ._apply import Trace, apply, apply_with_state, init_state, log_density, trace
from ._convert import to
from ._errors import PurepyroError
from ._fields import PyroParam, PyroSample, static
from ._init import constrain, init, unconstrain
from ._module import Module
from ._replace import replace
from ._types import Params, Prior, State
from .ensemble import Ensemble

__all__ = [
    "Ensemble",
    "Module",
    "Params",
    "Prior",
    "PurepyroError",
    "PyroParam",
    "PyroSample",
    "State",
    "Trace",
    "apply",
    "apply_with_state",
    "constrain",
    "init",
    "init_state",
    "log_density",
    "random",
    "replace",
    "static",
    "to",
    "trace",
    "unconstrain",
]

"""A typed, functional variant of Pyro's PyroModule for PyTorch."""

from . import random
from ._apply import Trace, apply, apply_with_state, init_state, log_density, trace
from ._compile._jit import disable_jit, jit
from ._convert import to
from ._errors import PurepyroError
from ._fields import PyroParam, PyroSample, static
from ._init import constrain, init, unconstrain
from ._module import Module
from ._replace import replace
from ._types import Params, Prior, State

__all__ = [
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
    "disable_jit",
    "init",
    "init_state",
    "jit",
    "log_density",
    "random",
    "replace",
    "static",
    "to",
    "trace",
    "unconstrain",
]

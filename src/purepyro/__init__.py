"""A typed, functional variant of Pyro's PyroModule for PyTorch."""

from . import random
from ._compile._jit import disable_jit, jit
from ._core._types import Params, Prior, State
from ._declare._fields import PyroParam, PyroSample, static
from ._declare._module import Module
from ._declare._replace import replace
from ._declare._to import to
from ._errors import PurepyroError
from ._lift._lift import Lifted, lift
from ._lift._priors import fan_in_laplace, fan_in_normal
from ._networks._state_axis import expand_state, reduce_state
from ._run._apply import Trace, apply, apply_with_state, init_state, log_density, trace
from ._run._describe import Description, describe
from ._run._init import constrain, init, unconstrain
from .ensemble import Ensemble

__all__ = [
    "Description",
    "Ensemble",
    "Lifted",
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
    "describe",
    "disable_jit",
    "expand_state",
    "fan_in_laplace",
    "fan_in_normal",
    "init",
    "init_state",
    "jit",
    "lift",
    "log_density",
    "random",
    "reduce_state",
    "replace",
    "static",
    "to",
    "trace",
    "unconstrain",
]

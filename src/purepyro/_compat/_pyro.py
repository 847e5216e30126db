"""The one place that touches what Pyro and torch keep private or leave untyped.

All that is here has a typed face, so that the rest of the package needs no ``Any`` and no
ignore comment. When a new release of Pyro or torch moves something, this is the file to mend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from types import CodeType, FrameType, MethodType
from typing import Any, TypeAlias, TypeVar, cast

import pyro
import torch
from pyro.distributions import Delta, Distribution, Unit
from pyro.distributions.hmm import HiddenMarkovModel, IndependentHMM
from pyro.distributions.torch_distribution import (
    ExpandedDistribution,
    MaskedDistribution,
    TorchDistributionMixin,
)
from pyro.distributions.util import scale_and_mask as _scale_and_mask
from pyro.infer.autoguide.gaussian import AutoGaussian
from pyro.infer.autoguide.guides import AutoContinuous, prototype_hide_fn
from pyro.infer.util import MultiFrameTensor
from pyro.ops.tensor_utils import periodic_repeat
from pyro.poutine import runtime
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame, IndepMessenger
from pyro.poutine.markov_messenger import MarkovMessenger
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.messenger import Messenger, _bound_partial
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from pyro.poutine.trace_messenger import TraceHandler
from torch import Tensor, nn
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import constraints
from torch.distributions import kl_divergence as _kl_divergence
from torch.distributions.constraints import Constraint
from torch.utils._python_dispatch import _disable_current_modes

from .._errors import DeclarationError
from ._functorch import outside_transforms
from ._isolation import handlers, unvalidated
from ._vmappable_densities import PURE

T = TypeVar("T")

Plates: TypeAlias = tuple[CondIndepStackFrame, ...]
# Pyro's message: a TypedDict whose keys are all optional, though all are always there.
Msg: TypeAlias = Any

_STORE = pyro.get_param_store()
_MODULE_CODE: CodeType = cast("Any", pyro.module).__code__
functorch: Any = cast("Any", torch._C)._functorch
_VMAP: object = functorch.TransformType.Vmap
_len_torch_dispatch_stack: Callable[[], int] = cast("Any", torch._C)._len_torch_dispatch_stack


class Enumeration(EnumMessenger):
    """Pyro's parallel enumeration, without a trace in its process-wide allocator of dimensions.

    Args:
        plates: How many dimensions on the right belong to plates.
        after: Another one, of a run before, to whose dimensions those of this run are added.
        refuse: Raises for a site that cannot be enumerated as it is marked.
    """

    def __init__(
        self, plates: int, after: Enumeration | None, refuse: Callable[[Msg], None]
    ) -> None:
        super().__init__(first_available_dim=-1 - plates if after is None else None)
        self.plates = plates
        self._after = after
        self._refuse = refuse
        self._end: dict[str, object] = {}

    def __enter__(self) -> Enumeration:
        self._outer = dict(vars(runtime._ENUM_ALLOCATOR))
        if self._after is not None:
            dims: Any = self._after._end["dim_to_id"]
            vars(runtime._ENUM_ALLOCATOR).update(self._after._end, dim_to_id=dict(dims))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._end = dict(vars(runtime._ENUM_ALLOCATOR))
        vars(runtime._ENUM_ALLOCATOR).clear()
        vars(runtime._ENUM_ALLOCATOR).update(self._outer)

    def _pyro_sample(self, msg: Msg) -> None:
        if not msg["is_observed"] and not is_subsample(msg["fn"]):
            self._refuse(msg)
        super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Msg) -> None:
        # As Pyro's, without asking the value for its `data`, which vmap does not allow.
        if not isinstance(msg["fn"], TorchDistributionMixin) or msg["value"] is None:
            return
        name, shape = msg["name"], msg["value"].shape
        rows = shape[: len(shape) - msg["fn"].event_dim]
        dims = msg["infer"].setdefault("_dim_to_id", {})
        dims.update(self._param_dims.get(name, {}))
        self._value_dims[name] = {
            dim: number for dim, number in dims.items() if len(rows) >= -dim and rows[dim] > 1
        }


def plates_under_enumeration() -> int | None:
    """How many dimensions belong to plates, if sites are being enumerated to the left of them."""
    for handler in handlers():
        if isinstance(handler, Enumeration):
            return handler.plates
        if isinstance(handler, EnumMessenger):  # in Pyro's own algorithms
            allocator = runtime._ENUM_ALLOCATOR
            first: Any = max(allocator.dim_to_id, default=allocator.next_available_dim)
            return -1 - first if isinstance(first, int) else None
    return None


def is_of_enumeration(error: BaseException) -> bool:
    """Whether an error is torch's refusal of Pyro's own sum over discrete sites in a transform."""
    trace, found = error.__traceback__, False
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__"))
        found = found or name in ("pyro.infer.discrete", "pyro.infer.traceenum_elbo")
        trace = trace.tb_next
    return found and "functorch" in str(error)


# The plates by which Pyro's algorithms run a whole model several times at once. They repeat the
# model; they are none of its own.
_REPETITIONS = frozenset(
    {"num_particles_vectorized", "num_sleep_particles_vectorized", "_num_predictive_samples"}
)
# What is said of the rows of a plate, if it is said inside one.
_OF_ROWS = (IndepMessenger, MarkovMessenger, MaskMessenger, ScaleMessenger)


def _opens_plate(handler: Messenger) -> bool:
    return isinstance(handler, IndepMessenger) and handler.name not in _REPETITIONS


def is_handled() -> bool:
    """Whether a handler of Pyro is at work, so that statements have an effect."""
    return bool(handlers())


def in_plate() -> bool:
    """Whether a plate of the model is open."""
    return any(map(_opens_plate, handlers()))


@contextmanager
def outside_plates() -> Iterator[None]:
    """A stretch of code that runs as if it stood before the outermost plate of the model.

    The plates themselves do not apply, nor do the masks, scales and Markov contexts inside them.
    Other handlers (conditions, traces) do.
    """
    stack, allocated = runtime._PYRO_STACK, runtime._DIM_ALLOCATOR._stack
    plates = [i for i, handler in enumerate(stack) if _opens_plate(handler)]
    hidden = {
        i: handler
        for i, handler in enumerate(stack)
        if plates and i >= plates[0] and isinstance(handler, _OF_ROWS)
        if not isinstance(handler, IndepMessenger) or _opens_plate(handler)
    }
    dims = allocated[:]
    for i in hidden:
        stack[i] = Messenger()
    allocated[:] = [name if name in _REPETITIONS else None for name in dims]
    try:
        yield
    finally:
        allocated[:] = dims
        for i, handler in hidden.items():
            stack[i] = handler


class Watch(Messenger):
    """Takes note of the plates that one sample statement is in."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.plates: Plates = ()
        self.computed = False

    def _postprocess_message(self, msg: Msg) -> None:
        if msg["type"] == "sample" and msg["name"] == self._name:
            stack: Plates = msg["cond_indep_stack"]
            self.plates = tuple(frame for frame in stack if frame.name not in _REPETITIONS)
            self.computed = bool((msg["infer"] or {}).get("_deterministic"))


def takes_any_length(fn: object) -> bool:
    """Whether a distribution is of sequences of no certain length, of whose shape it says 1."""
    if isinstance(fn, IndependentHMM | ExpandedDistribution | MaskedDistribution):
        return takes_any_length(fn.base_dist)
    if isinstance(fn, HiddenMarkovModel):
        return fn.duration is None
    # Pyro's contributions are no part of what every program loads.
    return type(fn).__name__ == "MissingDataDiscreteHMM"


def is_full_plate(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate that is not subsampled: no randomness in it."""
    return type(fn) is _Subsample and (fn.subsample_size is None or fn.subsample_size >= fn.size)


def is_empty_plate(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate of size zero, which Pyro does not know."""
    return type(fn) is _Subsample and fn.size == 0


def is_subsample(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate."""
    return type(fn) is _Subsample


def plate_rows(fn: object) -> int | None:
    """How many rows the plate of this index draw says it takes; ``None`` if it does not say."""
    rows: int | None = fn.subsample_size if type(fn) is _Subsample else None
    return rows


def plate_indices() -> dict[str, Tensor]:
    """The indices of all plates that are open, by name; those without a size have none."""
    found: dict[str, Tensor] = {}
    for handler in handlers():
        if isinstance(handler, SubsampleMessenger) and handler._indices is not None:
            indices: object = handler._indices
            found[handler.name] = torch.as_tensor(indices)
    return found


def indices_of(plate: SubsampleMessenger) -> Tensor:
    """The indices of a plate with a size."""
    return torch.as_tensor(cast("Any", plate._indices))


def batch_mask(fn: object) -> Tensor | bool | None:
    """The mask that a distribution brings along, by element of its batch."""
    mask: Tensor | bool | None = None
    while isinstance(fn, MaskedDistribution | ExpandedDistribution):
        if isinstance(fn, MaskedDistribution):
            mask = both_masks(mask, fn._mask)
        fn = fn.base_dist
    return mask


def stored_params() -> dict[str, Tensor]:
    """The unconstrained parameters in Pyro's own store."""
    params: dict[str, Tensor] = dict(_STORE._params)
    return params


def wrapped_by(fn: object) -> object | None:
    """What a ``poutine`` wrapper, a ``functools.partial`` or a bound method calls in the end."""
    if isinstance(fn, _bound_partial):
        return fn.func
    if isinstance(fn, partial):
        # poutine handlers are partial(_context_wrap, messenger, fn)
        return fn.args[1] if len(fn.args) >= 2 and isinstance(fn.args[0], Messenger) else fn.func
    if isinstance(fn, TraceHandler):
        return fn.fn
    if isinstance(fn, MethodType):
        return fn.__self__
    return None


def log_prob(fn: TorchDistributionMixin, value: Tensor) -> Tensor:
    """``fn.log_prob(value)``; validated, except while a graph is traced or under ``vmap``."""
    if not is_tracing() and not is_mapped():
        return fn.log_prob(value)
    with unvalidated():
        return fn.log_prob(value)


def unchecking(fn: object) -> object:
    """A distribution like ``fn`` that looks at no numbers, whatever it was told when it was made.

    One that was expanded while validation was on insists on it, and a graph has no numbers; nor
    has ``vmap`` any that are one for all runs.
    """
    if not isinstance(fn, TorchDistribution):
        return fn
    parts = {name: unchecking(part) for name, part in vars(fn).items()}
    same = all(part is vars(fn)[name] for name, part in parts.items())
    pure = PURE.get(type(fn))
    if same and pure is None and not vars(fn).get("_validate_args"):
        return fn
    free = copy(fn)
    vars(free).update(parts, _validate_args=False)
    if pure is not None:
        free.__class__ = pure
    return free


def is_off(fn: TorchDistribution) -> bool:
    """Whether a distribution was told not to validate."""
    return vars(fn).get("_validate_args") is False


def holds_for_all(constraint: Constraint, value: Tensor) -> bool:
    """Whether a constraint holds for all elements, and in all runs under ``vmap``.

    True where it cannot be said, as ``vmap`` has no rule for what the constraint does.
    """
    try:
        if isinstance(constraint, _SYMMETRIC):
            valid = _symmetric(constraint, value)
        else:
            valid = constraint.check(value)
        return bool(_is_all_true(valid))
    except RuntimeError:
        return True


_is_all_true: Callable[[Tensor], Tensor] = cast("Any", torch)._is_all_true
_SYMMETRIC: Any = type(constraints.symmetric)  # and those built on it, which branch on it


def _symmetric(constraint: Constraint, value: Tensor) -> Tensor:
    near = (value - value.mT).abs() <= 1e-6 + 1e-5 * value.mT.abs()
    valid: Tensor = near.all(-1).all(-1)
    if isinstance(constraint, type(constraints.positive_definite)):
        valid = valid & torch.linalg.cholesky_ex(value).info.eq(0)
    elif isinstance(constraint, type(constraints.positive_semidefinite)):
        valid = valid & torch.linalg.eigvalsh(value).ge(0).all(-1)
    return valid


def scale_and_mask(log_prob: Tensor, scale: Tensor | float, mask: Tensor | bool | None) -> Tensor:
    """``scale * log_prob`` where ``mask`` holds, else zero, without idle operations."""
    result: Tensor = _scale_and_mask(log_prob, scale, mask)
    return result


def kl_divergence(q: TorchDistributionMixin, p: TorchDistributionMixin) -> Tensor | None:
    """The KL divergence by element of the batch; ``None`` if no formula is known.

    Pyro's formula for a ``Delta`` leaves out its ``log_density``, and the one for two distributions
    with masks of their own is for equal masks, so there is none for these.
    """
    if is_delta(q) or _inner_mask(q) is not _inner_mask(p):
        return None
    try:
        divergence: Tensor | float = _kl_divergence(cast("Any", q), cast("Any", p))
    except NotImplementedError:
        return None
    return torch.as_tensor(divergence)


# Says to losses that a guide itself decides what masks its site: it knows whether the value of a
# masked element counts elsewhere.
OWN_MASK: Any = {"_own_mask": True}


def own_mask(fn: object) -> Tensor | bool | None:
    """The mask that a distribution itself has, by ``fn.mask(...)``."""
    return fn._mask if isinstance(fn, MaskedDistribution) else None


def _inner_mask(fn: object) -> object:
    """The same, behind wrappers too."""
    inner: object | None = fn
    while inner is not None:
        if isinstance(inner, MaskedDistribution):
            return inner._mask
        inner = getattr(inner, "base_dist", None)
    return None


def both_masks(*masks: Tensor | bool | None) -> Tensor | bool | None:
    """Where all masks hold, without idle operations; ``None`` stands for everywhere."""
    result: Tensor | bool | None = None
    for mask in masks:
        if result is None or result is True or mask is False:
            result = mask if mask is not None else result
        elif mask is not None and mask is not True and mask is not result:
            result = False if result is False else result & mask
    return result


def is_batched(tensor: Tensor) -> bool:
    """Whether ``vmap`` is at work on ``tensor``."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def innermost(tensor: Tensor) -> Tensor:
    """The tensor behind all wrappers of transforms, with the lanes of vmap as dimensions."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def message_infer(msg: Msg) -> dict[str, object]:
    """The ``infer`` settings of a message."""
    return dict(msg["infer"] or {})


def message_distribution(msg: Msg) -> TorchDistributionMixin:
    """The distribution of a sample message."""
    fn: TorchDistributionMixin = cast("Any", msg["fn"])
    return fn


def message_value(msg: Msg) -> Tensor:
    """The value of a message that was served."""
    value: Tensor = cast("Any", msg["value"])
    return value


def let_subsample(value: Tensor, unconstrained: Tensor) -> Tensor:
    """``value``, so marked that a plate can subsample it as the value of a ``pyro.param``.

    The plate asks the value for its unconstrained tensor, and leaves a note on that; both are views
    here, so that the tensors given to the run stay as they are.
    """
    marked = value.view_as(value)
    setattr(marked, "unconstrained", partial(unconstrained.view_as, unconstrained))  # noqa: B010
    return marked


def summed_to(plates: Plates, terms: Iterable[tuple[Plates, Tensor]]) -> Tensor:
    """The sum of all terms, each summed over all dimensions but those of ``plates``.

    A dimension that belongs to no plate is no statement of independence, so it is summed as well.
    """
    frames: Any = MultiFrameTensor
    total: Tensor = frames(*((of, _without_others(of, term)) for of, term in terms)).sum_to(plates)
    return total


def _without_others(plates: Plates, term: Tensor) -> Tensor:
    """``term``, summed over the dimensions that belong to none of its plates."""
    own = {frame.dim for frame in plates}
    other = [dim for dim in range(-term.ndim, 0) if dim not in own and term.shape[dim] != 1]
    return term.sum(other, keepdim=True) if other else term


def is_guide_messenger(guide: object) -> bool:
    """Whether a guide is one of Pyro's that run the model itself, with other distributions."""
    inner: object | None = guide
    while inner is not None:
        if isinstance(inner, GuideMessenger):
            return True
        inner = wrapped_by(inner)
    return False


def is_factor(fn: object) -> bool:
    """Whether ``fn`` is what ``pyro.factor`` makes of a number."""
    return isinstance(fn, Unit)


def says_rsample(fn: object) -> bool:
    """Whether a factor was given ``has_rsample``."""
    return "has_rsample" in vars(fn)


def is_delta(fn: object) -> bool:
    """Whether ``fn`` is a ``Delta``, behind whatever wrappers."""
    inner: object | None = fn
    while inner is not None:
        if isinstance(inner, Delta):
            return True
        inner = getattr(inner, "base_dist", None)
    return False


def emit_sample(name: str, fn: Distribution, infer: Mapping[str, object]) -> Tensor:
    """``pyro.sample`` at ``name``."""
    statement: Callable[..., Tensor] = pyro.sample
    return statement(name, fn, infer=dict(infer))


def registered(name: str) -> tuple[Tensor, Constraint] | None:
    """The unconstrained value and the constraint that a PyroModule has for a parameter it reads."""
    if name not in _STORE:
        return None
    return _STORE._params[name], _STORE._constraints[name]


def module_being_registered(name: str) -> nn.Module | None:
    """The network whose parameter ``name`` a ``pyro.module`` statement under way registers.

    Pyro sends a message for each parameter and none for the network.
    """
    if "$$$" not in name:
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _MODULE_CODE:
            net: nn.Module = frame.f_locals["nn_module"]
            return net
        frame = frame.f_back
    return None


def as_they_are() -> AbstractContextManager[object]:
    """A block in which tensors are themselves, whatever a mode would put in their place."""
    block: AbstractContextManager[object] = cast("Any", torch._C).DisableTorchFunction()
    return block


_saved_hooks: Callable[[bool], tuple[object, object] | None] = getattr(
    cast("Any", torch._C)._autograd, "_top_saved_tensors_default_hooks", lambda _: None
)


def is_checkpointed() -> bool:
    """Whether what runs now runs again in the backward pass, by ``torch.utils.checkpoint``."""
    hooks = _saved_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def is_tracing() -> bool:
    """Whether a graph is being made, so that numbers cannot be looked at."""
    return _len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()


def is_mapped() -> bool:
    """Whether a ``vmap`` is at work, so that values cannot be looked at."""
    if functorch.peek_interpreter_stack() is None:
        return False
    return any(level.key() == _VMAP for level in functorch.get_interpreter_stack())


def is_transforming() -> bool:
    """Whether a transform of ``torch.func`` or a trace is at work."""
    return functorch.peek_interpreter_stack() is not None or is_tracing()


@contextmanager
def concretely() -> Iterator[None]:
    """A stretch of code outside of all transforms and traces, for facts that hold for good."""
    with outside_transforms(), _disable_current_modes():
        yield


def drawn_key(name: str) -> Tensor:
    """Two random words, drawn as a site of the run under way of which no record is kept.

    Inside ``init`` they come from its key; in plain Pyro from torch's global generator.
    """
    statement: Callable[..., Tensor] = pyro.sample
    infer = {"is_auxiliary": True, "_do_not_trace": True}
    return statement(name, partial(torch.randint, 0, 2**62, (2,)), infer=infer)


def repeated(value: Tensor, size: int, dim: int) -> Tensor:
    """``value`` with as many repetitions along ``dim`` as make its size there ``size``."""
    result: Tensor = cast("Any", periodic_repeat)(value, size, dim)
    return result.contiguous()


_PROTOTYPES = (prototype_hide_fn, cast("Any", AutoGaussian)._prototype_hide_fn)


def refuse_setup() -> None:
    """Refuse a guide of Pyro's that runs its model for the first time, before it takes any note.

    Raises:
        DeclarationError: if one is doing so.
    """
    stack = handlers()
    if len(stack) < 2:  # the run's own handler
        return
    for handler in stack:
        if not isinstance(handler, BlockMessenger) or handler.hide_fn not in _PROTOTYPES:
            continue
        guide = _setting_up()
        of_all = isinstance(guide, AutoContinuous)
        name = f"{type(guide).__name__}.{'loc' if of_all else 'locs.<site>'}"
        raise DeclarationError(_adoption_message(name))


def _setting_up() -> object:
    """The guide of Pyro's that is in its first call, further down Python's own stack."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != "_setup_prototype":
        frame = frame.f_back
    return frame.f_locals.get("self")


def _adoption_message(name: str) -> str:
    return (
        f"The parameter {name!r} is made by a PyroModule in its first call, as Pyro's guides do: "
        "it would keep this run's numbers for itself. Call it once outside of apply and init, "
        "`guide(*args)`; from then on it runs in them."
    )


def let_not_adopt(value: Tensor, name: str) -> Tensor:
    """``value``, so marked that a PyroModule which sets itself up in a run says why it cannot."""

    def unconstrained() -> Tensor:
        raise DeclarationError(_adoption_message(name))

    marked = value.view_as(value)
    setattr(marked, "unconstrained", unconstrained)  # noqa: B010
    return marked

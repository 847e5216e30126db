"""The one place that touches what Pyro and torch keep private or leave untyped.

All that is here has a typed face, so that the rest of the package needs no ``Any`` and no
ignore comment. When a new release of Pyro or torch moves something, this is the file to mend.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from types import MethodType, TracebackType
from typing import Any, TypeAlias, TypeVar, cast

import pyro
import pyro.nn.module as pyro_module
import torch
from pyro.distributions import Distribution
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
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger, _bound_partial
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from pyro.poutine.trace_messenger import TraceHandler
from torch import Tensor
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import kl_divergence as _kl_divergence
from torch.distributions.constraints import Constraint
from torch.utils._python_dispatch import _disable_current_modes

from ._errors import DeclarationError
from .random._concrete import outside_transforms

T = TypeVar("T")

Plates: TypeAlias = tuple[CondIndepStackFrame, ...]
# Pyro's message: a TypedDict whose keys are all optional, though all are always there.
Msg: TypeAlias = Any

# Pyro keeps its handler stack and plate dimensions in process-wide lists, so runs take turns.
# Re-entrant: a model may itself call `apply`.
RUN_LOCK = threading.RLock()

_PYRO_MODULE: Any = pyro_module
_STORE = pyro.get_param_store()
_STORE_PARTS = ("_params", "_param_to_name", "_constraints")
functorch: Any = cast("Any", torch._C)._functorch
_len_torch_dispatch_stack: Callable[[], int] = cast("Any", torch._C)._len_torch_dispatch_stack


class Hermetic:
    """A stretch of code in which Pyro's process-wide state belongs to one run alone.

    Inside, the handler stack holds only ``messenger``, no plate dimension is taken, the parameter
    store is an empty one (PyroModules leave notes there), and ``answer`` serves every message that
    no handler answered, in place of Pyro's default, which reads the store and torch's global
    generator. Serving the default, rather than being a handler, is what reaches the sites that
    ``poutine.block`` hides. While a graph is traced, distributions do not validate. All is put
    back on the way out, also after an exception.
    """

    def __init__(self, messenger: Messenger, answer: Callable[[Msg], bool]) -> None:
        self._messenger = messenger
        self._answer = answer

    def __enter__(self) -> None:
        RUN_LOCK.acquire()
        self._stack = runtime._PYRO_STACK[:]
        self._dims = runtime._DIM_ALLOCATOR._stack[:]
        self._default = runtime.default_process_message
        self._store = {name: getattr(_STORE, name) for name in _STORE_PARTS}
        self._local_params = _PYRO_MODULE._MODULE_LOCAL_PARAMS
        runtime._PYRO_STACK[:] = [self._messenger]
        runtime._DIM_ALLOCATOR._stack.clear()
        runtime.default_process_message = self._default_process_message
        self._validates = TorchDistribution._validate_args
        if is_tracing():  # a check of numbers would end the trace
            TorchDistribution.set_default_validate_args(False)
        _STORE.clear()
        _PYRO_MODULE._MODULE_LOCAL_PARAMS = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runtime._PYRO_STACK[:] = self._stack
        runtime._DIM_ALLOCATOR._stack[:] = self._dims
        runtime.default_process_message = self._default
        vars(_STORE).update(self._store)
        TorchDistribution.set_default_validate_args(self._validates)
        _PYRO_MODULE._MODULE_LOCAL_PARAMS = self._local_params
        RUN_LOCK.release()

    def _default_process_message(self, msg: Msg) -> None:
        if not self._answer(msg):
            self._default(msg)


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
    for handler in runtime._PYRO_STACK:
        if isinstance(handler, Enumeration):
            return handler.plates
    return None


def is_full_plate(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate that is not subsampled: no randomness in it."""
    return isinstance(fn, _Subsample) and (
        fn.subsample_size is None or fn.subsample_size >= fn.size
    )


def is_empty_plate(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate of size zero, which Pyro does not know."""
    return isinstance(fn, _Subsample) and fn.size == 0


def is_subsample(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate."""
    return isinstance(fn, _Subsample)


def plate_indices() -> dict[str, Tensor]:
    """The indices of all plates that are open, by name; those without a size have none."""
    found: dict[str, Tensor] = {}
    for handler in runtime._PYRO_STACK:
        if isinstance(handler, SubsampleMessenger) and handler._indices is not None:
            indices: object = handler._indices
            found[handler.name] = torch.as_tensor(indices)
    return found


def plate_rows(plate: SubsampleMessenger) -> Tensor:
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


def both_masks(one: Tensor | bool | None, other: Tensor | bool | None) -> Tensor | bool | None:
    """The elements that both masks leave."""
    if one is None or other is None:
        return other if one is None else one
    both: Tensor | bool = one & other
    return both


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
    """``fn.log_prob(value)``; validated, except while a graph is traced."""
    if not is_tracing():
        return fn.log_prob(value)
    validates = TorchDistribution._validate_args
    TorchDistribution.set_default_validate_args(False)
    try:
        return fn.log_prob(value)
    finally:
        TorchDistribution.set_default_validate_args(validates)


def unchecking(fn: object) -> object:
    """A distribution like ``fn`` that looks at no numbers, whatever it was told when it was made.

    One that was expanded while validation was on insists on it, and a graph has no numbers.
    """
    if not isinstance(fn, TorchDistribution):
        return fn
    parts = {name: unchecking(part) for name, part in vars(fn).items()}
    same = all(part is vars(fn)[name] for name, part in parts.items())
    if same and not vars(fn).get("_validate_args"):
        return fn
    free = copy(fn)
    vars(free).update(parts, _validate_args=False)
    return free


def scale_and_mask(log_prob: Tensor, scale: Tensor | float, mask: Tensor | bool | None) -> Tensor:
    """``scale * log_prob`` where ``mask`` holds, else zero, without idle operations."""
    result: Tensor = _scale_and_mask(log_prob, scale, mask)
    return result


def kl_divergence(q: TorchDistributionMixin, p: TorchDistributionMixin) -> Tensor | None:
    """The KL divergence by element of the batch; ``None`` if no formula is known."""
    try:
        divergence: Tensor | float = _kl_divergence(cast("Any", q), cast("Any", p))
    except NotImplementedError:
        return None
    return torch.as_tensor(divergence)


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
    """The sum of all terms, each summed over the plates that are not among ``plates``."""
    frames: Any = MultiFrameTensor
    total: Tensor = frames(*terms).sum_to(plates)
    return total


def emit_sample(name: str, fn: Distribution, infer: Mapping[str, object]) -> Tensor:
    """``pyro.sample`` at ``name``."""
    statement: Callable[..., Tensor] = pyro.sample
    return statement(name, fn, infer=dict(infer))


def generators() -> list[torch.Generator]:
    """Torch's global generators, of the CPU and of the GPUs in use."""
    cuda_in_use: Callable[[], bool] = torch.cuda.is_initialized
    cuda = torch.cuda.default_generators if cuda_in_use() else ()
    return [torch.default_generator, *cuda]


def registered(name: str) -> tuple[Tensor, Constraint] | None:
    """The unconstrained value and the constraint that a PyroModule has for a parameter it reads."""
    if name not in _STORE:
        return None
    return _STORE._params[name], _STORE._constraints[name]


def is_tracing() -> bool:
    """Whether a graph is being made, so that numbers cannot be looked at."""
    return _len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()


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


@contextmanager
def unvalidated() -> Iterator[None]:
    """A stretch of code in which Pyro and torch check no numbers of distributions.

    The switches are process-wide, so other runs wait until they are back.
    """
    with RUN_LOCK, pyro.validation_enabled(False):
        yield


_PROTOTYPES = (prototype_hide_fn, cast("Any", AutoGaussian)._prototype_hide_fn)


def refuse_setup() -> None:
    """Refuse a guide of Pyro's that runs its model for the first time, before it takes any note.

    Raises:
        DeclarationError: if one is doing so.
    """
    for handler in runtime._PYRO_STACK:
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

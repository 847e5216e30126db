"""What the compiler needs of torch's private machinery, with a typed face.

``make_fx``, ``while_loop`` and the C++ guards are private or change from release to release: when
one moves, this is the file to mend. Inductor has ``_compile/inductor``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._C._dynamo import guards as _guards
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from ._cache_folder import usable_folder

# From here on what is registered with torch's pytrees is known to optree, too.
import_module("torch.utils._cxx_pytree")

aten: Any = torch.ops.aten

_TENSOR_GUARDS: Any = cast("Any", _guards).TensorGuards
_make_fx: Any = make_fx

# Inductor keeps process-wide state while it compiles.
# Whoever traces or compiles has the first one; it is free again after an interrupt, while the
# second one is held until what was begun is done.
LOCK: Any = threading.RLock()
COMPILING: Any = threading.RLock()


def _in_child() -> None:
    """In a forked child nobody compiles but the thread that forked."""
    for lock in (LOCK, COMPILING):
        if not lock._is_owned():
            lock._at_fork_reinit()


os.register_at_fork(after_in_child=_in_child)


def graph_of(fn: Callable[..., object], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The operations that ``fn`` does on tensors like ``inputs``; it computes no numbers."""
    with usable_folder():
        # Numbers that depend on data end the trace, where they are asked for.
        sizes = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=sizes, static_shapes=True)
        fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in inputs]
        with mode:
            make = _make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)
            made: fx.GraphModule = make(*fakes)
    return made


def functional(fn: Callable[..., object]) -> Callable[..., object]:
    """``fn``, with writes in place replaced by copies; those to inputs stay, at its end."""
    made: Callable[..., object] = torch.func.functionalize(fn)
    return made


def while_loop() -> Any:
    """The operator of loops: ``(condition, body, carried, others)``, graph modules and tuples."""
    return import_module("torch._higher_order_ops.while_loop").while_loop_op


def watching(tell: Callable[[object], None]) -> AbstractContextManager[object]:
    """A stretch of code in which ``tell`` hears of each operator that is about to run."""
    found: AbstractContextManager[object] = _WATCHING()
    cast("Any", found).tell = tell
    return found


def _dispatch(
    mode: Any,
    operator: Callable[..., object],
    _: object,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> object:
    mode.tell(operator)
    return operator(*args, **(kwargs or {}))


_WATCHING: Any = type(
    "Watching",
    (TorchDispatchMode,),
    {"__torch_dispatch__": _dispatch, "supports_higher_order_operators": True},
)


def unfit(tensor: Tensor) -> str | None:
    """What a tensor is that is no plain, dense one."""
    if type(tensor) not in _PLAIN:
        return f"of type {type(tensor).__name__}, a kind of tensor of its own"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout is not torch.strided:
        return f"of layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_meta:
        return "a tensor without elements, of the device meta"
    return None


_PLAIN = frozenset({Tensor, nn.Parameter, nn.Buffer})


class Guard:
    """Whether tensors have the shapes, strides, dtypes, devices and kinds of those seen before."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        sizes = [list(tensor.size()) for tensor in tensors]
        strides = [list(tensor.stride()) for tensor in tensors]
        self._check: Callable[..., bool] = _TENSOR_GUARDS(
            *tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        ).check
        self._count = len(tensors)

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are such tensors."""
        return len(tensors) == self._count and self._check(*tensors)


def is_control_flow(operator: object) -> bool:
    """Whether an operator takes functions: ``while_loop``, ``scan``, ``cond`` and the like."""
    return isinstance(operator, HigherOrderOperator)


def writes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments in place."""
    target = node.target
    return isinstance(target, OpOverload) and any(map(_is_written, target._schema.arguments))


def written_by(node: fx.Node) -> list[fx.Node]:
    """The arguments that a node changes in place."""
    found: list[fx.Node] = []
    schema: Any = cast("Any", node.target)._schema
    for place, argument in enumerate(schema.arguments):
        if _is_written(argument):
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            each = given if isinstance(given, (tuple, list)) else (given,)
            found += [one for one in each if isinstance(one, fx.Node)]
    return found


def is_random(node: fx.Node) -> bool:
    """Whether a node draws from torch's global generator."""
    target = node.target
    return isinstance(target, OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def is_view(node: fx.Node) -> bool:
    """Whether a node's result shares memory with an argument, unchanged."""
    return isinstance(node.target, OpOverload) and any(
        found.alias_info is not None and not found.alias_info.is_write
        for found in node.target._schema.returns
    )


def out_of_place(node: fx.Node) -> OpOverload[Any, Any] | None:
    """The operation that returns what ``node`` writes into its first argument."""
    target = node.target
    if not isinstance(target, OpOverload):
        return None
    schema = target._schema
    name = schema.name.split("::")[1]
    written = [argument.name for argument in schema.arguments if _is_written(argument)]
    if not name.endswith("_") or written != [schema.arguments[0].name]:
        return None
    packet: Any = getattr(aten, name.removesuffix("_"), None)
    found: OpOverload[Any, Any] | None = getattr(packet, schema.overload_name or "default", None)
    return found


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def is_pointwise(node: fx.Node) -> bool:
    """Whether each number of a node's result follows from those at the same place alone."""
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    return torch.Tag.pointwise in target.tags or target in _POINTWISE


# Pointwise too, though torch does not say so.
_POINTWISE = frozenset({aten.softplus_backward.default, aten._to_copy.default})


def value_of(node: fx.Node) -> Any:
    """The (fake) tensor that a node had while it was traced."""
    return node.meta.get("val")


def held_by(module: fx.GraphModule) -> Mapping[str, object]:
    """What a graph module holds by name."""
    return {**module._parameters, **module._buffers, **vars(module), **module._modules}

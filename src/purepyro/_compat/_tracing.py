"""What the compiler needs of torch's private machinery, with a typed face.

``make_fx``, ``while_loop`` and the C++ guards are private or change from release to release: when
one moves, this is the file to mend. Inductor has ``_compile/inductor``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from ._cache_folder import usable_folder
from ._modules import buffers_of, children_of, parameters_of
from ._private import Missing, held, private, private_or

# From here on what is registered with torch's pytrees is known to optree, too.
private_or(
    "torch.utils._cxx_pytree:", None, "trees of torch's that optree does not know are leaves"
)

aten: Any = torch.ops.aten

_USE = "purepyro.jit and compiled runs"
TO_COPY: Any = private("torch.ops:aten._to_copy.default", _USE)
UNSAFE_VIEW: Any = private("torch.ops:aten._unsafe_view.default", _USE)
LINALG_CHECK: Any = private("torch.ops:aten._linalg_check_errors.default", _USE)

_OpOverload: Any = type(aten.add.Tensor)
_TensorGuards: Any = private("torch._C._dynamo.guards:TensorGuards", _USE)
_DispatchMode: Any = private("torch.utils._python_dispatch:TorchDispatchMode", _USE)

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


@cache
def tracers() -> tuple[Any, Any, Any]:
    """What traces on fake tensors. It imports sympy, so it is looked up at the first trace."""
    return (
        private("torch._subclasses.fake_tensor:FakeTensorMode", _USE),
        private("torch.fx.experimental.symbolic_shapes:ShapeEnv", _USE),
        private("torch.fx.experimental.proxy_tensor:make_fx", _USE),
    )


def graph_of(fn: Callable[..., object], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The operations that ``fn`` does on tensors like ``inputs``; it computes no values."""
    with usable_folder():
        fakes_of, shapes, make_fx = tracers()
        # Values that depend on data end the trace, where they are asked for.
        sizes = shapes(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        mode = fakes_of(allow_non_fake_inputs=True, shape_env=sizes, static_shapes=True)
        fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in inputs]
        with mode:
            make = make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)
            made: fx.GraphModule = make(*fakes)
    return made


def functional(fn: Callable[..., object]) -> Callable[..., object]:
    """``fn``, with writes in place replaced by copies; those to inputs stay, at its end."""
    made: Callable[..., object] = torch.func.functionalize(fn)
    return made


def while_loop() -> Any:
    """The operator of loops: ``(condition, body, carried, others)``, graph modules and tuples."""
    return torch.ops.higher_order.while_loop


def watching(tell: Callable[[object], None]) -> AbstractContextManager[object]:
    """A block of code in which ``tell`` is called with each operator before it runs."""
    found: Any = _watching_mode()()
    found.tell = tell
    mode: AbstractContextManager[object] = found
    return mode


def _dispatch(
    mode: Any,
    operator: Callable[..., object],
    _: object,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> object:
    mode.tell(operator)
    return operator(*args, **(kwargs or {}))


@cache
def _watching_mode() -> Any:
    if isinstance(_DispatchMode, Missing):
        _DispatchMode.refuse()
    members = {"__torch_dispatch__": _dispatch, "supports_higher_order_operators": True}
    return type("Watching", (_DispatchMode,), members)


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
        self._check: Callable[..., bool] = _TensorGuards(
            *tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        ).check
        self._count = len(tensors)

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are such tensors."""
        return len(tensors) == self._count and self._check(*tensors)


def is_operator(target: object) -> bool:
    """Whether what a node calls is an operator of torch, not a Python function."""
    return isinstance(target, _OpOverload)


def operator_name(target: object) -> str:
    """The name of an operator, such as "add_"; empty for all else."""
    schema: Any = getattr(target, "_schema", None)
    return "" if schema is None else str(schema.name).partition("::")[2]


def is_control_flow(operator: object) -> bool:
    """Whether an operator takes functions: ``while_loop``, ``scan``, ``cond`` and the like."""
    return getattr(operator, "namespace", None) == "higher_order"


def schema_of(operator: Any) -> Any:
    """The schema of an operator: its arguments, with their names."""
    return held(operator, "_schema", _USE)


def writes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments in place."""
    target: Any = node.target
    return is_operator(target) and any(map(_is_written, schema_of(target).arguments))


def written_by(node: fx.Node) -> list[fx.Node]:
    """The arguments that a node changes in place."""
    found: list[fx.Node] = []
    for place, argument in enumerate(schema_of(node.target).arguments):
        if _is_written(argument):
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            each = given if isinstance(given, (tuple, list)) else (given,)
            found += [one for one in each if isinstance(one, fx.Node)]
    return found


def is_random(node: fx.Node) -> bool:
    """Whether a node draws from torch's global generator."""
    target: Any = node.target
    return is_operator(target) and torch.Tag.nondeterministic_seeded in target.tags


def is_view(node: fx.Node) -> bool:
    """Whether a node's result shares memory with an argument, unchanged."""
    return is_operator(node.target) and any(
        found.alias_info is not None and not found.alias_info.is_write
        for found in schema_of(node.target).returns
    )


def out_of_place(node: fx.Node) -> Callable[..., object] | None:
    """The operation that returns what ``node`` writes into its first argument."""
    if not is_operator(node.target):
        return None
    schema = schema_of(node.target)
    name = schema.name.split("::")[1]
    written = [argument.name for argument in schema.arguments if _is_written(argument)]
    if not name.endswith("_") or written != [schema.arguments[0].name]:
        return None
    packet: Any = getattr(aten, name.removesuffix("_"), None)
    found: Callable[..., object] | None = getattr(packet, schema.overload_name or "default", None)
    return found


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def is_pointwise(node: fx.Node) -> bool:
    """Whether each element of a node's result depends only on the elements at its own place."""
    target: Any = node.target
    if not is_operator(target):
        return False
    return torch.Tag.pointwise in target.tags or target in _pointwise()


# Pointwise too, though torch does not say so.
@cache
def _pointwise() -> frozenset[Any]:
    return frozenset({aten.softplus_backward.default, TO_COPY})


def value_of(node: fx.Node) -> Any:
    """The (fake) tensor that a node had while it was traced."""
    return node.meta.get("val")


def held_by(module: fx.GraphModule) -> Mapping[str, object]:
    """What a graph module holds by name."""
    own = {**parameters_of(module), **buffers_of(module)}
    return {**own, **vars(module), **children_of(module)}

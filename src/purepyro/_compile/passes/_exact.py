r"""Operations that Inductor computes in another way than torch, written so that both agree.

Its quotient rounded down is the quotient's floor, one too many at ``21 // 0.3``; its remainder is
$a - b \lfloor a / b \rfloor$, far off for a large quotient; its error function on the CPU has
an absolute error of 1e-7, and so none of the digits of ``erf(1e-7)``; zero times a tensor is zero,
also where that is nan; and it computes with constants in full precision, such as 0.7 in
``torch.full((), 0.7).double()``, where torch has rounded them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import factorial, log, pi, sqrt
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from ..._compat._tracing import TO_COPY, aten, value_of

Operand: TypeAlias = fx.Node | float

# The Taylor series of erf in odd powers, right to 1e-9 of the result up to one half.
_ERF = [2 / sqrt(pi) * (-1) ** n / (factorial(n) * (2 * n + 1)) for n in reversed(range(7))]
_SMALL = 0.5
_LARGE = 1e6


def with_exact_operations(graph: fx.Graph) -> None:
    """Replace the operations whose results would not be torch's."""
    for node in list(graph.nodes):
        value = value_of(node)
        if not isinstance(value, Tensor) or not _is_inexact(value):
            continue
        if node.target in _FILLS:
            _round_scalars(node, value.dtype)
        elif node.target in _WITH_SCALAR:  # halves are computed with as floats
            _round_scalars(node, _computed_in(value))
        rule = _RULES.get(node.target)
        if rule is None:
            continue
        with graph.inserting_before(node):
            found = rule(partial(_call, graph, value), node)
        if found is not None:
            found.meta = dict(node.meta)
            node.replace_all_uses_with(found)
            graph.erase_node(node)


def _round_scalars(node: fx.Node, dtype: torch.dtype) -> None:
    """Let the Python floats among a node's arguments be what they are in a dtype."""
    node.args = tuple(_rounded(arg, dtype) if isinstance(arg, float) else arg for arg in node.args)


def _rounded(number: float, dtype: torch.dtype) -> float:
    return torch.tensor(number, dtype=dtype).item() if dtype.is_floating_point else number


def _computed_in(value: Tensor) -> torch.dtype:
    """The dtype in which torch computes elements of such a result."""
    return torch.float32 if value.dtype.itemsize < 4 else value.dtype


# Operations that make a tensor of a number, and those that take one besides a tensor.
_FILLS = frozenset(
    {
        aten.full.default,
        aten.full_like.default,
        aten.scalar_tensor.default,
        aten.fill.Scalar,
        aten.new_full.default,
    }
)
_WITH_SCALAR = frozenset(
    getattr(getattr(aten, name), overload)
    for name in ("add", "sub", "mul", "div")
    for overload in ("Tensor", "Scalar")
)

Call: TypeAlias = Callable[..., fx.Node]


def _is_inexact(value: Tensor) -> bool:
    return value.dtype.is_floating_point or value.dtype.is_complex


def _call(
    graph: fx.Graph, like: Tensor, operator: Callable[..., object], *args: object, **kwargs: object
) -> fx.Node:
    """A new node; comparisons end in bools, all else in elements like those of the result."""
    given: Any = args
    named: Any = kwargs
    node = graph.call_function(operator, given, named)
    node.meta["val"] = like
    return node


def _product(call: Call, node: fx.Node) -> fx.Node | None:
    """Zero as a float: with the integer Inductor takes any product for zero."""
    zeros = [isinstance(arg, int) and arg == 0 for arg in node.args]
    args = [0.0 if zero else arg for arg, zero in zip(node.args, zeros, strict=True)]
    return call(node.target, *args) if any(zeros) else None


def _fmod(call: Call, node: fx.Node) -> fx.Node | None:
    value = value_of(node)
    if value.dtype is torch.float64:
        return None
    above, below = (_wide(call, _as_tensor(call, arg, value), value) for arg in node.args)
    return _narrow(call, _rest(call, above, below, value), value)


def _remainder(call: Call, node: fx.Node) -> fx.Node | None:
    value = value_of(node)
    above, below = (_wide(call, _as_tensor(call, arg, value), value) for arg in node.args)
    rest = _rest(call, above, below, value)
    return _narrow(call, _towards(call, rest, below, call(aten.add.Tensor, rest, below)), value)


def _rest(call: Call, above: fx.Node, below: fx.Node, value: Tensor) -> fx.Node:
    """The remainder with the sign of the dividend.

    Doubles have room for the quotient of any two floats, which a vector of floats has not.
    """
    if value.dtype is torch.float64:
        return call(aten.fmod.Tensor, above, below)
    doubles = (call(TO_COPY, each, dtype=torch.float64) for each in (above, below))
    return call(TO_COPY, call(aten.fmod.Tensor, *doubles), dtype=torch.float32)


def _floor_quotient(call: Call, node: fx.Node) -> fx.Node | None:
    mode = node.kwargs.get("rounding_mode", "floor")
    if mode != "floor":
        return None
    value = value_of(node)
    above, below = (_wide(call, arg, value) for arg in node.args[:2])
    rest = _rest(call, above, below, value)
    plain = call(aten.div.Tensor, above, below)
    # The remainder of a quotient beyond all floats may be nan, and does not matter.
    finite = call(aten.logical_not.default, call(aten.isinf.default, above))
    beyond = call(aten.logical_and.default, call(aten.isinf.default, plain), finite)
    even = call(aten.where.self, beyond, above, call(aten.sub.Tensor, above, rest))
    whole = call(aten.div.Tensor, even, below)
    whole = _towards(call, rest, below, call(aten.sub.Tensor, whole, 1.0), whole)
    floor = call(aten.floor.default, whole)
    over = call(aten.gt.Scalar, call(aten.sub.Tensor, whole, floor), 0.5)
    floor = call(aten.where.self, over, call(aten.add.Tensor, floor, 1.0), floor)
    # A zero has the sign of the quotient.
    zero = call(aten.mul.Tensor, plain, 0.0)
    floor = call(aten.where.self, call(aten.eq.Scalar, whole, 0.0), zero, floor)
    found = call(aten.where.self, call(aten.eq.Scalar, below, 0.0), plain, floor)
    return _narrow(call, found, value)


def _towards(
    call: Call, rest: fx.Node, below: fx.Node, other: fx.Node, same: fx.Node | None = None
) -> fx.Node:
    """``other`` where a remainder, not zero, has not the sign of the divisor; else ``same``."""
    signs = call(aten.ne.Tensor, call(aten.lt.Scalar, rest, 0.0), call(aten.lt.Scalar, below, 0.0))
    wrong = call(aten.logical_and.default, call(aten.ne.Scalar, rest, 0.0), signs)
    return call(aten.where.self, wrong, other, rest if same is None else same)


def _erf(call: Call, node: fx.Node) -> fx.Node | None:
    value = value_of(node)
    if value.dtype is not torch.float32 or value.device.type != "cpu":
        return None
    (x,) = node.args
    square = call(aten.mul.Tensor, x, x)
    series = call(aten.mul.Tensor, square, _ERF[0])
    for each in _ERF[1:-1]:
        series = call(aten.mul.Tensor, call(aten.add.Tensor, series, each), square)
    series = call(aten.mul.Tensor, call(aten.add.Tensor, series, _ERF[-1]), x)
    small = call(aten.lt.Scalar, call(aten.abs.default, x), _SMALL)
    return call(aten.where.self, small, series, call(aten.erf.default, x))


def _acosh(call: Call, node: fx.Node) -> fx.Node | None:
    (x,) = node.args
    if value_of(node).dtype.is_complex:
        return None
    # Beyond, Inductor's square of it is infinite.
    large = call(aten.gt.Scalar, x, _LARGE)
    logarithm = call(aten.add.Tensor, call(aten.log.default, x), log(2.0))
    return call(aten.where.self, large, logarithm, call(aten.acosh.default, x))


def _atanh(call: Call, node: fx.Node) -> fx.Node | None:
    (x,) = node.args
    if value_of(node).dtype.is_complex:
        return None
    up, down = call(aten.log1p.default, x), call(aten.log1p.default, call(aten.neg.default, x))
    return call(aten.mul.Tensor, call(aten.sub.Tensor, up, down), 0.5)


def _softshrink(call: Call, node: fx.Node) -> fx.Node | None:
    x, by = node.args[0], node.args[1] if len(node.args) > 1 else 0.5
    assert isinstance(by, (int, float))
    # Not zero: zero times the element, which may be nan.
    inside = call(aten.mul.Tensor, x, 0.0)
    down = call(aten.where.self, call(aten.gt.Scalar, x, by), call(aten.sub.Tensor, x, by), inside)
    up = call(aten.add.Tensor, x, by)
    return call(aten.where.self, call(aten.lt.Scalar, x, -by), up, down)


def _as_tensor(call: Call, arg: object, value: Tensor) -> fx.Node:
    """An operand in the result's dtype, to which torch rounds a Python number here."""
    if isinstance(arg, fx.Node):
        return arg
    rounded = _rounded(arg, value.dtype) if isinstance(arg, float) else arg
    found = call(aten.scalar_tensor.default, rounded, dtype=value.dtype, device=value.device)
    found.meta["val"] = value.new_empty(())
    return found


def _wide(call: Call, arg: object, value: Tensor) -> fx.Node:
    """An operand as a tensor, in which the operation is computed: half as wide floats as floats."""
    kind = _computed_in(value)
    if not isinstance(arg, fx.Node):
        rounded = _rounded(arg, kind) if isinstance(arg, float) else arg
        return call(aten.scalar_tensor.default, rounded, dtype=kind, device=value.device)
    if value_of(arg).dtype is kind:
        return arg
    return call(TO_COPY, arg, dtype=kind)


def _narrow(call: Call, found: fx.Node, value: Tensor) -> fx.Node:
    if value.dtype.itemsize < 4:
        return call(TO_COPY, found, dtype=value.dtype)
    return found


_RULES: dict[Any, Callable[[Call, fx.Node], fx.Node | None]] = {
    aten.mul.Tensor: _product,
    aten.mul.Scalar: _product,
    aten.fmod.Tensor: _fmod,
    aten.fmod.Scalar: _fmod,
    aten.remainder.Tensor: _remainder,
    aten.remainder.Scalar: _remainder,
    aten.remainder.Scalar_Tensor: _remainder,
    aten.floor_divide.default: _floor_quotient,
    aten.floor_divide.Scalar: _floor_quotient,
    aten.div.Tensor_mode: _floor_quotient,
    aten.div.Scalar_mode: _floor_quotient,
    aten.acosh.default: _acosh,
    aten.atanh.default: _atanh,
    aten.erf.default: _erf,
    aten.softshrink.default: _softshrink,
}

"""What Inductor does once in place of again and again comes to the same."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import sympy

from purepyro._compile.inductor import _quick_codegen
from purepyro._compile.inductor._quick_codegen import quick_codegen

functions: Any = import_module("torch.utils._sympy.functions")
ranges: Any = import_module("torch.utils._sympy.value_ranges")
sizevars: Any = import_module("torch._inductor.sizevars")
propagation: Any = import_module("torch._inductor.dtype_propagation")
isa: Any = import_module("torch._inductor.cpu_vec_isa")

x, y, size = sympy.symbols("d0 d1 s0", integer=True, nonnegative=True)
INDICES = [
    sympy.Integer(0),
    sympy.Integer(7),
    x,
    3 * x,
    3 * x + y + 5,
    x + 16 * y,
    -x + 3,
    size * x + y,
    x * y,
    x**2,
    functions.FloorDiv(x, 16),
    functions.FloorDiv(x, 3) + y,
    functions.ModularIndexing(x, 1, 32) + 2 * y,
    functions.ModularIndexing(x, 3, 5),
    sympy.Max(x, y),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("variable", [x, y], ids=str)
def test_strides_are_what_sympy_finds(index: sympy.Expr, variable: sympy.Symbol) -> None:
    wanted = sizevars.stride_at(index, variable)
    simple = sizevars.simplify_index_in_vec_range(index, variable, 16)
    within = sizevars.stride_at_vec_range(index, variable, 16)
    sizevars.stride_at_vec_range.cache_clear()
    with quick_codegen():
        assert sizevars.stride_at(index, variable) == wanted
        assert sizevars.simplify_index_in_vec_range(index, variable, 16) == simple
        assert sizevars.stride_at_vec_range(index, variable, 16) == within


def test_equal_ranges_are_not_intersected() -> None:
    of = ranges.ValueRanges
    pairs = [
        (of(0, 5), of(0, 5)),
        (of(0, 5), of.unknown()),
        (of.unknown(), of(0, 5)),
        (of(0, 5), of(3, 9)),
        (of(0.0, 1.5), of(-1.0, 0.5)),
    ]
    wanted = [one.tighten(other) for one, other in pairs]
    with quick_codegen():
        assert [one.tighten(other) for one, other in pairs] == wanted


def test_rules_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    handler = propagation.DtypePropagationOpsHandler
    before = handler.__init__

    def init(self: object) -> None:
        made.append(self)
        before(self)

    monkeypatch.setattr(handler, "__init__", init)
    with quick_codegen():
        assert handler() is handler()
    assert len(made) == 1
    handler()
    assert len(made) == 2


def test_instructions_are_believed_but_those_for_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(isa.VecISA, "check_build", lambda _, code: tried.append(code))
    with quick_codegen():
        assert isa.VecISA.check_build(isa.VecAVX512(), "__avx512_bf16_chk_kernel()")
        isa.VecISA.check_build(isa.VecAVX512(), "__amx_chk_kernel()")
    assert tried == ["__amx_chk_kernel()"]


def test_torch_is_left_as_it_was() -> None:
    places = [patch()[:2] for patch in _quick_codegen._PATCHES]
    before = [vars(owner)[name] for owner, name in places]

    def fail() -> None:
        with quick_codegen():
            assert [vars(owner)[name] for owner, name in places] != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [vars(owner)[name] for owner, name in places] == before


def test_another_torch_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(isa.VecISA, "check_build")
    monkeypatch.delattr(propagation.DtypePropagationOpsHandler, "_instance")
    with quick_codegen():
        assert not hasattr(isa.VecISA, "check_build")

"""Things that Inductor does again and again while it writes C++, done once.

What it writes is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def quick_codegen() -> Iterator[None]:
    """A stretch of code in which Inductor writes C++ in less time; the caller keeps others out."""
    with ExitStack() as stack:
        for patch in _PATCHES:
            try:
                owner, name, new = patch()
            except (ImportError, AttributeError):  # another torch: it takes its time
                continue
            stack.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, new)
        yield


_Patch = tuple[Any, str, Callable[..., Any]]


def _rules_made_once() -> _Patch:
    """The one object that knows the dtype of each operation's result.

    Python calls ``__init__`` whenever it is asked for, once for each operation that is written, and
    that sets up hundreds of rules.
    """
    home: Any = import_module("torch._inductor.dtype_propagation").DtypePropagationOpsHandler
    _ = home._instance  # which it lacks where there may be several
    before, made = home.__init__, False

    def init(self: object) -> None:
        nonlocal made
        if not made:
            before(self)
            made = True

    return home, "__init__", init


def _ranges_compared_first() -> _Patch:
    """The intersection of two ranges: SymPy need not look for it if they are the same."""
    home: Any = import_module("torch.utils._sympy.value_ranges").ValueRanges
    before = home.tighten
    unknown = home.unknown()

    def tighten(self: Any, other: Any) -> Any:
        if other is unknown or other is self:
            return self
        if other.lower is self.lower and other.upper is self.upper:
            return self
        return before(self, other)

    return home, "tighten", tighten


def _instructions_believed() -> _Patch:
    """Whether the compiler knows the instructions of this processor.

    A compiler that takes ``-std=c++20``, which Inductor asks for, has those for vectors of 512
    bits; to try them takes it a second. Those for matrices are tried.
    """
    home: Any = import_module("torch._inductor.cpu_vec_isa").VecISA
    before = home.check_build

    def check_build(self: Any, code: str) -> bool:
        if "__avx512_bf16_chk_kernel" in code or "__avx512_vnni_chk_kernel_1" in code:
            return True
        return bool(before(self, code))

    return home, "check_build", check_build


def _sums_left_alone() -> _Patch:
    """An index within a vector, made as simple as can be.

    SymPy takes milliseconds to find that a sum of multiples of variables is that already.
    """
    home: Any = import_module("torch._inductor.sizevars")
    sympy: Any = import_module("sympy")
    before = home.simplify_index_in_vec_range

    def is_simple(term: Any) -> bool:
        if term.is_Mul:
            return len(term.args) == 2 and term.args[0].is_Integer and term.args[1].is_Symbol
        return bool(term.is_Symbol or term.is_Integer)

    def simplify(index: Any, var: Any, vec_length: int) -> Any:
        if all(map(is_simple, sympy.Add.make_args(index))):
            return index
        return before(index, var, vec_length)

    return home, "simplify_index_in_vec_range", simplify


def _steps_read_off() -> _Patch:
    """How far an index moves with a variable: in such a sum, by what the variable is multiplied."""
    home: Any = import_module("torch._inductor.sizevars")
    sympy: Any = import_module("sympy")
    before = home.stride_at

    def stride_at(index: Any, var: Any) -> Any:
        found = sympy.S.Zero
        for term in sympy.Add.make_args(index):
            factor, rest = term.as_coeff_Mul()
            if not (factor.is_Integer and (rest.is_Symbol or rest.is_Integer)):
                return before(index, var)
            if rest == var:
                found = found + factor
        return found

    return home, "stride_at", stride_at


_PATCHES = (
    _rules_made_once,
    _ranges_compared_first,
    _instructions_believed,
    _sums_left_alone,
    _steps_read_off,
)

"""Tensors that a result hides from a compiled function.

What a traced function returns is made of tensors without numbers. Those in pytrees are exchanged
for the real ones at each call; those within an object that is no pytree would be returned as they
are.
"""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType

from torch import Tensor

from .._core._trees import named_leaves
from .._errors import TraceError, describe

# Values without anything within.
_PLAIN = (bool, int, float, complex, str, bytes, type(None), range, slice)
# What belongs to the program rather than to a value.
_PROGRAM = (ModuleType, type, CodeType, BuiltinFunctionType)
# A look into an object ends after so many others.
_LIMIT = 100_000


def refuse_hidden(result: object) -> None:
    """Raise an error if a leaf of a result is no tensor and holds one."""
    leaves = named_leaves(result).items()
    for path, leaf in leaves:
        if isinstance(leaf, (Tensor, *_PLAIN)) or not _holds_tensor(leaf):
            continue
        kind = type(leaf)
        where = f" at {path}" if path else ""
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise TraceError(
            f"The function given to jit returns a {name}{where} ({_short(leaf)}), which holds "
            "tensors where jit cannot put those of each call: it knows tuples, lists, dicts, named "
            "tuples, OrderedDict, defaultdict and deque, and no types derived from them. Return "
            f"the tensors in one of these and make the {kind.__name__} of them outside, or have "
            "its parts known by torch.utils._pytree.register_pytree_node("
            f"{kind.__name__}, flatten, unflatten)."
        )


def _short(leaf: object) -> str:
    try:
        return describe(leaf)
    except Exception:  # a `repr` that asks tensors without numbers for them
        return "which cannot be shown"


def _holds_tensor(value: object) -> bool:
    """Whether there is a tensor within an object, however deep."""
    stack, seen = [value], {id(value)}
    while stack and len(seen) < _LIMIT:
        here = stack.pop()
        if isinstance(here, Tensor):
            return True
        if isinstance(here, FunctionType):
            within: list[object] = [here.__closure__, here.__defaults__, here.__kwdefaults__]
        elif isinstance(here, FrameType):
            within = [here.f_locals]
        else:
            within = gc.get_referents(here)
        for each in within:
            if not isinstance(each, (*_PLAIN, *_PROGRAM)) and id(each) not in seen:
                seen.add(id(each))
                stack.append(each)
    return False

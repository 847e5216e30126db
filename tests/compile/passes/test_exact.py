"""Operations that are written otherwise for Inductor are torch's, at the edges too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from purepyro import jit
from purepyro._compat._tracing import graph_of
from purepyro._compile.passes._exact import with_exact_operations

INF, NAN = float("inf"), float("nan")
EDGES = [0.0, -0.0, 1e-30, -1e-40, 1e-7, -1e-5, 0.3, -0.49, 0.5, 0.7, -0.999, 1.0, 1.5, -2.1, 3.0]
EDGES += [21.0, -21.0, 1e5, -1e10, 1e30, 3e38, INF, -INF, NAN]

REWRITTEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mul": lambda x, _: 0 * x,
    "mul by no": lambda x, _: x * False,
    "remainder": lambda x, _: x % 0.7,
    "remainder by fmod": lambda x, y: torch.fmod(x, y),
    "remainder by fmod of": lambda x, _: torch.fmod(x, 0.7),
    "remainder below": lambda x, _: x % -0.7,
    "remainder of": lambda x, _: torch.remainder(7.0, x),
    "remainders": lambda x, y: torch.remainder(x, y),
    "floor": lambda x, _: x // 0.3,
    "floor of": lambda x, _: torch.full_like(x, 21.0) // x,
    "floors": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "acosh": lambda x, _: x.acosh(),
    "atanh": lambda x, _: x.atanh(),
    "erf": lambda x, _: x.erf(),
    "softshrink": lambda x, _: functional.softshrink(x, 0.4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", REWRITTEN)
def test_rewritten_operations(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor(EDGES, dtype=dtype).repeat_interleave(len(EDGES))
    y = torch.tensor(EDGES, dtype=dtype).repeat(len(EDGES))
    fn = REWRITTEN[name]
    module = graph_of(fn, [x, y])
    before = [node.target for node in module.graph.nodes]
    with_exact_operations(module.graph)
    module.graph.lint()
    module.recompile()
    after = [node.target for node in module.graph.nodes]
    same = name.startswith("mul") or (name == "erf" and dtype is not torch.float32)
    same |= "fmod" in name and dtype is torch.float64
    assert (before == after) == same
    found, wanted = module(x, y), fn(x, y)
    assert found.dtype == wanted.dtype
    # Torch's own remainder by vectors is nan where the quotient is beyond all floats.
    lost = wanted.isnan() & found.isfinite()
    assert not lost.any() or "remainder" in name
    wanted = torch.where(lost, found, wanted)
    torch.testing.assert_close(
        found, wanted, rtol=4 * torch.finfo(dtype).eps, atol=0.0, equal_nan=True
    )


def test_what_inductor_does_rightly_stays() -> None:
    def fn(x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        truncated = torch.div(x, 0.3, rounding_mode="trunc")
        return 0.0 * x, 2 * x, 0 * i, i % 3, i // 2, truncated, x.erfc()

    module = graph_of(fn, [torch.ones(3), torch.arange(3)])
    before = [(node.target, node.args) for node in module.graph.nodes]
    with_exact_operations(module.graph)
    assert before == [(node.target, node.args) for node in module.graph.nodes]


@pytest.mark.compiled
def test_constants_are_rounded_as_torch_rounds_them() -> None:
    """A number that became a tensor has that tensor's digits, whatever it is converted to."""
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: x.double() * torch.full((3,), 0.7).double(),
        lambda x: torch.full_like(x, 0.7).double(),
        lambda x: x.double() + torch.scalar_tensor(0.7).double(),
        lambda x: x.new_full((3,), 0.7).double(),
        lambda x: torch.full((3,), 0.7, dtype=torch.bfloat16).float() + x,
        lambda x: (torch.ones(3) * 0.7).double() + x,
        lambda x: (torch.zeros(3) + 0.7).double() * x,
        lambda x: torch.zeros(3).fill_(0.7).double() + x,
        lambda x: (x * 1.4) % 0.7,
    )

    @jit
    def all_of(x: Tensor) -> list[Tensor]:
        return [function(x) for function in functions]

    x = torch.ones(3)
    for found, function in zip(all_of(x), functions, strict=True):
        assert torch.equal(found, function(x))

"""The short way through Inductor, and the long one where it is not enough."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro._compile.inductor import _cpp_header, _functional, _inductor

pytestmark = pytest.mark.compiled

X = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64).view(4, 6)


def compiled(fn: Callable[[Tensor], list[Tensor]]) -> Callable[[Tensor], list[Tensor]]:
    module: fx.GraphModule = make_fx(fn)(X)
    run = _inductor.inductor(module, [X], fn.__name__)
    return lambda x: list(run(x))


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is found on disk, and no failure is remembered."""
    monkeypatch.setattr(_inductor, "_FAILED", [])
    config: Any = import_module("torch._inductor.config")
    with config.patch(force_disable_caches=True):
        yield


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The C++ that is compiled."""
    cache: Any = import_module("torch._inductor.codecache").CppWrapperCodeCache
    load, found = cache.load_async.__func__, []

    def note(kind: type, /, code: str, *args: object, **kwargs: object) -> object:
        found.append(code)
        return load(kind, code, *args, **kwargs)

    as_method: Any = classmethod
    monkeypatch.setattr(cache, "load_async", as_method(note))
    return found


def spelled_out(x: Tensor) -> list[Tensor]:
    """Operations without a lowering, results that are views, an input in another shape."""
    hidden = torch.nn.functional.gelu(x) + torch.logaddexp(x, x.mT.mT * 2)
    return [hidden.std(1), hidden.mT, torch.nn.functional.smooth_l1_loss(hidden, x), hidden[1:]]


def test_graphs_take_the_short_way(sources: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "purepyro.jit"):
        run = compiled(spelled_out)
    assert not caplog.messages
    assert sources
    assert not any("cpp_wrapper/array_ref.h" in code for code in sources)
    for x in X, X.flip(0):
        for one, other in zip(run(x), spelled_out(x), strict=True):
            torch.testing.assert_close(one, other)
            assert one.stride() == other.stride()


def without_c_function(x: Tensor) -> list[Tensor]:
    """An operator of which the C interface knows nothing."""
    return [torch.linalg.eigvalsh(x @ x.mT), x + 1]


def test_what_calls_out_gets_the_whole_header(
    sources: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "purepyro.jit"):
        run = compiled(without_c_function)
    assert not caplog.messages
    assert any("cpp_wrapper/array_ref.h" in code for code in sources)
    for one, other in zip(run(X), without_c_function(X), strict=True):
        torch.testing.assert_close(one, other)


def plain(x: Tensor) -> list[Tensor]:
    return [x.cos() + 1, x.sum()]


def broken(*_: object) -> fx.GraphModule:
    raise AttributeError("moved")


@pytest.mark.parametrize("what", ["header", "trace"])
def test_a_short_way_that_fails_is_left(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if what == "header":
        monkeypatch.setattr(_cpp_header, "HEADER", "#error gone\n")
    else:
        monkeypatch.setattr(_functional, "_spelled_out", broken)
    with caplog.at_level(logging.INFO, "purepyro.jit"):
        run = compiled(plain)
        again = compiled(lambda x: [x - 1])
    assert len(caplog.messages) == 1
    assert "all of torch's way" in caplog.messages[0]
    torch.testing.assert_close(run(X), plain(X))
    torch.testing.assert_close(again(X), [X - 1])

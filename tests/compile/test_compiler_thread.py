"""The compiler in its own thread: nobody's interrupt reaches it, and who waits need not."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

import pytest
import torch
from torch import Tensor, fx

from purepyro import jit
from purepyro._compat._tracing import COMPILING
from purepyro._compile._compiler_thread import apart
from purepyro._compile.inductor import _inductor

needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def test_results_and_errors_come_back() -> None:
    assert apart(lambda: threading.current_thread().name) == "purepyro.jit"
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)


@needs_alarms
def test_an_interrupt_comes_at_once_and_the_work_is_done_all_the_same() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(20)
        done.set()

    before = signal.signal(signal.SIGALRM, _raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        start = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            apart(work)
        assert time.perf_counter() - start < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not done.is_set()
    go.set()
    assert apart(done.is_set)  # whose turn is after the work's


@pytest.mark.compiled
@pytest.mark.slow
@needs_alarms
def test_after_an_interrupt_the_next_call_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is stopped where an interrupt hits its caller, and then goes on."""
    go, whole = threading.Event(), _inductor._made
    calls: list[str] = []

    def slow(
        module: fx.GraphModule, inputs: Sequence[Tensor], settings: dict[str, object]
    ) -> _inductor.Run:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        go.wait(20)
        return whole(module, inputs, settings)

    monkeypatch.setattr(_inductor, "_made", slow)
    fn = jit(lambda x: x.sin() * 2.0)
    x = torch.linspace(0.0, 1.0, 5)
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        with pytest.raises(KeyboardInterrupt):
            fn(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert fn.cache_info().currsize == 0
    go.set()
    torch.testing.assert_close(fn(x), x.sin() * 2.0)
    assert fn.cache_info().currsize == 1
    assert calls == ["purepyro.jit"] * 2
    assert COMPILING.acquire(timeout=5)
    COMPILING.release()

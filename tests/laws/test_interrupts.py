"""Law 17: a run that is cut short, at whatever moment, leaves everything as it was.

Python looks for signals when a function is entered, when one in C returns, and at jumps backwards.
A profile hook is called at the first two of these, so an exception that it raises at the k-th call
is an interrupt at a place of one's choice: all of them can be gone through, one run for each.
"""

from __future__ import annotations

import random as python_random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from pyro.infer import util as infer_util
from pyro.poutine import runtime
from pyro.poutine import util as poutine_util
from torch import Tensor, fx, nn

from purepyro import apply, init, jit, random, trace
from purepyro._compat._isolation import RUN_LOCK
from purepyro._compat._tracing import LOCK
from purepyro._compile import _jit
from purepyro._core._trees import tensors_in
from purepyro.infer import SVI, AutoNormal, Trace_ELBO

_C: Any = torch._C
_LOCKS: tuple[Any, Any] = RUN_LOCK, LOCK
_DEFAULT = runtime.default_process_message
_NET = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4).eval(), nn.Linear(4, 1))
_X = random.normal(random.key(1), 6, 3)
_Y = _X.sum(-1)
_KEY = random.key(0)


def _model(x: Tensor, y: Tensor | None = None) -> Tensor:
    pyro.module("net", _NET)
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    mean = _NET(x).squeeze(-1)
    with poutine.scale(scale=2.0), pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mean, scale), obs=y)


def _small(x: Tensor, y: Tensor | None = None) -> Tensor:
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x.sum(-1), scale), obs=y)


_Jobs = dict[str, Callable[[], object]]


@pytest.fixture(scope="module")
def jobs() -> _Jobs:
    """What is interrupted, by name."""
    svi = SVI(_model, AutoNormal(_model), torchopt.adam(0.01))
    particles = SVI(
        _model,
        AutoNormal(_model),
        torchopt.adam(0.01),
        Trace_ELBO(num_particles=2),
        on_nonfinite="skip",
    )
    state, params = svi.init(_KEY, _X, _Y), init(_model, _KEY, _X)
    batches = [(_X, _Y)]
    return {
        "step": lambda: svi.step(state, _X, _Y),
        "step of particles": lambda: particles.step(state, _X, _Y),
        "apply": lambda: apply(_model, params, _KEY, _X),
        "trace": lambda: trace(_model, params, _KEY, _X, _Y),
        "fit": lambda: svi.fit_from(state, batches, data_size=None),
        "init": lambda: svi.init(_KEY, _X, _Y),
    }


def _bits(result: object) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors_in(result)]


def _is_free(number: int) -> bool:
    """Whether another thread gets one of the locks."""
    lock, got = _LOCKS[number], list[bool]()

    def try_it() -> None:
        got.append(lock.acquire(timeout=5))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return got[0]


def _attributes(net: nn.Module) -> dict[str, object]:
    """What a network and its layers hold, by identity."""
    found: dict[str, object] = {}
    for path, layer in net.named_modules():
        for name, value in vars(layer).items():
            inside = (
                {key: id(part) for key, part in value.items()} if isinstance(value, dict) else 0
            )
            found[f"{path}.{name}"] = id(value), inside
    return found


def _left_behind() -> list[str]:
    """What differs from a process in which nothing runs."""
    where = {
        "Pyro's handler stack": len(runtime._PYRO_STACK) > 0,
        "a plate": len(runtime._DIM_ALLOCATOR._stack) > 0,
        "our default handler": runtime.default_process_message is not _DEFAULT,
        "the parameter store": list(pyro.get_param_store().keys()) != ["kept"],
        "validation": not (
            dist.is_validation_enabled()
            and torch.distributions.Distribution._validate_args
            and infer_util.is_validation_enabled()
            and poutine_util.is_validation_enabled()
        ),
        "a function mode": _C._len_torch_function_stack() > 0,
        "a dispatch mode": _C._len_torch_dispatch_stack() > 0,
        "a transform": _C._functorch.get_dynamic_layer_stack_depth() > 0,
        "the gradient's switch": not torch.is_grad_enabled(),
        "a lock": any(lock._is_owned() for lock in _LOCKS),
    }
    return [name for name, differs in where.items() if differs]


class _Interrupt:
    """Raises KeyboardInterrupt at the k-th place where Python would look for a signal."""

    def __init__(self, k: int) -> None:
        self.count = 0
        self.place = ""
        self._k = k

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event not in ("call", "c_return", "c_exception"):
            return
        self.count += 1
        if self.count == self._k:
            sys.setprofile(None)
            code = frame.f_code
            self.place = f"{event} {code.co_filename}:{frame.f_lineno} ({code.co_name})"
            raise KeyboardInterrupt


def _cut(job: Callable[[], object], k: int) -> tuple[_Interrupt, BaseException | None]:
    """Do a job with an interrupt at place ``k``; what it ended by."""
    hook, ended = _Interrupt(k), None
    profile = sys.getprofile()
    try:
        sys.setprofile(hook)
        job()
        sys.setprofile(None)
    except BaseException as error:
        ended = error
    finally:
        sys.setprofile(profile)
    return hook, ended


@pytest.fixture
def store() -> Iterator[None]:
    """A parameter store with something in it."""
    pyro.clear_param_store()
    pyro.param("kept", torch.tensor(3.0))
    yield
    pyro.clear_param_store()


# In the end of a generator that is thrown away, Python itself prints an interrupt and goes on.
_LOST = "ignore::pytest.PytestUnraisableExceptionWarning"


@pytest.mark.usefixtures("store")
@pytest.mark.filterwarnings(_LOST)
@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("step", 31),
        ("step of particles", 41),
        ("apply", 19),
        ("trace", 19),
        ("fit", 41),
        pytest.param("init", 97, marks=pytest.mark.slow),
        pytest.param("step", 1, marks=pytest.mark.slow),
        pytest.param("apply", 1, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_at_any_place_leaves_nothing_behind(
    name: str, stride: int, jobs: _Jobs
) -> None:
    job = jobs[name]
    right, net = _bits(job()), _attributes(_NET)
    places = _cut(job, -1)[0].count
    assert places > 1_000
    lost = 0
    for k in range(1, places + 1, stride):
        hook, ended = _cut(job, k)
        lost += ended is None
        assert ended is None or type(ended) is KeyboardInterrupt, (hook.place, ended)
        assert not _left_behind(), (hook.place, _left_behind())
        assert _attributes(_NET) == net, hook.place
        if k % (25 * stride) == 1:
            assert all(map(torch.equal, _bits(job()), right)), hook.place
    assert lost <= places / stride / 50
    assert _is_free(0)
    assert all(map(torch.equal, _bits(job()), right))


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _alarms() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _alarmed(job: Callable[[], object], seconds: float) -> str:
    """How a job ended in which a signal comes after some time."""
    end = "done"
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            job()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:
        end = type(error).__name__
    return end


def _seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")


@needs_alarms
@pytest.mark.usefixtures("store")
@pytest.mark.filterwarnings(_LOST)
def test_signals_at_random_moments_leave_nothing_behind(jobs: _Jobs) -> None:
    moments, net = python_random.Random(0), _attributes(_NET)
    names = ["step", "apply", "trace", "fit"]
    right = {name: _bits(jobs[name]()) for name in names}
    span = {name: _seconds(jobs[name]) for name in names}
    cut = 0
    with _alarms():
        for i in range(400):
            name = names[i % 4]
            end = _alarmed(jobs[name], 1e-5 + moments.random() * span[name])
            assert end in ("KeyboardInterrupt", "done"), end
            assert not _left_behind()
            cut += end == "KeyboardInterrupt"
    assert cut > 100
    assert _attributes(_NET) == net
    for name in names:
        assert all(map(torch.equal, _bits(jobs[name]()), right[name]))


@needs_alarms
@pytest.mark.compiled
@pytest.mark.usefixtures("store")
@pytest.mark.filterwarnings(_LOST)
def test_signals_while_a_graph_is_traced_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_it_is(module: fx.GraphModule, inputs: object) -> fx.GraphModule:
        return module

    monkeypatch.setattr(_jit, "compiled", as_it_is)
    svi = SVI(_small, AutoNormal(_small), torchopt.adam(0.01))
    state = svi.init(_KEY, _X, _Y)

    def job() -> object:
        return jit(svi.step)(state, _X, _Y)

    right, moments, cut = _bits(job()), python_random.Random(1), 0
    span = _seconds(job)
    with _alarms():
        for _ in range(40):
            end = _alarmed(job, 1e-5 + moments.random() * span)
            assert end in ("KeyboardInterrupt", "done"), end
            assert not _left_behind()
            cut += end == "KeyboardInterrupt"
    assert cut > 10
    assert _is_free(0)
    assert _is_free(1)
    step = jit(svi.step)
    assert all(map(torch.equal, _bits(step(state, _X, _Y)), right))
    assert step.cache_info().currsize == 1


def test_what_a_model_makes_of_an_interrupt_stays(jobs: _Jobs) -> None:
    class Own(Exception):
        pass

    def model() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise Own from None

    with pytest.raises(Own):
        apply(model, {}, _KEY)

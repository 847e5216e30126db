"""A plugin for pytest, in a run of Pyro's tests: our losses stand in for Pyro's.

What came of each test goes, a line of JSON each, to the file that ``PEER_REPORT`` names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import pyro  # before a checkout comes onto the path: the library is the installed one
import pytest
import torch
from pyro.infer import SVI
from pyro.optim import Adam

from purepyro import PurepyroError

from .compare import Status
from .losses import DRAWS, NotOfferedError, Ours, behind_pyro
from .upstream import left_out_by_choice

_LIMIT = 60


def pytest_configure(config: pytest.Config) -> None:
    """Put our losses wherever Pyro's are imported from."""
    torch.set_num_threads(1)
    DRAWS.install()
    for name, kind in behind_pyro().items():
        theirs = getattr(pyro.infer, name)
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("pyro.infer") and (
                vars(module).get(name) is theirs
            ):
                setattr(module, name, kind)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests' own helpers take an error of ours for what Pyro's words would be."""
    chosen = [item for item in items if not left_out_by_choice(item.nodeid)]
    dropped = [item for item in items if left_out_by_choice(item.nodeid)]
    for item in dropped:
        _note(item.nodeid, 0, "left out", "one of many alike that take minutes")
    items[:] = chosen
    for module in {item.getparent(pytest.Module) for item in items}:
        if module is not None and hasattr(module.obj, "assert_error"):
            module.obj.assert_error = _assert_error(module.obj)


def _assert_error(module: ModuleType) -> Callable[..., None]:
    theirs = module.assert_error

    def assert_error(model: Any, guide: Any, elbo: Any, match: str | None = None) -> None:
        if not isinstance(elbo, Ours):
            theirs(model, guide, elbo, match=match)
            return
        pyro.clear_param_store()
        try:
            SVI(model, guide, Adam({"lr": 1e-6}), elbo).step()
        except PurepyroError:
            return  # refused by both
        except (NotImplementedError, UserWarning, KeyError, ValueError, RuntimeError) as error:
            with pytest.raises(type(error), match=match):
                raise  # Pyro's own error, from its handlers
            return
        pytest.fail("RUNS: Pyro refuses this, ours runs it")

    return assert_error


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Give each test a limit."""

    def stop(signum: int, frame: FrameType | None) -> None:
        pytest.skip(f"not done in {_LIMIT} s")

    DRAWS.losses = 0
    DRAWS.seed(0)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LIMIT)
    yield
    signal.alarm(0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note what came of a test."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call":
        return
    error = call.excinfo.value if call.excinfo is not None else None
    _note(item.nodeid, DRAWS.losses, *_judged(report, error))


def _note(test: str, losses: int, status: Status, note: str) -> None:
    line = {"test": test.rpartition("/")[2], "losses": losses, "status": status, "note": note}
    with open(os.environ["PEER_REPORT"], "a") as file:
        file.write(json.dumps(line) + "\n")


def _judged(report: Any, error: BaseException | None) -> tuple[Status, str]:
    if report.outcome == "passed":
        return "equal", ""
    if error is None or hasattr(report, "wasxfail") or report.outcome == "skipped":
        return "left out", " ".join(str(getattr(report, "wasxfail", error)).split())
    for each in _chain(error):
        if isinstance(each, PurepyroError | NotOfferedError):
            return "refused", _brief(each)
    return "different", _brief(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


warnings.filterwarnings("default", module="peer")

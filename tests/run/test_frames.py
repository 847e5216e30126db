"""The road to a draw is short: frames of ours on Python's stack where a distribution is sampled.

They are what a user steps through in a debugger, and reads in a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Module, Prior, PyroParam, PyroSample, apply, random
from purepyro.infer import SVI

Y = torch.ones(3)
_SEEN: list[list[str]] = []


def _frames() -> list[str]:
    """The functions of ours that are under way, the outermost first."""
    found: list[str] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("purepyro."):
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return found[::-1]


class Watched(dist.Normal):
    """A normal distribution with a draw of its own, which notes how deep it is called."""

    def rsample(self, *args: Any, **kwargs: Any) -> Tensor:
        _SEEN.append(_frames())
        return super().rsample(*args, **kwargs)


class Model(Module):
    @PyroSample
    def z(self) -> Prior:
        return Watched(0.0, 1.0)

    def forward(self, y: Tensor) -> None:
        z = self.z
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)


class Guide(Module):
    loc = PyroParam(torch.tensor(0.0))

    @PyroSample
    def z(self) -> Prior:
        return Watched(self.loc, 1.0)

    def forward(self, y: Tensor) -> None:
        assert self.z.isfinite()


def _stacks(call: Callable[[], object]) -> list[list[str]]:
    """Those of all draws in a call."""
    _SEEN.clear()
    call()
    return list(_SEEN)


def test_from_apply_to_a_draw(key: random.Key) -> None:
    (frames,) = _stacks(lambda: apply(Model(), {}, key, Y))
    assert frames[0] == "apply"
    assert len(frames) <= 14, frames


def test_from_a_run_to_a_draw_of_the_guide(key: random.Key) -> None:
    svi = SVI(Model(), Guide(), torchopt.adam(0.1), progress_bar=False)
    stacks = _stacks(lambda: svi.run(key, 3, Y))
    steps = [frames for frames in stacks if "SVI.step" in frames]
    assert len(steps) == 3
    for frames in steps:
        assert frames[0] == "SVI.run"
        assert len(frames) <= 22, frames

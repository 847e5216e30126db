"""The runs of a guide and its model, as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import attrs

from ..._core._types import State, Values
from ..._networks._buffers import Buffers
from ..._run._execute import Call, Joint, Outcome, Setting, execute, jointly
from ...random import Key

T = TypeVar("T")


@attrs.define
class BufferFlow:
    """The buffers of networks on their way through the runs of a loss.

    Attributes:
        state: The buffers before the next run; ``None``: those that the networks hold.
        strict: Whether a run that changes them is refused where they have no way out.
        frozen: Whether it is refused anyway.
    """

    state: State | None = None
    strict: bool = True
    frozen: bool = False

    def take(self, buffers: Buffers) -> None:
        """The buffers as a run left them."""
        if self.frozen:
            buffers.require_unchanged()
        elif self.state is not None:
            after = {name: buffer.detach() for name, buffer in buffers.now().items()}
            self.state = {**self.state, **after}
        elif self.strict:
            buffers.require_unchanged()


class Both(NamedTuple):
    """A model and a guide with what both are given, for runs that belong together."""

    model: Callable[..., object]
    guide: Callable[..., object]
    params: Values
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    joint: Joint
    flow: BufferFlow

    def run_guide(self, key: Key) -> Outcome[object]:
        """A run of the guide."""
        return self.run(self.guide, key, Setting(params=self.params))

    def run_model(self, key: Key, values: Values) -> Outcome[object]:
        """A run of the model at the guide's values."""
        return self.run(self.model, key, Setting(params=self.params, values=values))

    def run(self, fn: Callable[..., object], key: Key, setting: Setting) -> Outcome[object]:
        """A run of one of the two, or of one of them wrapped."""
        setting = attrs.evolve(setting, state=self.flow.state)
        outcome = execute(fn, key, self.args, self.kwargs, setting, self.joint)
        self.flow.take(outcome.buffers)
        return outcome


class Pair(NamedTuple):
    """A model and a guide with what both are given."""

    model: Callable[..., object]
    guide: Callable[..., object] | None
    params: Values
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def together(self, key: Key, body: Callable[[Both], T], flow: BufferFlow | None = None) -> T:
        """What ``body`` returns, which runs the two and scores their sites."""
        flow = flow or BufferFlow()
        call = Call(key, self.args, self.kwargs, self.params)
        guide = self.guide or _no_sites
        models = (self.model,) if self.guide is None else (self.guide, self.model)

        def opened(joint: Joint) -> T:
            return body(Both(self.model, guide, *self[2:], joint, flow))

        return jointly(models, call, opened)


def _no_sites(*_: object, **__: object) -> None:
    """The guide of a model without latent sites."""

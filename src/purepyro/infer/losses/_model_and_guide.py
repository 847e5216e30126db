"""The runs of a guide and its model, as one: the guide's draws are the model's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs
from torch import Tensor

from ..._core._types import State, Values
from ..._networks._buffers import Buffers
from ..._run._execute import RunConfig, RunResult, execute
from ..._run._pairs import lookups
from ..._run._session import Call, Session
from ..._run._sites import Site
from ...random import Key


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


class ModelGuidePair(NamedTuple):
    """A model and a guide with what both are given."""

    model: Callable[..., object]
    guide: Callable[..., object] | None
    params: Values
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class PairSession(Session):
    """The session of a model and its guide; see ``Session`` for how it is entered.

    Args:
        pair: The two, with what they are given.
        key: The key of both, unless a run is given another.
        flow: The buffers before the first run, and where they go.
        rows_key: What draws the rows of subsampled plates; by default the key of each run.
    """

    __slots__ = ("args", "flow", "guide", "kwargs", "model", "params")

    def __init__(
        self,
        pair: ModelGuidePair,
        key: Key,
        flow: BufferFlow | None = None,
        rows_key: Key | None = None,
    ) -> None:
        self.model, guide, self.params, self.args, self.kwargs = pair
        self.guide = guide or _no_sites
        self.flow = flow or BufferFlow()
        call = Call(key, self.args, self.kwargs, self.params)
        models = (self.model,) if guide is None else (guide, self.model)
        super().__init__(call, *lookups(models, call), rows_key)

    def run_guide(self, key: Key, *, alone: bool = False) -> RunResult[object]:
        """A run of the guide; ``alone``, without the arguments, which are the model's only."""
        return self.run(self.guide, key, alone=alone)

    def run_model(self, key: Key, values: Values) -> RunResult[object]:
        """A run of the model at the guide's values."""
        return self.run(self.model, key, values)

    def run(
        self,
        fn: Callable[..., object],
        key: Key,
        values: Values = MappingProxyType({}),
        *,
        alone: bool = False,
    ) -> RunResult[object]:
        """A run of one of the two, or of one of them wrapped."""
        config = RunConfig(params=self.params, values=values, state=self.flow.state)
        args, kwargs = ((), {}) if alone else (self.args, self.kwargs)
        result = execute(fn, key, args, kwargs, config, self)
        self.flow.take(result.buffers)
        return result


def run_model_and_guide(
    session: PairSession, key: Key, guide: Callable[..., object] | None = None
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The sites of the model at the guide's values, and those of the guide.

    Args:
        session: The model and its guide.
        key: The key of both runs, so that they draw the same subsample of a plate.
        guide: The guide to run, if it is another than the session's, such as that one wrapped.
    """
    guided = session.run_guide(key) if guide is None else session.run(guide, key)
    modelled = session.run_model(key, values_for_model(guided.sites))
    return modelled.sites, guided.sites


def values_for_model(guide_sites: Mapping[str, Site]) -> dict[str, Tensor]:
    """The values that a guide's run has for the model's sites."""
    return {name: site.value for name, site in guide_sites.items() if feeds_model(site)}


def feeds_model(site: Site) -> bool:
    """Whether a guide's site carries a value for the model's site of the same name."""
    return site.kind in ("latent", "subsample") and not site.auxiliary


def _no_sites(*_: object, **__: object) -> None:
    """The guide of a model without latent sites."""

"""Several guides as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec

from torch import Tensor

from ..._errors import DeclarationError
from ._guide import AutoGuide
from ._model_guide import shared_plates

P = ParamSpec("P")


class AutoGuideList(AutoGuide[P]):
    """A guide made of guides, each for some sites of one model.

    Give each part the model with the other parts' sites hidden, by ``pyro.poutine.block``.
    Parameters and auxiliary sites of part ``i`` are named ``parts.<i>.<name>``; those of a plain
    function keep their names. The parts share their plates, so a subsample is drawn once.

    Args:
        parts: The guides: automatic ones, Modules or functions. A part returns the values of its
            sites by name, or None.

    Raises:
        DuplicateSiteError: in a run, if two parts have a site of one name.

    Source: ``pyro.infer.autoguide.AutoGuideList``.

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro import poutine
        >>> from purepyro import init, random
        >>> from purepyro.infer import AutoDelta, AutoGuideList, AutoNormal
        >>> def model():
        ...     scale = pyro.sample("scale", dist.HalfNormal(1.0))
        ...     pyro.sample("z", dist.Normal(0.0, scale))
        >>> point = AutoDelta(poutine.block(model, expose=["scale"]))
        >>> normal = AutoNormal(poutine.block(model, hide=["scale"]))
        >>> sorted(init(AutoGuideList([point, normal]), random.key(0)))
        ['parts.0.locs.scale', 'parts.1.locs.z', 'parts.1.scales.z']
    """

    parts: list[Callable[P, Mapping[str, Tensor] | None]]

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """Draw all parts' sites; returns their values by name."""
        values: dict[str, Tensor] = {}
        with shared_plates():
            for part in self.parts:
                values.update(part(*args, **kwargs) or {})
        return values

    def quantiles_in_run(
        self, levels: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for i, part in enumerate(self.parts):
            if not isinstance(part, AutoGuide):
                raise DeclarationError(
                    f"Part {i} of the AutoGuideList is a {type(part).__name__}, which no quantiles "
                    "are known of: only automatic guides have them. Take those of draws: "
                    "torch.vmap(lambda key: guide.sample_posterior(params, key, ...))(keys), then "
                    "torch.quantile."
                )
            values.update(part.quantiles_in_run(levels, *args, **kwargs))
        return values

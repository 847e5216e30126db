"""The mean-field normal guide."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, ParamSpec

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..._compat._pyro import OWN_MASK
from ..._declare._fields import static
from ._init_locs import Start
from ._latents import Latent
from ._model_guide import ModelGuide, PlatesOfRun, normal_quantiles, pushed

P = ParamSpec("P")


class AutoNormal(ModelGuide[P]):
    r"""A guide in which each latent site is independent and normal in unconstrained space.

    .. math:: z = T(\mu + \sigma\,\epsilon), \quad \epsilon \sim N(0, I)

    with :math:`T` the ``biject_to`` of the site's support. Parameters are ``locs.<site>`` and
    ``scales.<site>``, the latter positive by a softplus. Sites in plates keep their plates; of a
    subsampled plate the parameters are full and subsampled with it.

    Args:
        model: The model whose latent sites to fit. It is a setting: its parameters are not the
            guide's.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.
        init_scale: The standard deviation to start from, in unconstrained space.

    Raises:
        DeclarationError: if the model has a discrete latent site, or one whose support moves.

    Source: ``pyro.infer.autoguide.AutoNormal``; Kucukelbir et al. 2017, "Automatic Differentiation
    Variational Inference".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import constrain, init, random
        >>> from purepyro.infer import AutoNormal
        >>> def model():
        ...     pyro.sample("scale", dist.HalfNormal(1.0))
        >>> guide = AutoNormal(model)
        >>> constrain(guide, init(guide, random.key(0)))
        {'locs.scale': tensor(0.), 'scales.scale': tensor(0.1000)}
    """

    needs_no_mode: ClassVar[bool] = True

    init_scale: float = static(default=0.1)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """Draw all latent sites; returns their values by name."""
        latents, plates, start = self.look(args, kwargs)
        values: dict[str, Tensor] = {}
        for latent in latents:
            with plates.around(latent):
                values[latent.name] = self._draw(latent, plates, start)
        return values

    def quantiles_in_run(
        self, levels: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        latents, plates, start = self.look(args, kwargs)
        values: dict[str, Tensor] = {}
        for latent in latents:
            with plates.around_rows(latent):
                pair = self._loc_scale(latent, plates, start, ordered=latent.by_row)
            values[latent.name] = normal_quantiles(latent, levels, *pair)
        return values

    def _draw(self, latent: Latent, plates: PlatesOfRun, start: Start) -> Tensor:
        """Draw one site, inside its plates."""
        loc, scale = self._loc_scale(latent, plates, start)
        # Its scale is positive, and its draws are of the line, without a look at each.
        line = dist.Normal(loc, scale, validate_args=False)
        normal = line.to_event(latent.unconstrained_event_dim)
        if latent.is_real:
            return pyro.sample(latent.name, normal, infer=OWN_MASK)
        z = pyro.sample(f"{latent.name}_unconstrained", normal, infer={"is_auxiliary": True})
        return pyro.sample(latent.name, pushed(latent, z), infer=OWN_MASK)

    def _loc_scale(
        self, latent: Latent, plates: PlatesOfRun, start: Start, *, ordered: bool = True
    ) -> tuple[Tensor, Tensor]:
        zeros, event_dim = latent.zeros(), latent.unconstrained_event_dim
        width = torch.full_like(zeros, self.init_scale)
        loc = self.param(
            f"locs.{latent.name}", partial(start.loc, latent), zeros, event_dim=event_dim
        )
        scale = self.param(
            f"scales.{latent.name}",
            lambda: width,
            width,
            constraint=constraints.softplus_positive,
            event_dim=event_dim,
        )
        if not ordered:
            return loc, scale
        return plates.ordered(latent, loc, event_dim), plates.ordered(latent, scale, event_dim)

"""The point guide."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, ParamSpec

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import biject_to

from ..._compat._pyro import OWN_MASK
from ..._declare._fields import static
from ._init_locs import Start
from ._initialization import Initializer, init_to_median
from ._latents import Latent
from ._model_guide import ModelGuide, PlatesOfRun

P = ParamSpec("P")


class AutoDelta(ModelGuide[P]):
    r"""A guide that is a point: its fit is the maximum a posteriori estimate.

    .. math:: z = T(u), \quad \max_u \log p(x, T(u))

    The density is the one of constrained values, so the maximum does not depend on the transform
    :math:`T`. Parameters are ``locs.<site>``, constrained to the site's support: what
    ``constrain`` returns is the estimate. Sites in plates keep their plates; of a subsampled plate
    the parameters are full and subsampled with it.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions. By default at the
            median of draws from the prior: a network with all weights at zero would stay there.

    Raises:
        DeclarationError: if the model has a discrete latent site, or one whose support moves.

    Source: ``pyro.infer.autoguide.AutoDelta``.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import apply, init, random
        >>> from purepyro.infer import AutoDelta, init_to_mean
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(6.0, 2.0))
        >>> guide, key = AutoDelta(model, init_loc_fn=init_to_mean), random.key(0)
        >>> apply(guide, init(guide, key), key)
        {'rate': tensor(3.)}
    """

    needs_no_mode: ClassVar[bool] = True

    init_loc_fn: Initializer = static(default=init_to_median)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """The point; returns the sites' values by name."""
        latents, plates, start = self.look(args, kwargs)
        values: dict[str, Tensor] = {}
        for latent in latents:
            with plates.around(latent):
                point = self._value(latent, plates, start)
                delta = dist.Delta(point, event_dim=latent.event_dim)
                values[latent.name] = pyro.sample(latent.name, delta, infer=OWN_MASK)
        return values

    def quantiles_in_run(
        self, levels: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        latents, plates, start = self.look(args, kwargs)
        values: dict[str, Tensor] = {}
        for latent in latents:
            with plates.around_rows(latent):
                point = self._value(latent, plates, start, ordered=latent.by_row)
            values[latent.name] = point.expand(len(levels), *point.shape)
        return values

    def _value(
        self, latent: Latent, plates: PlatesOfRun, start: Start, *, ordered: bool = True
    ) -> Tensor:
        """The point at one site, inside its plates; ``ordered``: as these arrange its rows."""
        name, event_dim = f"locs.{latent.name}", latent.event_dim
        if latent.by_row:
            # The parameter is of all rows, and the bounds are known of this run's only.
            dims = latent.unconstrained_event_dim
            loc = self.param(name, partial(start.loc, latent), latent.zeros(), event_dim=dims)
            point: Tensor = biject_to(latent.support)(plates.ordered(latent, loc, dims))
            return point
        like: Tensor = biject_to(latent.support)(latent.zeros())
        value = self.param(
            name,
            partial(start.value, latent),
            like,
            constraint=latent.support,
            event_dim=event_dim,
        )
        return plates.ordered(latent, value, event_dim) if ordered else value

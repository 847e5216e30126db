"""The point guide."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, ParamSpec

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import biject_to

from ._model_guide import ModelGuide, PlatesOfRun
from ._prototype import Latent
from ._start import Start

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
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.

    Raises:
        DeclarationError: if the model has a discrete latent site, or one whose support moves.

    Source: ``pyro.infer.autoguide.AutoDelta``, whose default start is ``init_to_median``.

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

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """The point; returns the sites' values by name."""
        start, plates = self.start(args, kwargs), PlatesOfRun()
        values: dict[str, Tensor] = {}
        for latent in self.latents(args, kwargs):
            with plates.around(latent):
                delta = dist.Delta(self._value(latent, start), event_dim=latent.event_dim)
                values[latent.name] = pyro.sample(latent.name, delta)
        return values

    def quantiles_in_run(
        self, levels: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        start = self.start(args, kwargs)
        points = {latent.name: self._value(latent, start) for latent in self.latents(args, kwargs)}
        return {n: point.expand(len(levels), *point.shape) for n, point in points.items()}

    def _value(self, latent: Latent, start: Start) -> Tensor:
        like: Tensor = biject_to(latent.support)(latent.zeros())
        return self.param(
            f"locs.{latent.name}",
            partial(start.value, latent),
            like,
            constraint=latent.support,
            event_dim=latent.event_dim,
        )

"""What guides with one joint law over all latent sites share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import ParamSpec

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ..._compat._pyro import OWN_MASK
from ..._errors import DeclarationError, ShapeError, describe
from ._init_locs import Start
from ._latents import Latent
from ._model_guide import ModelGuide, normal_quantiles, pushed

P = ParamSpec("P")


class JointGuide(ModelGuide[P]):
    """One law over the unconstrained values of all latent sites, end to end in one vector.

    The vector is drawn as the auxiliary site ``_auto_latent``; the model's sites are functions of
    it. Its location is the parameters ``locs.<site>``, so a params dict says which sites it is of.
    """

    def posterior(self, latents: list[Latent], start: Start) -> TorchDistributionMixin:
        """The law of the vector. For guides to define."""
        raise NotImplementedError

    def marginals(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each number in it. For guides to define."""
        raise NotImplementedError

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """Draw all latent sites; returns their values by name."""
        latents, plates, start = self.look(args, kwargs)
        self.check(latents)
        posterior = self.posterior(latents, start)
        name = self.path_of("_auto_latent")
        flat = pyro.sample(name, posterior, infer={"is_auxiliary": True})
        values: dict[str, Tensor] = {}
        for latent, z in parts_of(flat, latents):
            z = plates.ordered(latent, z, latent.unconstrained_event_dim)
            # Masked elements stay in the vector, so they get a law of their own to fit.
            law = pushed(latent, z, self.spare)
            with plates.around(latent, masked=False):
                values[latent.name] = pyro.sample(latent.name, law, infer=OWN_MASK)
        return values

    def spare(self, z: Tensor) -> Tensor:
        """The log density of masked elements: any normalised one leaves the bound a bound."""
        return -0.5 * (z.square() + math.log(2 * math.pi))

    def quantiles_in_run(
        self, levels: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        latents, plates, start = self.look(args, kwargs)
        self.check(latents)
        loc, scale = self.marginals(latents, start)
        pairs = zip(parts_of(loc, latents), parts_of(scale, latents), strict=True)
        values: dict[str, Tensor] = {}
        for (latent, loc), (_, scale) in pairs:
            if latent.by_row:
                dims = latent.unconstrained_event_dim
                loc, scale = (plates.ordered(latent, z, dims) for z in (loc, scale))
            values[latent.name] = normal_quantiles(latent, levels, loc, scale)
        return values

    def loc(self, latents: list[Latent], start: Start) -> Tensor:
        """The location of the vector, from the parameters ``locs.<site>``."""
        locs = [
            self.param(f"locs.{latent.name}", partial(start.loc, latent), latent.zeros())
            for latent in latents
        ]
        return torch.cat([loc.reshape(-1) for loc in locs])

    def check(self, latents: list[Latent]) -> None:
        """Refuse sites of which there can be no joint law."""
        kind = type(self).__name__
        if not latents:
            raise DeclarationError(
                f"{kind} found no latent site in the model on these arguments, so there is no "
                "vector to draw. Use an empty guide, `lambda *args: None`; or pass the arguments "
                "with which the sites are latent."
            )
        for latent in latents:
            for frame in latent.plates:
                if frame.full_size not in (None, frame.size):
                    raise DeclarationError(
                        f"The latent site {latent.name!r} is in the plate {frame.name!r}, which "
                        f"subsamples {frame.size} of {frame.full_size}. {kind} has one law over "
                        "all sites, of which no part can be left out. Use AutoNormal or AutoDelta, "
                        "alone or for this site in an AutoGuideList."
                    )


def parts_of(flat: Tensor, latents: list[Latent]) -> Iterator[tuple[Latent, Tensor]]:
    """The unconstrained values in a vector, site by site."""
    sizes = [latent.unconstrained_shape.numel() for latent in latents]
    for latent, part in zip(latents, torch.split(flat, sizes, dim=-1), strict=True):
        shape = latent.unconstrained_shape
        rows = len(shape) - latent.unconstrained_event_dim
        # Plates around the guide, such as Pyro's of particles, stand left of the model's.
        around = flat.shape[:-1]
        left = around[: max(0, len(around) - rows)]
        own = around[len(left) :]
        if any(size != 1 for size in own):
            raise ShapeError(
                f"The joint draw of all latent sites is {describe(flat)}, in a plate around the "
                f"guide at a dimension that the plates of the site {latent.name!r} need. Give that "
                f"plate a dimension left of {-rows}; with Pyro's ELBOs set max_plate_nesting to "
                f"{rows} or more."
            )
        yield latent, part.reshape((*left, *shape)).to(latent.dtype)

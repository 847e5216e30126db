"""The evidence lower bound, as a pure function of parameters and a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from .._boundary import Plates, summed_to
from .._errors import MissingNameError, UnknownNameError
from .._execute import Setting, execute
from .._sites import Site
from .._types import Values
from ..random import Key, split


class ELBO(Protocol):
    """What :class:`SVI` needs of a loss: a pure function of parameters and a key.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import ELBO, Trace_ELBO
        >>> class Doubled:
        ...     def loss(self, model, guide, params, key, /, *args, **kwargs):
        ...         return 2 * Trace_ELBO().loss(model, guide, params, key, *args, **kwargs)
        >>> loss: ELBO = Doubled()
        >>> loss.loss(lambda: None, lambda: None, {}, random.key(0)).abs()
        tensor(0.)
    """

    def loss(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        params: Values,
        key: Key,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """A scalar whose gradient in ``params`` is the direction to descend."""
        ...


@attrs.frozen
class Trace_ELBO:
    r"""The negative evidence lower bound, estimated from samples of the guide.

    .. math:: -\mathbb{E}_{q(z)}[\log p(x, z) - \log q(z)]

    Gradients flow through reparameterised draws; a site without them (a discrete one) gets the
    score-function estimator, Rao-Blackwellised over plates as in Pyro.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.

    Source: ``pyro.infer.Trace_ELBO``; Ranganath et al. 2014, "Black Box Variational Inference".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import Trace_ELBO
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> Trace_ELBO(num_particles=10).loss(model, model, {}, random.key(0)).abs()  # q is p
        tensor(0.)
    """

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    chunk_size: int | None = None

    def loss(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        params: Values,
        key: Key,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """The loss at ``params``: minus the estimate of the bound, a scalar.

        Args:
            model: Any model that ``apply`` takes.
            guide: The same; its sites are the model's latent ones.
            params: Unconstrained parameters of both.
            key: Both runs use it, so that they draw the same subsample of a plate.
            *args: Arguments of both.
            **kwargs: The same, by name.
        """

        def particle(key: Tensor) -> Tensor:
            return _loss(model, guide, params, Key(key), args, kwargs)

        if self.num_particles == 1:
            return particle(key)
        keys = split(key, self.num_particles)
        return torch.vmap(particle, chunk_size=self.chunk_size)(keys).mean()


def run_both(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Values,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The sites of the guide, and of the model at the guide's values."""
    guided = execute(guide, key, args, kwargs, Setting(params=params))
    guided.buffers.require_unchanged()
    values = {name: site.value for name, site in guided.sites.items() if feeds_model(site)}
    modelled = execute(model, key, args, kwargs, Setting(params=params, values=values))
    modelled.buffers.require_unchanged()
    _check_match(modelled.sites, values)
    return modelled.sites, guided.sites


def feeds_model(site: Site) -> bool:
    """Whether a guide's site carries a value for the model's site of the same name."""
    return site.kind in ("latent", "subsample") and not site.auxiliary


def _check_match(model_sites: Mapping[str, Site], guided: Values) -> None:
    """Refuse a guide whose sites are not the model's latent ones."""
    latent = {name for name, site in model_sites.items() if site.kind == "latent"}
    drawn = {n for n in guided if n not in model_sites or model_sites[n].kind != "subsample"}
    if latent == drawn:
        return
    missing, extra = sorted(latent - drawn), sorted(drawn - latent)
    if missing:
        raise MissingNameError(
            f"The guide has no site for the model's latent {missing}, so their posterior would be "
            "their prior. Add pyro.sample statements of these names to the guide; if they should "
            "be observed, pass the data."
        )
    raise UnknownNameError(
        f"The guide has the sites {extra}, which are not latent in the model; its latent ones are "
        f"{sorted(latent)}. Rename them, or mark them as the guide's own by "
        'pyro.sample(..., infer={"is_auxiliary": True}).'
    )


def _loss(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Values,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor:
    model_sites, guide_sites = run_both(model, guide, params, key, args, kwargs)
    log_p, log_q = _log_densities(model_sites), _log_densities(guide_sites)
    elbo = _total(log_p) - _total(log_q)
    if all(site.fn.has_rsample for site in guide_sites.values() if site.name in log_q):
        return -elbo
    rewards = [
        (model_sites[name].plates, (p - log_q.get(name, torch.zeros(()))).detach())
        for name, p in log_p.items()
    ]
    surrogate = _total(log_p) + _score_terms(guide_sites, log_q, rewards)
    # The value is the bound; the gradient is that of the surrogate.
    return -(surrogate + (elbo - surrogate).detach())


def _score_terms(
    guide_sites: Mapping[str, Site],
    log_q: Mapping[str, Tensor],
    rewards: list[tuple[Plates, Tensor]],
) -> Tensor:
    """The guide's part of the surrogate: its entropy, or reward times score, by site."""
    total = torch.zeros(())
    for name, log_density in log_q.items():
        site = guide_sites[name]
        if site.fn.has_rsample:
            total = total - log_density.sum()
        else:
            # The score is neither scaled nor masked: the rewards are.
            score = site.fn.log_prob(site.value)
            total = total + (summed_to(site.plates, rewards) * score).sum()
    return total


def _log_densities(sites: Mapping[str, Site]) -> dict[str, Tensor]:
    return {s.name: s.log_density() for s in sites.values() if s.kind != "subsample"}


def _total(log_densities: Mapping[str, Tensor]) -> Tensor:
    return sum((density.sum() for density in log_densities.values()), start=torch.zeros(()))

"""The evidence lower bound, as a pure function of parameters and a key."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, final

import attrs
import torch
from torch import Tensor

from ..._compat._pyro import (
    Plates,
    both_masks,
    is_delta,
    is_factor,
    is_guide_messenger,
    log_prob,
    own_mask,
    says_rsample,
    summed_to,
)
from ..._core._types import State, Values
from ..._core._whole_numbers import as_int, as_int_or_none, whole
from ..._errors import (
    DeclarationError,
    DtypeError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    describe,
)
from ..._networks._state_axis import expand_state, reduce_state
from ..._run._mapping import How, check_how, explained, over
from ..._run._sites import Site
from ...random import Key, split
from ._model_and_guide import Both, BufferFlow, Pair

T = TypeVar("T")


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


class ELBOParts(NamedTuple):
    r"""A loss and what it is made of: ``loss = kl_weight * kl - log_likelihood``.

    Attributes:
        loss: What to minimise; the only part with a gradient.
        log_likelihood: The estimate of :math:`\mathbb{E}_q[\log p(x | z)]`: the observed sites.
        kl: The estimate of :math:`\mathrm{KL}(q(z) \,\|\, p(z))`: the latent sites.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import Trace_ELBO
        >>> def model(x):
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Uniform(0.0, 2.0), obs=x)
        >>> def guide(x):
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> Trace_ELBO().parts(model, guide, {}, random.key(0), torch.tensor(1.0))
        ELBOParts(loss=tensor(0.6931), log_likelihood=tensor(-0.6931), kl=tensor(0.))
    """

    loss: Tensor
    log_likelihood: Tensor
    kl: Tensor


def check_num_particles(_: object, field: attrs.Attribute[int], count: int) -> None:
    """Refuse a number of particles that is not at least one."""
    if whole(count, 1) is None:
        raise ShapeError(
            f"{field.name} is {describe(count)}, so there would be nothing to average over. Give "
            f"a whole number {field.name} >= 1."
        )


def check_chunk_size(_: object, field: attrs.Attribute[int | None], size: int | None) -> None:
    """Refuse a size of chunks that is not at least one."""
    if size is not None and whole(size, 1) is None:
        raise ShapeError(
            f"{field.name} is {describe(size)}, so no particle could be run. Give a whole number "
            f"{field.name} >= 1, or None for all particles at once."
        )


def _check_kl_weight(_: object, field: attrs.Attribute[Any], weight: object) -> None:
    """Refuse a weight that is no scalar."""
    if isinstance(weight, Tensor):
        if weight.ndim:
            raise ShapeError(
                f"{field.name} is {describe(weight)}, but the KL term is one number, so its weight "
                "must be a scalar. Give a number or a 0-d tensor, such as weights[step]; for a "
                "weight by site or row use poutine.scale."
            )
    elif isinstance(weight, bool) or not isinstance(weight, int | float):
        raise DtypeError(
            f"{field.name} is {describe(weight)}, which cannot multiply the KL term. Give a number "
            "or a 0-d tensor."
        )


class LossOfParts(ABC):
    """A loss that comes with its parts."""

    # Whether discrete sites that the guide does not have are summed out.
    sums_out: ClassVar[bool] = False

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
        return self.parts(model, guide, params, key, *args, **kwargs).loss

    def parts(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        params: Values,
        key: Key,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> ELBOParts:
        """The loss and what it is made of; arguments as for :meth:`loss`."""
        return self._estimate(Pair(model, guide, params, args, kwargs), key, None)[0]

    def loss_with_state(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        params: Values,
        key: Key,
        state: Values,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, State]:
        """The loss, and the buffers of the networks in model and guide after the runs.

        Args:
            model: As for :meth:`loss`.
            guide: As for :meth:`loss`.
            params: As for :meth:`loss`.
            key: As for :meth:`loss`.
            state: The buffers before the runs, by name; such as ``SVIState.buffers``.
            *args: Arguments of both.
            **kwargs: The same, by name.
        """
        parts, after = self._estimate(Pair(model, guide, params, args, kwargs), key, state)
        return parts.loss, after

    @abstractmethod
    def _estimate(self, pair: Pair, key: Key, state: Values | None) -> tuple[ELBOParts, State]:
        """The loss with its parts, and the buffers after it, which start from ``state``."""


@attrs.frozen
class ParticleELBO(LossOfParts):
    """A loss that is the mean of independent particles; its subclasses say what one particle is.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        kl_weight: The factor of the KL term, a number or a 0-d tensor.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.
    """

    num_particles: int = attrs.field(default=1, converter=as_int, validator=check_num_particles)
    chunk_size: int | None = attrs.field(
        default=None, converter=as_int_or_none, validator=check_chunk_size
    )
    kl_weight: Tensor | float = attrs.field(default=1.0, validator=_check_kl_weight, kw_only=True)
    map: How = attrs.field(default="vmap", validator=check_how, kw_only=True)

    def _estimate(self, pair: Pair, key: Key, state: Values | None) -> tuple[ELBOParts, State]:
        def particle(key: Key, state: State | None) -> tuple[ELBOParts, State]:
            flow = BufferFlow(state)
            parts = pair.together(key, lambda both: self._particle(both, key), flow)
            return parts, flow.state or {}

        how = Particles(self.num_particles, self.chunk_size, self.map, type(self).__name__)
        parts, after = over_particles(particle, key, how, state)
        if self.num_particles > 1:
            parts = ELBOParts(*(part.mean(0) for part in parts))
        return parts, after

    @abstractmethod
    def _particle(self, both: Both, key: Key, /) -> ELBOParts:
        """The loss of one draw of the guide."""

    def _parts(self, log_likelihood: Tensor, kl: Tensor, surrogate: Tensor | None) -> ELBOParts:
        """The parts; with a surrogate (of minus the loss), its gradient in place of their own."""
        loss = self._weighted(kl) - log_likelihood
        if surrogate is not None:
            loss = (loss + surrogate).detach() - surrogate
        return ELBOParts(loss, log_likelihood.detach(), kl.detach())

    def _weighted(self, kl: Tensor) -> Tensor:
        plain = isinstance(self.kl_weight, int | float) and self.kl_weight == 1
        return kl if plain else self.kl_weight * kl


class Particles(NamedTuple):
    """How a loss wants its particles run, and its name."""

    num_particles: int
    chunk_size: int | None
    map: How
    what: str


def over_particles(
    particle: Callable[[Key, State | None], tuple[T, State]],
    key: Key,
    loss: Particles,
    state: Values | None,
) -> tuple[T, State]:
    """What comes of every particle, along a first dimension, which a single one does without.

    Each particle has the networks' buffers for itself; their mean comes out.
    """
    count, own = loss.num_particles, None if state is None else dict(state)
    if count == 1:
        with explained():
            return particle(key, own)

    def one(run: tuple[Tensor, State]) -> tuple[T, State]:
        key, state = run
        return particle(Key(key), state or own)

    inputs: tuple[Tensor, State] = (split(key, count), expand_state(own or {}, count))
    results, states = over(
        one, inputs, count, how=loss.map, chunk_size=loss.chunk_size, what=loss.what
    )
    return results, reduce_state(states, "mean")


@final
@attrs.frozen
class Trace_ELBO(ParticleELBO):
    r"""The negative evidence lower bound, estimated from samples of the guide.

    .. math:: -\mathbb{E}_{q(z)}[\log p(x | z)] + \beta \, \mathrm{KL}(q(z) \,\|\, p(z))

    Gradients flow through reparameterised draws; a site without them (a discrete one) gets the
    score-function estimator, Rao-Blackwellised over plates as in Pyro.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        kl_weight: The factor :math:`\beta` of the KL term, a number or a 0-d tensor. Annealing is
            a new loss at each step: nothing is traced anew if the weight comes as a tensor.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.

    Source: ``pyro.infer.Trace_ELBO``; Ranganath et al. 2014, "Black Box Variational Inference".

    Example:
        >>> import attrs, torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import SVI, AutoNormal, Trace_ELBO
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> Trace_ELBO(num_particles=10).loss(model, model, {}, random.key(0)).abs()  # q is p
        tensor(0.)

        The weight of the KL term as an argument of a step:

        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))
        >>> svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
        >>> def step(state, weight):
        ...     return attrs.evolve(svi, loss=Trace_ELBO(kl_weight=weight)).step(state)
        >>> state = svi.init(random.key(0))
        >>> for weight in torch.linspace(0.0, 1.0, 5):
        ...     state, loss = step(state, weight)
        >>> state.step
        tensor(5)
    """

    def _particle(self, both: Both, key: Key) -> ELBOParts:
        model_sites, guide_sites = run_matched(both, key)
        log_p, log_q = log_densities(model_sites), guide_densities(model_sites, guide_sites)
        log_likelihood, kl = split_parts(model_sites, log_p, log_q)
        scored = scored_sites(guide_sites)
        if not scored:
            return self._parts(log_likelihood, kl, None)
        costs = {name: self._cost(model_sites[name], log_p[name]) for name in log_p}
        entropies = {name: self._weighted(density) for name, density in log_q.items()}
        rewards = [(model_sites[name].plates, cost.detach()) for name, cost in costs.items()]
        rewards += [(guide_sites[name].plates, -q.detach()) for name, q in entropies.items()]
        surrogate = total(costs) - total({n: q for n, q in entropies.items() if n not in scored})
        for name in scored:
            surrogate = surrogate + score_term(guide_sites[name], rewards)
        return self._parts(log_likelihood, kl, surrogate)

    def _cost(self, site: Site, log_density: Tensor) -> Tensor:
        return self._weighted(log_density) if site.kind == "latent" else log_density


def run_matched(both: Both, key: Key) -> tuple[dict[str, Site], dict[str, Site]]:
    """The sites of the model at the guide's values, and of the guide, which fits the model."""
    model_sites, guide_sites = _run(both, key)
    guide_sites = own_sites(both.guide, guide_sites)
    _check_match(model_sites, guide_sites, set())
    _warn_of_marks(model_sites, guide_sites)
    return model_sites, guide_sites


def run_both(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Values,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    sums_out: bool,
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The same; where a loss ``sums_out`` discrete sites, the guide may do without them."""
    pair, flow = Pair(model, guide, params, args, kwargs), BufferFlow(strict=False)
    model_sites, guide_sites = pair.together(key, partial(_run_and_score, key=key), flow)
    guide_sites = own_sites(guide, guide_sites)
    discrete = {
        name
        for name, site in model_sites.items()
        if getattr(site.fn, "has_enumerate_support", False)
    }
    _check_match(model_sites, guide_sites, discrete if sums_out else set())
    return model_sites, guide_sites


def _run(both: Both, key: Key) -> tuple[dict[str, Site], dict[str, Site]]:
    guided = both.run_guide(key).sites
    values = {name: site.value for name, site in guided.items() if feeds_model(site)}
    return both.run_model(key, values).sites, guided


def _run_and_score(both: Both, key: Key) -> tuple[dict[str, Site], dict[str, Site]]:
    """The same, for sites to be looked at later: scored while their transforms remember them."""
    model_sites, guide_sites = _run(both, key)
    for site in (*guide_sites.values(), *model_sites.values()):
        if site.kind != "subsample":
            site.log_density()
    return model_sites, guide_sites


def feeds_model(site: Site) -> bool:
    """Whether a guide's site carries a value for the model's site of the same name."""
    return site.kind in ("latent", "subsample") and not site.auxiliary


def own_sites(guide: Callable[..., object], sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites of a guide's run that are the guide's: its draws, and corrections by factors.

    What it observes draws nothing, so it is no part of the density of its draws, and counted as one
    it would take the bound below the evidence. A guide of Pyro's that runs the model itself meets
    the model's data and factors on its way.

    Raises:
        DeclarationError: if a factor does not say of which draws it is, or looks like an
            observation.
    """
    messenger = is_guide_messenger(guide)
    own: dict[str, Site] = {}
    for name, site in sites.items():
        if site.kind in ("latent", "subsample"):
            own[name] = site
        elif site.kind == "factor" and not messenger:
            if is_factor(site.fn):
                _check_factor(site)
                own[name] = site
            elif is_delta(site.fn):
                raise DeclarationError(
                    f"The guide's site {name!r} is an observed Delta, which draws nothing, so its "
                    "log_density would not count. Write pyro.factor"
                    f"({name!r}, log_density, has_rsample=True) for a correction of log q."
                )
    return own


def _check_factor(site: Site) -> None:
    if not says_rsample(site.fn):
        raise DeclarationError(
            f"The guide's pyro.factor({site.name!r}, ...) does not say has_rsample. In a guide a "
            "factor is added to log q, such as the Jacobian of a transformed draw, so it is seldom "
            "what a model's factor is. Write has_rsample=True if it comes from reparameterised "
            "draws, has_rsample=False if not; the gradient is right with both. If the guide runs "
            f"the model's code, hide it: poutine.block(guide, hide=[{site.name!r}])."
        )


def check_rows(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
    """Refuse draws for a subsample of rows that the model does not know of."""
    for name, site in guide_sites.items():
        own = {frame.name for frame in site.plates if guide_sites.get(frame.name) is not None}
        if own and feeds_model(site) and name in model_sites:
            lost = sorted(own - {frame.name for frame in model_sites[name].plates})
            if lost:
                raise UnknownNameError(
                    f"The guide draws the site {name!r} in the subsampled plate {lost[0]!r}, and "
                    "the model in none of this name, so it cannot take the same rows. Give the "
                    "plate the same name in both."
                )


def _check_match(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site], optional: set[str]
) -> None:
    """Refuse a guide whose sites are not the model's latent ones, but for the ``optional``."""
    latent = {name for name, site in model_sites.items() if site.kind == "latent"}
    drawn = {n for n, s in guide_sites.items() if feeds_model(s) and s.kind != "subsample"}
    drawn |= latent & optional
    if latent == drawn:
        check_rows(model_sites, guide_sites)
        return
    missing, extra = sorted(latent - drawn), sorted(drawn - latent)
    if missing:
        marked = [name for name in missing if model_sites[name].marked]
        hint = f" {marked} are marked for enumeration: TraceEnum_ELBO sums them out." * bool(marked)
        raise MissingNameError(
            f"The guide has no site for the model's latent {missing}, so their posterior would be "
            "their prior. Add pyro.sample statements of these names to the guide; if they should "
            f"be observed, pass the data.{hint}{why_not_drawn(missing, guide_sites)}"
        )
    raise UnknownNameError(
        f"The guide has the sites {extra}, which are not latent in the model; its latent ones are "
        f"{sorted(latent)}. Rename them, or mark them as the guide's own by "
        'pyro.sample(..., infer={"is_auxiliary": True}).'
    )


def why_not_drawn(missing: Iterable[str], guide_sites: Mapping[str, Site]) -> str:
    """What to say of guide's sites that have the names of missing ones."""
    marked = [name for name in missing if name in guide_sites and guide_sites[name].auxiliary]
    if not marked:
        return ""
    return f" The guide's own {marked} are marked is_auxiliary: leave out that mark."


def _warn_of_marks(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
    """Warn of marks for enumeration, of which no loss but one takes notice."""
    marked = [
        name
        for sites in (model_sites, guide_sites)
        for name, site in sites.items()
        if site.marked and site.kind == "latent"
    ]
    if marked:
        warnings.warn(
            f"The sites {sorted(set(marked))} are marked for enumeration, but this loss draws "
            "them. Use TraceEnum_ELBO to sum them out, or leave the marks out.",
            UserWarning,
            stacklevel=2,
        )


def scored_sites(guide_sites: Mapping[str, Site]) -> list[str]:
    """The names of the guide's draws that are not reparameterised."""
    return [n for n, s in guide_sites.items() if s.kind == "latent" and not s.fn.has_rsample]


def score_term(site: Site, rewards: Iterable[tuple[Plates, Tensor]]) -> Tensor:
    """The score of a site times what comes of its draw, in the site's own plates.

    The score is neither scaled nor masked: the rewards are.
    """
    score = log_prob(site.fn, site.value)
    return (summed_to(site.plates, rewards) * score).sum()


def guide_densities(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]
) -> dict[str, Tensor]:
    """The log density of every site of the guide that counts in the bound.

    A site that the model masks out is no part of the model there, so what the guide draws for it
    does not count. Nor does a draw of the guide's own that no ``Delta`` site carries on: the bound
    is then the mean, over these draws, of the bounds of the guide that has them.
    """
    return {
        name: _masked_like(guide_sites[name], model_sites.get(name)).log_density()
        for name in counted(guide_sites)
    }


def counted(guide_sites: Mapping[str, Site]) -> list[str]:
    """The names of the guide's sites that count in the bound, see :func:`guide_densities`."""
    carried = any(is_delta(s.fn) for s in guide_sites.values() if feeds_model(s))
    return [
        name
        for name, site in guide_sites.items()
        if site.kind == "factor" or (site.kind == "latent" and (carried or not site.auxiliary))
    ]


def _masked_like(site: Site, model_site: Site | None) -> Site:
    """A guide's site, masked where the model's is."""
    if model_site is None or model_site.kind != "latent" or site.own_mask:
        return site
    inner = own_mask(model_site.fn)
    # A prior that is masked as a whole, .mask(False), is a flat one, whose value counts elsewhere.
    inner = inner if isinstance(inner, Tensor) else None
    mask = both_masks(site.mask, model_site.mask, inner)
    return site if mask is site.mask else attrs.evolve(site, mask=mask)


def log_densities(sites: Mapping[str, Site]) -> dict[str, Tensor]:
    """The log density of every site but the indices of plates."""
    return {s.name: s.log_density() for s in sites.values() if s.kind != "subsample"}


def split_parts(
    model_sites: Mapping[str, Site], log_p: Mapping[str, Tensor], log_q: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The log likelihood, from the sites that are not latent, and the KL term, from the others."""
    latent = {name: p for name, p in log_p.items() if model_sites[name].kind == "latent"}
    other = {name: p for name, p in log_p.items() if name not in latent}
    return total(other), total(log_q) - total(latent)


def total(log_densities: Mapping[str, Tensor]) -> Tensor:
    """The sum over all sites and all their elements."""
    sums = [each.sum() if each.dim() else each for each in log_densities.values()]
    return reduce(add, sums) if sums else torch.zeros(())

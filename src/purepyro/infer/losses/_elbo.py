"""The evidence lower bound, as a pure function of parameters and a key: what its kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import attrs
from torch import Tensor

from ..._core._types import State, Values
from ..._core._whole_numbers import as_int, as_int_or_none, whole
from ..._errors import (
    DtypeError,
    ShapeError,
    describe,
)
from ..._networks._state_axis import expand_state, reduce_state
from ..._run._explained import explained
from ..._run._mapping import How, check_how, over
from ...random import Key, split
from ._model_and_guide import (
    BufferFlow,
    ModelGuidePair,
    PairSession,
)

T = TypeVar("T")


class ELBO(Protocol):
    """What ``SVI`` needs of a loss: a pure function of parameters and a key.

    Examples:
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
        log_likelihood: The estimate of $\mathbb{E}_q[\log p(x | z)]$: the observed sites.
        kl: The estimate of $\mathrm{KL}(q(z) \,\|\, p(z))$: the latent sites.

    Examples:
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


class DecomposedLoss(ABC):
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
        pair = ModelGuidePair(model, guide, params, args, kwargs)
        return self._estimate(pair, key, None)[0].loss

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
        """The loss and what it is made of; arguments as for ``loss()``."""
        return self._estimate(ModelGuidePair(model, guide, params, args, kwargs), key, None)[0]

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
            model: As for ``loss()``.
            guide: As for ``loss()``.
            params: As for ``loss()``.
            key: As for ``loss()``.
            state: The buffers before the runs, by name; such as ``SVIState.buffers``.
            *args: Arguments of both.
            **kwargs: The same, by name.
        """
        parts, after = self._estimate(
            ModelGuidePair(model, guide, params, args, kwargs), key, state
        )
        return parts.loss, after

    @abstractmethod
    def _estimate(
        self, pair: ModelGuidePair, key: Key, state: Values | None
    ) -> tuple[ELBOParts, State]:
        """The loss with its parts, and the buffers after it, which start from ``state``."""


class ParticleLoss(DecomposedLoss, Generic[T]):
    """A loss of independent particles, each with a draw of the guide for itself.

    Its subclasses say what comes of one particle, and what the loss of all of them is. Particles
    are a ``vmap`` over keys, or a loop; a single one uses the key itself. Each has the networks'
    buffers for itself; their mean comes out.
    """

    num_particles: int
    chunk_size: int | None
    map: How
    # Whether all particles take the same rows of subsampled plates.
    shares_rows: ClassVar[bool] = False

    def _estimate(
        self, pair: ModelGuidePair, key: Key, state: Values | None
    ) -> tuple[ELBOParts, State]:
        own, rows_key = None if state is None else dict(state), key if self.shares_rows else None
        if self.num_particles == 1:
            flow = BufferFlow(own)
            with explained(), (session := PairSession(pair, key, flow, rows_key)), session:
                particle = self._particle(session, key)
            return self._of_particles(particle), flow.state or {}

        def one(run: tuple[Tensor, State]) -> tuple[T, State]:
            key, flow = Key(run[0]), BufferFlow(run[1] or own)
            with (session := PairSession(pair, key, flow, rows_key)), session:
                particle = self._particle(session, key)
            return particle, flow.state or {}

        count, name = self.num_particles, type(self).__name__
        inputs: tuple[Tensor, State] = (split(key, count), expand_state(own or {}, count))
        particles, states = over(
            one, inputs, count, how=self.map, chunk_size=self.chunk_size, what=name
        )
        return self._of_particles(particles), reduce_state(states, "mean")

    @abstractmethod
    def _particle(self, session: PairSession, key: Key, /) -> T:
        """What comes of one draw of the guide."""

    @abstractmethod
    def _of_particles(self, particles: T, /) -> ELBOParts:
        """The loss of all particles, which come along a first dimension, but for a single one."""


@attrs.frozen
class ParticleELBO(ParticleLoss[ELBOParts]):
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

    def _of_particles(self, particles: ELBOParts) -> ELBOParts:
        if self.num_particles == 1:
            return particles
        return ELBOParts(*(part.mean(0) for part in particles))

    def _parts(self, log_likelihood: Tensor, kl: Tensor, surrogate: Tensor | None) -> ELBOParts:
        """The parts; with a surrogate (of minus the loss), its gradient in place of their own."""
        loss = self._weighted(kl) - log_likelihood
        if surrogate is not None:
            loss = (loss + surrogate).detach() - surrogate
        return ELBOParts(loss, log_likelihood.detach(), kl.detach())

    def _weighted(self, kl: Tensor) -> Tensor:
        plain = isinstance(self.kl_weight, int | float) and self.kl_weight == 1
        return kl if plain else self.kl_weight * kl

"""Guides whose law is a normal one, bent by a normalising flow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ParamSpec, TypeVar

import attrs
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.transforms import affine_autoregressive, iterated
from torch import Tensor, nn
from torch.distributions import AffineTransform, Transform

from ..._compat._functorch import outside_transforms
from ..._core._lazy import Lazy
from ..._core._trees import tensors_in
from ..._declare._fields import static
from ..._errors import DeclarationError, describe
from ...random import key, name_key
from ...random._mode import KeyedRandom
from ._init_locs import Start
from ._joint_guide import JointGuide
from ._latents import Latent

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)


class FlowGuide(JointGuide[P]):
    """A standard normal vector, through a learned transform, plus a location."""

    # The transforms, for their structure; their parameters are made anew by each init.
    _transforms: dict[tuple[int, torch.dtype, torch.device], Transform] = attrs.field(
        init=False, factory=dict, repr=False, metadata={"static": True}
    )

    def transform(self, size: int) -> Transform:
        """A new transform of vectors of this size. For guides to define."""
        raise NotImplementedError

    def posterior(self, latents: list[Latent], start: Start) -> TorchDistributionMixin:
        loc = self.loc(latents, start)
        base = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        # With a cache, since the inverse of an autoregressive transform is a slow loop.
        shift = AffineTransform(loc, torch.ones_like(loc), event_dim=1, cache_size=1)
        return dist.TransformedDistribution(base, [self._flow(loc, start), shift])

    def marginals(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        raise DeclarationError(
            f"{type(self).__name__} has no quantiles in closed form: a flow maps numbers jointly. "
            "Take those of draws: torch.vmap(lambda key: guide.sample_posterior(params, key, "
            "...))(keys), then torch.quantile."
        )

    def _flow(self, loc: Tensor, start: Start) -> Transform:
        """The transform of vectors like ``loc``, computing with the run's parameters."""
        kind = (len(loc), loc.dtype, loc.device)
        if kind not in self._transforms:
            with outside_transforms():
                self._transforms[kind] = self._built(*kind)
        transform = self._transforms[kind]
        if not isinstance(transform, nn.Module):
            return transform
        begin = _Begin(transform, start)
        values = {
            name: self.param(f"auto_transform.{name}", partial(begin.value, name), own.detach())
            for name, own in transform.named_parameters()
        }
        flow: Transform = _with(transform, values)
        return flow

    def _built(self, size: int, dtype: torch.dtype, device: torch.device) -> Transform:
        with KeyedRandom(key(0)):
            transform = self.transform(size)
        if not isinstance(transform, Transform):
            raise DeclarationError(
                f"The transform of {type(self).__name__} is {describe(transform)}, which is none. "
                "Return one of pyro.distributions.transforms, for example "
                "affine_autoregressive(size)."
            )
        if isinstance(transform, nn.Module):
            transform.to(device, dtype)
        return transform


class _Begin:
    """Starting values of a transform's parameters, found when the first is asked for."""

    def __init__(self, transform: nn.Module, start: Start) -> None:
        self._transform = transform
        self._start = start

    def value(self, name: str) -> Tensor:
        return self._values[name]

    @Lazy
    def _values(self) -> dict[str, Tensor]:
        key = self._start.key
        # Adding a part of the key makes tensors of their own that are batched where the key is.
        values = {
            name: own + (0 * key[0]).to(own)
            for name, own in ((n, p.detach()) for n, p in self._transform.named_parameters())
        }
        with KeyedRandom(name_key(key, "auto_transform")), torch.no_grad():
            for module in _with(self._transform, values).modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
        return values


def _with(transform: M, values: Mapping[str, Tensor]) -> M:
    """A copy of ``transform`` with other parameters, and the same buffers.

    A copy, since a transform remembers its last value; and a deep one, since a chain of transforms
    holds its parts twice.
    """
    # Tensors that are no buffers (masks, a permutation) stay too: a graph cannot copy their memory.
    kept = [each for part in transform.modules() for each in tensors_in(vars(part))]
    memo: dict[int, object] = {id(each): each for each in kept}
    memo |= {id(own): values[name] for name, own in transform.named_parameters()}
    return copy.deepcopy(transform, memo)


class AutoNormalizingFlow(FlowGuide[P]):
    r"""A guide that is a normalising flow, in unconstrained space.

    .. math:: z = T(\mu + f_\theta(\epsilon)), \quad \epsilon \sim N(0, I)

    Parameters are ``locs.<site>`` for :math:`\mu`, and ``auto_transform.<path>`` for
    :math:`\theta`, the transform's own. These start as ``reset_parameters`` of its modules makes
    them under the key of ``init``; those without one start from the values they are built with.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.
        init_transform_fn: Builds the transform for a number of dimensions: one of
            ``pyro.distributions.transforms``. Its structure (the masks and orders that some
            draw) is the same in every run.

    Raises:
        DeclarationError: if the model has no latent site, a discrete one, one whose support moves,
            or one in a subsampled plate; if what ``init_transform_fn`` returns is no transform.

    Source: ``pyro.infer.autoguide.AutoNormalizingFlow``, which has no :math:`\mu`; Rezende and
    Mohamed 2015, "Variational Inference with Normalizing Flows".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.distributions.transforms import planar
        >>> from purepyro import init, random
        >>> from purepyro.infer import AutoNormalizingFlow
        >>> def model():
        ...     pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        >>> guide = AutoNormalizingFlow(model, init_transform_fn=planar)
        >>> sorted(init(guide, random.key(0)))
        ['auto_transform.bias', 'auto_transform.u', 'auto_transform.w', 'locs.z']
    """

    init_transform_fn: Callable[[int], Transform] = static(default=affine_autoregressive)

    def transform(self, size: int) -> Transform:
        return self.init_transform_fn(size)


class AutoIAFNormal(FlowGuide[P]):
    r"""A guide that is an inverse autoregressive flow, in unconstrained space.

    .. math:: z = T(\mu + f_\theta(\epsilon)), \quad \epsilon \sim N(0, I)

    with :math:`f` a chain of affine autoregressive transforms. Parameters are as those of
    :class:`AutoNormalizingFlow`. The model needs two latent numbers or more.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.
        hidden_dim: The sizes of the hidden layers; by default one, of 3 numbers a dimension and 1.
        num_transforms: How many transforms to chain.

    Raises:
        DeclarationError: as of :class:`AutoNormalizingFlow`.

    Source: ``pyro.infer.autoguide.AutoIAFNormal``; Kingma et al. 2016, "Improving Variational
    Inference with Inverse Autoregressive Flow".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import apply, init, random
        >>> from purepyro.infer import AutoIAFNormal
        >>> def model():
        ...     pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        >>> guide, key = AutoIAFNormal(model, hidden_dim=[8]), random.key(0)
        >>> apply(guide, init(guide, key), key)["z"].shape
        torch.Size([3])
    """

    hidden_dim: Sequence[int] | None = static(default=None)
    num_transforms: int = static(default=1)

    def transform(self, size: int) -> Transform:
        hidden = None if self.hidden_dim is None else list(self.hidden_dim)
        return iterated(self.num_transforms, affine_autoregressive, size, hidden_dims=hidden)

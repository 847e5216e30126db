"""What all automatic guides can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, ParamSpec

import torch
from torch import Tensor

from ..._core._types import Values
from ..._declare._module import Module
from ..._declare._reads import BINDING, Binding, join
from ..._errors import SupportError, describe
from ..._run._execute import Setting, execute
from ...random import Key, key
from ...random._reuse import consume

P = ParamSpec("P")


class AutoGuide(Module, Generic[P]):
    """The base of all automatic guides: what they can be asked at given parameters.

    All methods are pure. ``params`` may be those of model and guide together, such as
    ``state.params`` of SVI; the arguments are the model's.

    Source: ``pyro.infer.autoguide.AutoGuide``.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import init, random
        >>> from purepyro.infer import AutoNormal
        >>> guide = AutoNormal(lambda: pyro.sample("z", dist.HalfNormal(1.0)))
        >>> params = init(guide, random.key(0))
        >>> guide.median(params), guide.quantiles(params, [0.05, 0.95])
        ({'z': tensor(1.)}, {'z': tensor([0.8483, 1.1788])})
        >>> keys = random.split(random.key(1), 500)
        >>> torch.vmap(lambda key: guide.sample_posterior(params, key))(keys)["z"].shape
        torch.Size([500])
    """

    starts_by_running: ClassVar[bool] = True

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """Draw all latent sites; returns their values by name."""
        raise NotImplementedError

    def quantiles_in_run(
        self, levels: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        """What :meth:`quantiles` returns, computed inside a run. For guides to define."""
        raise NotImplementedError

    def median(self, params: Values, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """The median of each latent site, by name.

        It is taken number by number in unconstrained space; on the line and on intervals, that is
        the median of the constrained values too.
        """
        half = self.quantiles(params, [0.5], *args, **kwargs)
        return {name: value.squeeze(0) for name, value in half.items()}

    def quantiles(
        self,
        params: Values,
        quantiles: Sequence[float] | Tensor,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> dict[str, Tensor]:
        """Quantiles of each latent site, by name: of the shape ``(len(quantiles), *site shape)``.

        As for :meth:`median`, number by number in unconstrained space.

        Args:
            params: Unconstrained parameters by name.
            quantiles: Numbers between 0 and 1.
            *args: The model's arguments.
            **kwargs: The same, by name.

        Raises:
            SupportError: if a number is not between 0 and 1.
        """
        levels = torch.as_tensor(quantiles)
        if levels.ndim != 1 or not bool(((levels >= 0) & (levels <= 1)).all()):
            raise SupportError(
                f"The quantiles are {describe(quantiles)}. A quantile's level is a probability, so "
                "they must be a list of numbers between 0 and 1, for example [0.05, 0.5, 0.95]."
            )
        setting = Setting(params=params)
        return execute(self.quantiles_in_run, key(0), (levels, *args), kwargs, setting).result

    def sample_posterior(
        self, params: Values, key: Key, /, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        """One draw of all latent sites, by name; ``torch.vmap`` over keys for more.

        Args:
            params: Unconstrained parameters by name.
            key: The draw depends on it.
            *args: The model's arguments.
            **kwargs: The same, by name.
        """
        consume(key, "sample_posterior")
        return execute(self.forward, key, args, kwargs, Setting(params=params)).result

    def path_of(self, name: str) -> str:
        """The name that a parameter or an auxiliary site of this guide has in the run."""
        binding: Binding | None = self.__dict__.get(BINDING)
        return join(binding.path, name) if binding else name

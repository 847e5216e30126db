"""The log density of each datum at each posterior draw, for comparing models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, ParamSpec

import attrs
from torch import Tensor

from ..._compat._pyro import log_prob, scale_and_mask
from ..._core._pickling import Carried
from ..._core._types import Values
from ..._errors import MissingNameError, ShapeError, describe
from ..._run._execute import Call, Joint, Setting, execute, jointly
from ..._run._mapping import How, check_how, over
from ..._run._sites import Site
from ...random import key
from ..losses._elbo import check_chunk_size
from ._predictive import draws_of, require_sites

P = ParamSpec("P")


@attrs.frozen(getstate_setstate=False)
class LogLikelihood(Carried, Generic[P]):
    r"""Scores the observed sites of a model, datum by datum, at draws of its latent sites.

    .. math:: \ell_{si} = \log p(y_i \mid z_s)

    A datum is one element of the site's batch: a plate gives one each, and what ``to_event`` joins
    is one together. No scale is applied, neither ``poutine.scale`` nor that of a subsampled plate;
    a masked datum counts zero. This is what PSIS-LOO and WAIC are computed from.

    Attributes:
        model: Any model that ``apply`` takes.
        params: Unconstrained parameters of the model; others are left aside, so ``state.params``
            of SVI will do.
        posterior_samples: Draws of all latent sites by name, each of shape ``(num_samples, ...)``.
            Deterministic and observed sites among them are computed anew.
        chunk_size: How many draws to hold in memory at once; ``None``: all.
        map: ``"vmap"``: draws are done as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values.

    Source: ``numpyro.infer.log_likelihood``; Vehtari, Gelman and Gabry 2017, "Practical Bayesian
    model evaluation using leave-one-out cross-validation and WAIC".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro.infer import LogLikelihood
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> score = LogLikelihood(model, {}, {"loc": torch.tensor([0.0, 1.0])})
        >>> score(torch.tensor([0.0, 0.0, 1.0]))
        {'y': tensor([[-0.9189, -0.9189, -1.4189],
                      [-1.4189, -1.4189, -0.9189]])}
    """

    model: Callable[P, object]
    params: Values
    posterior_samples: Values
    chunk_size: int | None = attrs.field(default=None, kw_only=True, validator=check_chunk_size)
    map: How = attrs.field(default="vmap", kw_only=True, validator=check_how)

    def __attrs_post_init__(self) -> None:
        if not draws_of(self.posterior_samples):
            shapes = {name: describe(value) for name, value in self.posterior_samples.items()}
            raise ShapeError(
                f"LogLikelihood got posterior_samples without a draw, {shapes}, so there is "
                "nothing to score at. Give each latent site as a tensor (num_samples, *site shape)."
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """The log densities, by observed site, each of shape ``(num_samples, *batch shape)``.

        Args:
            *args: Arguments of the model, the data among them.
            **kwargs: The same, by name.

        Raises:
            MissingNameError: if nothing is observed, or ``posterior_samples`` lack a latent site.
            UnknownNameError: if ``posterior_samples`` name no site.
        """

        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            setting = Setting(params=self.params, values=values, draws=False)

            def scored(joint: Joint) -> dict[str, Tensor]:
                outcome = execute(self.model, key(0), args, kwargs, setting, joint)
                outcome.buffers.require_unchanged()
                require_sites(values, outcome.sites)
                return _densities(outcome.sites.values())

            return jointly((self.model,), Call(key(0), args, kwargs, self.params), scored)

        samples = dict(self.posterior_samples)
        count = draws_of(samples) or 0
        return over(
            one, samples, count, how=self.map, chunk_size=self.chunk_size, what="LogLikelihood"
        )


def _densities(sites: Iterable[Site]) -> dict[str, Tensor]:
    observed = [site for site in sites if site.kind == "observed"]
    if not observed:
        raise MissingNameError(
            "The model observed nothing in this run, so there is no likelihood. Pass the "
            "data, or condition the model on it by poutine.condition."
        )
    return {
        site.name: scale_and_mask(log_prob(site.fn, site.value), 1.0, site.mask)
        for site in observed
    }

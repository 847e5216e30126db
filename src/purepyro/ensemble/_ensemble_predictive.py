"""What the members of an ensemble predict together, and how well that fits data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

import attrs
import torch
from torch import Tensor

from .._compat._pyro import log_prob, scale_and_mask
from .._core._pickling import Carried
from .._core._types import Values
from .._core._whole_numbers import as_int, as_int_or_none
from .._errors import MissingNameError, ShapeError, UnknownNameError, describe, near
from .._run._mapping import How, along_first, check_how, explained, over
from .._run._sites import Site
from ..infer.losses._elbo import check_chunk_size, check_num_particles, feeds_model
from ..infer.losses._model_and_guide import Both, BufferFlow, Pair
from ..random import Key, fold_in, split
from ..random._reuse import consume, unchecked
from ._distribution import cdf, class_probabilities, moments
from ._members import joined, slice_of, taken
from ._uncertainty import (
    ClassPrediction,
    Prediction,
    of_log_densities,
    of_moments,
    of_probabilities,
)

P = ParamSpec("P")
T = TypeVar("T")
ModelAndGuide = tuple[Callable[..., object], Callable[..., object] | None]
Member: TypeAlias = tuple[dict[str, Tensor], object, dict[str, Tensor]]
"""A member's parameters, settings and buffers."""

_WHAT = "EnsemblePredictive"


@attrs.frozen(getstate_setstate=False)
class EnsemblePredictive(Carried, Generic[P]):
    r"""The mixture of what the members of an ensemble predict, each counting the same.

    .. math:: p(y \mid x) = \frac{1}{MS} \sum_{i=1}^{M} \sum_{s=1}^{S} p(y \mid x, z_{is}),
        \qquad z_{is} \sim q_i

    It is made of the distribution of one site, so no sample of the data is drawn. Each draw of a
    member's guide is one run. :meth:`Ensemble.predictive` makes one of a state.

    Attributes:
        model: Any model that ``apply`` takes.
        params: Unconstrained parameters of model and guide with the members first, such as
            ``state.svi.params`` of an ensemble.
        guide: Where the latent sites are drawn from. ``None``: the model has none.
        num_samples: How many draws of the guide to take from each member.
        site: The site to predict; by default the only one that is observed in a run, or else the
            only one that the guide does not draw.
        chunk_size: How many runs to hold in memory at once; ``None``: all.
        map: ``"vmap"``: runs are done as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.
        members: The members' settings, where model and guide are made of them.
        pair_of: From a member's slice of ``members`` to its model and guide.
        buffers: The buffers of networks (the statistics of BatchNorm) with the members first, such
            as ``state.svi.buffers``; by default those that the networks hold. Runs may not change
            them: put the networks into evaluation mode, ``net.eval()``.

    Source: Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import Module, PyroParam, random
        >>> from purepyro.ensemble import EnsemblePredictive
        >>> class Line(Module):
        ...     slope = PyroParam(torch.tensor(0.0))
        ...
        ...     def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("y", dist.Normal(self.slope * x, 0.5), obs=y)
        >>> predictive = EnsemblePredictive(Line(), {"slope": torch.tensor([1.0, 3.0])})
        >>> mean, epistemic, aleatoric = predictive.predict(random.key(0), torch.tensor([0.0, 2.0]))
        >>> mean, epistemic, aleatoric
        (tensor([0., 4.]), tensor([0., 4.]), tensor([0.2500, 0.2500]))
    """

    model: Callable[P, object]
    params: Values
    guide: Callable[..., object] | None = attrs.field(default=None, kw_only=True)
    num_samples: int = attrs.field(
        default=1, kw_only=True, converter=as_int, validator=check_num_particles
    )
    site: str | None = attrs.field(default=None, kw_only=True)
    chunk_size: int | None = attrs.field(
        default=None, kw_only=True, converter=as_int_or_none, validator=check_chunk_size
    )
    map: How = attrs.field(default="vmap", kw_only=True, validator=check_how)
    members: object = attrs.field(default=(), kw_only=True)
    pair_of: Callable[[Any], ModelAndGuide] | None = attrs.field(default=None, kw_only=True)
    buffers: Values | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _members_in(self.params)

    def predict(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> Prediction:
        """The mean of the mixture, and its variance split in epistemic and aleatoric.

        Args:
            key: Draw ``s`` of member ``i`` uses ``fold_in(fold_in(key, i), s)``, whatever the
                numbers of both and the chunks are.
            *args: Arguments of model and guide, the same for all members.
            **kwargs: The same, by name.
        """
        return of_moments(*self._over_runs(moments, key, args, kwargs))

    def predict_proba(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> ClassPrediction:
        """Class probabilities, for a site that is Categorical, OneHotCategorical or Bernoulli.

        Returns:
            The probabilities of the mixture, classes last, of which a Bernoulli has two; and their
            entropy split in epistemic and aleatoric.

        Raises:
            DtypeError: if the site has no classes.
        """
        return of_probabilities(self._over_runs(class_probabilities, key, args, kwargs))

    def nll(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        r"""The negative log density of each row of observed data under the mixture.

        .. math:: -\log p(y) = \log MS - \log \sum_{is} p(y \mid z_{is})

        Args:
            key: As for :meth:`predict`.
            *args: Arguments of model and guide, the data among them.
            **kwargs: The same, by name.

        Raises:
            MissingNameError: if the site is not observed.
        """
        return of_log_densities(self._over_runs(_log_density, key, args, kwargs))

    def cdf(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        r"""The distribution function of the mixture at observed data: uniform if calibrated.

        .. math:: F(y) = \frac{1}{MS} \sum_{is} F(y \mid z_{is})

        Arguments and errors are those of :meth:`nll`.
        """
        return self._over_runs(_cdf, key, args, kwargs).mean(0)

    def _over_runs(
        self,
        read: Callable[[Site], T],
        key: Key,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> T:
        """What ``read`` gives for the site in each run, stacked: draws of member 0 first."""
        consume(key, "EnsemblePredictive")
        count, draws = _members_in(self.params), self.num_samples
        with unchecked():
            keys = split(split(key, count), draws).transpose(0, 1).flatten(0, 1)

        def one(run: tuple[Member, Tensor]) -> T:
            (params, members, buffers), key = run
            model, guide = (
                (self.model, self.guide) if self.pair_of is None else self.pair_of(members)
            )
            pair = Pair(model, guide, params, args, kwargs)
            return pair.together(
                Key(key),
                lambda both: read(self._site(both, Key(key), guided=guide is not None)),
                BufferFlow(buffers or None, frozen=True),
            )

        runs = count * draws
        all_members: Member = (dict(self.params), self.members, dict(self.buffers or {}))
        if self.map == "loop":  # without a copy of the parameters for each run
            with explained():
                results = [one((slice_of(all_members, i // draws), keys[i])) for i in range(runs)]
            return along_first(results, _WHAT)
        size = min(self.chunk_size or runs, runs)
        parts = []
        for start in range(0, runs, size):
            index = torch.arange(start, min(start + size, runs))
            inputs = (taken(all_members, index // draws), taken(keys, index))
            parts.append(over(one, inputs, len(index), how=self.map, chunk_size=None, what=_WHAT))
        return joined(parts)

    def _site(self, both: Both, key: Key, *, guided: bool) -> Site:
        """The site to predict, in one run of the guide and the model."""
        values: dict[str, Tensor] = {}
        if guided:
            drawn = both.run_guide(key).sites
            values = {name: site.value for name, site in drawn.items() if feeds_model(site)}
        # A key of its own: the guide's draws must not come back at sites it has no part in.
        sites = both.run_model(fold_in(key, 0), values).sites
        found = self._chosen(sites, values)
        others = [
            name
            for name, site in sites.items()
            if site.kind == "latent" and name not in values and name != found.name
        ]
        if not guided and others:
            raise MissingNameError(
                f"The model has the latent sites {others}, but there is no guide, so they would be "
                "drawn from the prior. Write EnsemblePredictive(..., guide=guide)."
            )
        _require_rows(found)
        return found

    def _chosen(self, sites: Mapping[str, Site], values: Values) -> Site:
        if self.site is not None:
            if self.site not in sites or sites[self.site].kind not in ("observed", "latent"):
                raise UnknownNameError(
                    f"site is {self.site!r}, which names no random site of this run. "
                    f"{near(self.site, sites)}"
                )
            return sites[self.site]
        observed = [name for name, site in sites.items() if site.kind == "observed"]
        open_ = [n for n, site in sites.items() if site.kind == "latent" and n not in values]
        names = observed or open_
        if len(names) != 1:
            raise MissingNameError(
                f"The sites that could be predicted are {names}, so it is open which one is meant. "
                'Name it: site="obs".'
            )
        return sites[names[0]]


def _members_in(params: Values) -> int:
    """How many members the parameters are for."""
    sizes = {name: value.shape[0] if value.ndim else 0 for name, value in params.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ShapeError(
            f"EnsemblePredictive got params for different numbers of members, or none: {sizes}. "
            "The first dimension of each is the members; those of one fit need value[None]."
        )
    return next(iter(sizes.values()))


def _require_rows(site: Site) -> None:
    if not site.value.numel():
        raise ShapeError(
            f"The site {site.name!r} has no rows ({describe(site.value)}), so there is nothing to "
            "predict, and a mean over it would be nan. Pass inputs with rows."
        )


def _observed(site: Site) -> Site:
    if site.kind != "observed":
        raise MissingNameError(
            f"The site {site.name!r} is not observed in this run, so there are no data to score. "
            "Pass them to the model, as in training."
        )
    return site


def _log_density(site: Site) -> Tensor:
    return scale_and_mask(log_prob(site.fn, _observed(site).value), 1.0, site.mask)


def _cdf(site: Site) -> Tensor:
    return cdf(site.name, site.fn, _observed(site).value)

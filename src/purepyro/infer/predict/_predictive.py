"""Draws from the posterior predictive, or the prior predictive, distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, ParamSpec

import attrs
from torch import Tensor

from ..._core._dense import require_real
from ..._core._pickling import Carried
from ..._core._types import Values
from ..._core._whole_numbers import as_int_or_none, whole
from ..._errors import (
    DeclarationError,
    DtypeError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    describe,
    near,
)
from ..._run._mapping import How, check_how, over
from ..._run._sites import Site
from ...random import Key, fold_in, split
from ...random._reuse import consume, unchecked
from ..losses._elbo import check_chunk_size, feeds_model
from ..losses._model_and_guide import Both, BufferFlow, Pair

P = ParamSpec("P")


@attrs.frozen(getstate_setstate=False)
class Predictive(Carried, Generic[P]):
    """Runs a model many times, at draws of its latent sites.

    Attributes:
        model: Any model that ``apply`` takes.
        posterior_samples: Draws of latent sites by name, each of shape ``(num_samples, ...)``.
        guide: A guide to draw the latent sites from instead.
        params: Unconstrained parameters of model and guide, such as ``state.params`` of SVI.
        num_samples: How many runs; known from ``posterior_samples`` if these are given. With
            neither these nor a guide, latent sites are drawn from the prior.
        return_sites: The names of the sites to return; by default all that were not given: new
            random sites and deterministic ones. A plate that is subsampled has its indices.
        chunk_size: How many runs to hold in memory at once; ``None``: all.
        buffers: The buffers of networks (the statistics of BatchNorm), such as ``state.buffers`` of
            SVI; by default those that the networks hold. Runs may not change them: put the
            networks into evaluation mode, ``net.eval()``.
        map: ``"vmap"``: runs are done as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.

    Source: ``pyro.infer.Predictive``.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import Predictive
        >>> def model(x):
        ...     slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(slope * x, 0.1).to_event(1))
        >>> prior = Predictive(model, num_samples=7)
        >>> draws = prior(random.key(0), torch.ones(3))
        >>> {name: list(value.shape) for name, value in draws.items()}
        {'slope': [7], 'y': [7, 3]}
    """

    model: Callable[P, object]
    posterior_samples: Values | None = attrs.field(default=None, kw_only=True)
    guide: Callable[..., object] | None = attrs.field(default=None, kw_only=True)
    params: Values = attrs.field(factory=dict, kw_only=True)
    num_samples: int | None = attrs.field(default=None, kw_only=True)
    return_sites: Sequence[str] | None = attrs.field(default=None, kw_only=True)
    chunk_size: int | None = attrs.field(
        default=None, kw_only=True, converter=as_int_or_none, validator=check_chunk_size
    )
    map: How = attrs.field(default="vmap", kw_only=True, validator=check_how)
    buffers: Values | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.posterior_samples is not None and self.guide is not None:
            raise DeclarationError(
                "Predictive got both posterior_samples and a guide, so it cannot know which to "
                "draw the latent sites from. Give one of them."
            )
        if isinstance(self.return_sites, str):
            raise DeclarationError(
                f"return_sites is {self.return_sites!r}, whose letters would be taken for names. "
                f"Write return_sites=[{self.return_sites!r}]."
            )
        _count(self.posterior_samples, self.num_samples)

    def __call__(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """The draws, by site name, each of shape ``(num_samples, *site shape)``.

        Args:
            key: Run number ``i`` uses ``fold_in(key, i)``, whatever ``num_samples`` is.
            *args: Arguments of model and guide.
            **kwargs: The same, by name.

        Raises:
            UnknownNameError: if ``return_sites`` or ``posterior_samples`` name no site.
            MissingNameError: if there is nothing to return, as where the data were passed.
        """
        consume(key, "Predictive")
        given = dict(self.posterior_samples or {})
        count = _count(given, self.num_samples)

        pair = Pair(self.model, self.guide, self.params, args, kwargs)
        buffers = None if self.buffers is None else dict(self.buffers)

        def one(run: tuple[Tensor, dict[str, Tensor]]) -> dict[str, Tensor]:
            key, given = run
            flow = BufferFlow(buffers, frozen=True)
            return pair.together(Key(key), lambda both: self._draw(both, Key(key), given), flow)

        with unchecked():
            keys: Tensor = split(key, count)
        inputs = (keys, given)
        return over(one, inputs, count, how=self.map, chunk_size=self.chunk_size, what="Predictive")

    def _draw(self, both: Both, key: Key, given: dict[str, Tensor]) -> dict[str, Tensor]:
        values: Values = given
        if self.guide is not None:
            guided = both.run_guide(key).sites
            values = {name: site.value for name, site in guided.items() if feeds_model(site)}
        # A key of its own: the guide's draws must not come back at sites it has no part in.
        sites = both.run_model(fold_in(key, 0), values).sites
        require_sites(given, sites)
        return self._selected(sites, values)

    def _selected(self, sites: Mapping[str, Site], values: Values) -> dict[str, Tensor]:
        shown = {n: s.value for n, s in sites.items() if s.kind != "factor"}
        if self.return_sites is None:
            new = {
                name: value
                for name, value in shown.items()
                if sites[name].kind not in ("observed", "subsample") and name not in values
            }
            if not new:
                raise MissingNameError(_nothing_new(sites, values))
            return new
        for name in self.return_sites:
            if name not in shown:
                raise UnknownNameError(
                    f"return_sites has {name!r}, which names no site. {near(name, shown)}"
                )
        return {name: shown[name] for name in self.return_sites}


def _nothing_new(sites: Mapping[str, Site], values: Values) -> str:
    """Why a run has no new values, and what to do."""
    observed = [name for name, site in sites.items() if site.kind == "observed"]
    known = [name for name in values if name in sites]
    if observed:
        return (
            f"Predictive was given data for the observed sites {observed}, and no other site is "
            "new, so there is nothing to predict. Call it without the data, as with y=None, for "
            f"the sites to be drawn; or name what to return: return_sites={observed + known}."
        )
    if known:
        return (
            f"All sites of the model, {known}, were given, so there is nothing to predict. Name "
            f"what to return, return_sites={known}, or leave out those that are to be drawn."
        )
    return (
        "The model has no site, neither random nor deterministic, so there is nothing to predict. "
        'Give it a pyro.sample statement, or name its result by pyro.deterministic("name", value).'
    )


def require_sites(samples: Values, sites: Mapping[str, Site]) -> None:
    """Refuse draws for a name that is no site: the site that was meant would be drawn anew."""
    for name in samples:
        if name not in sites:
            raise UnknownNameError(
                f"posterior_samples have {name!r}, which names no site of this run. "
                f"{near(name, sites)} A misspelt site would be drawn from its prior. Rename or "
                "drop it."
            )


def draws_of(samples: Values) -> int | None:
    """How many draws there are of each; ``None`` if there is not one name."""
    for name, value in samples.items():
        if not isinstance(value, Tensor):
            raise DtypeError(
                f"posterior_samples have {name!r} as {describe(value)}, which is no Tensor. Write "
                "torch.as_tensor(value)."
            )
        require_real(value, f"value of {name!r} in posterior_samples")
    sizes = {name: value.shape[0] if value.ndim else 0 for name, value in samples.items()}
    if len(set(sizes.values())) > 1:
        raise ShapeError(
            f"posterior_samples have different numbers of draws, {sizes}, so they cannot be run "
            "together. The first dimension of each is the draws."
        )
    return next(iter(sizes.values()), None)


def _count(samples: Values | None, num_samples: int | None) -> int:
    """How many runs there are to be."""
    drawn = draws_of(samples or {})
    count = num_samples if drawn is None else drawn
    number = whole(count, 1)
    if number is None or (num_samples is not None and num_samples != number):
        raise ShapeError(
            f"Predictive got num_samples={describe(num_samples)} and posterior_samples with "
            f"{drawn} draws. Give num_samples >= 1, or posterior_samples with as many draws."
        )
    return number

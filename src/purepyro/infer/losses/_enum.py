"""The evidence lower bound with discrete sites summed out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar, final

import attrs
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..._compat._pyro import Enumeration, Msg, message_distribution, message_infer
from ..._core._types import Values
from ..._core._whole_numbers import as_int_or_none, whole
from ..._errors import (
    DeclarationError,
    MissingNameError,
    PurepyroError,
    ShapeError,
    UnknownNameError,
    describe,
)
from ..._run._execute import Outcome, Setting
from ..._run._sites import Site
from ...random import Key, name_key
from ._contraction import Enumerated, Marginal, draws, expectations, marginals, packed_up
from ._elbo import (
    ELBOParts,
    ParticleELBO,
    check_rows,
    counted,
    feeds_model,
    own_sites,
    why_not_drawn,
)
from ._model_and_guide import Both, BufferFlow, Pair

T = TypeVar("T")


def _check_nesting(_: object, field: attrs.Attribute[int | None], count: int | None) -> None:
    if count is not None and whole(count, 0) is None:
        raise ShapeError(
            f"{field.name} is {describe(count)}, which is no number of dimensions. Give how deep "
            "plates are nested in model and guide, 0 or more, or None to find out by a first run."
        )


@final
@attrs.frozen
class TraceEnum_ELBO(ParticleELBO):
    r"""The negative evidence lower bound, with discrete sites summed out exactly.

    .. math:: -\mathbb{E}_{q(z)} \Big[\log \sum_k p(x, k | z)\Big]
        + \beta \, \mathrm{KL}(q(z) \,\|\, p(z))

    Mark the sites by ``pyro.infer.config_enumerate``, or by ``infer={"enumerate": "parallel"}``.
    One that only the model has is summed out inside of the logarithm; one that the guide has too is
    an exact expectation under the guide. Other sites are drawn, as for ``Trace_ELBO``. In
    ``pyro.markov`` the cost of a chain is linear in its length.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        kl_weight: The factor :math:`\beta` of the KL term of the guide's sites, a number or a 0-d
            tensor; to anneal it, see :class:`Trace_ELBO`. What is summed out inside of the
            logarithm counts as likelihood, and so does the prior of a site that depends on it.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.
        max_plate_nesting: How deep plates are nested; enumerated sites take dimensions to the left
            of them. ``None``: each call finds out by one more run of both, without enumeration.

    Source: ``pyro.infer.TraceEnum_ELBO``; Obermeyer et al. 2019, "Tensor Variable Elimination for
    Plated Factor Graphs"; Foerster et al. 2018, "DiCE".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from pyro.infer import config_enumerate
        >>> from purepyro.infer import TraceEnum_ELBO
        >>> @config_enumerate
        ... def model(x):
        ...     k = pyro.sample("k", dist.Bernoulli(0.25))
        ...     pyro.sample("x", dist.Normal(10 * k, 1.0), obs=x)
        >>> x = torch.tensor(0.0)
        >>> loss = TraceEnum_ELBO().loss(model, lambda x: None, {}, random.key(0), x)
        >>> -loss  # the evidence: log 0.75 N(0; 0, 1), as k = 1 is out of the question
        tensor(-1.2066)
    """

    sums_out: ClassVar[bool] = True

    max_plate_nesting: int | None = attrs.field(
        default=None, converter=as_int_or_none, validator=_check_nesting, kw_only=True
    )

    def sample_posterior(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        params: Values,
        key: Key,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Draws all sites that the model alone has, and that are summed out, from their posterior.

        They are drawn together, given the data and the guide's draws, which are those of
        :meth:`loss` with this key. More draws are a ``torch.vmap`` over keys.

        Args:
            model: Any model that ``apply`` takes.
            guide: The same; it draws what is not summed out. If there is nothing else, a function
                without sites.
            params: Unconstrained parameters of both.
            key: Each site's draw depends on it and on the site's name.
            *args: Arguments of both.
            **kwargs: The same, by name.

        Returns:
            The values by site name, of the shapes they have in a run without enumeration.

        Raises:
            DeclarationError: if no site is summed out, the guide enumerates one, or there are
                several particles.

        Example:
            >>> import torch, pyro, pyro.distributions as dist
            >>> from purepyro import random
            >>> from pyro.infer import config_enumerate
            >>> from purepyro.infer import TraceEnum_ELBO
            >>> @config_enumerate
            ... def model(x):
            ...     with pyro.plate("rows", len(x)):
            ...         k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5])))
            ...         pyro.sample("x", dist.Normal(10.0 * k, 1.0), obs=x)
            >>> x = torch.tensor([0.1, 9.7, 11.0])
            >>> TraceEnum_ELBO().sample_posterior(model, lambda x: None, {}, random.key(0), x)
            {'k': tensor([0, 1, 1])}
        """
        pair = Pair(model, guide, params, args, kwargs)
        return self._of_summed_out(pair, key, partial(draws, key_of=partial(name_key, key)))

    def compute_marginals(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        params: Values,
        key: Key,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Marginal]:
        """The posterior of each site that is summed out: the responsibilities of a mixture.

        Each distribution is of its site alone, given the data and the guide's draws; arguments and
        errors as for :meth:`sample_posterior`. Under ``torch.vmap`` return tensors of them, such as
        ``.probs``.

        Returns:
            For each site a ``Bernoulli``, ``OneHotCategorical`` or ``Categorical``, as it was, or
            one of the last over the values 0, 1, 2, ... for a ``Binomial``.

        Example:
            >>> import torch, pyro, pyro.distributions as dist
            >>> from purepyro import random
            >>> from pyro.infer import config_enumerate
            >>> from purepyro.infer import TraceEnum_ELBO
            >>> @config_enumerate
            ... def model(x):
            ...     k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5])))
            ...     pyro.sample("x", dist.Normal(1.0 * k, 1.0), obs=x)
            >>> x, nothing = torch.tensor(0.5), lambda x: None
            >>> TraceEnum_ELBO().compute_marginals(model, nothing, {}, random.key(0), x)["k"].probs
            tensor([0.5000, 0.5000])
        """
        return self._of_summed_out(Pair(model, guide, params, args, kwargs), key, marginals)

    def _of_summed_out(self, pair: Pair, key: Key, infer: Callable[[Trace, Trace], T]) -> T:
        if self.num_particles != 1:
            raise DeclarationError(
                f"TraceEnum_ELBO has num_particles={self.num_particles}, but a posterior is at one "
                "draw of the guide. Use TraceEnum_ELBO(), and torch.vmap over keys for more draws."
            )

        def inferred(both: Both) -> T:
            traces = self._summed_out(both, key)
            with _worded():
                return infer(*traces)

        return pair.together(key, inferred)

    def _summed_out(self, both: Both, key: Key) -> tuple[Trace, Trace]:
        runs = self._runs(both, key)
        if runs.guide.enumerated:
            raise DeclarationError(
                f"The guide enumerates {sorted(runs.guide.enumerated)}, of which it has the "
                "posterior itself: they are not summed out of the model. Leave these sites out of "
                "the guide, or read their distributions off the guide."
            )
        if not runs.model.enumerated:
            raise DeclarationError(
                "TraceEnum_ELBO found no site to sum out, so there is no posterior to give. Mark "
                "the sites by config_enumerate(model), and leave them out of the guide."
            )
        with _worded():
            return packed_up(runs.model.trace, runs.guide.trace, runs.plates, runs.guide_sites)

    def _particle(self, both: Both, key: Key) -> ELBOParts:
        runs = self._runs(both, key)
        if not runs.model.enumerated and not runs.guide.enumerated:
            warnings.warn(
                "TraceEnum_ELBO found no site to enumerate, so it does what Trace_ELBO does at "
                "less cost. Mark sites by config_enumerate(model) or config_enumerate(guide), or "
                "use Trace_ELBO.",
                UserWarning,
                stacklevel=2,
            )
        with _worded():
            traces = packed_up(runs.model.trace, runs.guide.trace, runs.plates, runs.guide_sites)
            log_likelihood, kl = expectations(*traces, counted(runs.guide_sites))
        return self._parts(log_likelihood, kl, None)

    def _runs(self, both: Both, key: Key) -> _Runs:
        plates = self.max_plate_nesting
        if plates is None:
            plates = _plate_nesting(both, key)
        refuse = partial(_refuse, plates)
        guide_dims = Enumeration(plates, None, refuse)
        guide = Enumerated(both.guide, guide_dims)
        guided = _run(guide, both, key)
        model = Enumerated(both.model, Enumeration(plates, guide_dims, refuse), guide.trace)
        modelled = _run(model, both, key)
        guide_sites = own_sites(both.guide, guided.sites)
        _check_match(modelled.sites, guide_sites, model.enumerated)
        return _Runs(model, guide, guide_sites, plates)


class _Runs(NamedTuple):
    """A run of the model under enumeration, and one of the guide before it."""

    model: Enumerated
    guide: Enumerated
    guide_sites: dict[str, Site]
    plates: int


@contextmanager
def _worded() -> Iterator[None]:
    """A block whose errors, which are Pyro's, say what to do."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        if isinstance(error, PurepyroError):
            raise
        raise ShapeError(
            f"The sites cannot be enumerated: {error}\nAn enumerated site needs dimensions of "
            "its own, left of those of all plates, and sites outside of a plate may not depend "
            "on one inside. Put every batch dimension into a plate or to_event(...)."
        ) from error


def _run(run: Enumerated, both: Both, key: Key) -> Outcome[object]:
    return both.run(run.fn, key, Setting(params=both.params))


def _plate_nesting(both: Both, key: Key) -> int:
    """How many dimensions the plates take, by a run without enumeration."""
    aside = both._replace(flow=BufferFlow(both.flow.state, strict=False))
    # With gradients, since a guide may itself take some.
    guided = aside.run_guide(key)
    values = {name: site.value for name, site in guided.sites.items() if feeds_model(site)}
    modelled = aside.run_model(key, values)
    dims = [
        -frame.dim
        for site in (*guided.sites.values(), *modelled.sites.values())
        for frame in site.plates
        if frame.dim is not None
    ]
    return max(dims, default=0)


def _refuse(plates: int, msg: Msg) -> None:
    """Refuse a site that cannot be enumerated as it is marked, left of so many plates."""
    infer, fn = message_infer(msg), message_distribution(msg)
    way, name = infer.get("enumerate"), msg["name"]
    depth = max((-frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized), default=0)
    if depth > plates:
        raise ShapeError(
            f"The site {name!r} lies in a plate of dimension {-depth}, but TraceEnum_ELBO has "
            f"{plates} for plates and enumerates left of these. Give max_plate_nesting={depth} "
            "or more, or None if it is the same in every run."
        )
    if way is None:
        return
    if way != "parallel":
        raise DeclarationError(
            f'The site {name!r} is marked infer={{"enumerate": {way!r}}}, but TraceEnum_ELBO runs '
            "model and guide once, with all values side by side. Write "
            'config_enumerate(..., default="parallel").'
        )
    if infer.get("num_samples") is not None:
        raise DeclarationError(
            f"The site {name!r} is marked for num_samples={infer['num_samples']} local draws, "
            "which Pyro takes from torch's global generator, so the loss would be no function of "
            "its key. Leave num_samples out, and give TraceEnum_ELBO(num_particles=...)."
        )
    if not getattr(fn, "has_enumerate_support", False):
        raise DeclarationError(
            f"The site {name!r} is marked for enumeration, but its {type(fn).__name__} has no "
            "finite list of values. Leave the mark out and give the guide a site of this name."
        )


def _check_match(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site], enumerated: set[str]
) -> None:
    """Refuse a guide that does not cover what the model neither observes nor sums out."""
    latent = {name for name, site in model_sites.items() if site.kind == "latent"}
    drawn = {name for name, site in guide_sites.items() if feeds_model(site)}
    missing = sorted(latent - drawn - enumerated)
    if missing:
        raise MissingNameError(
            f"The guide has no site for the model's latent {missing}, and they are not enumerated, "
            "so their posterior would be their prior. Add pyro.sample statements of these names to "
            "the guide; mark discrete ones by config_enumerate(model)."
            f"{why_not_drawn(missing, guide_sites)}"
        )
    extra = sorted(n for n in drawn - latent if guide_sites[n].kind != "subsample")
    if extra:
        raise UnknownNameError(
            f"The guide has the sites {extra}, which are not latent in the model; its latent ones "
            f"are {sorted(latent)}. Rename them, or mark them as the guide's own by "
            'pyro.sample(..., infer={"is_auxiliary": True}).'
        )
    check_rows(model_sites, guide_sites)

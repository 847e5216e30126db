"""The evidence lower bound with discrete sites summed out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, final

import attrs
import torch

from .._boundary import Enumeration, Msg, message_distribution, message_infer
from .._errors import DeclarationError, MissingNameError, ShapeError, UnknownNameError, describe
from .._execute import Outcome, Setting, execute
from .._sites import Site
from ..random import Key
from ._boundary import Enumerated, expectations
from ._elbo import (
    Both,
    ELBOParts,
    ParticleELBO,
    check_rows,
    counted,
    feeds_model,
    own_sites,
    why_not_drawn,
)


def _check_nesting(_: object, field: attrs.Attribute[int | None], count: int | None) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
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
        default=None, validator=_check_nesting, kw_only=True
    )

    def _particle(self, both: Both, key: Key) -> ELBOParts:
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
        if not model.enumerated and not guide.enumerated:
            warnings.warn(
                "TraceEnum_ELBO found no site to enumerate, so it does what Trace_ELBO does at "
                "less cost. Mark sites by config_enumerate(model) or config_enumerate(guide), or "
                "use Trace_ELBO.",
                UserWarning,
                stacklevel=2,
            )
        try:
            log_likelihood, kl = expectations(
                model.trace, guide.trace, plates, guide_sites, counted(guide_sites)
            )
        except (ValueError, NotImplementedError) as error:
            raise ShapeError(
                f"The sites cannot be enumerated: {error}\nAn enumerated site needs dimensions of "
                "its own, left of those of all plates, and sites outside of a plate may not depend "
                "on one inside. Put every batch dimension into a plate or to_event(...)."
            ) from error
        return self._parts(log_likelihood, kl, None)


def _run(run: Enumerated, both: Both, key: Key) -> Outcome[object]:
    outcome: Outcome[object] = execute(
        run.fn, key, both.args, both.kwargs, Setting(params=both.params)
    )
    outcome.buffers.require_unchanged()
    return outcome


def _plate_nesting(both: Both, key: Key) -> int:
    """How many dimensions the plates take, by a run without enumeration."""
    with torch.no_grad():
        guided = execute(both.guide, key, both.args, both.kwargs, Setting(params=both.params))
        values = {name: site.value for name, site in guided.sites.items() if feeds_model(site)}
        setting = Setting(params=both.params, values=values)
        modelled = execute(both.model, key, both.args, both.kwargs, setting)
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

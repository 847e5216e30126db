"""The log density of a model as a function of unconstrained values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import attrs
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import config_enumerate
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace as PyroTrace
from torch import Tensor
from torch.distributions import Transform, biject_to

from ..._compat._distributions import is_delta
from ..._compat._enumeration import Enumeration
from ..._compat._messages import Msg, message_distribution, message_infer
from ..._compat._plates import is_subsample
from ..._compat._transforms import is_transforming, plain
from ..._compat._turns import unvalidated
from ..._core._pickling import Carried
from ..._core._types import Values
from ..._errors import (
    DeclarationError,
    DtypeError,
    MissingNameError,
    ShapeError,
    SupportError,
    UnknownNameError,
    describe,
    near,
)
from ..._run._apply import log_density, record
from ..._run._execute import RunConfig, RunResult, execute
from ..._run._explained import explained
from ..._run._session import Call, Session
from ..._run._sites import Site
from ...random import Key, fold_in, key, name_key
from ..autoguide import InitSite, init_to_uniform
from ..autoguide._initialization import Initializer, values_given
from ..losses._contraction import Enumerated, expectations, packed_up

P = ParamSpec("P")
T = TypeVar("T")

# How many starting points are tried, as NumPyro does.
_ATTEMPTS = 100


@attrs.frozen(getstate_setstate=False)
class Potential(Carried, Generic[P]):
    r"""The log density of a model's latent sites, as a function of unconstrained values.

    $$\log p(x, T(u)) + \log |T'(u)|$$

    $T$ maps each site's unconstrained values onto its support, which may depend on other
    sites. All methods are pure, and legal under ``torch.func`` transforms and ``jit``. Discrete
    sites with a finite support are summed out, as ``TraceEnum_ELBO`` does.

    Attributes:
        model: Any model that ``apply`` takes.
        params: Unconstrained values of its parameters, such as ``init(model, key)``; they are
            fixed.
        init_strategy: Where each site starts, one of the ``init_to_...`` functions.

    Source: ``numpyro.infer.util.initialize_model`` and ``potential_energy``.

    Examples:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import Potential
        >>> def model():
        ...     scale = pyro.sample("scale", dist.HalfNormal(1.0))
        ...     pyro.sample("x", dist.Uniform(-scale, scale))
        >>> potential = Potential(model)
        >>> start = potential.init(random.key(0))
        >>> density, gradient = potential.value_and_grad(start)
        >>> sorted(gradient), density.shape
        (['scale', 'x'], torch.Size([]))
        >>> potential.constrain({"scale": torch.tensor(0.0), "x": torch.tensor(0.0)})
        {'scale': tensor(1.), 'x': tensor(0.)}
    """

    model: Callable[P, object]
    params: Values = attrs.field(factory=dict)
    init_strategy: Initializer = attrs.field(default=init_to_uniform, kw_only=True)

    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """Unconstrained values to start from, by site.

        Where values can be read, up to 100 points are tried until density and gradient are finite.

        Raises:
            DeclarationError: if a latent site cannot be moved, or a plate draws its rows.
            MissingNameError: if the model has no latent site, or lacks its data.
            SupportError: if no starting point has a finite density and gradient; it names the site.
        """
        first = self.attempt(key, 0, *args, **kwargs)
        if is_transforming():
            return first
        self.check(first, *args, **kwargs)
        start = first
        for attempt in range(_ATTEMPTS):
            start = self.attempt(key, attempt, *args, **kwargs) if attempt else first
            if bool(self.is_finite(start, *args, **kwargs)):
                return start
        raise SupportError(self.fault(start, *args, **kwargs))

    def attempt(
        self, key: Key, number: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        """The starting point of an attempt, whatever the density there.

        Args:
            key: The key of all attempts.
            number: Which attempt.
            *args: Arguments of the model.
            **kwargs: The same, by name.
        """
        own = fold_in(name_key(key, "init"), number)
        starting = _Starting(self.init_strategy, own)
        with torch.no_grad(), unvalidated():
            outcome = self._run(starting, own, args, kwargs)
        self._require_known_values(outcome)
        _require_movable(outcome, starting.unconstrained)
        return starting.unconstrained

    def log_density(self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """The log density at unconstrained values, by site; a differentiable scalar.

        Pyro's checks of values are off: where a density is not defined it is NaN or infinite.

        Raises:
            MissingNameError, UnknownNameError: if values lack a latent site, or name none.
            ShapeError: if a value has not the shape of its site in unconstrained space.
        """
        bent = _Unconstrained(unconstrained)
        with unvalidated():
            return self._in_session(args, kwargs, partial(self._density, bent, args, kwargs))

    def value_and_grad(
        self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The log density, and its gradient by site."""
        if is_transforming():
            gradient, value = torch.func.grad_and_value(self.log_density)(
                dict(unconstrained), *args, **kwargs
            )
            return value, gradient
        leaves = {name: value.detach().requires_grad_() for name, value in unconstrained.items()}
        with torch.enable_grad():
            value = self.log_density(leaves, *args, **kwargs)
        if not value.requires_grad:
            return value, {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return value.detach(), dict(zip(leaves, found, strict=True))

    def constrain(
        self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        """The values of the latent sites that unconstrained values stand for."""
        sites = self._sites(unconstrained, args, kwargs)
        return {name: sites[name].value for name in unconstrained}

    def sites(
        self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        """``constrain()``, and the deterministic sites too.

        Those that depend on a discrete site, which is summed out, are left out.
        """
        sites = self._sites(unconstrained, args, kwargs)
        latent = {name: sites[name].value for name in unconstrained}
        if any(_is_summed_out(site, unconstrained) for site in sites.values()):
            return latent
        fixed = {n: site.value for n, site in sites.items() if site.kind == "deterministic"}
        return {**latent, **fixed}

    def unconstrain(
        self, values: Values, /, *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Tensor]:
        """The unconstrained values that stand for values of the latent sites.

        Raises:
            MissingNameError, UnknownNameError, ShapeError, SupportError: if values lack a latent
                site, name none, have another shape, or lie outside the support.
        """
        given = _Given(values)
        outcome = self._run(given, key(0), args, kwargs)
        _require_movable(outcome, given.unconstrained)
        return given.unconstrained

    def check(self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Refuse params, data and a model that no chain could be right with.

        Args:
            unconstrained: Unconstrained values of the latent sites.
            *args: Arguments of the model.
            **kwargs: The same, by name.
        """
        outcome = self._run(_Unconstrained(unconstrained), key(0), args, kwargs)
        _require_data(self.model, outcome, args, kwargs)
        summed = [site for site in outcome.sites.values() if _is_summed_out(site, unconstrained)]
        if not summed:  # which the params, networks and data are checked by
            with unvalidated():
                values = {name: outcome.sites[name].value for name in unconstrained}
                log_density(self.model, self.params, values, *args, **kwargs)

    def is_finite(self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """Whether the log density and its gradient are finite, as a tensor."""
        value, gradient = self.value_and_grad(unconstrained, *args, **kwargs)
        flags = [each.isfinite().all() for each in (value, *gradient.values())]
        return torch.stack(flags).all()

    def fault(self, unconstrained: Values, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Which site's density or gradient is not finite, in words."""
        leaves = {name: value.detach().requires_grad_() for name, value in unconstrained.items()}
        names = list(leaves)

        def first(session: Session) -> str | None:
            outcome = self._execute(_Unconstrained(leaves), key(0), args, kwargs, session)
            for site in outcome.sites.values():
                if site.kind == "subsample":
                    continue
                density = site.log_density()
                if not bool(density.isfinite().all()):
                    bad = density[~density.isfinite()].flatten()[0].item()
                    return f"the log density of the {site.kind} site {site.name!r} is {bad}"
                if not density.requires_grad:
                    continue
                gradients = torch.autograd.grad(
                    density.sum(), list(leaves.values()), retain_graph=True, materialize_grads=True
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if not bool(gradient.isfinite().all()):
                        return (
                            f"the log density of the {site.kind} site {site.name!r} has a gradient "
                            f"by {name!r} that is not finite"
                        )
            return None

        with torch.enable_grad(), unvalidated():
            reason = self._in_session(args, kwargs, first)
        return (
            f"No starting point was found in {_ATTEMPTS} attempts: at the last one "
            f"{reason or 'the log density of all sites together is not finite'}. A chain cannot "
            "move from there. Look at the data and the prior of this site, or start elsewhere by "
            "init_strategy=init_to_median, or init_to_value(values={...})."
        )

    def _density(
        self,
        bent: _Unconstrained,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        session: Session,
    ) -> Tensor:
        outcome = self._execute(bent, key(0), args, kwargs, session)
        summed = [s for s in outcome.sites.values() if _is_summed_out(s, bent.given)]
        if not summed:
            bent.require_all_read(outcome)
            with explained():
                return record(outcome.sites).log_density + bent.log_jacobian()
        plates = max((-f.dim for s in outcome.sites.values() for f in s.plates if f.dim), default=0)
        again = _Unconstrained(bent.given)
        run = Enumerated(
            again(config_enumerate(self.model)), Enumeration(plates, None, _refuse_mark)
        )
        outcome = execute(run.fn, key(0), args, kwargs, self._config, session)
        outcome.buffers.require_unchanged()
        again.require_all_read(outcome)
        try:
            traces = packed_up(run.trace, PyroTrace(), plates, ())
            density = expectations(*traces, ()).log_likelihood
        except (ValueError, NotImplementedError) as error:
            raise ShapeError(
                f"The discrete sites {sorted(s.name for s in summed)} cannot be summed out: "
                f"{error}\nAn enumerated site needs dimensions of its own, left of those of all "
                "plates, and sites outside of a plate may not depend on one inside. Put every "
                "batch dimension into a plate or to_event(...)."
            ) from error
        return density + again.log_jacobian()

    def _sites(
        self, unconstrained: Values, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Mapping[str, Site]:
        bent = _Unconstrained(unconstrained)
        with unvalidated():
            outcome = self._run(bent, key(0), args, kwargs)
        bent.require_all_read(outcome)
        return outcome.sites

    @property
    def _config(self) -> RunConfig:
        return RunConfig(params=self.params)

    def _run(
        self, handler: Messenger, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> RunResult[object]:
        """A run of the model with its latent sites served by a handler."""
        return self._in_session(
            args, kwargs, lambda session: self._execute(handler, key, args, kwargs, session)
        )

    def _execute(
        self,
        handler: Messenger,
        key: Key,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        session: Session,
    ) -> RunResult[object]:
        model: Callable[..., object] = handler(self.model)
        with explained():
            outcome = execute(model, key, args, kwargs, self._config, session)
        outcome.buffers.require_unchanged()
        _require_full_plates(outcome)
        return outcome

    def _in_session(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], body: Callable[[Session], T]
    ) -> T:
        with (session := Session(Call(key(0), args, kwargs, self.params))), session:
            return body(session)

    def _require_known_values(self, outcome: RunResult[object]) -> None:
        for name in values_given(self.init_strategy):
            site = outcome.sites.get(name)
            if site is None or site.kind != "latent":
                what = "no site" if site is None else f"the {site.kind} site"
                latent = [n for n, each in outcome.sites.items() if each.kind == "latent"]
                raise UnknownNameError(
                    f"init_to_value has a value for {name!r}, which is {what} of the model on "
                    f"these arguments, so the chains would start elsewhere. {near(name, latent)} "
                    "Give values for latent sites."
                )


class Part(NamedTuple):
    """Where a site's unconstrained values lie in a vector."""

    name: str
    shape: torch.Size
    dtype: torch.dtype


@attrs.frozen
class Layout:
    """How unconstrained values by site lie in one vector: by name, in alphabetic order."""

    parts: tuple[Part, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, unconstrained: Values, batch: int = 0) -> Layout:
        """The layout of such values, behind their first ``batch`` dimensions."""
        parts = [
            Part(name, value.shape[batch:], value.dtype)
            for name, value in sorted(unconstrained.items())
        ]
        dtype = torch.float16
        for part in parts:
            dtype = part.dtype if dtype is torch.float16 else torch.promote_types(dtype, part.dtype)
        return cls(tuple(parts), dtype)

    @property
    def sizes(self) -> list[int]:
        """How many elements each site has."""
        return [part.shape.numel() for part in self.parts]

    def flat(self, unconstrained: Values) -> Tensor:
        """The vectors (..., D) of unconstrained values (..., *shape) by site."""
        rows = []
        for part in self.parts:
            value = unconstrained[part.name]
            batch = value.shape[: value.ndim - len(part.shape)]
            rows.append(value.reshape((*batch, part.shape.numel())).to(self.dtype))
        return torch.cat(rows, -1)

    def unflat(self, flat: Tensor) -> dict[str, Tensor]:
        """The values by site again."""
        pieces = torch.split(flat, self.sizes, -1)
        return {
            part.name: piece.reshape((*flat.shape[:-1], *part.shape)).to(part.dtype)
            for part, piece in zip(self.parts, pieces, strict=True)
        }


class _Served(Messenger):
    """Serves latent sites, and keeps their unconstrained values."""

    def __init__(self) -> None:
        super().__init__()
        self.unconstrained: dict[str, Tensor] = {}

    def serve(self, name: str, msg: Msg) -> Tensor | None:
        """The value of a site; ``None``: it is left to others."""
        raise NotImplementedError

    def _pyro_sample(self, msg: Msg) -> None:
        fn = msg["fn"]
        if msg["value"] is not None or is_subsample(fn) or not hasattr(fn, "support"):
            return
        if _is_discrete(fn):
            return
        value = self.serve(str(msg["name"]), msg)
        if value is not None:
            msg["value"] = value


class _Unconstrained(_Served):
    """Gives each latent site the value that its unconstrained one stands for."""

    def __init__(self, given: Values) -> None:
        super().__init__()
        self.given = given
        self._jacobians: dict[str, Tensor] = {}

    def serve(self, name: str, msg: Msg) -> Tensor | None:
        if name not in self.given:
            raise MissingNameError(
                f"The unconstrained values have none for the latent site {name!r}, so the log "
                f"density is not defined. {near(name, self.given)} Start from "
                "Potential(model).init(key, *args); the latent sites of a model must be the same "
                "in all its runs."
            )
        transform = _transform_of(name, msg)
        wanted = transform.inverse_shape(message_distribution(msg).shape())
        unconstrained = self.given[name]
        if unconstrained.shape != wanted:
            raise ShapeError(
                f"The unconstrained value of the site {name!r} is {describe(unconstrained)}, but "
                f"the site has the shape {list(wanted)} there. Broadcasting it would change the "
                "model. Start from Potential(model).init(key, *args) with these arguments; for "
                "many points use torch.vmap."
            )
        mapped: Any = transform(unconstrained)
        value: Tensor = mapped
        self.unconstrained[name] = unconstrained
        self._jacobians[name] = transform.log_abs_det_jacobian(unconstrained, value).sum()
        return value

    def log_jacobian(self) -> Tensor:
        """The sum of the log determinants of all transforms."""
        return sum(self._jacobians.values(), torch.zeros(()))

    def require_all_read(self, outcome: RunResult[object]) -> None:
        """Refuse values that no site of the run took."""
        for name in self.given:
            if name not in self.unconstrained:
                latent = [n for n, site in outcome.sites.items() if site.kind == "latent"]
                raise UnknownNameError(
                    f"The unconstrained values have {name!r}, which is no latent site of this run. "
                    f"{near(name, latent)} Drop it, or call with the arguments with which the site "
                    "is latent."
                )


class _Starting(_Served):
    """Gives each latent site the value that an initialiser has for it."""

    def __init__(self, init_strategy: Initializer, key: Key) -> None:
        super().__init__()
        self._init_strategy = init_strategy
        self._key = key

    def serve(self, name: str, msg: Msg) -> Tensor | None:
        transform = _transform_of(name, msg)
        site = InitSite(name, message_distribution(msg))
        value = self._init_strategy(site, name_key(self._key, name))
        _check_shape(name, value, site.shape, "The value to start the site {!r} from")
        self.unconstrained[name] = _inverse(transform, value).detach()
        return value


class _Given(_Served):
    """Gives each latent site a given value."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values

    def serve(self, name: str, msg: Msg) -> Tensor | None:
        if name not in self.values:
            raise MissingNameError(
                f"The values have none for the latent site {name!r}. {near(name, self.values)} "
                "Give a value for every latent site that is not discrete."
            )
        fn, value = message_distribution(msg), self.values[name]
        transform = _transform_of(name, msg)
        _check_shape(name, value, torch.Size(fn.shape()), "The value of the site {!r}")
        seen = plain(value)
        if seen is not None and not bool(fn.support.check(seen).all()):
            raise SupportError(
                f"The value of the site {name!r} ({describe(value)}) lies outside the support "
                f"{fn.support} of its {type(fn).__name__}, so no unconstrained value stands for "
                "it. Give a value inside the support."
            )
        self.unconstrained[name] = _inverse(transform, value)
        return value


def _inverse(transform: Transform, value: Tensor) -> Tensor:
    inverse: Any = transform.inv(value)
    found: Tensor = inverse
    return found


def _transform_of(name: str, msg: Msg) -> Transform:
    """The transform onto the support of a site that can be moved."""
    fn = message_distribution(msg)
    if is_delta(fn):
        raise DeclarationError(
            f"The latent site {name!r} is a Delta, which has one value, so there is nowhere to "
            "move. Write pyro.deterministic(name, value)."
        )
    try:
        transform: Transform = biject_to(fn.support)
    except NotImplementedError:
        raise DeclarationError(
            f"The support {fn.support} of the latent site {name!r} ({type(fn).__name__}) has no "
            "map from unconstrained space, in which chains move. Draw a site of another support, "
            "such as a Normal, and compute this one from it."
        ) from None
    return transform


def _check_shape(name: str, value: object, shape: torch.Size, what: str) -> None:
    start = what.format(name)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise DtypeError(
            f"{start} is {describe(value)}, which is no floating-point Tensor, so it cannot be "
            "moved. Give one, for example torch.tensor(1.0)."
        )
    if value.shape != shape:
        raise ShapeError(
            f"{start} is {describe(value)}, but the site has the shape {list(shape)}. Broadcasting "
            "it would change the model. Give a tensor of this shape."
        )


def _is_discrete(fn: TorchDistributionMixin) -> bool:
    try:
        return bool(fn.support.is_discrete)
    except NotImplementedError:  # a support that is not known
        return False


def _is_summed_out(site: Site, given: Values) -> bool:
    return site.kind == "latent" and site.name not in given and _is_discrete(site.fn)


def _refuse_mark(msg: Msg) -> None:
    """Refuse a discrete site that is marked for something else than a sum over all its values."""
    infer = message_infer(msg)
    way, count = infer.get("enumerate"), infer.get("num_samples")
    if way not in (None, "parallel") or count is not None:
        mark = f"num_samples={count}" if count is not None else f'"enumerate": {way!r}'
        raise DeclarationError(
            f"The discrete site {msg['name']!r} is marked by {mark}, but its values are summed out "
            'all at once. Leave the mark out, or write infer={"enumerate": "parallel"}.'
        )


def _require_full_plates(outcome: RunResult[object]) -> None:
    for name, site in outcome.sites.items():
        if site.kind == "subsample":
            raise DeclarationError(
                f"The plate {name!r} draws a subsample of its rows, so the density would be "
                "another one in each run, and no chain has a distribution to end in. Leave "
                "subsample_size out to use all rows, or say which rows: "
                f"pyro.plate({name!r}, size, subsample=rows)."
            )


def _require_movable(outcome: RunResult[object], unconstrained: Values) -> None:
    """Refuse latent sites that can neither be moved nor summed out."""
    latents = [site for site in outcome.sites.values() if site.kind == "latent"]
    for site in latents:
        if site.name in unconstrained:
            continue
        if not _is_discrete(site.fn):
            raise DeclarationError(
                f"The latent site {site.name!r} ({type(site.fn).__name__}) has no support that is "
                "known, so no chain can move it. Use a distribution with a support."
            )
        if not getattr(site.fn, "has_enumerate_support", False):
            raise DeclarationError(
                f"The latent site {site.name!r} is discrete ({type(site.fn).__name__}) and has no "
                "finite list of values, so it can neither be moved along a gradient nor summed "
                "out. Sum it out in the model, observe it, or use a continuous prior."
            )
    if not unconstrained:
        what = "only discrete latent sites" if latents else "no latent site"
        raise MissingNameError(
            f"The model has {what} on these arguments, so there is nothing to move. Pass the "
            "arguments with which sites are latent"
            + (
                "; for discrete sites alone use TraceEnum_ELBO().compute_marginals."
                if latents
                else "."
            )
        )


def _require_data(
    model: Callable[..., object],
    outcome: RunResult[object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """Refuse a call that seems to have left out the data: the posterior would be the prior."""
    kinds = {site.kind for site in outcome.sites.values()}
    if not kinds & {"observed", "factor"} and _has_none(model, args, kwargs):
        latent = sorted(n for n, site in outcome.sites.items() if site.kind == "latent")
        raise MissingNameError(
            "The model observed nothing, and one of its arguments is None, so its sites "
            f"{latent} would all be drawn from their prior. Pass the data; to draw from the prior "
            "use Predictive(model, num_samples=...)."
        )


def _has_none(
    model: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Whether an argument of the call is None, as data are that were left out."""
    try:
        bound = inspect.signature(getattr(model, "forward", model)).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return any(each is None for each in (*args, *kwargs.values()))
    bound.apply_defaults()
    return any(each is None for each in bound.arguments.values())

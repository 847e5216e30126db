"""One run of a model: isolated, keyed, recorded.

This is the machinery under ``apply``, ``init`` and the rest: it installs the handler that serves
the statements (``._handler``), keeps the sites (``._sites``), and guards what a run may not
touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MethodType
from typing import Any, Generic, TypeVar

import attrs
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from .._compat._isolation import end_turns, isolate, take_turn, turns_taken
from .._compat._pyro import is_mapped, is_of_enumeration, is_tracing
from .._declare._bind import bind, is_bound
from .._declare._tree import Node
from .._errors import DeclarationError, describe
from .._networks._buffers import Buffers
from .._networks._run_context import RUN, RunContext
from ..random import Key
from ..random._key import check_key
from ..random._source import KeySource
from ._handler import SubstituteHandler
from ._mutation import Inputs
from ._session import Call, Session
from ._sites import Recorder, Site

R = TypeVar("R")


@attrs.frozen
class RunResult(Generic[R]):
    """What came out of a run.

    Attributes:
        result: What the model returned.
        sites: The sites, by name, in the order of the run.
        params: The parameters; in a collecting run also those it started.
        constraints: The constraints of the parameters that were asked for.
        params_read: The names of the parameters that were asked for.
        values_read: The names of the given values that were asked for.
        buffers: The buffers of ``torch.nn`` modules as the run left them.
    """

    result: R
    sites: dict[str, Site]
    params: dict[str, Tensor]
    constraints: dict[str, Constraint]
    params_read: set[str]
    values_read: set[str]
    buffers: Buffers


@attrs.frozen(kw_only=True)
class RunConfig:
    """How to run, beyond the model and its arguments. See ``SubstituteHandler``."""

    params: Mapping[str, Tensor] = attrs.field(factory=dict)
    values: Mapping[str, Tensor] = attrs.field(factory=dict)
    state: Mapping[str, Tensor] | None = None
    collect: bool = False
    draws: bool = True
    elsewhere: Mapping[str, Tensor] = attrs.field(factory=dict)


def execute(
    model: Callable[..., R],
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    config: RunConfig,
    session: Session | None = None,
) -> RunResult[R]:
    """Run ``model`` once, as a pure function of its arguments.

    Args:
        model: Any model.
        key: Its draws depend on it.
        args: Its arguments.
        kwargs: The same, by name.
        config: How to run it.
        session: The runs that this one is a part of; by default it is one by itself.
    """
    as_model(model)
    key = check_key(key, single=True)
    if session is None:
        with (session := Session(Call(key, args, kwargs, config.params))), session:
            return execute(model, key, args, kwargs, config, session)
    outer = RUN.get()
    inputs, buffers = Inputs(config.params, args, kwargs), session.buffers_from(config.state)
    rows_key = session.rows_key
    if rows_key is None and outer is not None:
        rows_key = outer.rows_key
    context = RunContext(
        *(key, config.params, config.collect, rows_key, session.substitution, buffers),
        *(set(), set()),
    )
    recorder = Recorder(session.snapshot, session.mode)
    handler = SubstituteHandler(
        context,
        values=config.values,
        draws=config.draws,
        elsewhere=config.elsewhere,
        constraints=session.constraints,
        find_constraint=session.find_constraint,
        on_network=partial(session.adopt, buffers),
    )
    session.mode.source = KeySource(key, "<torch>")
    blind = is_tracing() or is_mapped()
    token, turns = RUN.set(context), turns_taken()
    try:
        handler.before = take_turn()
        isolate(recorder, handler.process_message, blind=blind)
        if isinstance(model, nn.Module):
            session.adopt(buffers, model, "")
        with session.redirected(model):
            result = _callable(model)(*args, **kwargs)
    except Exception as error:
        _note_local_fields(error, recorder.sites, context.fields_read)
        if is_of_enumeration(error):
            raise DeclarationError(
                "Pyro's own sum over discrete sites, in infer_discrete, compute_marginals or "
                "sample_posterior, has no rule for torch.vmap and torch.func.grad, under which "
                "this run is. Use purepyro.infer.TraceEnum_ELBO().sample_posterior(model, "
                "guide, params, key, *args), or its compute_marginals, which take both."
            ) from error
        raise
    finally:
        try:
            end_turns(turns)
        finally:  # again, as an interrupt may have cut the first short
            end_turns(turns)
        RUN.reset(token)
        buffers.finish()
    if recorder.holds_networks:
        session.stay_redirected()
    if session.substitution:
        result = session.substitution.within(result)
    inputs.require_unchanged()
    return RunResult(
        *(result, recorder.sites, handler.params, handler.constraints),
        *(context.params_read, handler.values_read, buffers),
    )


def as_model(model: object) -> Callable[..., Any]:
    """``model`` itself if it can be run.

    Raises:
        DeclarationError: if it is a class of Module, or cannot be called.
    """
    if isinstance(model, type) and issubclass(model, Node):
        raise DeclarationError(
            f"The model is the class {model.__name__}; a model is an instance, with its settings. "
            f"Write {model.__name__}(...)."
        )
    if not callable(model):
        raise DeclarationError(
            f"The model is {describe(model)}, which cannot be called, so it is no model. Pass a "
            "Module, a function with pyro statements, or another callable."
        )
    return model


def _note_local_fields(error: Exception, sites: Mapping[str, Site], fields: Iterable[str]) -> None:
    """Tell of fields first read in a plate: their shapes are the usual cause of a shape error."""
    for name, site in sites.items():
        if site.plates and name in fields:
            plates = " and ".join(repr(frame.name) for frame in site.plates)
            error.add_note(
                f"The field {site.name!r} was first read inside the plate {plates}, so it is local "
                f"to it and has the shape {list(site.value.shape)}. For one value, read the field "
                "before the plate, or declare it with local=False."
            )


def _callable(model: Callable[..., R]) -> Callable[..., R]:
    """The model itself; for a method of a Module, the same method on a bound copy of it."""
    if isinstance(model, MethodType):
        owner = model.__self__
        if isinstance(owner, Node) and not is_bound(owner):
            return MethodType(model.__func__, bind(owner))
    return model

"""One run of a model: hermetic, keyed, recorded.

This is the machinery under ``apply``, ``init`` and the rest: it installs the handler that answers
(:mod:`._handler`), keeps the sites (:mod:`._sites`), and guards what a run may not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from types import MethodType
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import attrs
import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from .._compat._isolation import Before, alone, settled
from .._compat._pyro import is_mapped, is_of_enumeration, is_tracing, wrapped_by
from .._declare._bind import bind, is_bound
from .._declare._reads import FIELDS, GIVEN, RUNNING, Running
from .._declare._tree import Node
from .._errors import DeclarationError, describe
from .._networks._active import ACTIVE, Nets
from .._networks._buffers import Buffers
from .._networks._functional_copy import forget_compiled, refuse_script
from .._networks._snapshot import Snapshot
from .._networks._substitution import RunMode, Substitution
from ..random import Key
from ..random._key import check_key
from ..random._source import KeySource
from ._handler import Answers
from ._mutation import Inputs
from ._sites import Recorder, Site

R = TypeVar("R")


@attrs.frozen
class Outcome(Generic[R]):
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
class Setting:
    """How to run, beyond the model and its arguments. See :class:`Answers`."""

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
    setting: Setting,
    joint: Joint | None = None,
) -> Outcome[R]:
    """Run ``model`` once, as a pure function of its arguments.

    Args:
        model: Any model.
        key: Its draws depend on it.
        args: Its arguments.
        kwargs: The same, by name.
        setting: How to run it.
        joint: The runs that this one is a part of; by default it is one by itself.
    """
    as_model(model)
    check_key(key, single=True)
    if joint is None:
        given = Call(key, args, kwargs, setting.params)
        return jointly((model,), given, lambda joint: _checked(joint, model, given, setting))
    return _checked(joint, model, Call(key, args, kwargs, setting.params), setting)


def _checked(joint: Joint, model: Callable[..., R], call: Call, setting: Setting) -> Outcome[R]:
    inputs = Inputs(setting.params, call.args, call.kwargs)
    outcome = _run(joint, model, call, setting)
    inputs.require_unchanged()
    return outcome


@attrs.frozen
class Call:
    """What a run is given besides its model."""

    key: Key
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    params: Mapping[str, Tensor]


@attrs.define
class Joint:
    """Runs that belong together, such as those of a guide and its model, and what follows.

    Within it a network that one of the models registers computes with the params in all of them,
    also while their sites are scored. Afterwards all networks and transforms are as they were.

    Attributes:
        substitution: What stands for which parameter.
        mode: What redirects torch's functions.
        models: All models that are run, with what they are given.
        snapshot: The networks and transforms, to be put back.
        constraints: Those of the parameters that the runs so far have said.
        buffers: Those of each run.
        before: What the thread was like, as soon as that is known.
    """

    substitution: Substitution
    mode: RunMode
    models: tuple[Callable[..., object], ...] = ()
    call: Call | None = None
    snapshot: Snapshot = attrs.field(factory=Snapshot)
    constraints: dict[str, Constraint] = attrs.field(factory=dict)
    buffers: list[Buffers] = attrs.field(factory=list)
    before: Before | None = None

    def redirected(self, model: Callable[..., object]) -> AbstractContextManager[object]:
        """The block for a run of ``model``."""
        if self.mode.is_on:
            return nullcontext()
        root = root_of(model)
        return nullcontext() if vars(type(root)).get("needs_no_mode") else self.mode

    def stay_redirected(self) -> None:
        """Score sites with the redirection too: their distributions hold networks."""
        if not self.mode.is_on:
            self.mode.__enter__()  # until the end of all

    def end(self, *, cut: bool = False) -> None:
        """Put back all that was; it can be done again if it was cut short."""
        for buffers in self.buffers:
            buffers.finish()
        self.snapshot.restore()
        if self.before is not None:
            if cut:
                self.before.put_back()
            else:
                self.before.leave()
        self.mode.shut()


def jointly(models: tuple[Callable[..., object], ...], call: Call, body: Callable[[Joint], R]) -> R:
    """What ``body`` returns, which runs the models, by :func:`execute`, and scores their sites."""
    find = partial(_register_all, models, call) if len(models) > 1 else None
    substitution = Substitution((call.params, call.args, call.kwargs), find)
    joint = Joint(substitution, RunMode(call.key, substitution), models, call)
    return _whole(joint, body)


def _whole(joint: Joint, body: Callable[[Joint], R]) -> R:
    try:
        joint.before = Before()
        result = body(joint)
        joint.end()
    except BaseException as error:
        end = error
        try:
            end = settled(error)
            joint.end(cut=True)
        finally:  # again, as an interrupt may have cut the first short
            joint.end(cut=True)
        if end is not error:
            raise end from None
        raise
    return result


# Models whose results were seen to have gradients in nothing but params and arguments. The mode
# sees what torch's functions are given; this is for what goes around it: TorchScript, and an
# autograd.Function that is given the parameter itself.
_REACHED: WeakSet[Any] = WeakSet()


def require_in_params(model: Callable[..., object], joint: Joint, results: object) -> None:
    """Refuse results with a gradient in a parameter of a network that nobody registered.

    It is looked for once for each model, since it takes a walk through the graph of the gradient.

    Raises:
        MissingNameError: naming it.
    """
    owner = root_of(model) or model
    try:
        if owner in _REACHED:
            return
    except TypeError:  # it cannot be hashed
        return
    if joint.substitution.require_in_params(results):
        with suppress(TypeError):
            _REACHED.add(owner)


class _Statements(NamedTuple):
    """What the statements of a plain model say of its parameters."""

    originals: dict[str, Tensor]
    constraints: dict[str, Constraint]


# Which is found out by running them.
_STATEMENTS: WeakKeyDictionary[Callable[..., object], _Statements] = WeakKeyDictionary()


def _constraint_in(joint: Joint, name: str) -> Constraint | None:
    """The constraint of a parameter, as some other of the models has it."""
    if len(joint.models) < 2 or joint.call is None:
        return None
    for model in joint.models:
        if root_of(model) is None:
            found = _statements_of(model, joint.call).constraints.get(name)
            if found is not None:
                return found
    return None


def _register_all(
    models: tuple[Callable[..., object], ...], call: Call, substitution: Substitution
) -> None:
    """Register what any of the models does: one may use a network before another registers it."""
    for model in models:
        if root_of(model) is not None:
            continue
        for name, original in _statements_of(model, call).originals.items():
            if substitution.name_of(original) is None:
                value = call.params.get(name)
                substitution.register(name, original, original.detach() if value is None else value)


def _statements_of(model: Callable[..., object], call: Call) -> _Statements:
    try:
        known = _STATEMENTS.get(model)
    except TypeError:  # it cannot be hashed
        known = None
    if known is None:
        substitution = Substitution((call.params, call.args, call.kwargs))
        setting = Setting(params=call.params, collect=True)
        # The run itself is of no interest, nor how far it comes.
        joint = Joint(substitution, RunMode(call.key, substitution))
        with torch.no_grad(), suppress(Exception):
            _whole(joint, lambda joint: _run(joint, model, call, setting))
        known = _Statements(dict(substitution.originals), joint.constraints)
        with suppress(TypeError):
            _STATEMENTS[model] = known
    return known


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


def root_of(model: object) -> Node | None:
    """The Module behind a model: itself, or within a bound method or ``poutine`` wrappers."""
    inner: object | None = model
    while inner is not None:
        if isinstance(inner, Node):
            return inner
        inner = wrapped_by(inner)
    return None


def _run(joint: Joint, model: Callable[..., R], call: Call, setting: Setting) -> Outcome[R]:
    recorder, buffers = Recorder(joint.snapshot, joint.mode), Buffers(setting.state)
    answers = Answers(
        setting.params,
        call.key,
        setting.values,
        joint.substitution,
        collect=setting.collect,
        draws=setting.draws,
        on_network=partial(_adopt, joint, buffers),
        shared=joint.constraints,
        find_constraint=partial(_constraint_in, joint),
        elsewhere=setting.elsewhere,
    )
    given = None if setting.collect else frozenset(setting.params)
    fields: set[str] = set()
    nets = Nets(joint.substitution, buffers)
    running = RUNNING.set(Running(call.key, setting.params, setting.collect, answers.params_read))
    tokens = ACTIVE.set(nets), GIVEN.set(given), FIELDS.set(fields)
    joint.mode.source = KeySource(call.key, "<torch>")
    joint.buffers.append(buffers)

    def called(validates: bool) -> R:
        answers.validates = validates
        if isinstance(model, nn.Module):
            _adopt(joint, buffers, model, "")
        return _callable(model)(*call.args, **call.kwargs)

    blind = is_tracing() or is_mapped()
    try:
        with joint.redirected(model):
            result = alone(recorder, answers.answer, called, blind=blind)
    except Exception as error:
        _note_local_fields(error, [s for s in recorder.sites.values() if s.name in fields])
        if is_of_enumeration(error):
            raise DeclarationError(
                "Pyro's own sum over discrete sites, in infer_discrete, compute_marginals or "
                "sample_posterior, has no rule for torch.vmap and torch.func.grad, under which "
                "this run is. Use purepyro.infer.TraceEnum_ELBO().sample_posterior(model, "
                "guide, params, key, *args), or its compute_marginals, which take both."
            ) from error
        raise
    finally:
        ACTIVE.reset(tokens[0])
        GIVEN.reset(tokens[1])
        FIELDS.reset(tokens[2])
        RUNNING.reset(running)
        buffers.finish()
    if recorder.holds_networks:
        joint.stay_redirected()
    return Outcome(
        joint.substitution.within(result) if joint.substitution else result,
        recorder.sites,
        answers.params,
        answers.constraints,
        answers.params_read,
        answers.values_read,
        buffers,
    )


def _adopt(joint: Joint, buffers: Buffers, net: nn.Module, prefix: str) -> None:
    """Let a network that computes on itself use copies of its buffers, and leave no trace."""
    if not buffers.is_new(net):  # each of its parameters tells of it
        return
    refuse_script(net)
    joint.snapshot.keep_network(net)
    joint.substitution.know(prefix.removesuffix("$$$"), net)
    forget_compiled(net)
    for original, copy in buffers.watch(net, prefix):
        joint.substitution.put(original, copy)


def _note_local_fields(error: Exception, sites: Iterable[Site]) -> None:
    """Tell of fields first read in a plate: their shapes are the usual cause of a shape error."""
    for site in sites:
        if site.plates:
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

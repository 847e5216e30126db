"""Many fits as one: members as a stacked state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeAlias

import attrs
import torch
from torch import Tensor

from .._compat._isolation import intact
from .._compat._pyro import is_transforming
from .._compile.scan._scan import Loop
from .._core._pickling import Carried
from .._core._trees import leaves_of, mapped
from .._core._whole_numbers import as_int_or_none
from .._errors import DeclarationError, describe
from .._run._mapping import How, check_how, explained
from ..infer import SVI, SVIState
from ..infer.losses._elbo import check_chunk_size
from ..infer.svi._svi import check_count
from ..random import Key
from ..random._reuse import consume
from . import _members
from ._chunks import fitting, in_chunks, one_by_one
from ._ensemble_predictive import EnsemblePredictive
from ._failed import cause, guarded, lenient
from ._in_dims import Arguments, InDims, Plan, arguments
from ._initialize_member import require_one_good, started
from ._loop import Carry, Training
from ._member_settings import checked_keys, count_of
from ._members import Indices, size_of, slice_of, stacked
from ._report import report
from ._stacked import EnsembleRunResult, EnsembleState

P = ParamSpec("P")

Loops: TypeAlias = tuple[Loop[Carry], Loop[Carry]]


def _loops_of(ensemble: Ensemble[Any]) -> Loops:
    """The steps of one member, and of many, in compiled blocks."""
    return Loop(ensemble._one), Loop(ensemble._many)


def _laid_out(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _carry(state: EnsembleState) -> Carry:
    return Carry(state, state.svi.step)


@attrs.frozen(getstate_setstate=False)
class Ensemble(Carried, Generic[P]):
    """Fits many members at once, as one stacked state; each is the run of its own key.

    Member ``i`` is the run of key ``i``, whatever the size of the ensemble or of its chunks: the
    draws are the same bit for bit, trained parameters up to rounding.

    A member whose loss or gradient is not finite is put in quarantine: it stays as it was before
    that step, the others go on. Runs report it to the logger ``purepyro.ensemble``. With
    ``SVI(on_nonfinite="skip")`` the step is left out, with ``"ignore"`` nothing happens.

    Attributes:
        svi: The fit of one member; or a function that makes it of a member's slice of ``members``.
            That function is called inside ``vmap``, so a slice holds tensors without values: pass
            them on as fields of Modules, or to :func:`~purepyro.infer.scale` for learning rates.
        members: A pytree of tensors with the members first: what is different for each, such as
            learning rates and prior scales. They become a part of the state.
        chunk_size: How many members to hold in memory at once; ``None``: all, in compiled runs on
            the CPU as many as its cache holds. A run takes all steps of one chunk before it turns
            to the next.
        map: ``"vmap"``: members run as one. ``"loop"``: one by one, which is slower, takes what
            ``vmap`` cannot, and gives the same results.
        in_dims: Which arguments are the members' own, as in ``torch.vmap``: ``None``: all share
            all; ``0``: each has its own, along this dimension; a tuple: for each argument by
            position one of these, and arguments by name are shared.
        progress_bar: Whether runs show one, which counts the steps of all chunks; by default if a
            terminal looks on.

    Source: Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles"; ``torch.func.stack_module_state`` for members first.

    Example:
        >>> import torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import Ensemble, random
        >>> from purepyro.infer import SVI, AutoNormal, scale
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> y = torch.tensor([1.0, 2.0, 3.0])
        >>> ensemble = Ensemble(SVI(model, AutoNormal(model), torchopt.adam(0.1)), chunk_size=2)
        >>> state, losses = ensemble.run(random.split(random.key(0), 5), 200, y)
        >>> losses.shape, bool(((state.svi.params["locs.loc"] - 2.0).abs() < 0.3).all())
        (torch.Size([200, 5]), True)

        A learning rate for each member:

        >>> def make_svi(rate):
        ...     optim = torchopt.chain(torchopt.adam(1.0), scale(rate))
        ...     return SVI(model, AutoNormal(model), optim)
        >>> ensemble = Ensemble(make_svi, members=torch.tensor([0.0, 0.1]))
        >>> state = ensemble.run(random.split(random.key(0), 2), 200, y).state
        >>> (state.svi.params["locs.loc"] - 2.0).abs() < 0.3
        tensor([False,  True])
    """

    svi: SVI[P] | Callable[..., SVI[P]]
    members: object = attrs.field(default=(), kw_only=True)
    chunk_size: int | None = attrs.field(
        default=None, kw_only=True, converter=as_int_or_none, validator=check_chunk_size
    )
    map: How = attrs.field(default="vmap", kw_only=True, validator=check_how)
    in_dims: InDims = attrs.field(default=None, kw_only=True)
    progress_bar: bool | None = attrs.field(default=None, kw_only=True)
    # Not a setting: the graphs of its steps, for as long as it lives.
    _loops: Loops = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_loops_of, takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        if isinstance(self.svi, SVI) == bool(leaves_of(self.members)):
            raise DeclarationError(
                "Ensemble got an SVI and members, so it cannot know what the members' settings "
                "are for. Write Ensemble(make_svi, members=...) with make_svi(slice) -> SVI."
                if isinstance(self.svi, SVI)
                else f"Ensemble got {describe(self.svi)} in place of an SVI, but no members, of "
                "which it could make one for each. Write Ensemble(svi), or "
                "Ensemble(make_svi, members=...)."
            )
        count_of(self.members)

    @intact
    def init(self, keys: Key, /, *args: P.args, **kwargs: P.kwargs) -> EnsembleState:
        """The state before the first step; member ``i`` is ``svi.init(keys[i], ...)``.

        Args:
            keys: A key for each member, of shape ``(members, 2)``: ``random.split(key, members)``.
            *args: Arguments of model and guide.
            **kwargs: The same, by name.

        Raises:
            KeyTypeError: if ``keys`` are not a stack of keys.
            ShapeError: if there are not as many keys as members, or arguments of their own.
            SupportError: if no member could start, since data or parameters are not numbers.
        """
        keys = checked_keys(keys, self.members)
        consume(keys, "Ensemble.init")
        call = arguments(self.in_dims, args, kwargs, len(keys))
        if not is_transforming():
            self._require_one_good(keys, call)
        return self._begun(keys, call)

    def _require_one_good(self, keys: Key, call: Arguments) -> None:
        def alone(i: int) -> SVIState:
            svi = self._svi_of(slice_of(self.members, i))
            return started(svi, keys[i], call.rebuilt(call.of_member(i)))

        require_one_good(alone, len(keys))

    def _begun(self, keys: Key, call: Arguments) -> EnsembleState:
        """The state before the first step, without a look whether it is of any use."""

        def one(key: Tensor, members: object, *tensors: Tensor) -> SVIState:
            return started(lenient(self._svi_of(members)), key, call.rebuilt(tensors))

        if self.map == "loop":
            each = [
                one(keys[i], slice_of(self.members, i), *call.of_member(i))
                for i in range(len(keys))
            ]
            svi = stacked(each)
        else:
            over = torch.vmap(one, in_dims=(0, 0, *call.dims), chunk_size=self.chunk_size)
            # What does not depend on the key comes as a view of one member; of a single member,
            # that counts as contiguous, but would be another stride to a graph.
            with explained("Ensemble"):
                svi = mapped(_laid_out, over(keys, self.members, *call.tensors))
        return EnsembleState(svi, self.members, torch.full_like(svi.step, -1))

    @intact
    def step(
        self, state: EnsembleState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[EnsembleState, Tensor]:
        """One step of every member; returns the new state and each member's loss before it."""
        count = size_of(state)
        call = arguments(self.in_dims, args, kwargs, count)
        plan = call.plan
        if self.map == "loop":
            done = [
                self._one(_carry(slice_of(state, i)), *call.of_member(i), plan=plan)
                for i in range(count)
            ]
            after = stacked([carry.state for carry, _ in done])
            return after, torch.stack([loss for _, loss in done])
        carry, losses = self._many(_carry(state), *call.tensors, plan=plan, size=self.chunk_size)
        return carry.state, losses

    def run(
        self, keys: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> EnsembleRunResult:
        """Initialise a member from each key, and take ``num_steps`` steps.

        Raises:
            SupportError: if all members are in quarantine; it names the site where the first one
                went bad.
        """
        num_steps = check_count(num_steps, "num_steps")
        return self.run_from(self.init(keys, *args, **kwargs), num_steps, *args, **kwargs)

    @intact
    def run_from(
        self, state: EnsembleState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> EnsembleRunResult:
        """:meth:`run`, going on from a state: of another run, of a selection, or of a file."""
        num_steps = check_count(num_steps, "num_steps")
        call = arguments(self.in_dims, args, kwargs, size_of(state))
        result = self._trained(state, num_steps, call)
        if num_steps and not is_transforming():
            after = result.state
            report(state, after, lambda i: self._cause(after, i, call))
        return result

    def _trained(self, state: EnsembleState, num_steps: int, call: Arguments) -> EnsembleRunResult:
        """The members after ``num_steps`` steps, without a word about those that went bad."""
        if num_steps == 0:
            return EnsembleRunResult(state, torch.zeros(0, size_of(state)))
        how = self._training(state, num_steps)
        if self.map == "loop":
            return EnsembleRunResult(*one_by_one(how, state, num_steps, call))
        size = self.chunk_size
        if size is None and how.loop is not None and not is_transforming():
            size = fitting(self._loops[0], state, call)
        return EnsembleRunResult(*in_chunks(how, state, num_steps, call, size))

    def member(self, state: EnsembleState, i: int) -> SVIState:
        """Member ``i`` alone: an ordinary state, for ``svi.run_from`` or ``Predictive``."""
        return _members.member(state, i).svi

    def svi_of(self, state: EnsembleState, i: int) -> SVI[P]:
        """The fit of member ``i`` alone, with its own settings."""
        return self._svi_of(_members.member(state, i).members)

    def select(self, state: EnsembleState, indices: Indices) -> EnsembleState:
        """Some members, in the order of ``indices``.

        Args:
            state: The ensemble's state.
            indices: Numbers of members, or a mask over them such as ``state.alive``.

        Raises:
            UnknownNameError: if there is no such member.
        """
        return _members.select(state, indices)

    def append(
        self, state: EnsembleState, other: EnsembleState | SVIState | Sequence[SVIState]
    ) -> EnsembleState:
        """The members of ``state``, then those of ``other``.

        Raises:
            ShapeError: if they differ in structure; it names each difference.
        """
        return _members.append(state, other)

    def drop(self, state: EnsembleState, indices: Indices) -> EnsembleState:
        """All members but those of ``indices``, which are as for :meth:`select`."""
        return _members.drop(state, indices)

    def predictive(
        self,
        state: EnsembleState,
        *,
        num_samples: int = 1,
        site: str | None = None,
        chunk_size: int | None = None,
        map: How | None = None,
    ) -> EnsemblePredictive[P]:
        """What the members that are alive predict together (all of them, inside a transform).

        Args:
            state: The ensemble's state.
            num_samples: How many draws of the guide to take from each member.
            site: The site to predict, if the model has several that could be.
            chunk_size: How many runs, of a member and a draw, to hold in memory at once.
            map: How these runs are done; by default as the members are.
        """
        state = state if is_transforming() else self.select(state, state.alive)
        first = self._svi_of(slice_of(state.members, 0))

        def pair_of(members: object) -> tuple[Callable[P, object], Callable[P, object]]:
            svi = self._svi_of(members)
            return svi.model, svi.guide

        return EnsemblePredictive(
            first.model,
            state.svi.params,
            guide=first.guide,
            num_samples=num_samples,
            site=site,
            chunk_size=chunk_size,
            map=map or self.map,
            members=state.members,
            pair_of=pair_of,
            buffers=state.svi.buffers,
        )

    def _svi_of(self, members: object) -> SVI[P]:
        if isinstance(self.svi, SVI):
            svi = self.svi
        else:
            svi = self.svi(members)
            if not isinstance(svi, SVI):
                raise DeclarationError(
                    f"make_svi returned {describe(svi)} for a member, which cannot be stepped. "
                    "Return an SVI."
                )
        if svi.callback is not None:
            raise DeclarationError(
                "The SVI of an Ensemble has a callback, which would never be called: its members "
                "run as one. Take ensemble.step in a loop of your own to look on."
            )
        return svi

    def _one(self, carry: Carry, *tensors: Tensor, plan: Plan) -> tuple[Carry, Tensor]:
        """The step of one member."""
        state, svi = carry.state, self._svi_of(carry.state.members)
        step: Callable[..., tuple[SVIState, Tensor]] = lenient(svi).step
        own = plan.rebuilt(tensors)
        after, loss = step(state.svi._replace(step=carry.clock), *own.args, **own.kwargs)
        if svi.on_nonfinite == "raise":
            new, loss = guarded(state, after, loss)
        else:
            new = EnsembleState(after, state.members, state.quarantined_at)
        return Carry(new, carry.clock + 1), loss

    def _many(
        self, carry: Carry, *tensors: Tensor, plan: Plan, size: int | None = None
    ) -> tuple[Carry, Tensor]:
        """The step of many members, ``size`` at a time."""

        def one(carry: Carry, *tensors: Tensor) -> tuple[Carry, Tensor]:
            return self._one(carry, *tensors, plan=plan)

        with explained("Ensemble"):
            return torch.vmap(one, in_dims=(0, *plan.dims), chunk_size=size)(carry, *tensors)

    def _training(self, state: EnsembleState, num_steps: int) -> Training:
        svi = self._svi_of(slice_of(state.members, 0))
        loops = self._loops if svi._compiles(num_steps) else (None, None)
        must, bar = svi.compiled is True, self.progress_bar
        if self.map == "loop":
            return Training(self._one, loops[0], must, bar)
        return Training(self._many, loops[1], must, bar)

    def _cause(self, state: EnsembleState, i: int, call: Arguments) -> str:
        own = call.rebuilt(call.of_member(i))
        return cause(self.svi_of(state, i), self.member(state, i), own)

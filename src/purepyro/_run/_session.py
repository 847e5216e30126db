"""What the runs of a model and its guide have in common, and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias
from weakref import WeakSet

from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from .._compat._isolation import Before, put_back_after
from .._compat._pyro import wrapped_by
from .._declare._tree import Node
from .._networks._buffers import Buffers
from .._networks._functional_copy import forget_compiled, refuse_script
from .._networks._snapshot import Snapshot
from .._networks._substitution import RunMode, Substitution
from ..random import Key


class Call(NamedTuple):
    """What a run is given besides its model."""

    key: Key
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    params: Mapping[str, Tensor]


Find: TypeAlias = Callable[[Substitution], None]
FindConstraint: TypeAlias = Callable[[str], Constraint | None]


class Session:
    """A block of runs that belong together, such as those of a guide and its model.

    Within it a network that one of the models registers computes with the params in all of them,
    also while their sites are scored. Afterwards all networks and transforms, and the thread, are
    as they were. It is entered twice, ``with (session := Session(call)), session:``, since an
    interrupt may cut one of the exits short.

    Args:
        call: What the runs are given.
        find: Called once, when a network's parameter turns up that nobody registered.
        find_constraint: Looks for the constraint of a parameter that no run has said yet.
        rows_key: What draws the rows of subsampled plates; by default the key of each run.

    Attributes:
        call: As given.
        substitution: What stands for which parameter.
        mode: What redirects torch's functions.
        snapshot: The networks and transforms, to be put back.
        constraints: Those of the parameters that the runs so far have said.
        find_constraint: As given.
        rows_key: As given.
    """

    __slots__ = (
        *("_before", "_buffers", "_ended", "call", "constraints", "find_constraint", "mode"),
        *("rows_key", "snapshot", "substitution"),
    )

    def __init__(
        self,
        call: Call,
        find: Find | None = None,
        find_constraint: FindConstraint | None = None,
        rows_key: Key | None = None,
    ) -> None:
        self.call = call
        self.substitution = Substitution((call.params, call.args, call.kwargs), find)
        self.mode = RunMode(call.key, self.substitution)
        self.snapshot = Snapshot()
        self.constraints: dict[str, Constraint] = {}
        self.find_constraint = find_constraint
        self.rows_key = rows_key
        self._buffers: list[Buffers] = []
        self._before: Before | None = None
        self._ended = False

    def __enter__(self) -> Self:
        if self._before is None:
            self._before = Before()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            put_back_after(error, self._put_back)
        elif not self._ended:
            self._end()
            if self._before is not None:
                self._before.leave()
            self._ended = True

    def _put_back(self) -> None:
        if self._before is not None:
            self._before.put_back()
        self._end()

    def _end(self) -> None:
        """Put back all that was; it can be done again if it was cut short."""
        for buffers in self._buffers:
            buffers.finish()
        self.snapshot.restore()
        self.mode.shut()

    def redirected(self, model: Callable[..., object]) -> AbstractContextManager[object]:
        """The block for a run of ``model``."""
        if self.mode.is_on:
            return _NOTHING
        root = root_of(model)
        return _NOTHING if vars(type(root)).get("needs_no_mode") else self.mode

    def stay_redirected(self) -> None:
        """Score sites with the redirection too: their distributions hold networks."""
        if not self.mode.is_on:
            self.mode.__enter__()  # until the end of all

    def buffers_from(self, state: Mapping[str, Tensor] | None) -> Buffers:
        """The buffers of one run, which start from ``state``."""
        buffers = Buffers(state)
        self._buffers.append(buffers)
        return buffers

    def adopt(self, buffers: Buffers, net: nn.Module, prefix: str) -> None:
        """Let a network that computes on itself use copies of its buffers, and leave no trace."""
        if not buffers.is_new(net):  # each of its parameters tells of it
            return
        refuse_script(net)
        self.snapshot.keep_network(net)
        self.substitution.know(prefix.removesuffix("$$$"), net)
        forget_compiled(net)
        for original, copy in buffers.watch(net, prefix):
            self.substitution.put(original, copy)

    def require_in_params(self, model: Callable[..., object], results: object) -> None:
        """Refuse results with a gradient in a parameter of a network that nobody registered.

        It is looked for once for each model, since it takes a walk through the graph of the
        gradient.

        Raises:
            MissingNameError: naming it.
        """
        owner = root_of(model) or model
        try:
            if owner in _REACHED:
                return
        except TypeError:  # it cannot be hashed
            return
        if self.substitution.require_in_params(results):
            with suppress(TypeError):
                _REACHED.add(owner)


_NOTHING = nullcontext()

# Models whose results were seen to have gradients in nothing but params and arguments. The mode
# sees what torch's functions are given; this is for what goes around it: TorchScript, and an
# autograd.Function that is given the parameter itself.
_REACHED: WeakSet[Any] = WeakSet()


def root_of(model: object) -> Node | None:
    """The Module behind a model: itself, or within a bound method or ``poutine`` wrappers."""
    inner: object | None = model
    while inner is not None:
        if isinstance(inner, Node):
            return inner
        inner = wrapped_by(inner)
    return None

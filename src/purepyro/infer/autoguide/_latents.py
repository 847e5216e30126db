"""What a guide must know of its model's latent sites before it can draw them.

Names, shapes and plates come from a run of the model on the first arguments of each signature, and
are remembered. What is made of the numbers in arguments and parameters (bounds of a support, masks,
the rows of a plate) is not: if a model has such, it is run for it in every run of the guide.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Set
from contextlib import ExitStack
from copy import copy
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple, TypeVar, cast

import attrs
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint, independent, real

from ..._compat._functorch import outside_transforms, plain
from ..._compat._pyro import (
    Msg,
    Plates,
    batch_mask,
    both_masks,
    innermost,
    message_distribution,
    plate_indices,
    stored_params,
)
from ..._core._trees import leaves_of, signature
from ..._declare._fields import PyroSample
from ..._declare._module import Module
from ..._declare._reads import RUNNING, join
from ..._declare._tree import Node, nodes
from ..._errors import MissingNameError
from ..._run._execute import Outcome, Setting, execute, root_of
from ..._run._handler import is_improper
from ..._run._sites import Site, feasible
from ...random import Key, key
from ._literals import Constants

T = TypeVar("T")

_REMEMBERED = 64  # signatures of arguments


@attrs.frozen
class Latent:
    """One latent site of a model; plates at their full size.

    Attributes:
        mask: Which elements of the batch count, as far as the guide must know.
        by_row: Whether the support is known of the rows of this run only.
    """

    name: str
    plates: Plates
    support: Constraint
    event_dim: int
    shape: torch.Size
    unconstrained_shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    declared: bool
    fault: str | None
    mask: Tensor | bool | None = None
    by_row: bool = False

    @property
    def unconstrained_event_dim(self) -> int:
        """How many of the rightmost unconstrained dimensions belong to one event."""
        return self.event_dim + len(self.unconstrained_shape) - len(self.shape)

    def zeros(self) -> Tensor:
        """Zeros of the shape of its unconstrained values."""
        return torch.zeros(self.unconstrained_shape, dtype=self.dtype, device=self.device)

    @property
    def is_real(self) -> bool:
        """Whether constrained and unconstrained values are the same."""
        support = self.support
        while isinstance(support, independent):
            support = support.base_constraint
        return type(support) is type(real)  # not `is`, as after unpickling there are two


class Prototype(NamedTuple):
    """What is known of a model's latent sites for all arguments of one signature.

    Attributes:
        latents: The sites, in the order of the run.
        fixed: Whether all of them are the same in every run. If not, supports and masks are those
            of some run, and :meth:`now` has those of the run under way.
        arranged: The plates whose rows are arguments, by ``subsample``.
        flat: The sites with masked elements that other densities depend on.
    """

    latents: list[Latent]
    fixed: bool
    arranged: frozenset[str]
    flat: frozenset[str]

    @property
    def drawn(self) -> Plates:
        """The plates whose rows a run draws."""
        frames = {
            frame.name: frame
            for latent in self.latents
            for frame in latent.plates
            if frame.full_size not in (None, frame.size) and frame.name not in self.arranged
        }
        return tuple(frames.values())

    def now(
        self,
        model: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        rows: Mapping[str, Tensor],
    ) -> tuple[list[Latent], dict[str, Tensor]]:
        """The sites as they are in the run under way, and the rows of the arranged plates.

        Args:
            model: The model.
            args: Its arguments.
            kwargs: The same, by name.
            rows: The rows that the run under way draws.
        """
        try:
            run = _run(model, args, kwargs, rows)
        except MissingNameError as error:
            run, other = (_run(model, args, kwargs, rows, lacks=shift) for shift in (0.0, 1.0))
            if not _alike(_numbers(run.outcome), _numbers(other.outcome)):
                raise MissingNameError(
                    f"{error} The guide cannot do without, since supports or masks of the model's "
                    "latent sites depend on it: give it the parameters of model and guide "
                    "together, {**init(model, key), **params}, such as state.params of SVI."
                ) from error
        sites = {site.name: site for site in _latent_sites(run.outcome)}
        latents = [
            _latent(sites[known.name], known.fault, self.arranged, declared=known.declared)
            for known in self.latents
            if known.name in sites
        ]
        return [
            attrs.evolve(latent, mask=None) if latent.name in self.flat else latent
            for latent in latents
        ], {name: run.rows[name] for name in self.arranged}


class Prototypes:
    """What is known of a model, by the signature of its arguments."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Prototype] = {}

    def of(
        self, model: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Prototype:
        """The latent sites of ``model`` on such arguments."""
        tree = (args, dict(kwargs))
        name = signature(tree)
        if name is not None and name in self._known:
            return self._known[name]
        prototype, keep = _prototype(model, args, kwargs)
        if name is not None and keep and all(map(_is_constant, leaves_of(tree))):
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[name] = prototype
        return prototype


def _is_constant(leaf: object) -> bool:
    """Whether an argument is a tensor, whose shape counts, or can never be another than it is."""
    kinds = (Tensor, int, float, complex, str, bytes, type, Enum, Node, torch.dtype, torch.device)
    functions = (FunctionType, BuiltinFunctionType)
    return leaf is None or isinstance(leaf, (*kinds, *functions, nn.Module))


class _Look(NamedTuple):
    """What was seen in one run: the sites, and the rows of all plates."""

    outcome: Outcome[object]
    rows: dict[str, Tensor]


def _prototype(
    model: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Prototype, bool]:
    """What a first look finds, and whether it may be kept for later runs."""
    running, constants = RUNNING.get(), Constants()
    params = running.params if running is not None else stored_params()
    rows = _Rows(constants)
    # Two runs, since a support that moves with other draws shows only so; and the second one is
    # given the parameters that the first one starts, of which no tensor is a constant.
    with torch.no_grad():
        setting = Setting(params=params, collect=True)
        first = execute(model, key(0), args, kwargs, setting)
        frames = {frame.name: frame for site in _latent_sites(first) for frame in site.plates}
        frames = {name: frame for name, frame in frames.items() if frame.full_size}
        parts = {n: torch.arange(f.size) for n, f in frames.items() if f.size != f.full_size}
        setting = attrs.evolve(setting, params=first.params, values=parts)
        second = execute(rows(model), key(1), args, kwargs, setting)
        if parts:  # bounds may be by row, so only runs on the same rows compare
            first = execute(model, key(0), args, kwargs, setting)
    sites = _latent_sites(second)
    arranged = {
        name
        for name, frame in frames.items()
        if (name in parts and name not in second.values_read)
        or (name not in parts and not _in_order(rows.found.get(name), constants))
    }
    declared = _declared_sites(root_of(model))
    latents = [
        _latent(
            site,
            _fault(site, first.sites.get(site.name, site)),
            arranged,
            declared=site.name in declared,
        )
        for site in sites
    ]
    flat = _flat(model, args, kwargs, params, [each for each in latents if each.mask is not None])
    values = [t for each in latents for t in (*_tensors(each.support), *_tensors(each.mask))]
    fixed = not arranged and all(constants.has(value) for value in values)
    if not fixed:  # nothing of this run's may get into another
        forgotten = [attrs.evolve(each, support=real, mask=None) for each in latents]
        return Prototype(forgotten, fixed, frozenset(arranged), flat), not constants.reads
    latents = [attrs.evolve(e, mask=None) if e.name in flat else e for e in latents]
    keep = not constants.reads and all(plain(value) is not None for value in values)
    return Prototype(latents, fixed, frozenset(), flat), keep


def _run(
    model: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rows: Mapping[str, Tensor],
    lacks: float | None = None,
) -> _Look:
    """The model with what the run under way has: the same parameters, the same rows.

    Args:
        model: The model.
        args: Its arguments.
        kwargs: The same, by name.
        rows: The rows of plates.
        lacks: How far from their start to put parameters that the run under way does not have.
    """
    running, seen = RUNNING.get(), _Rows()
    if running is None:  # in plain Pyro
        setting = Setting(params=stored_params(), values=rows, collect=True)
        return _Look(execute(seen(model), key(0), args, kwargs, setting), seen.found)
    params, collect = running.params, running.collects or lacks is not None
    setting = Setting(params=params, values=rows, collect=collect)
    outcome = execute(seen(model), Key(running.key), args, kwargs, setting)
    if lacks:
        moved = {n: each if n in params else each + lacks for n, each in outcome.params.items()}
        setting = attrs.evolve(setting, params=moved)
        outcome = execute(seen(model), Key(running.key), args, kwargs, setting)
    running.params_read.update(outcome.params_read & params.keys())
    return _Look(outcome, seen.found)


def _numbers(outcome: Outcome[object]) -> list[Tensor]:
    """The tensors that supports and masks are made of."""
    sites = _latent_sites(outcome)
    return [t for s in sites for t in (*_tensors(s.fn.support), *_tensors(_mask_of(s)))]


def _alike(ones: list[Tensor], others: list[Tensor]) -> bool:
    """Whether tensors are seen to be the same; if they cannot be seen, they are not."""
    if len(ones) != len(others):
        return False
    seen = [innermost(each.detach()) for each in (*ones, *others)]
    with outside_transforms():
        if any(plain(each) is None for each in seen):
            return False
    return not any(map(_differ, ones, others))


def _mask_of(site: Site) -> Tensor | bool | None:
    return both_masks(site.mask, batch_mask(site.fn))


class _Rows(Messenger):
    """Takes note of the rows of all plates around sites; and of constants, if so asked."""

    def __init__(self, constants: Constants | None = None) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}
        self._constants = constants
        self._stack = ExitStack()

    def __enter__(self) -> _Rows:
        if self._constants is not None:
            self._stack.enter_context(self._constants)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def _pyro_sample(self, msg: Msg) -> None:
        if msg["value"] is None and is_improper(msg["fn"]):
            msg["value"] = feasible(message_distribution(msg))
        self.found.update(plate_indices())


def _latent_sites(outcome: Outcome[object]) -> list[Site]:
    sites = outcome.sites.values()
    return [site for site in sites if site.kind == "latent" and not site.auxiliary]


def _in_order(rows: Tensor | None, constants: Constants) -> bool:
    """Whether the rows of a full plate are known to be 0, 1, 2 and so on in every run."""
    if rows is None:
        return True
    seen = plain(rows)
    return seen is not None and constants.has(rows) and torch.equal(seen, torch.arange(len(seen)))


def _flat(
    model: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    params: Mapping[str, Tensor],
    masked: list[Latent],
) -> frozenset[str]:
    """The sites with masked elements that other densities depend on.

    Where a prior is masked, and nothing depends on the value, the element is in no way a part of
    the model. One whose value counts elsewhere has a flat prior, so a guide must count it.
    """
    if not masked:
        return frozenset()
    setting = partial(Setting, params=params, collect=True)
    drawn = execute(model, key(0), args, kwargs, setting()).sites
    others = {name: site.value for name, site in drawn.items() if site.kind == "subsample"}
    values = {each.name: drawn[each.name].value.detach() for each in masked}

    def density(values: dict[str, Tensor]) -> Tensor:
        outcome = execute(model, key(0), args, kwargs, setting(values={**others, **values}))
        terms = [s.log_density().sum() for s in outcome.sites.values() if s.kind != "subsample"]
        return sum(terms, torch.zeros(()))

    gradients = torch.func.grad(density)(values)
    return frozenset(each.name for each in masked if _counts(gradients[each.name], each))


def _counts(gradient: Tensor, latent: Latent) -> bool:
    """Whether the gradient is seen to be other than zero at a masked element."""
    hidden = ~torch.as_tensor(latent.mask)
    hidden = hidden.reshape(hidden.shape + (1,) * latent.event_dim)
    seen = innermost((gradient * hidden).detach())
    with outside_transforms():
        return plain(seen) is not None and bool((seen != 0).any())


def _fault(site: Site, again: Site) -> str | None:
    """Why no automatic guide can have the site, if so; ``again`` is it in another run."""
    support: Constraint = site.fn.support
    if support.is_discrete:
        return (
            f"The latent site {site.name!r} is discrete ({type(site.fn).__name__}), which no "
            "automatic guide can fit. Sum it out in the model, observe it, or write a guide by "
            "hand."
        )
    pairs = zip(_tensors(support), _tensors(again.fn.support), strict=True)
    if any(_differ(one, other) for one, other in pairs):
        return (
            f"The support {support} of the latent site {site.name!r} depends on other random "
            "sites, so no fixed transform maps onto it. Draw a site with a fixed support, such as "
            "Uniform(0, 1), and compute this one from it."
        )
    return None


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are seen to be different, in some lane of ``vmap``."""
    one, other = innermost(one.detach()), innermost(other.detach())
    with outside_transforms():
        if plain(one) is None or plain(other) is None:
            return False
        return not torch.equal(one, other)


def _declared_sites(root: Node | None) -> set[str]:
    """The paths of all ``PyroSample`` fields from ``root`` down."""
    return {
        join(path, name)
        for path, node in (nodes(root) if root is not None else ())
        if isinstance(node, Module)
        for name, field in type(node).__declarations__.items()
        if isinstance(field, PyroSample)
    }


def _latent(site: Site, fault: str | None, arranged: Set[str], *, declared: bool) -> Latent:
    event_dim, shape = site.fn.event_dim, list(site.value.shape)
    # A plate without a size has that of its sites.
    plates = tuple(
        frame
        if frame.size != -1 or frame.dim is None
        else frame._replace(size=shape[frame.dim - event_dim], full_size=None)
        for frame in site.plates
        if frame.size != -1 or (frame.dim is not None and len(shape) >= event_dim - frame.dim)
    )
    support: Constraint = site.fn.support
    # The bounds may be of these rows only, so the shape is asked for before there are more.
    bent = list(shape if fault else biject_to(support).inverse_shape(site.value.shape))
    bent_dim = event_dim + len(bent) - len(shape)
    mask = _mask_of(site)
    dims: list[int] = []
    for frame in plates:
        if frame.dim is not None and frame.full_size is not None:
            shape[frame.dim - event_dim] = bent[frame.dim - bent_dim] = frame.full_size
            if frame.full_size != frame.size or frame.name in arranged:
                dims.append(frame.dim - event_dim)
    support = _of_all_rows(support, dims)
    by_row = any(_varies(tensor, dim) for tensor in _tensors(support) for dim in dims)
    return Latent(
        site.name,
        plates,
        support,
        event_dim,
        torch.Size(shape),
        torch.Size(bent),
        site.value.dtype,
        site.value.device,
        declared,
        fault,
        None if mask is True else mask,
        by_row,
    )


def _tensors(constraint: object) -> list[Tensor]:
    """The tensors a constraint is made of, such as the bounds of an interval."""
    if isinstance(constraint, Tensor):
        return [constraint]
    if isinstance(constraint, (list, tuple)):
        return [t for item in constraint for t in _tensors(item)]
    if isinstance(constraint, Constraint):
        return [t for item in vars(constraint).values() for t in _tensors(item)]
    return []


def _of_all_rows(constraint: T, dims: list[int]) -> T:
    """A constraint whose tensors, where they are the same in all rows, do of size one there."""
    if isinstance(constraint, Tensor):
        return cast("T", _without(constraint, dims))
    if isinstance(constraint, Constraint) and dims and _tensors(constraint):
        other = copy(constraint)
        parts = {name: _of_all_rows(part, dims) for name, part in vars(constraint).items()}
        vars(other).update(parts)
        return other
    return constraint


def _without(tensor: Tensor, dims: list[int]) -> Tensor:
    """A tensor, of size one along those of ``dims`` that it is expanded along."""
    for dim in dims:
        if tensor.ndim >= -dim and tensor.stride(dim) == 0:
            tensor = tensor.narrow(dim, 0, min(1, tensor.size(dim)))
    return tensor


def _varies(tensor: Tensor, dim: int) -> bool:
    return tensor.ndim >= -dim and tensor.stride(dim) != 0

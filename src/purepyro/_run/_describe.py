"""``describe``: the parameters and random variables of a model, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from inspect import getattr_static
from typing import Any, Literal, TypeAlias

import attrs
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, transform_to

from .._compat._isolation import intact
from .._compat._pyro import concretely
from .._declare._bind import bind
from .._declare._fields import Field, PyroParam
from .._declare._module import Module
from .._declare._reads import OVERRIDES, join
from .._declare._tree import Node, nodes
from .._errors import DeclarationError
from .._errors import describe as shown
from ..random import key
from ._execute import Outcome, Setting, as_model, execute, root_of
from ._init import initial
from ._sites import Site

Role: TypeAlias = Literal["learnable", "random", "frozen", "deterministic", "observed"]
_ROLES: tuple[Role, ...] = ("learnable", "random", "frozen", "deterministic", "observed")
# What is computed or given is no part of the model's own size.
_UNCOUNTED: tuple[Role, ...] = ("deterministic", "observed")


@attrs.frozen
class Entry:
    """One line of a description: a parameter or random variable.

    Attributes:
        path: Its dotted path.
        shape: Its shape; ``None`` where only a run with data could tell.
        role: What it is to the model.
        prior: The distribution of a site.
        plates: The names of the plates that a site is in, outermost first; empty without a run.
    """

    path: str
    shape: tuple[int, ...] | None
    role: Role
    prior: str = ""
    plates: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return torch.Size(self.shape or ()).numel() if self.shape is not None else 0


@attrs.frozen(repr=False)
class Description:
    """What a model consists of; prints as a table.

    Attributes:
        entries: One for each parameter and random variable, with ``path``, ``shape``, ``role`` and
            ``prior``.

    Example:
        >>> from torch import nn
        >>> from purepyro import describe, lift
        >>> [entry.path for entry in describe(lift(nn.Linear(2, 1))).entries]
        ['weight', 'bias']
    """

    entries: tuple[Entry, ...]

    def __repr__(self) -> str:
        in_plates = any(entry.plates for entry in self.entries)
        rows = [["path", "shape", *(["plates"] if in_plates else []), "role", "prior"]]
        for entry in self.entries:
            shape = "?" if entry.shape is None else str(list(entry.shape))
            plates = [", ".join(entry.plates)] if in_plates else []
            rows.append([entry.path, shape, *plates, entry.role, entry.prior])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self._total()])

    def _total(self) -> str:
        numbers: Counter[str] = Counter()
        for entry in self.entries:
            numbers[entry.role] += entry.size
        roles = [role for role in _ROLES if role in numbers]
        total = sum(numbers[role] for role in roles if role not in _UNCOUNTED)
        each = ", ".join(f"{numbers[role]:,} {role}" for role in roles)
        return f"total: {total:,} numbers{f' ({each})' if each else ''}"


@intact
def describe(
    model: Module | Callable[..., object], /, *args: object, **kwargs: object
) -> Description:
    """The parameters and random variables of a model: path, shape, role and prior of each.

    The role is ``learnable`` (in the params dict), ``random`` (a site with a prior), ``frozen`` (a
    parameter of a ``torch.nn`` module that keeps its value), ``deterministic`` or ``observed``.
    Shapes are those that the model sees. A prior that reads other fields is shown for one draw of
    these.

    With arguments the model is run once on them. Then the sites and parameters of ``pyro``
    statements are listed too, and each site has the shape that it has in the run, and the plates
    that it is in: a field that became local to a plate of 85 rows is seen to be 85 numbers.

    Args:
        model: A Module; with arguments any Pyro model.
        *args: The model's arguments, for a run.
        **kwargs: The same, by name.

    Returns:
        A :class:`Description`, whose ``repr`` is an aligned table.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from torch import nn
        >>> from purepyro import Module, PyroSample, describe, lift
        >>> describe(lift(nn.Linear(3, 2), {"weight": dist.Normal(0.0, 1.0)}))
        path    shape   role       prior
        weight  [2, 3]  random     Normal(0, 1)
        bias    [2]     learnable
        total: 8 numbers (2 learnable, 6 random)
        >>> class Noise(Module):
        ...     noise = PyroSample(dist.HalfNormal(1.0), local=True)
        ...
        ...     def forward(self, y):
        ...         with pyro.plate("rows", len(y)):
        ...             pyro.sample("y", dist.Normal(0.0, self.noise), obs=y)
        >>> describe(Noise(), torch.zeros(85))
        path   shape  plates  role      prior
        noise  [85]   rows    random    HalfNormal(1)
        y      [85]   rows    observed  Normal(0, float32[85])
        total: 85 numbers (85 random, 85 observed)
    """
    root = root_of(model)
    runs = bool(args or kwargs)
    if root is None and not runs:
        raise DeclarationError(
            f"describe was given {shown(model)}, which is no Module, so nothing is known of it "
            "before it runs. Pass its arguments too, describe(model, *args), or look at "
            "trace(model, params, key, *args)."
        )
    entries = {entry.path: entry for entry in (_static(root) if root is not None else ())}
    if runs:
        with torch.no_grad():
            outcome = initial(as_model(model), key(0), args, kwargs)
        for entry in _of_run(outcome):
            known = entries.get(entry.path)
            # A parameter of a network that is a site has its place already.
            entries[entry.path] = entry if known is None else attrs.evolve(known, **_seen(entry))
    return Description(tuple(entries.values()))


def _of_run(outcome: Outcome[object]) -> Iterator[Entry]:
    """What the sites and parameters of one run are."""
    for name, value in outcome.params.items():
        constrained = transform_to(outcome.constraints[name])(value)
        yield Entry(name, tuple(constrained.shape), "learnable")
    for site in outcome.sites.values():
        role = _ROLE_OF_KIND.get(site.kind)
        if role is not None:
            prior = "" if role == "deterministic" else prior_text(site.fn)
            plates = tuple(frame.name for frame in site.plates)
            yield Entry(site.name, tuple(site.value.shape), role, prior, plates)


_ROLE_OF_KIND: Mapping[str, Role] = {
    "latent": "random",
    "observed": "observed",
    "deterministic": "deterministic",
}


def _seen(entry: Entry) -> dict[str, Any]:
    """What a run tells of an entry."""
    return {name: getattr(entry, name) for name in ("shape", "role", "prior", "plates")}


def _static(root: Node) -> Iterator[Entry]:
    """What is known of a Module before it runs."""
    values: dict[str, Tensor] = {}
    with concretely(), torch.no_grad():
        outcome: Outcome[None] = execute(
            lambda: _read_all(root, values), key(0), (), {}, Setting(collect=True)
        )
    return _entries(root, values, outcome)


def _read_all(root: Node, values: dict[str, Tensor]) -> None:
    """Read every declared field; those that only a run with data can give are left out."""
    for path, node in nodes(bind(root)):
        if isinstance(node, Module):
            for name in type(node).__declarations__:
                try:
                    values[join(path, name)] = getattr(node, name)
                except Exception:
                    continue


def _entries(root: Node, values: Mapping[str, Tensor], outcome: Outcome[None]) -> Iterator[Entry]:
    seen: set[str] = set()
    for path, node in nodes(root):
        if isinstance(node, nn.Module):
            found = _of_network(path, node, outcome)
        else:
            found = _of_module(path, node, values, outcome)
        for entry in found:
            if entry.path not in seen:
                seen.add(entry.path)
                yield entry


def _of_network(path: str, net: nn.Module, outcome: Outcome[None]) -> Iterator[Entry]:
    for name, parameter in net.named_parameters():
        full = join(path, name)
        yield _entry(full, tuple(parameter.shape), outcome, otherwise="frozen")


def _of_module(
    path: str, node: Node, values: Mapping[str, Tensor], outcome: Outcome[None]
) -> Iterator[Entry]:
    overrides: Mapping[str, Field[Any]] = node.__dict__.get(OVERRIDES, {})
    declared = type(node).__declarations__ if isinstance(node, Module) else {}
    for name, declaration in declared.items():
        full = join(path, name)
        shape = tuple(values[full].shape) if full in values else None
        learns = isinstance(overrides.get(name, declaration), PyroParam)
        yield _entry(full, shape, outcome, otherwise="learnable" if learns else "random")


def _entry(
    path: str, shape: tuple[int, ...] | None, outcome: Outcome[None], *, otherwise: Role
) -> Entry:
    site: Site | None = outcome.sites.get(path)
    if path in outcome.params:
        return Entry(path, shape, "learnable")
    if site is None:
        return Entry(path, shape, otherwise, "?" if otherwise == "random" else "")
    if site.kind == "deterministic":
        return Entry(path, shape, "deterministic")
    return Entry(path, shape, "random", prior_text(site.fn))


def prior_text(fn: TorchDistributionMixin | Distribution) -> str:
    """A distribution as it is written, one number for a tensor of equal ones.

    >>> import torch, pyro.distributions as dist
    >>> prior_text(dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    'Normal(0, 1)'
    >>> prior_text(dist.Normal(torch.arange(3.0), 0.5))
    'Normal(float32[3], 0.5)'
    """
    if isinstance(fn, Independent):
        return prior_text(fn.base_dist)
    inner = getattr(fn, "base_dist", None)
    if type(fn).__name__ in ("ExpandedDistribution", "MaskedDistribution") and inner is not None:
        return prior_text(inner)
    names = [name for name in getattr(fn, "arg_constraints", {}) if _is_argument(fn, name)]
    arguments = ", ".join(_number(getattr(fn, name)) for name in names)
    return f"{type(fn).__name__}({arguments})"


def _is_argument(fn: object, name: str) -> bool:
    """Whether a distribution was made from ``name``, rather than computing it from another."""
    if name in ("probs", "logits"):  # either is computed, and kept, when asked for
        made_from = getattr(fn, "_param", None)
        return made_from is None or vars(fn).get(name) is made_from
    return name in vars(fn) or isinstance(getattr_static(fn, name, None), property)


def _number(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if not value.numel() or bool((value != value.reshape(-1)[0]).any()):
        return shown(value)
    return f"{value.reshape(-1)[0].item():.4g}"

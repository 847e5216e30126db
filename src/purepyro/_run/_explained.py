"""Errors of torch and Pyro from inside a run, told in terms of the run.

Torch speaks of matrices and scalar types, and Pyro of a distribution; neither names the site, the
line of the model, or what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from traceback import walk_tb
from types import TracebackType

from torch import Tensor

from .._compat._functorch import plain
from .._compat._pyro import is_mapped
from .._core._trees import named_leaves
from .._core._user_code import line_of
from .._errors import DtypeError, PurepyroError, SupportError, VmapError, describe
from ._session import Session
from ._sites import Site, site_under_way


def explained(owner: str | None = None) -> AbstractContextManager[None]:
    """A stretch of code whose errors of torch and Pyro become errors that name site and line.

    These are what ``vmap`` refuses, tensors of dtypes that do not go together, and values outside
    of a support. Other errors pass as they are.

    Args:
        owner: What has the ``map`` that is the way out of ``vmap``; ``None``: a vmap of the user's
            own.
    """
    return _Explained(owner)


class _Explained(AbstractContextManager[None]):
    __slots__ = ("_owner",)

    def __init__(self, owner: str | None) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        owner = self._owner
        if isinstance(error, VmapError):  # of a run within, which did not know whose the vmap is
            if owner is not None and error.owner is None and error.__cause__ is not None:
                raise _refusal(error.__cause__, owner) from error.__cause__
        elif isinstance(error, RuntimeError | ValueError) and not isinstance(error, PurepyroError):
            if (owner is not None or is_mapped()) and is_of_vmap(error):
                raise _refusal(error, owner) from error
            clearer = _of_dtypes(error) or _of_support(error)
            if clearer is not None:
                raise clearer from error


# --- Values and dtypes ------------------------------------------------------------------------

# What torch says where dtypes do not go together.
_DTYPES = (
    "same dtype",
    "expected scalar type",
    "should be the same",
    "not implemented for '",
    "with a bool tensor is not supported",
    "with two bool tensors is not supported",
    "can't be cast to the desired output type",
    "dtypes match",
    "Expected floating point type",
    "floating point",
)


def _of_dtypes(error: Exception) -> DtypeError | None:
    message = str(error).splitlines()[0] if str(error) else ""
    if not isinstance(error, RuntimeError) or not any(sign in message for sign in _DTYPES):
        return None
    site = _scored_site(error)
    if site is not None and not site.value.is_floating_point():
        return DtypeError(
            f"The {site.kind} site {site.name!r} has the value {describe(site.value)}, with which "
            f"torch cannot compute the log density of its {type(site.fn).__name__} ({message}). "
            "Pass floats: obs=y.float()."
        )
    return DtypeError(
        f"Torch stopped at {line_of(error)}: {message}. {_dtypes_given(error)}Give them one dtype: "
        "the data by x.float() or x.double(), the model and its parameters by "
        "to(model, torch.float64)."
    )


def _scored_site(error: Exception) -> Site | None:
    """The site whose log density was being computed on the way to an error."""
    found = None
    for frame, _ in walk_tb(error.__traceback__):
        held = frame.f_locals.get("self")
        found = held if isinstance(held, Site) else found
    return found


def _dtypes_given(error: Exception) -> str:
    """What the run under way was given, by dtype."""
    call = None
    for frame, _ in walk_tb(error.__traceback__):
        held = frame.f_locals.get("session")
        call = held.call if isinstance(held, Session) else call
    if call is None:
        return ""
    arguments = {
        **{f"argument {name}": leaf for name, leaf in _tensors(call.args).items()},
        **{f"argument {name}": leaf for name, leaf in _tensors(call.kwargs).items()},
    }
    params = {f"the parameter {name!r}": value for name, value in call.params.items()}
    shown = [f"{name} is {describe(value)}" for name, value in [*arguments.items()][:3]]
    shown += [f"{name} is {describe(value)}" for name, value in [*params.items()][:2]]
    return f"In this run {', '.join(shown)}. " if shown else ""


def _tensors(tree: object) -> Mapping[str, Tensor]:
    return {name: leaf for name, leaf in named_leaves(tree).items() if isinstance(leaf, Tensor)}


def _of_support(error: Exception) -> SupportError | None:
    _, is_about_it, tail = str(error).partition("within the support (")
    if not is_about_it:
        return None
    site, named = _scored_site(error), site_under_way(error)
    where = f"of the site {named}" if named else f"at {line_of(error)}"
    shown = "" if site is None else f", {describe(site.value)}{_first_outside(site)}"
    support = tail.partition(") of the distribution")[0]
    return SupportError(
        f"A value {where}{shown}, lies outside of the support {support}, so it has no log density. "
        "Mend the value, or take a distribution that has such values."
    )


def _first_outside(site: Site) -> str:
    """The first element that is outside of a site's support, in words."""
    value = plain(site.value)
    if value is None:
        return ""
    outside = ~site.fn.support.check(value)
    each = value[outside.expand(value.shape) if outside.dim() == value.dim() else outside]
    return f" with the element {each.flatten()[0].item():.4g}" if each.numel() else ""


# --- What vmap refuses ------------------------------------------------------------------------


def is_of_vmap(error: BaseException) -> bool:
    """Whether an error is a refusal of ``vmap``."""
    return _why(error) is not None


def _refusal(error: BaseException, owner: str | None) -> VmapError:
    why, site = _why(error), site_under_way(error)
    place = f"at the site {site}, {line_of(error)}" if site else f"at {line_of(error)}"
    if owner is None:
        who, loop = "The model", "a loop over the runs in place of torch.vmap"
    else:
        who, loop = owner, f'{owner}(..., map="loop"), which runs one after the other'
    other = ", or use torch.where and the like in place of branches" if why == _ASKS else ""
    refusal = VmapError(
        f"{who} runs under vmap, which stopped {place}. There the code {why}. Write {loop}, with "
        f"the same draws{other}."
    )
    refusal.owner = owner
    return refusal


# Signs in torch's messages, and what they are about.
_ASKS = (
    "asks a tensor for its values (by `if`, `.item()`, `.numpy()`, `x[mask]` or the like), and "
    "under vmap it has those of all runs at once"
)
_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "calling .item() on a Tensor",
            "data-dependent control flow",
            "data pointer of Tensor that doesn't have storage",
            "storage of BatchedTensorImpl",
            "is not supported for tensor subclasses",
            "dynamic shape",
            "differently shaped Tens",
        ),
        _ASKS,
    ),
    (
        ("is not possible because there exists a Tensor",),
        "writes values that differ from run to run into a tensor that all runs share",
    ),
    (
        ("override the setup_context", "does not have vmap support"),
        "calls a torch.autograd.Function that has no rule for vmap",
    ),
    (
        ("random operation while in randomness error mode",),
        "draws from torch's global generator, which has one state for all runs",
    ),
    (("must only return Tensors",), "returns something that is no tensor"),
    (("`data` under vmap",), "takes the `.data` of a tensor, which vmap does not allow"),
    (
        ("Batching rule not implemented", "vmap", "functorch transform"),
        "calls an operation that vmap does not know",
    ),
)


def _why(error: BaseException) -> str | None:
    """What vmap has against it; ``None`` if this is another error."""
    if isinstance(error, PurepyroError):
        return None
    for signs, reason in _REASONS:
        if any(sign in str(error) for sign in signs):
            return reason
    return None

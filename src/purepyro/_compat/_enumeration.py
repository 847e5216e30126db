"""Pyro's parallel enumeration of discrete sites, and the factors that it sums over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from opt_einsum import shared_intermediates  # type: ignore[import-untyped]
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.ops.rings import LogRing
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ._handlers import ENUMERATED, handlers
from ._messages import Msg
from ._plates import is_subsample
from ._private import held, private

# A set of symbols of plates, and the packed tensors that live in just these.
Tree: TypeAlias = "OrderedDict[frozenset[str], list[Any]]"

_USE = "sums over discrete sites (TraceEnum_ELBO)"
_compute_model_factors: Any = private("pyro.infer.traceenum_elbo:_compute_model_factors", _USE)
_find_ordinal: Any = private("pyro.infer.traceenum_elbo:_find_ordinal", _USE)


class Enumeration(EnumMessenger):
    """Pyro's parallel enumeration, without a trace in its process-wide allocator of dimensions.

    Args:
        plates: How many dimensions on the right belong to plates.
        after: Another one, of a run before, to whose dimensions those of this run are added.
        refuse: Raises for a site that cannot be enumerated as it is marked.
    """

    def __init__(
        self, plates: int, after: Enumeration | None, refuse: Callable[[Msg], None]
    ) -> None:
        super().__init__(first_available_dim=-1 - plates if after is None else None)
        self.plates = plates
        self._after = after
        self._refuse = refuse
        self._end: dict[str, object] = {}

    def __enter__(self) -> Enumeration:
        self._outer = dict(vars(ENUMERATED))
        if self._after is not None:
            dims: Any = self._after._end["dim_to_id"]
            vars(ENUMERATED).update(self._after._end, dim_to_id=dict(dims))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._end = dict(vars(ENUMERATED))
        vars(ENUMERATED).clear()
        vars(ENUMERATED).update(self._outer)

    def _pyro_sample(self, msg: Msg) -> None:
        if not msg["is_observed"] and not is_subsample(msg["fn"]):
            self._refuse(msg)
        super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Msg) -> None:
        # As Pyro's, without asking the value for its `data`, which vmap does not allow.
        if not isinstance(msg["fn"], TorchDistributionMixin) or msg["value"] is None:
            return
        name, shape = msg["name"], msg["value"].shape
        rows = shape[: len(shape) - msg["fn"].event_dim]
        dims = msg["infer"].setdefault("_dim_to_id", {})
        dims.update(held(self, "_param_dims", _USE).get(name, {}))
        held(self, "_value_dims", _USE)[name] = {
            dim: number for dim, number in dims.items() if len(rows) >= -dim and rows[dim] > 1
        }


def plates_under_enumeration() -> int | None:
    """How many dimensions belong to plates, if sites are being enumerated to the left of them."""
    for handler in handlers():
        if isinstance(handler, Enumeration):
            return handler.plates
        if isinstance(handler, EnumMessenger):  # in Pyro's own algorithms
            first: Any = max(ENUMERATED.dim_to_id, default=ENUMERATED.next_available_dim)
            return -1 - first if isinstance(first, int) else None
    return None


def is_of_enumeration(error: BaseException) -> bool:
    """Whether an error is torch's refusal of Pyro's own sum over discrete sites in a transform."""
    trace, found = error.__traceback__, False
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__"))
        found = found or name in ("pyro.infer.discrete", "pyro.infer.traceenum_elbo")
        trace = trace.tb_next
    return found and "functorch" in str(error)


# --- Of a trace whose sites are packed ----------------------------------------------------------


def enumerated_dim(node: Any) -> int | None:
    """The dimension that a site was enumerated along, if it was."""
    dim: int | None = node["infer"].get("_enumerate_dim")
    return dim


def enumerated_symbol(node: Any) -> str:
    """The symbol of the dimension that a site was enumerated along."""
    symbol: str = node["infer"]["_enumerate_symbol"]
    return symbol


def symbols_of_dims(node: Any) -> dict[int, str]:
    """The symbols of the dimensions that a site's value may have."""
    symbols: dict[int, str] = node["infer"]["_dim_to_symbol"]
    return symbols


def symbols_of(term: Tensor) -> str:
    """The symbols of a packed tensor's dimensions."""
    symbols: str = held(term, "_pyro_dims", _USE)
    return symbols


def model_factors(
    model: Trace, guide: Trace
) -> tuple[Tree, Tree, dict[str, frozenset[str]], set[str], Any]:
    """Costs, factors with enumerated dimensions, each site's plates, those dimensions, a scale."""
    costs, factors, ordering, dims, scale = _compute_model_factors(model, guide)
    return costs, factors, ordering, dims, scale


def plates_of(model: Trace, node: Any) -> frozenset[str]:
    """The symbols of the plates that a site is in."""
    symbols: frozenset[str] = _find_ordinal(model, node)
    return symbols


def sharing() -> AbstractContextManager[object]:
    """A block that computes each intermediate of its sums once; gives their cache."""
    block: AbstractContextManager[object] = shared_intermediates()
    return block


def log_ring(backend: str, cache: object, sizes: dict[str, int]) -> Any:
    """Pyro's ring of sums and products of logarithms, computed by the functions of a module.

    Args:
        backend: The name of the module, with ``einsum``, ``transpose`` and ``tensordot``.
        cache: Where intermediates are shared.
        sizes: The size of each dimension, by its symbol.
    """
    kind: Any = type("Ring", (LogRing,), {"_backend": backend})
    return kind(cache=cache, dim_to_size=sizes)

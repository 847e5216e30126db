"""What the losses need of Pyro's private machinery, with a typed face.

The sum-product contractions are Pyro's. Its DiCE expectation branches on values, and its safe
logarithm has no rule for ``vmap``; their pure versions are here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from functools import reduce
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import torch
from opt_einsum import shared_intermediates  # type: ignore[import-untyped]
from pyro.distributions import (
    Bernoulli,
    BetaBinomial,
    Binomial,
    Categorical,
    MaskedDistribution,
    OneHotCategorical,
)
from pyro.distributions.util import scale_and_mask
from pyro.infer import traceenum_elbo
from pyro.infer.util import compute_site_dice_factor
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree, contract_to_tensor
from pyro.ops.einsum.util import Tensordot
from pyro.ops.rings import LogRing
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.trace_messenger import TraceMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape, check_traceenum_requirements
from torch import Tensor

from ..._compat._pyro import Enumeration, both_masks, is_factor, own_mask
from ...random import Key
from ...random._sample import draw_distribution

R = TypeVar("R")
# A set of symbols of plates, and the packed tensors that live in just these.
Tree: TypeAlias = "OrderedDict[frozenset[str], list[Any]]"

Marginal: TypeAlias = Bernoulli | Categorical | OneHotCategorical

_PYRO: Any = traceenum_elbo
_PACKED: Any = packed
_contract: Any = contract_tensor_tree
_contract_to_tensor: Any = contract_to_tensor
_dice_factor: Callable[[Any], tuple[Any, float]] = cast("Any", compute_site_dice_factor)


class Enumerated:
    """A run under enumeration and its trace, to be had once it is done.

    Args:
        fn: A guide, or a model.
        enumeration: Which sites become dimensions, and which dimensions these are.
        guide: The trace to take values from.
    """

    def __init__(
        self, fn: Callable[..., object], enumeration: Enumeration, guide: Trace | None = None
    ) -> None:
        self._tracer = TraceMessenger()
        run: Callable[..., object] = enumeration(fn)
        if guide is not None:
            run = ReplayMessenger(trace=_drawn(guide))(run)
        # Not its own __call__, which words errors anew.
        self.fn: Callable[..., object] = Messenger.__call__(self._tracer, run)

    @property
    def trace(self) -> Trace:
        """Pyro's trace of the last run."""
        trace: Trace = self._tracer.trace
        return trace

    @property
    def enumerated(self) -> set[str]:
        """The names of the sites that were enumerated."""
        return {
            name
            for name, node in self._samples()
            if node["infer"].get("_enumerate_dim") is not None
        }

    def _samples(self) -> Iterable[tuple[str, Any]]:
        nodes: Any = self.trace.nodes
        return [(name, node) for name, node in nodes.items() if node["type"] == "sample"]


def _drawn(guide: Trace) -> Trace:
    """A guide's trace without what it observed, which no model can take from it."""
    drawn: Trace = guide.copy()
    for node in _sample_nodes(drawn):
        if node["is_observed"] or (node["infer"] or {}).get("is_auxiliary"):
            drawn.remove_node(node["name"])
    return drawn


class Expectations(NamedTuple):
    """Expectations over the enumerated sites: of the log likelihood, and of the KL term."""

    log_likelihood: Tensor
    kl: Tensor


def packed_up(model: Trace, guide: Trace, plates: int, own: Collection[str]) -> tuple[Trace, Trace]:
    """Both traces, scored and packed: each enumerated site a dimension with a name.

    Args:
        model: The trace of the model.
        guide: That of the guide.
        plates: How many dimensions on the right belong to plates.
        own: The names of the guide's sites that are its own.

    Raises:
        ValueError: if a site's shape does not fit its plates, or the model's structure does not
            allow it; the message is Pyro's.
    """
    model, guide = prune_subsample_sites(model), prune_subsample_sites(guide)
    for node in _sample_nodes(guide):
        name = node["name"]
        if name not in own:
            guide.remove_node(name)
        elif name in model.nodes and not model.nodes[name]["is_observed"]:
            of_model: Any = model.nodes[name]
            node["mask"] = both_masks(node["mask"], of_model["mask"], own_mask(of_model["fn"]))
    for node in _sample_nodes(guide):
        parts = _scored(node, node["fn"].score_parts)
        node["unscaled_log_prob"] = parts.log_prob
        node["score_parts"] = parts.scale_and_mask(node["scale"], node["mask"])
        node["log_prob"] = node["score_parts"].log_prob
    for node in _sample_nodes(model):
        log_prob = _scored(node, node["fn"].log_prob)
        node["unscaled_log_prob"] = log_prob
        node["log_prob"] = scale_and_mask(log_prob, node["scale"], node["mask"])
    for node in (*_sample_nodes(model), *_sample_nodes(guide)):
        check_site_shape(node, plates)
    check_traceenum_requirements(model, guide)
    guide.pack_tensors()
    model.pack_tensors(guide.plate_to_symbol)
    return model, guide


def _scored(node: Any, score: Callable[..., R]) -> R:
    try:
        return score(node["value"], *node["args"], **node["kwargs"])
    except ValueError as error:
        raise ValueError(f"at site {node['name']!r}: {error}") from error


def expectations(model: Trace, guide: Trace, counted: Collection[str]) -> Expectations:
    """The two terms of the bound, summed over all enumerated values.

    Args:
        model: The trace of the model, packed up.
        guide: That of the guide, packed up.
        counted: The names of the guide's sites that count in the bound.
    """
    costs, log_factors, ordering, sum_dims, scale = _PYRO._compute_model_factors(model, guide)
    latent = {
        id(node["packed"]["log_prob"])
        for node in _sample_nodes(model)
        if node["name"] in guide.nodes and not node["is_observed"]
    }
    likelihood: Tree = OrderedDict()
    kl: Tree = OrderedDict()
    for plates, terms in costs.items():
        for term in terms:
            if id(term) in latent:
                kl.setdefault(plates, []).append(_PACKED.neg(term))
            else:
                likelihood.setdefault(plates, []).append(term)
    for plates, terms in _contracted(log_factors, sum_dims).items():
        scaled = [_PACKED.scale_and_mask(term, scale=scale) for term in terms]
        likelihood.setdefault(plates, []).extend(scaled)
    weights: Tree = OrderedDict()
    for node in _sample_nodes(guide):
        plates = ordering[node["name"]]
        if node["name"] in counted:
            kl.setdefault(plates, []).append(node["packed"]["log_prob"])
        if is_factor(node["fn"]):  # a cost, and no draw
            continue
        factor, _ = _dice_factor(node)
        if isinstance(factor, Tensor):  # else it is reparameterised, and the number zero
            weights.setdefault(plates, []).append(factor)
    return Expectations(_expected(likelihood, weights), _expected(kl, weights))


def marginals(model: Trace, guide: Trace) -> dict[str, Marginal]:
    """The distribution of each site that was summed out, given all that was observed and drawn.

    Args:
        model: The trace of the model, packed up.
        guide: That of the guide, packed up.
    """
    factors, sum_dims = _factors(model, guide)
    with shared_intermediates() as cache:
        return {
            name: _like(node, _logits(model, node, factors, sum_dims, cache))
            for name, node in _summed_out(model, guide)
        }


def draws(model: Trace, guide: Trace, key_of: Callable[[str], Key]) -> dict[str, Tensor]:
    """Values of all sites that were summed out, drawn together from their posterior.

    Each site is drawn given those before it, with those after it summed out.

    Args:
        model: The trace of the model, packed up.
        guide: That of the guide, packed up.
        key_of: The key of a site's draw.
    """
    factors, sum_dims = _factors(model, guide)
    values: dict[str, Tensor] = {}
    with shared_intermediates() as cache:
        for name, node in _summed_out(model, guide):
            logits = _logits(model, node, factors, sum_dims, cache)
            place = draw_distribution(key_of(name), Categorical(logits=logits))
            values[name] = _at(place, node["fn"])
            symbol = node["infer"]["_enumerate_symbol"]
            packed_place = _PACKED.pack(place, node["infer"]["_dim_to_symbol"])
            for terms in factors.values():
                for i, term in enumerate(terms):
                    if symbol in term._pyro_dims:
                        terms[i] = _PACKED.gather(term, packed_place, symbol)
            sum_dims.discard(symbol)
    return values


def _factors(model: Trace, guide: Trace) -> tuple[Tree, set[str]]:
    _, factors, _, sum_dims, _ = _PYRO._compute_model_factors(model, guide)
    return OrderedDict((plates, list(terms)) for plates, terms in factors.items()), set(sum_dims)


def _summed_out(model: Trace, guide: Trace) -> list[tuple[str, Any]]:
    return [
        (node["name"], node)
        for node in _sample_nodes(model)
        if node["name"] not in guide.nodes and node["infer"].get("_enumerate_dim") is not None
    ]


def _logits(model: Trace, node: Any, factors: Tree, sum_dims: set[str], cache: object) -> Tensor:
    """The log probabilities of a site's values, along a last dimension."""
    dim, symbol = node["infer"]["_enumerate_dim"], node["infer"]["_enumerate_symbol"]
    frames = {frame.dim: frame.size for frame in node["cond_indep_stack"] if frame.vectorized}
    rows = [frames.get(dim, 1) for dim in range(min(frames, default=0), 0)]
    if symbol not in sum_dims:  # a single value is no dimension
        return torch.zeros([*rows, 1])
    sizes = {
        symbol: size
        for terms in factors.values()
        for term in terms
        for symbol, size in zip(term._pyro_dims, term.shape, strict=True)
    }
    contracted: Any = _contract_to_tensor(
        factors,
        sum_dims,
        target_ordinal=_PYRO._find_ordinal(model, node),
        target_dims={symbol},
        ring=_ring(cache, sizes),
    )
    logits: Tensor = _PACKED.unpack(contracted, model.symbol_to_dim)
    logits = logits.unsqueeze(-1).transpose(-1, dim - 1)
    return logits.reshape(*rows, logits.shape[-1]).log_softmax(-1)


def _at(place: Tensor, fn: Any) -> Tensor:
    """The values at the given places of a support."""
    support: Tensor = fn.enumerate_support(expand=False)
    values = support.reshape((len(support), *fn.event_shape))
    at = values.index_select(0, place.reshape(-1))
    return at.reshape((*place.shape, *fn.event_shape))


def _like(node: Any, logits: Tensor) -> Marginal:
    """A distribution of the values' kind with these log probabilities."""
    fn = node["fn"]
    while isinstance(fn, MaskedDistribution):
        fn = fn.base_dist
    if isinstance(fn, Bernoulli):
        return Bernoulli(logits=logits[..., 1] - logits[..., 0])
    if isinstance(fn, OneHotCategorical):
        return OneHotCategorical(logits=logits)
    if isinstance(fn, Categorical | Binomial | BetaBinomial):  # whose values are 0, 1, 2, ...
        return Categorical(logits=logits)
    raise NotImplementedError(
        f"the values of the site {node['name']!r}, a {type(fn).__name__}, are no list of numbers"
    )


def _contracted(log_factors: Tree, sum_dims: set[str]) -> Tree:
    """The factors with all enumerated dimensions of the model summed out."""
    if not log_factors:
        return OrderedDict()
    sizes = {
        dim: size
        for terms in log_factors.values()
        for term in terms
        for dim, size in zip(term._pyro_dims, term.shape, strict=True)
    }
    with shared_intermediates() as cache:
        tree: Tree = _contract(log_factors, sum_dims, ring=_ring(cache, sizes))
        return tree


def _expected(costs: Tree, weights: Tree) -> Tensor:
    """The sum of costs times the probability of their dimensions, by DiCE (Foerster et al. 2018).

    The weights of a cost are those of the sites in its plates or outside of them. That of a drawn
    site is one, and has the gradient of its score.
    """
    total = torch.zeros(())
    with shared_intermediates() as cache:
        ring = _ring(cache, {})
        for plates, terms in costs.items():
            factors = [w for outer, ws in weights.items() if outer <= plates for w in ws]
            dims = {dim for factor in factors for dim in factor._pyro_dims}
            for term in terms:
                if not factors:
                    total = total + term.sum()
                    continue
                prob = _PACKED.exp(ring.sumproduct(factors, dims - set(term._pyro_dims)))
                cost, prob = _PACKED.broadcast_all(term, prob)
                # An impossible value adds nothing, whatever it costs.
                total = total + (torch.where(prob > 0, cost, 0.0) * prob).sum()
    return total


def _sample_nodes(trace: Trace) -> list[Any]:
    return [node for node in trace.nodes.values() if node["type"] == "sample"]


class _PureLogRing(LogRing):
    """Pyro's ring of sums and products of logarithms, over the pure backend: this file."""

    _backend = __name__


def _ring(cache: object, sizes: dict[str, int]) -> Any:
    ring: Any = _PureLogRing
    return ring(cache=cache, dim_to_size=sizes)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """``torch.einsum`` of exponentials, in logarithms; ``opt_einsum`` looks it up by this name."""
    symbols = sorted(set(equation) - set(",->"))
    names = dict(zip(symbols, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False))
    equation = "".join(names.get(symbol, symbol) for symbol in equation)
    left, output = equation.split("->")
    if left == output:
        return operands[0].clone()
    # A 0-d float64 datum leaves a float32 factor beside float64 ones.
    dtype = reduce(torch.promote_types, [operand.dtype for operand in operands])
    operands = tuple(operand.to(dtype) for operand in operands)
    shifted, shifts = [], []
    for dims, operand in zip(left.split(","), operands, strict=True):
        summed = [i for i, dim in enumerate(dims) if dim not in output]
        shift = operand.detach().amax(summed, keepdim=True) if summed else operand.detach()
        shift = shift.clamp(min=torch.finfo(shift.dtype).min)  # else nan of -inf - -inf
        shifted.append((operand - shift).exp())
        kept = [dim for dim in output if dim in dims]
        order = [*(dims.index(dim) for dim in kept), *summed]
        aligned = shift.permute(order).reshape(shift.permute(order).shape[: len(kept)])
        sizes = iter(aligned.shape)
        shifts.append(aligned.reshape([next(sizes) if dim in dims else 1 for dim in output]))
    return sum(shifts, start=_safe_log(torch.einsum(equation, shifted)))


def _safe_log(value: Tensor) -> Tensor:
    """The logarithm, with a finite slope at zero: Pyro's, without its autograd function."""
    eps = torch.finfo(value.dtype).eps
    regular = value > eps
    fixed = value.detach()
    linear = fixed.log() + (value - fixed) / eps
    return torch.where(regular, torch.where(regular, value, 1.0).log(), linear)


def transpose(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The dimensions in another order, for ``opt_einsum``."""
    return tensor.permute(axes)


tensordot: Callable[..., Tensor] = cast("Any", Tensordot)(einsum)

"""What draws of Markov chains are worth: R-hat, effective sample sizes, standard errors, reports.

The statistics are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), "Rank-
normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC". They
take draws ``(chain, draw, *event)``, give one value for each element of the event, and are computed
in float64, whatever the dtype of the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import product
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from ..._errors import (
    DtypeError,
    ShapeError,
    SupportError,
    UnknownNameError,
    describe,
    near,
)

# An R-hat above this, or fewer effective draws than this for each of the first four chains, says
# that the draws are not to be relied on (section 4 of the paper).
_LARGEST_R_HAT = 1.01
_ESS_PER_CHAIN = 100
# More chains than this are not asked to be long, each by itself.
_MANY_CHAINS = 16
# Below this, momentum is refreshed too slowly for the tails of the energy (Betancourt 2016).
_SMALLEST_BFMI = 0.3
# Trajectories cut at the largest depth cost time, not truth: a few of them are no news.
_SATURATED_SHARE = 0.01
# Draws of so many bytes are looked at together; the work on them takes some ten times as much.
_BLOCK_BYTES = 2**26

_Statistic = Callable[[Tensor], Tensor]


# -------------------------------------------------------------------------------------- statistics


def r_hat(draws: Tensor) -> Tensor:
    """The rank-normalised split R-hat: near 1 where the chains agree.

    Args:
        draws: ``(chain, draw, *event)``.

    Returns:
        One value for each element of the event. NaN for a single chain, fewer than four draws, or
        draws that are all the same.

    Examples:
        >>> import torch
        >>> apart = torch.stack([torch.arange(100.0), torch.arange(100.0) + 500])
        >>> r_hat(apart) > 1.01
        tensor(True)
    """
    values = _by_element(_r_hat, draws)
    return values if len(draws) > 1 else torch.full_like(values, math.nan)


def ess_bulk(draws: Tensor) -> Tensor:
    """The effective number of draws for what lies in the bulk, such as means.

    Args:
        draws: ``(chain, draw, *event)``.

    Returns:
        One value for each element of the event; NaN for fewer than four draws.

    Examples:
        >>> import torch
        >>> ess_bulk(torch.arange(100.0).expand(4, 100)) < 20
        tensor(True)
    """
    return _by_element(_ess_bulk, draws)


def ess_tail(draws: Tensor) -> Tensor:
    """The effective number of draws for the 5 % and 95 % quantiles, the smaller of the two.

    Args:
        draws: ``(chain, draw, *event)``.

    Returns:
        One value for each element of the event; NaN for fewer than four draws.

    Examples:
        >>> import torch
        >>> ess_tail(torch.zeros(4, 100))
        tensor(400., dtype=torch.float64)
    """
    return _by_element(_ess_tail, draws)


def mcse_mean(draws: Tensor) -> Tensor:
    """The Monte Carlo standard error of the mean.

    Args:
        draws: ``(chain, draw, *event)``.

    Returns:
        One value for each element of the event; NaN for fewer than four draws.

    Examples:
        >>> import torch
        >>> mcse_mean(torch.zeros(4, 100))
        tensor(0., dtype=torch.float64)
    """
    return _by_element(_mcse_mean, draws)


def mcse_sd(draws: Tensor) -> Tensor:
    """The Monte Carlo standard error of the standard deviation.

    Args:
        draws: ``(chain, draw, *event)``.

    Returns:
        One value for each element of the event; NaN for fewer than four draws, or draws that are
        all the same.

    Examples:
        >>> import torch
        >>> mcse_sd(torch.arange(100.0).expand(4, 100)) > 1
        tensor(True)
    """
    return _by_element(_mcse_sd, draws)


def bfmi(energy: Tensor) -> Tensor:
    """The estimated Bayesian fraction of missing information of each chain (E-BFMI).

    Args:
        energy: ``(chain, draw)``, the energy of each draw.

    Returns:
        One value for each chain; below .3 the chain explores the tails of the energy too slowly.

    Examples:
        >>> import torch
        >>> bfmi(torch.tensor([[1.0, -1.0, 1.0, -1.0]]))
        tensor([3.], dtype=torch.float64)
    """
    energy = energy.detach().cpu().double()
    return energy.diff(dim=-1).square().mean(-1) / energy.var(-1)


def _by_element(statistic: _Statistic, draws: Tensor, least: int = 4) -> Tensor:
    """``statistic`` of ``(elements, chain, draw)``, in the shape of the event.

    It is NaN for elements with a NaN, which has no rank, and for fewer draws than ``least``.
    """
    if draws.ndim < 2:
        raise ShapeError(
            f"The draws are {describe(draws)}, but chains and draws are the first two dimensions. "
            "Give (chain, draw, ...); of one chain make draws.unsqueeze(0)."
        )
    if draws.is_complex():
        raise DtypeError(
            f"The draws are {describe(draws)}, and complex values have no order. Look at the real "
            "and the imaginary part, or at abs() and angle()."
        )
    chains, length, *event = draws.shape
    result = torch.full((math.prod(event),), math.nan, dtype=torch.float64)
    if result.numel() and chains and length >= least:
        flat = draws.detach().reshape(chains, length, -1).permute(2, 0, 1)
        size = max(1, _BLOCK_BYTES // (8 * chains * length))
        for start in range(0, len(result), size):
            block = flat[start : start + size].cpu().double().contiguous()
            out = result[start : start + size]
            known = ~block.isnan().flatten(1).any(-1)
            out.copy_(statistic(block).where(known, out))
    return result.reshape(event)


def _r_hat(draws: Tensor) -> Tensor:
    halves = _split(draws)
    bulk = _variance_ratio(_rank_normalized(halves))
    (center,) = _quantiles(halves, 0.5)
    tail = _variance_ratio(_rank_normalized((halves - center[:, None, None]).abs()))
    # A tail that is the same everywhere says nothing, so that the bulk decides.
    return torch.where(tail > bulk, tail, bulk)


def _ess_bulk(draws: Tensor) -> Tensor:
    return _ess(_rank_normalized(_split(draws)))


def _ess_tail(draws: Tensor) -> Tensor:
    low, high = (
        _ess(_split((draws <= quantile[:, None, None]).double()))
        for quantile in _quantiles(draws, 0.05, 0.95)
    )
    return torch.minimum(low, high)


def _mcse_mean(draws: Tensor) -> Tensor:
    return draws.flatten(1).std(-1) / _ess(_split(draws)).sqrt()


def _mcse_sd(draws: Tensor) -> Tensor:
    squares = (draws - draws.mean((1, 2), keepdim=True)).square()
    variance = squares.mean((1, 2))
    error = (squares.square().mean((1, 2)) - variance.square()) / _ess(_split(squares))
    return (error / variance / 4).sqrt()


def _split(draws: Tensor) -> Tensor:
    """Each chain as two, without the middle draw of an odd number."""
    half = draws.shape[-1] // 2
    return torch.cat([draws[..., :half], draws[..., -half:]], dim=1)


def _rank_normalized(draws: Tensor) -> Tensor:
    """Normal scores of the ranks among all draws of an element; equal draws share their ranks."""
    flat = draws.flatten(1)
    ordered, index = flat.sort(-1)
    total = flat.shape[-1]
    place = torch.arange(1, total + 1, dtype=torch.float64).expand_as(flat)
    ranks = place
    changes = ordered.diff(dim=-1) != 0
    if not changes.all():
        edge = torch.ones_like(changes[:, :1])
        first = place.where(torch.cat([edge, changes], -1), 0).cummax(-1).values
        last = place.where(torch.cat([changes, edge], -1), total + 1)
        ranks = (first + last.flip(-1).cummin(-1).values.flip(-1)) / 2
    scores: Tensor = torch.special.ndtri((ranks - 0.375) / (total + 0.25))
    return torch.empty_like(flat).scatter_(-1, index, scores).reshape(draws.shape)


def _quantiles(draws: Tensor, *probs: float) -> list[Tensor]:
    """Quantiles of each element, linear between draws; ``torch.quantile`` takes 2**24 at most."""
    ordered = draws.flatten(1).sort(-1).values
    total = ordered.shape[-1]
    found = []
    for prob in probs:
        position = total * prob + (1 - prob)
        index = min(max(math.floor(position), 1), total)
        share = position - index
        above = ordered[:, min(index, total - 1)]
        found.append((1 - share) * ordered[:, index - 1] + share * above)
    return found


def _variance_ratio(chains: Tensor) -> Tensor:
    """R-hat as it was first defined, of chains that are split already."""
    length = chains.shape[-1]
    between = length * chains.mean(-1).var(-1)
    within = chains.var(-1).mean(-1)
    return ((between / within + length - 1) / length).sqrt()


def _autocovariance(chains: Tensor) -> Tensor:
    """The covariance at each lag; far lags, of few pairs, count less (divided by all draws)."""
    length = chains.shape[-1]
    # Padded, so that the end of a chain does not meet its start.
    spectrum: Tensor = torch.fft.rfft(chains - chains.mean(-1, keepdim=True), n=2 * length)
    sums: Tensor = torch.fft.irfft(spectrum.abs().square(), n=2 * length)
    return sums[..., :length] / length


def _ess(chains: Tensor) -> Tensor:
    """The effective sample size by Geyer's initial monotone sequence, of split chains."""
    count, length = chains.shape[1:]
    covariance = _autocovariance(chains).mean(1)
    within = covariance[:, :1] * length / (length - 1)
    pooled = covariance[:, :1] + chains.mean(-1).var(-1, keepdim=True)
    rho = 1 - (within - covariance) / pooled
    rho[:, 0] = 1

    pairs = (rho[:, 0 : length - 1 : 2] + rho[:, 1::2])[:, : max((length - 3) // 2, 0) + 1]
    # The sum ends before the first pair that is not positive, or else before the last.
    stays = (pairs > 0).cumprod(-1)
    stays[:, -1] = 0
    last = stays.sum(-1, keepdim=True)
    summed = (pairs.cummin(-1).values * stays).sum(-1)
    even = rho.gather(1, 2 * last).squeeze(1)
    kept = (even > 0) | (pairs.gather(1, last).squeeze(1) >= 0)
    total = count * length
    tau = 2 * summed - 1 + torch.where(kept, even, 0)
    result = total / tau.clamp(min=1 / math.log10(total))

    spread = chains.flatten(1).amax(-1) - chains.flatten(1).amin(-1)
    constant = spread < torch.finfo(torch.float64).resolution
    return torch.where(constant, total, result.masked_fill(rho[:, 1].isnan(), math.nan))


# ----------------------------------------------------------------------------------------- summary


class SiteSummary(NamedTuple):
    """The statistics of a site, each with one float64 value for every element of an event.

    Attributes:
        mean: The posterior mean.
        sd: The posterior standard deviation.
        lower: The lower end of the central interval.
        median: The posterior median.
        upper: The upper end of the central interval.
        mcse_mean: The Monte Carlo standard error of the mean.
        mcse_sd: The Monte Carlo standard error of the standard deviation.
        ess_bulk: The effective number of draws for the bulk.
        ess_tail: The effective number of draws for the 5 % and 95 % quantiles.
        r_hat: The rank-normalised split R-hat.

    Examples:
        >>> import torch
        >>> summary = summarize({"slope": torch.arange(400.0).reshape(4, 100)})
        >>> summary["slope"].mean.item()
        199.5
    """

    mean: Tensor
    sd: Tensor
    lower: Tensor
    median: Tensor
    upper: Tensor
    mcse_mean: Tensor
    mcse_sd: Tensor
    ess_bulk: Tensor
    ess_tail: Tensor
    r_hat: Tensor


@attrs.frozen(repr=False)
class Summary:
    """The statistics of all sites; prints as a table, in a notebook too.

    Attributes:
        sites: The statistics by the name of a site.
        prob: The probability of the central interval.
        num_chains: The number of chains.
        num_draws: The number of draws of each chain.

    Examples:
        >>> import torch
        >>> summary = summarize({"slope": torch.arange(400.0).reshape(4, 100)})
        >>> summary["slope"].r_hat > 1.01
        tensor(True)
    """

    sites: Mapping[str, SiteSummary]
    prob: float
    num_chains: int
    num_draws: int

    def __getitem__(self, name: str) -> SiteSummary:
        if name not in self.sites:
            raise UnknownNameError(
                f"There are no draws of a site {name!r}. {near(name, self.sites)}"
            )
        return self.sites[name]

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self._size()])

    def _repr_html_(self) -> str:
        head, *rows = ([escape(cell) for cell in row] for row in self._rows())
        top = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join(
            f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>"
            for row in rows
        )
        return (
            f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self._size())}</p>"
        )

    def _size(self) -> str:
        return f"{self.num_chains:,} x {self.num_draws:,} draws (chains x draws of each)"

    def _rows(self) -> list[list[str]]:
        tail = (1 - self.prob) / 2
        percents = [f"{100 * prob:.4g}%" for prob in (tail, 0.5, 1 - tail)]
        errors = ["mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]
        rows = [["", "mean", "sd", *percents, *errors]]
        for name, site in self.sites.items():
            columns = [statistic.reshape(-1).tolist() for statistic in site]
            labels = element_names(name, site.mean.shape)
            rows += [
                [label, *_cells(values)] for label, *values in zip(labels, *columns, strict=True)
            ]
        return rows


def summarize(samples: Mapping[str, Tensor], prob: float = 0.9) -> Summary:
    """The mean, spread and accuracy of the draws of all sites.

    Args:
        samples: Draws by the name of their site, each ``(chain, draw, *event)``.
        prob: The probability of the central interval between the two outer quantiles.

    Returns:
        A ``Summary``, whose ``repr`` is a table with a row for each element of a site.

    Raises:
        ShapeError: if the sites differ in their number of chains or draws.
        SupportError: if ``prob`` is no probability between 0 and 1.

    Examples:
        >>> import torch
        >>> from purepyro.infer.mcmc import summarize
        >>> draws = torch.tensor([[0.0, 1.0, 3.0, 2.0], [1.0, 3.0, 2.0, 0.0]])
        >>> summarize({"slope": draws})
               mean    sd    5%   50%   95%  mcse_mean  mcse_sd  ess_bulk  ess_tail  r_hat
        slope  1.50  1.20  0.00  1.50  3.00       0.44     0.17         7         7  1.080
        2 x 4 draws (chains x draws of each)
    """
    if not 0 < prob < 1:
        raise SupportError(
            f"prob is {prob!r}, but the interval between two quantiles has a probability between 0 "
            "and 1. Give one such as 0.9, for the quantiles at 5 % and 95 %."
        )
    chains, draws = _shape_of(samples)
    return Summary(
        {name: _site_summary(values, prob) for name, values in samples.items()}, prob, chains, draws
    )


def _shape_of(samples: Mapping[str, Tensor]) -> tuple[int, int]:
    """The numbers of chains and draws, of all sites."""
    shapes = {name: tuple(values.shape[:2]) for name, values in samples.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) < 2 for shape in shapes.values()):
        found = ", ".join(f"{name!r}: {describe(values)}" for name, values in samples.items())
        raise ShapeError(
            f"The sites differ in their chains or draws, or have none ({found}), but draws are "
            "looked at by chain. Give (chain, draw, ...) for each; of draws of one chain make "
            "values.unsqueeze(0)."
        )
    chains, draws = next(iter(shapes.values()), (0, 0))
    return chains, draws


def _site_summary(draws: Tensor, prob: float) -> SiteSummary:
    tail = (1 - prob) / 2
    return SiteSummary(
        mean=_by_element(lambda block: block.mean((1, 2)), draws, least=1),
        sd=_by_element(lambda block: block.std((1, 2)), draws, least=1 if len(draws) > 1 else 2),
        lower=_by_element(lambda block: _quantiles(block, tail)[0], draws, least=1),
        median=_by_element(lambda block: _quantiles(block, 0.5)[0], draws, least=1),
        upper=_by_element(lambda block: _quantiles(block, 1 - tail)[0], draws, least=1),
        mcse_mean=mcse_mean(draws),
        mcse_sd=mcse_sd(draws),
        ess_bulk=ess_bulk(draws),
        ess_tail=ess_tail(draws),
        r_hat=r_hat(draws),
    )


def element_names(name: str, shape: torch.Size) -> Iterator[str]:
    """The elements of a site as ArviZ writes them.

    >>> list(element_names("weight", torch.Size([1, 2])))
    ['weight[0, 0]', 'weight[0, 1]']
    """
    for index in product(*map(range, shape)):
        yield f"{name}[{', '.join(map(str, index))}]" if index else name


def _cells(row: Sequence[float]) -> list[str]:
    """The statistics of an element as text: values to a hundredth of their spread."""
    site = dict(zip(SiteSummary._fields, row, strict=True))
    places = _places(site["sd"])
    values = [f"{site[name]:{places}}" for name in ("mean", "sd", "lower", "median", "upper")]
    errors = [f"{site[name]:.2g}" for name in ("mcse_mean", "mcse_sd")]
    sizes = [f"{site[name]:.0f}" for name in ("ess_bulk", "ess_tail")]
    return [*values, *errors, *sizes, f"{site['r_hat']:.3f}"]


def _places(sd: float) -> str:
    """How to write a value with this spread: with two or three digits of it."""
    if not (math.isfinite(sd) and 1e-6 < sd < 1e9):
        return ".4g"
    return f",.{max(0, 2 - math.floor(math.log10(sd)))}f"


# ----------------------------------------------------------------------------------------- reports


def report(
    samples: Mapping[str, Tensor], stats: Mapping[str, Tensor], max_tree_depth: int | None
) -> list[str]:
    """What is wrong with the draws, and what to try: one text for each kind of fault.

    Args:
        samples: Draws by the name of their site, each ``(chain, draw, *event)``.
        stats: What is known of each draw, ``(chain, draw)``, by ArviZ's names; ``diverging``,
            ``tree_depth`` and ``energy`` are looked at where they are there.
        max_tree_depth: The depth at which a trajectory is cut; ``None`` if there is no such depth.

    Returns:
        The texts, the most important first; none if nothing is found.

    Examples:
        >>> import torch
        >>> apart = torch.stack([torch.arange(100.0), torch.arange(100.0) + 500])
        >>> [text.split(",")[0] for text in report({"slope": apart}, {}, None)][0]
        'R-hat is above 1.01 for 1 of 1 elements (slope: 3.07)'
    """
    found = [
        _on_finite(samples),
        _on_stuck(samples),
        _on_divergences(stats),
        _on_energy(stats),
        *_on_agreement(samples),
        _on_depth(stats, max_tree_depth),
    ]
    return [text for text in found if text]


def _on_finite(samples: Mapping[str, Tensor]) -> str:
    counts = {name: int((~values.isfinite()).sum()) for name, values in samples.items()}
    sites = [f"{name}: {count:,}" for name, count in counts.items() if count]
    if not sites:
        return ""
    return (
        f"Some values of draws are not finite ({_some(sites)}), so means of these sites are not "
        "either. Look for a division by zero, or a logarithm or square root at the edge of its "
        "domain; in float32 large values overflow: move the model and its data to float64."
    )


def _on_stuck(samples: Mapping[str, Tensor]) -> str:
    moved = [
        (values != values[:, :1]).reshape(len(values), -1).any(-1)
        for values in samples.values()
        if values.shape[1] > 1 and values.numel()
    ]
    stuck = _indices(~torch.stack(moved).any(0)) if moved else []
    if not stuck:
        return ""
    return (
        f"{_chains(stuck)} never moved: every proposal was rejected, so the draws are one point. "
        "Make the steps smaller (a higher target_accept_prob), warm up for longer (num_warmup), "
        "start elsewhere (init_to_median), or move the model and its data to float64."
    )


def _on_divergences(stats: Mapping[str, Tensor]) -> str:
    diverging = stats.get("diverging")
    if diverging is None or not diverging.any():
        return ""
    chains = _indices(diverging.bool().any(-1))
    count, total = int(diverging.sum()), diverging.numel()
    return (
        f"{count:,} of {total:,} draws diverged ({100 * count / total:.2g} %), in "
        f"{len(chains)} of {len(diverging)} chains: where the posterior bends more sharply than a "
        "step can follow, it is left out, so means and intervals may be off. Write the model "
        "non-centred (loc + scale * z, with z standard normal) where a scale is random itself, or "
        "raise target_accept_prob (0.95, 0.99)."
    )


def _on_energy(stats: Mapping[str, Tensor]) -> str:
    energy = stats.get("energy")
    if energy is None:
        return ""
    values = bfmi(energy)
    low = _indices(values < _SMALLEST_BFMI)
    if not low:
        return ""
    return (
        f"E-BFMI is below {_SMALLEST_BFMI} in {len(low)} of {len(values)} chains (the lowest: "
        f"{values[low].min():.2f}), so the chains walk slowly through the tails of the energy, and "
        "may not have seen them. Write the model non-centred where a scale is random, or give "
        "heavy-tailed or very wide priors a lighter or narrower form."
    )


def _on_agreement(samples: Mapping[str, Tensor]) -> Iterator[str]:
    chains, draws = _shape_of(samples)
    if not samples or draws < 4:
        yield f"{draws} draws of each chain are too few to say whether they agree: draw 4 or more."
        return
    total = sum(values[0, 0].numel() for values in samples.values())
    # Of a single chain the two halves are compared.
    ratios = {name: _by_element(_r_hat, values) for name, values in samples.items()}
    largest = _largest_r_hat(chains, draws)
    apart = _elements(ratios, lambda values: values > largest)
    if apart:
        apart.sort(key=lambda pair: -pair[1])
        worst = _some([f"{name}: {value:.3g}" for name, value in apart])
        yield (
            f"R-hat is above {largest:.3g} for {len(apart):,} of {total:,} elements ({worst}), "
            f"so the {'chains' if chains > 1 else 'two halves of the chain'} do not agree, and the "
            "draws do not stand for the posterior yet. Warm up and draw for longer (num_warmup, "
            "num_samples). If the chains stay apart, there are several modes: give priors that "
            "tell them apart, order the components of a mixture, or look at each mode by itself."
        )
    needed = _ESS_PER_CHAIN * min(chains, 4)
    sizes = {
        name: torch.minimum(ess_bulk(values), ess_tail(values)) for name, values in samples.items()
    }
    few = _elements(sizes, lambda values: values < needed)
    if few:
        few.sort(key=lambda pair: pair[1])
        worst = _some([f"{name}: {value:.0f}" for name, value in few])
        yield (
            f"The effective sample size is below {needed} for {len(few):,} of {total:,} elements "
            f"({worst}), so their means and quantiles are rough, and R-hat cannot be relied on. "
            "Draw more (num_samples); if it grows slowly, try dense_mass=True, or a non-centred "
            "form where a scale is random."
        )


def _largest_r_hat(chains: int, draws: int) -> float:
    """Up to where R-hat says that chains agree.

    Chains that do agree, with an autocorrelation time t and n draws in each half, have one of
    sqrt(1 + (t - 1) / n). Of a few chains 1.01 asks for draws enough; of many short ones it would
    ask for what no one needs, since their effective sample sizes add up.
    """
    if chains <= _MANY_CHAINS:
        return _LARGEST_R_HAT
    return max(_LARGEST_R_HAT, math.sqrt(1 + 3 / (draws // 2)))


def _on_depth(stats: Mapping[str, Tensor], max_tree_depth: int | None) -> str:
    depth = stats.get("tree_depth")
    if depth is None or max_tree_depth is None:
        return ""
    share = (depth >= max_tree_depth).double().mean().item()
    if not share > _SATURATED_SHARE:
        return ""
    return (
        f"{100 * share:.2g} % of the trajectories were cut at max_tree_depth={max_tree_depth} "
        f"({2**max_tree_depth - 1:,} leapfrogs): the draws are valid, but each costs much and "
        "tells little. Bring the sites to one scale (standardise the data), try dense_mass=True "
        "for correlated sites, or raise max_tree_depth if the effective sample size is low."
    )


def _indices(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def _chains(indices: Sequence[int]) -> str:
    return f"{'Chain' if len(indices) == 1 else 'Chains'} {_some(list(map(str, indices)))}"


def _some(texts: Sequence[str], shown: int = 3) -> str:
    """The first few of many."""
    more = len(texts) - shown
    return ", ".join(texts[:shown]) + (f" and {more:,} more" if more > 0 else "")


def _elements(
    values: Mapping[str, Tensor], flagged: Callable[[Tensor], Tensor]
) -> list[tuple[str, float]]:
    """The elements of all sites that are flagged, by name, with their values."""
    return [
        (f"{name}[{', '.join(map(str, index))}]" if index else name, float(of_site[tuple(index)]))
        for name, of_site in values.items()
        for index in flagged(of_site).nonzero().tolist()
    ]

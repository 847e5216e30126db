"""The models that are compared, each in all dialects, with its data."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import data
import models_floor
import models_numpyro
import models_ours
from digits import digits

from purepyro import Module


@attrs.frozen
class Problem:
    """One model with its data.

    Attributes:
        name: How the tables call it.
        ours: The purepyro Module, which runs under Pyro's SVI as well.
        numpyro: The same as a NumPyro function.
        floor: The same by hand.
        arrays: The data.
        tolerance: How far the final losses may lie apart, relative to their size.
        block: A number of steps that takes neither long nor no time.
    """

    name: str
    ours: Module
    numpyro: Callable[..., None]
    floor: models_floor.HandWritten
    arrays: tuple[data.Array, ...]
    tolerance: float = 0.02
    block: int = 1_000


def regression(rows: int = 100) -> Problem:
    """Bayesian linear regression."""
    return Problem(
        "regression" if rows == 100 else f"{rows:,} rows",
        models_ours.Regression(),
        models_numpyro.regression,
        models_floor.REGRESSION,
        data.regression(rows),
        block=max(10, min(1_000, 10_000_000 // rows)),
    )


def network() -> Problem:
    """A Bayesian neural network on digits, all rows in each step."""
    return Problem(
        "network",
        models_ours.Network(),
        models_numpyro.network,
        models_floor.NETWORK,
        digits(),
        tolerance=0.1,  # one draw's loss has a deviation of a tenth, and there are many optima
        block=100,
    )


def hierarchy() -> Problem:
    """1,000 groups of ten rows."""
    return Problem(
        "hierarchy",
        models_ours.Hierarchy(),
        models_numpyro.hierarchy,
        models_floor.HIERARCHY,
        data.groups(),
        block=200,
    )


def process() -> Problem:
    """A Gaussian process of 100 points."""
    return Problem(
        "process",
        models_ours.Process(),
        models_numpyro.process,
        models_floor.PROCESS,
        data.curve(),
        tolerance=0.3,  # the loss happens to be near zero: 2.3
        block=200,
    )


def sites(number: int) -> Problem:
    """A sum of so many sites."""
    return Problem(
        f"{number} sites",
        models_ours.sum_of(number),
        models_numpyro.sum_of(number),
        models_floor.sum_of(number),
        data.sums(),
        # Over 12 keys the standard deviation is 0.2, 0.8 and 2 % with 10, 30 and 100 sites.
        tolerance=max(0.02, number / 1_000),
    )


def standard() -> list[Problem]:
    """The four that ``svi.py`` compares."""
    return [regression(), network(), hierarchy(), process()]

"""Longley's data in float64: Newton on ``log_density`` reaches NIST's certified regression.

The problem is the classic of ill conditioning: the columns of X as given have a condition number
of 5e9. With a flat prior the most probable coefficients are those of least squares, and the
curvature there gives the certified standard errors.
(https://www.itl.nist.gov/div898/strd/lls/data/Longley.shtml)
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import log_density

# Price deflator, GNP, unemployed, armed forces, population, year; then total employment.
ROWS = [
    [83.0, 234289, 2356, 1590, 107608, 1947, 60323],
    [88.5, 259426, 2325, 1456, 108632, 1948, 61122],
    [88.2, 258054, 3682, 1616, 109773, 1949, 60171],
    [89.5, 284599, 3351, 1650, 110929, 1950, 61187],
    [96.2, 328975, 2099, 3099, 112075, 1951, 63221],
    [98.1, 346999, 1932, 3594, 113270, 1952, 63639],
    [99.0, 365385, 1870, 3547, 115094, 1953, 64989],
    [100.0, 363112, 3578, 3350, 116219, 1954, 63761],
    [101.2, 397469, 2904, 3048, 117388, 1955, 66019],
    [104.6, 419180, 2822, 2857, 118734, 1956, 67857],
    [108.4, 442769, 2936, 2798, 120445, 1957, 68169],
    [110.8, 444546, 4681, 2637, 121950, 1958, 66513],
    [112.6, 482704, 3813, 2552, 123366, 1959, 68655],
    [114.2, 502601, 3931, 2514, 125368, 1960, 69564],
    [115.7, 518173, 4806, 2572, 127852, 1961, 69331],
    [116.9, 554894, 4007, 2827, 130081, 1962, 70551],
]
CERTIFIED = [
    -3482258.63459582,
    15.0618722713733,
    -0.0358191792925910,
    -2.02022980381683,
    -1.03322686717359,
    -0.0511041056535807,
    1829.15146461355,
]
CERTIFIED_ERRORS = [
    890420.383607373,
    84.9149257747669,
    0.0334910077722432,
    0.488399681651699,
    0.214274163161675,
    0.226073200069370,
    455.478499142212,
]
CERTIFIED_SD = 304.854073561965


def line(x: Tensor, y: Tensor, sd: Tensor) -> None:
    flat = dist.ImproperUniform(constraints.real_vector, (), (x.shape[1],))
    coefficient = pyro.sample("coefficient", flat)
    with pyro.plate("years", len(x)):
        pyro.sample("employed", dist.Normal(x @ coefficient, sd), obs=y)


def test_longley() -> None:
    """Two Newton steps from zero; all certified figures to 11 digits."""
    table = torch.tensor(ROWS, dtype=torch.float64)
    x, y = table[:, :-1], table[:, -1]
    mean, scale = x.mean(0), x.std(0)
    design = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), (x - mean) / scale], 1)
    sd = torch.tensor(CERTIFIED_SD, dtype=x.dtype)

    def density(coefficient: Tensor) -> Tensor:
        return log_density(line, {}, {"coefficient": coefficient}, design, y, sd)

    slope = torch.func.grad(density)
    curvature = torch.func.jacrev(slope)
    at = torch.zeros(design.shape[1], dtype=x.dtype)
    for _ in range(2):  # the second only refines the rounding of the first
        at = at - torch.linalg.solve(curvature(at), slope(at))

    # Back to the columns as given: the intercept collects their means.
    back = torch.diag(torch.cat([torch.ones(1, dtype=x.dtype), 1 / scale]))
    back[0, 1:] = -mean / scale
    found = back @ at
    errors = (back @ torch.linalg.inv(-curvature(at)) @ back.mT).diagonal().sqrt()
    residual_sd = (y - design @ at).norm() / math.sqrt(16 - 7)
    assert found.dtype == torch.float64
    for actual, certified in (
        (found, CERTIFIED),
        (errors, CERTIFIED_ERRORS),
        (residual_sd, CERTIFIED_SD),
    ):
        expected = torch.tensor(certified, dtype=torch.float64)
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=0)

"""Law 7: a log density is the sum of its sites'; constrain and unconstrain are inverse."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint

from models import regression, regression_data
from purepyro import Module, PyroParam, constrain, init, random, trace, unconstrain

CONSTRAINTS: list[Constraint] = [
    constraints.real,
    constraints.positive,
    constraints.softplus_positive,
    constraints.unit_interval,
    constraints.interval(-3.0, 2.0),
    constraints.greater_than(1.5),
    constraints.less_than(0.5),
    constraints.simplex,
    constraints.ordered_vector,
    constraints.lower_cholesky,
    constraints.corr_cholesky,
]


@given(st.integers(0, 2**32))
def test_the_trace_is_the_sum_of_its_sites(seed: int) -> None:
    model, (x, y) = regression(), regression_data()
    key = random.key(seed)
    _, record = trace(model, init(model, key), key, x, y)
    total = sum((density.sum() for density in record.log_densities.values()), torch.zeros(()))
    assert torch.equal(record.log_density, total)


@given(st.sampled_from(CONSTRAINTS), st.integers(0, 2**32), st.booleans())
def test_constrain_after_unconstrain_is_the_identity(
    constraint: Constraint, seed: int, double: bool
) -> None:
    dtype = torch.float64 if double else torch.float32
    shape = (3, 3) if constraint is constraints.lower_cholesky else (4, 3)
    unconstrained = random.normal(random.key(seed), shape, dtype=dtype)
    value = torch.distributions.transform_to(constraint)(unconstrained)

    class Model(Module):
        w = PyroParam(value, constraint=constraint)

    # float32 loses digits where a transform saturates; float64 shows the identity itself.
    tolerance = 1e-9 if double else 2e-3
    back = constrain(Model(), unconstrain(Model(), {"w": value}))["w"]
    torch.testing.assert_close(back, value, rtol=tolerance, atol=tolerance)
    started = constrain(Model(), init(Model(), random.key(0)))["w"]
    torch.testing.assert_close(started, value, rtol=tolerance, atol=tolerance)


def test_the_sum_counts_masks_and_scales_once(key: random.Key) -> None:
    def model() -> Tensor:
        with poutine.scale(scale=2.0), pyro.plate("rows", 3):
            return pyro.sample("z", dist.Normal(0.0, 1.0))

    value, record = trace(model, {}, key)
    expected = 2.0 * dist.Normal(0.0, 1.0).log_prob(value).sum()
    torch.testing.assert_close(record.log_density, expected)

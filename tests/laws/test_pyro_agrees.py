"""Law 6: names, log densities, ELBO values and gradients are those of the program under Pyro.

The two draw different noise, so guides here either have none (a Delta), or Pyro gets our draws.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO as PyroTraceELBO
from pyro.nn import PyroModule
from pyro.nn import PyroParam as PlainParam
from pyro.nn import PyroSample as PlainSample
from torch import Tensor

from models import BayesianLinear, regression, regression_data
from purepyro import apply, init, log_density, random, trace
from purepyro.infer import Trace_ELBO


class PlainLinear(PyroModule):  # type: ignore[misc, unused-ignore]
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.scale = PlainParam(torch.tensor(1.0), constraint=constraints.positive)
        self.bias = PlainSample(dist.Normal(0.0, 10.0))
        shape = [out_features, in_features]
        self.weight = PlainSample(
            lambda self: dist.Normal(0.0, self.scale).expand(shape).to_event(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.weight  # to type checkers it is the PyroSample
        out: Tensor = x @ weight.mT + self.bias
        return out


class PlainRegression(PyroModule):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.linear = PlainLinear(3, 1)
        self.sigma = PlainSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        sigma: Any = self.sigma
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        out: Tensor = mean
        return out


def _pyro_trace(values: dict[str, Tensor], x: Tensor, y: Tensor) -> poutine.Trace:
    return poutine.trace(poutine.condition(PlainRegression(), data=values)).get_trace(x, y)


def test_names_and_log_densities(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, key)
    _, record = trace(model, params, key, x, y)
    theirs = _pyro_trace(record.latents, x, y)
    theirs.compute_log_prob()
    names = {*theirs.stochastic_nodes, *theirs.observation_nodes} - {"data"}
    assert set(record.values) == names
    assert set(theirs.param_nodes) == set(params)
    for name, density in record.log_densities.items():
        torch.testing.assert_close(density, dict(theirs.nodes[name])["log_prob"])
    torch.testing.assert_close(record.log_density, theirs.log_prob_sum())
    torch.testing.assert_close(
        log_density(model, params, record.latents, x, y), theirs.log_prob_sum()
    )


def test_apply_on_the_pyro_module_itself(key: random.Key) -> None:
    x, _ = regression_data()
    theirs, ours = PlainRegression(), regression()
    params = init(theirs, key, x)
    assert params.keys() == init(ours, key).keys()
    torch.testing.assert_close(apply(theirs, params, key, x), apply(ours, params, key, x))


def _guide(x: Tensor, y: Tensor | None = None) -> None:
    loc = pyro.param("loc", torch.tensor([[0.5, -0.3, 0.2]]))
    bias = pyro.param("bias_at", torch.tensor(0.1))
    noise = pyro.param("noise_at", torch.tensor(0.7), constraint=constraints.positive)
    pyro.sample("linear.weight", dist.Delta(loc, event_dim=2))
    pyro.sample("linear.bias", dist.Delta(bias))
    pyro.sample("sigma", dist.Delta(noise))


def test_elbo_and_gradients_without_noise(key: random.Key) -> None:
    ours, (x, y) = regression(), regression_data()
    params = {**init(ours, key), **init(_guide, key, x, y)}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return Trace_ELBO().loss(ours, _guide, params, key, x, y)

    gradients, value = torch.func.grad_and_value(loss)(params)
    theirs = PlainRegression()
    expected = PyroTraceELBO().differentiable_loss(theirs, _guide, x, y)
    torch.testing.assert_close(value, expected)
    torch.autograd.backward(expected)
    store = pyro.get_param_store()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, store._params[name].grad)


def _score_model(y: Tensor) -> None:
    probs = torch.tensor([0.3, 0.5, 0.2])
    with pyro.plate("rows", 4):
        k = pyro.sample("k", dist.Categorical(probs))
        pyro.sample("y", dist.Normal(k.float(), 1.0), obs=y)


def _score_guide(y: Tensor) -> None:
    logits = pyro.param("logits", torch.tensor([[0.1, 0.2, 0.3]] * 4))
    with pyro.plate("rows", 4):
        pyro.sample("k", dist.Categorical(logits=logits))


def test_score_function_gradients_of_the_same_draws(key: random.Key) -> None:
    """Pyro scores our draw: a Delta's place is taken by replaying it through `condition`."""
    y = torch.tensor([0.0, 1.0, 2.0, 0.5])
    params = init(_score_guide, key, y)
    gradients, value = torch.func.grad_and_value(
        lambda params: Trace_ELBO().loss(_score_model, _score_guide, params, key, y)
    )(params)
    draws = trace(_score_guide, params, key, y)[1].latents

    class Fixed(dist.Categorical):
        """Categorical with our draw in place of its own."""

        def sample(self, sample_shape: object = ()) -> Tensor:
            return draws["k"]

    def their_guide(y: Tensor) -> None:
        logits = pyro.param("logits", torch.tensor([[0.1, 0.2, 0.3]] * 4))
        with pyro.plate("rows", 4):
            pyro.sample("k", Fixed(logits=logits))

    elbo = PyroTraceELBO()
    torch.testing.assert_close(value.item(), elbo.loss_and_grads(_score_model, their_guide, y))
    torch.testing.assert_close(gradients["logits"], pyro.get_param_store()._params["logits"].grad)


def test_particles_are_the_mean_over_keys(key: random.Key) -> None:
    y = torch.tensor([0.0, 1.0, 2.0, 0.5])
    params = init(_score_guide, key, y)

    def loss(num: int, key: Tensor, chunk_size: int | None = None) -> Tensor:
        elbo = Trace_ELBO(num_particles=num, chunk_size=chunk_size)
        return elbo.loss(_score_model, _score_guide, params, random.Key(key), y)

    singles = torch.stack([loss(1, one) for one in random.split(key, 5)])
    torch.testing.assert_close(loss(5, key), singles.mean())
    torch.testing.assert_close(loss(5, key, 2), singles.mean())


def test_the_linear_layer_gives_the_same_names_alone(key: random.Key) -> None:
    x = torch.ones(2, 3)
    theirs = poutine.trace(PlainLinear(3, 1)).get_trace(x)
    _, record = trace(BayesianLinear(3, 1), {"scale": torch.tensor(0.0)}, key, x)
    assert set(record.latents) == set(theirs.stochastic_nodes)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scaled_and_masked_densities(key: random.Key, scale: float) -> None:
    mask = torch.tensor([True, False, True])

    def model() -> None:
        with poutine.scale(scale=scale), pyro.plate("rows", 3), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    _, record = trace(model, {}, key)
    theirs = poutine.trace(poutine.condition(model, data=record.latents)).get_trace()
    torch.testing.assert_close(record.log_density, theirs.log_prob_sum())

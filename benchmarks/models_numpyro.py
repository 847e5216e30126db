"""The models as NumPyro functions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

GROUPS = 1_000


def regression(x: jax.Array, y: jax.Array) -> None:
    """Weight N(0, 1), bias N(0, 10), noise HalfNormal(1)."""
    weight = numpyro.sample("weight", dist.Normal(jnp.zeros((1, 3)), 1.0).to_event(2))
    bias = numpyro.sample("bias", dist.Normal(0.0, 10.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    mean = (x @ weight.T).squeeze(-1) + bias
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", dist.Normal(mean, noise), obs=y)


def network(x: jax.Array, y: jax.Array) -> None:
    """64-50-10, with N(0, 1) on every weight and bias."""
    weight_1 = numpyro.sample("weight_1", dist.Normal(jnp.zeros((64, 50)), 1.0).to_event(2))
    bias_1 = numpyro.sample("bias_1", dist.Normal(jnp.zeros(50), 1.0).to_event(1))
    weight_2 = numpyro.sample("weight_2", dist.Normal(jnp.zeros((50, 10)), 1.0).to_event(2))
    bias_2 = numpyro.sample("bias_2", dist.Normal(jnp.zeros(10), 1.0).to_event(1))
    logits = jnp.tanh(x @ weight_1 + bias_1) @ weight_2 + bias_2
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", dist.Categorical(logits=logits), obs=y)


def hierarchy(group: jax.Array, y: jax.Array) -> None:
    """1,000 means around one mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfNormal(2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("groups", GROUPS):
        means = numpyro.sample("means", dist.Normal(mean, spread))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", dist.Normal(means[group], noise), obs=y)


def process(x: jax.Array, y: jax.Array) -> None:
    """A Gaussian process with a squared exponential kernel; all three scales LogNormal(0, 1)."""
    length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
    height = numpyro.sample("height", dist.LogNormal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
    covariance = jnp.square(height) * jnp.exp(-0.5 * jnp.square((x[:, None] - x) / length))
    covariance = covariance + (jnp.square(noise) + 1e-3) * jnp.eye(len(x))
    factor = jnp.linalg.cholesky(covariance)
    numpyro.sample("obs", dist.MultivariateNormal(jnp.zeros(len(x)), scale_tril=factor), obs=y)


def sum_of(sites: int) -> Callable[[jax.Array], None]:
    """As many sites as asked; the data are around their sum."""

    def model(y: jax.Array) -> None:
        numbers = [
            numpyro.sample(f"numbers.{i}.value", dist.Normal(0.0, 1.0)) for i in range(sites)
        ]
        with numpyro.plate("data", len(y)):
            numpyro.sample("obs", dist.Normal(jnp.stack(numbers).sum(), 1.0), obs=y)

    return model

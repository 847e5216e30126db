# %% [markdown]
# # A mixture, and who belongs where
#
# Three clusters of iris flowers, found without their labels: discrete sites are summed out
# exactly, and give back each flower's responsibilities.
#
# Which cluster a row belongs to is a discrete latent variable. It has no gradient, and a guide for
# it would be a noisy affair. But there are only three values: `TraceEnum_ELBO` sums over them,
# exactly, at every step.

# %%
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro import poutine
from sklearn.datasets import load_iris
from torch import Tensor

from purepyro import Module, PyroSample, random
from purepyro.infer import SVI, AutoDelta, TraceEnum_ELBO, init_to_value

bunch: Any = load_iris()
raw = torch.tensor(bunch.data[:, 2:], dtype=torch.float32)  # length and width of the petals, cm
species = torch.tensor(bunch.target)
x = (raw - raw.mean(0)) / raw.std(0)
print(f"{len(x)} flowers, {x.shape[1]} measurements")

# %% [markdown]
# ## The model
#
# Weights, and for each cluster a centre and a spread in two directions. The clusters share
# nothing, so their fields are declared with the shape `(3, 2)`. `infer={"enumerate": "parallel"}`
# marks the site that is to be summed out.

# %%
CLUSTERS = 3


class Mixture(Module):
    weights = PyroSample(dist.Dirichlet(torch.full([CLUSTERS], 2.0)))
    centres = PyroSample(dist.Normal(0.0, 2.0).expand([CLUSTERS, 2]).to_event(2))
    spreads = PyroSample(dist.LogNormal(-1.0, 1.0).expand([CLUSTERS, 2]).to_event(2))

    def forward(self, x: Tensor) -> None:
        weights, centres, spreads = self.weights, self.centres, self.spreads
        with pyro.plate("flowers", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(centres[k], spreads[k]).to_event(1), obs=x)


# %% [markdown]
# ## Fit
#
# `AutoDelta` finds the most probable weights, centres and spreads. It must not see `k`, which is
# summed out, so that site is hidden from it. A mixture has many local optima, and where it starts
# matters: three flowers of the data, far apart, are a fair guess.

# %%
model = Mixture()
far = x[[0, 80, 140]]
start = {"centres": far, "spreads": torch.full([3, 2], 0.5)}
guide = AutoDelta(poutine.block(model, hide=["k"]), init_to_value(values=start))
elbo = TraceEnum_ELBO(max_plate_nesting=1)
svi = SVI(model, guide, torchopt.adam(0.05), elbo)
state, losses = svi.run(random.key(0), 250, x)
print(f"loss: {losses[0]:.1f} at first, {losses[-1]:.1f} at last")

found = guide.median(state.params, x)
centres = found["centres"] * raw.std(0) + raw.mean(0)
for weight, centre in zip(found["weights"], centres, strict=True):
    print(f"weight {weight:.2f}   petals {centre[0]:.1f} cm x {centre[1]:.1f} cm")

# %% [markdown]
# ## Responsibilities
#
# What was summed out can be had back: for each flower, the probability that it came from each
# cluster. Compared to the species, which the model never saw:

# %%
marginals = elbo.compute_marginals(model, guide, state.params, random.key(1), x)
responsibilities = marginals["k"].probs
cluster = responsibilities.argmax(-1)
for index, name in enumerate(bunch.target_names):
    print(f"{name:12} {torch.bincount(cluster[species == index], minlength=3).tolist()}")
print("in doubt (less than 90 % sure):", int((responsibilities.max(-1).values < 0.9).sum()))

# %% tags=["thumbnail"]
figure, axes = plt.subplots(figsize=(7, 4.8), layout="constrained")
colours = torch.tensor([[0.12, 0.47, 0.71], [1.0, 0.5, 0.05], [0.17, 0.63, 0.17]])
dots = raw + 0.02 * random.normal(random.key(2), *raw.shape)
axes.scatter(dots[:, 0], dots[:, 1], c=(responsibilities @ colours).clamp(0, 1), s=28)
angle = torch.linspace(0, 2 * torch.pi, 100)
for centre, spread, colour in zip(centres, found["spreads"] * raw.std(0), colours, strict=True):
    ring = centre + 2 * spread * torch.stack([angle.cos(), angle.sin()], 1)
    axes.plot(ring[:, 0], ring[:, 1], color=colour.tolist())
axes.set(xlabel="length of the petals, cm", ylabel="width of the petals, cm")
axes.set_title("Colours are mixed by responsibility: between two clusters, a flower is both")
plt.show()

# %% [markdown]
# ## Draws instead of marginals
#
# `sample_posterior` draws all assignments together, which matters where they depend on each other
# (a hidden Markov chain). It is a pure function of a key, so a thousand draws are a `vmap`.


# %%
def draw(key: Tensor) -> Tensor:
    return elbo.sample_posterior(model, guide, state.params, random.Key(key), x)["k"]


k = torch.vmap(draw)(random.split(random.key(3), 1_000))
share = (k == cluster).float().mean(0)
print(f"{k.shape}; the most doubtful flower is in its cluster in {share.min():.0%} of the draws")

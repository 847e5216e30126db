# %% [markdown]
# # Getting started
#
# A line through real data: declare a model, run it, fit it, and predict with an honest interval.
#
# Install purepyro first: [Install](../install.md). You need to know what a prior and a posterior
# are, and some PyTorch. Knowing Pyro or NumPyro helps: distributions, `pyro.sample` and
# `pyro.plate` are Pyro's own.

# %%
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from sklearn.datasets import load_diabetes
from torch import Tensor

from purepyro import Module, PyroSample, apply, describe, log_density, random, trace
from purepyro.infer import SVI, AutoMultivariateNormal, Predictive

# %% [markdown]
# ## The data
#
# The diabetes data of Efron et al. (2004), which come with scikit-learn: 442 patients, their body
# mass index, and how far the disease went in the year after.

# %%
bunch: Any = load_diabetes(scaled=False)
bmi = torch.tensor(bunch.data[:, 2], dtype=torch.float32)
progress = torch.tensor(bunch.target, dtype=torch.float32)
x, y = (bmi - bmi.mean()) / bmi.std(), (progress - progress.mean()) / progress.std()
print(f"{len(x)} patients, body mass index {bmi.min():.0f} to {bmi.max():.0f}")

# %% [markdown]
# ## Declare the model
#
# A model is a class. Its random variables are fields, declared in the class body by `PyroSample`;
# `forward` says how they make the data. Reading a field, `self.slope`, gives a `Tensor`: the value
# in this run.


# %%
class Line(Module):
    slope = PyroSample(dist.Normal(0.0, 1.0))
    intercept = PyroSample(dist.Normal(0.0, 1.0))
    noise = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, noise = self.slope * x + self.intercept, self.noise
        with pyro.plate("patients", len(x)):
            return pyro.sample("progress", dist.Normal(mean, noise), obs=y)


model = Line()
print(describe(model, x, y))

# %% [markdown]
# The fields are read *before* the plate: one slope for all patients. A field that is first read
# inside of a plate is drawn for each of its rows, and warns; the [tutorial on hierarchical
# models](hierarchical.md) shows when that is meant.
#
# ## Run it
#
# A model holds no values. To run it, give it its parameters (this one has none to learn, so `{}`)
# and a key for its draws. The same arguments give the same result, whatever ran before.

# %%
key = random.key(0)
once = apply(model, {}, key, x)
print("the same key, the same draws:", torch.equal(once, apply(model, {}, key, x)))

_, record = trace(model, {}, key, x)
for name, value in record.latents.items():
    print(f"{name:10} {list(value.shape)}")

values = {"slope": torch.tensor(0.5), "intercept": torch.tensor(0.0), "noise": torch.tensor(0.8)}
print(f"log density of these values and the data: {log_density(model, {}, values, x, y):.1f}")

# %% [markdown]
# ## Fit it
#
# Variational inference fits a *guide*, a distribution over the latent sites, to the posterior.
# `AutoMultivariateNormal` is a normal distribution with correlations. `SVI` holds the settings;
# `run` takes the steps, and returns the last state and the loss of every step. (A run of 1,000
# steps or more is compiled: that takes up to a minute once, and makes the steps hundreds of times
# faster. For these few, the uncompiled loop is done before.)

# %%
guide = AutoMultivariateNormal(model)
svi = SVI(model, guide, torchopt.adam(0.03))
state, losses = svi.run(random.key(1), 400, x, y)
print(f"loss: {losses[:50].mean():.1f} at first, {losses[-50:].mean():.1f} at last")
for name, value in state.params.items():
    print(f"{name:16} {list(value.shape)}")

# %% [markdown]
# All that was learnt is in `state.params`, a plain dict of tensors. Has the loss settled? Look at
# its curve.

# %%
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot(losses)
axes.set(xlabel="step", ylabel="loss", yscale="log", title="The loss settles")
plt.show()

# %% [markdown]
# ## The posterior
#
# `Predictive` runs the model at draws of the guide. Without `y` the data are drawn too:
# predictions for new patients. Deterministic results, latent sites and predictions all come as
# `(draws, ...)`.

# %%
grid = torch.linspace(float(x.min()), float(x.max()), 60)
sites = ["slope", "intercept", "noise", "progress"]
predictive = Predictive(
    model, guide=guide, params=state.params, num_samples=1_000, return_sites=sites
)
draws = predictive(random.key(2), grid)
for name in ("slope", "intercept", "noise"):
    low, middle, high = draws[name].quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    print(f"{name:10} {middle:5.2f}   90 % between {low:5.2f} and {high:5.2f}")

design = torch.stack([x, torch.ones_like(x)], 1)
exact = torch.linalg.lstsq(design, y[:, None]).solution[0].item()
print(f"least squares has the slope {exact:.2f}")

# %% [markdown]
# In units of the data, with the interval that should hold nine of ten patients:

# %% tags=["thumbnail"]
predicted = draws["progress"] * progress.std() + progress.mean()
low, middle, high = predicted.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
bmi_grid = grid * bmi.std() + bmi.mean()
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
axes.plot(bmi, progress, ".", color="0.5", markersize=4, label="patients")
axes.fill_between(bmi_grid, low, high, alpha=0.25, linewidth=0, label="90 % of new patients")
axes.plot(bmi_grid, middle, linewidth=2, label="median")
axes.set(xlabel="body mass index", ylabel="progress of the disease", title="A line, with its noise")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Does the interval hold what it says? Predict the patients themselves, and count.

# %%
at_rows = predictive(random.key(3), x)["progress"]
low, high = at_rows.quantile(torch.tensor([0.05, 0.95]), dim=0)
inside = (low <= y) & (y <= high)
print(f"{inside.float().mean():.0%} of the patients lie in their 90 % interval")

# %% [markdown]
# ## Where to go on
#
# More columns and a yes-or-no outcome: [regression](regression.md). Groups that borrow from each
# other: [hierarchical models](hierarchical.md). Which guide, or MCMC: [which inference
# when](../which_inference.md).

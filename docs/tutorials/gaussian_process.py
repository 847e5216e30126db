# %% [markdown]
# # A Gaussian process
#
# The height of a hillside, measured at 40 places: what lies between, and how sure can one be?
#
# The data are a profile through the elevation model of the Jacksboro fault in Tennessee, which
# comes with matplotlib. We keep 40 of its points, with a gap, and compare the prediction with the
# rest.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torchopt
from matplotlib.cbook import get_sample_data
from torch import Tensor

from purepyro import Module, PyroSample, random
from purepyro.infer import SVI, AutoNormal, Predictive

with np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as file:
    profile = torch.tensor(file["elevation"][40, :200], dtype=torch.float32)
place = torch.arange(len(profile)) * 0.09  # three arc seconds are some 90 m
mean, sd = profile.mean(), profile.std()

candidates = torch.cat([torch.arange(0, 110), torch.arange(145, 200)])
chosen = candidates[random.permutation(random.key(0), len(candidates))[:40]].sort().values
x, y = place[chosen], (profile[chosen] - mean) / sd
print(f"{len(profile)} heights, {profile.min():.0f} to {profile.max():.0f} m; {len(x)} are known")

# %% [markdown]
# ## The model
#
# A Gaussian process says that any heights are jointly normal, with a covariance that falls with
# their distance. Its three parameters (how far, how high, how rough) get priors. `kernel` and
# `predict` are ordinary methods: a model is a class.


# %%
class Hillside(Module):
    length = PyroSample(dist.LogNormal(0.0, 1.0))  # km
    height = PyroSample(dist.HalfNormal(2.0))
    noise = PyroSample(dist.HalfNormal(0.2))

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Matérn 3/2: once differentiable, as hills are."""
        distance = 3**0.5 * (a[:, None] - b).abs() / self.length
        return self.height**2 * (1 + distance) * torch.exp(-distance)

    def covariance(self, x: Tensor) -> Tensor:
        return self.kernel(x, x) + (self.noise**2 + 1e-5) * torch.eye(len(x))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        prior = dist.MultivariateNormal(torch.zeros(len(x)), self.covariance(x))
        return pyro.sample("y", prior, obs=y)

    def predict(self, x: Tensor, y: Tensor, x_new: Tensor) -> Tensor:
        """Mean and variance of the height at new places, given the known ones."""
        root = torch.linalg.cholesky(self.covariance(x))
        across = torch.linalg.solve_triangular(root, self.kernel(x, x_new), upper=False)
        weights = torch.linalg.solve_triangular(root, y[:, None], upper=False)
        variance = self.height**2 - across.square().sum(0)
        mean = (across.T @ weights).squeeze(-1)
        return torch.stack([mean, variance.clamp(min=0.0) + self.noise**2])


# %% [markdown]
# ## Fit
#
# Forty points leave some doubt about the three parameters, so the guide is a distribution, not a
# point.

# %%
model = Hillside()
guide = AutoNormal(model)
state, losses = SVI(model, guide, torchopt.adam(0.05)).run(random.key(1), 300, x, y)
print(f"loss: {losses[:20].mean():.1f} at first, {losses[-50:].mean():.1f} at last")
for name, value in guide.quantiles(state.params, [0.05, 0.5, 0.95]).items():
    low, middle, high = value.tolist()
    print(f"{name:7} {middle:.2f}   90 % between {low:.2f} and {high:.2f}")

# %% [markdown]
# ## Predict at new places
#
# `Predictive` runs any method of the model at draws of the guide; `"_RETURN"` is what the method
# returns. Over 100 draws of the parameters the predictions are a mixture: its mean is the mean of
# their means, its variance the mean of their variances and the variance of their means.

# %%
predictive = Predictive(
    model.predict, guide=guide, params=state.params, num_samples=100, return_sites=["_RETURN"]
)
means, variances = predictive(random.key(2), x, y, place)["_RETURN"].unbind(1)
centre = means.mean(0) * sd + mean
spread = (variances.mean(0) + means.var(0)).sqrt() * sd

hidden = torch.ones(len(profile), dtype=torch.bool)
hidden[chosen] = False
error = (profile - centre)[hidden]
inside = (error.abs() < 1.645 * spread[hidden]).float().mean()
typical = error.square().mean().sqrt()
print(f"hidden points: error {typical:.0f} m, {inside:.0%} inside their 90 % interval")

# %% tags=["thumbnail"]
figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
low, high = centre - 1.645 * spread, centre + 1.645 * spread
axes.fill_between(place, low, high, alpha=0.25, linewidth=0, label="90 %")
axes.plot(place, centre, linewidth=2, label="predicted")
axes.plot(place, profile, color="0.3", linewidth=1, linestyle="--", label="true profile")
axes.plot(x, y * sd + mean, "o", color="C3", markersize=4, label="known heights")
axes.set(
    xlabel="distance, km", ylabel="height, m", title="Sure at the known points, unsure in the gap"
)
axes.legend(frameon=False, ncols=2)
plt.show()

# %% [markdown]
# A process of thousands of points needs approximations, such as inducing points; they are models
# like any other.

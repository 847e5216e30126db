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

from purepyro import Module, PyroSample, apply, random
from purepyro.infer import SVI, AutoDelta

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

    def predict(self, x: Tensor, y: Tensor, x_new: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the height at new places, given the known ones."""
        root = torch.linalg.cholesky(self.covariance(x))
        across = torch.linalg.solve_triangular(root, self.kernel(x, x_new), upper=False)
        weights = torch.linalg.solve_triangular(root, y[:, None], upper=False)
        variance = self.height**2 - across.square().sum(0)
        return (across.T @ weights).squeeze(-1), variance.clamp(min=0.0) + self.noise**2


# %% [markdown]
# ## Fit
#
# Forty points fix three numbers well, so a point estimate will do: `AutoDelta` finds the most
# probable values.

# %%
model = Hillside()
guide = AutoDelta(model)
state, losses = SVI(model, guide, torchopt.adam(0.05)).run(random.key(1), 200, x, y)
for name, value in guide.median(state.params, x, y).items():
    print(f"{name:7} {value:.2f}")

# %% [markdown]
# ## Predict at new places
#
# Any method of a model runs by `apply`. `pyro.poutine.condition` puts the values into its fields.

# %%
fitted = pyro.poutine.condition(model.predict, data=guide.median(state.params, x, y))
centre, variance = apply(fitted, {}, random.key(2), x, y, place)
centre, spread = centre * sd + mean, variance.sqrt() * sd

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
# ## How sure of the parameters?
#
# A point estimate ignores what is not known about `length` itself. With `AutoMultivariateNormal`
# in place of `AutoDelta`, draw its parameters and average the predictions over them: `torch.vmap`
# of the two lines above.
#
# A process of thousands of points needs approximations, such as inducing points; they are models
# like any other.

# %% [markdown]
# # A time series, and a forecast
#
# Airline passengers from 1949 to 1960: a trend that changes, a season, and two years of forecast
# against what came.
#
# The monthly totals of international airline passengers, in thousands (Box and Jenkins, 1976). We
# fit the first ten years and forecast the last two.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor
from torchopt.schedule import linear_schedule

from purepyro import Module, Prior, PyroSample, random
from purepyro.infer import SVI, AutoLaplaceApproximation, Predictive

# fmt: off
passengers = torch.tensor([
    112., 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118,
    115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140,
    145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166,
    171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194,
    196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201,
    204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229,
    242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278,
    284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306,
    315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336,
    340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337,
    360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405,
    417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432,
])
# fmt: on
KNOWN, ALL = 120, len(passengers)
y = passengers.log()[:KNOWN]
start = y[:12].mean()
print(f"{KNOWN} months to fit, {ALL - KNOWN} to forecast")

# %% [markdown]
# ## The model
#
# On the scale of logarithms: a trend whose growth changes from year to year, a season of sines and
# cosines, and noise. No loop over months is needed: the trend is a running sum. (A loop is fine
# too, and compiles; for hidden Markov chains, `pyro.markov` marks one.)
#
# The forecast is part of the model. The changes of the years to come are a site of their own,
# which the guide does not know: `Predictive` draws it from the prior, which is what the future is.

# %%
WAVES = 4


class Passengers(Module):
    level = PyroSample(dist.Normal(start, 0.2))
    growth = PyroSample(dist.Normal(0.1, 0.1))  # a year
    change = PyroSample(dist.HalfNormal(0.1))  # of the growth, from year to year
    noise = PyroSample(dist.HalfNormal(0.1))
    season = PyroSample(dist.Normal(0.0, 0.2).expand([2 * WAVES]).to_event(1))

    @PyroSample
    def changes(self) -> Prior:  # in units of `change`, so that the guide need not know it
        return dist.Normal(0.0, 1.0).expand([KNOWN // 12]).to_event(1)

    def waves(self, months: int) -> Tensor:
        angle = torch.arange(months)[:, None] * torch.arange(1, WAVES + 1) * (2 * math.pi / 12)
        return torch.cat([angle.sin(), angle.cos()], 1)

    def forward(self, y: Tensor | None = None, years_ahead: int = 0) -> Tensor:
        changes = self.changes
        if years_ahead:
            ahead = dist.Normal(0.0, 1.0).expand([years_ahead]).to_event(1)
            changes = torch.cat([changes, pyro.sample("ahead", ahead)])
        growth = (self.growth + self.change * changes).repeat_interleave(12)
        trend = self.level + growth.cumsum(0) / 12
        mean, noise = trend + self.waves(len(trend)) @ self.season, self.noise
        with pyro.plate("months", len(trend)):
            return pyro.sample("y", dist.Normal(mean, noise), obs=y)


model = Passengers()

# %% [markdown]
# ## Fit
#
# A posterior of 23 numbers, nearly normal, and with strong correlations (level and growth): a case
# for Laplace's approximation. `AutoLaplaceApproximation` looks for the most probable point, which
# takes no random draws; then the curvature there gives a normal guide with all correlations.

# %%
STEPS = 400
guide = AutoLaplaceApproximation(model)
rate = linear_schedule(0.03, 0.001, STEPS, 0)
state, losses = SVI(model, guide, torchopt.adam(rate)).run(random.key(0), STEPS, y)
print(f"loss: {losses[0]:.0f} at first, {losses[-1]:.0f} at last")

normal, fitted = guide.laplace_approximation(state.params, y)
sites = ["level", "growth", "change", "noise", "season", "changes"]
posterior = Predictive(
    model, guide=normal, params={**state.params, **fitted}, num_samples=1_000, return_sites=sites
)(random.key(1), y)
growth = posterior["growth"].exp() - 1
print(f"growth a year: {growth.mean():.0%} (sd {growth.std():.1%})")
print(f"noise: {posterior['noise'].mean():.1%} of a month's passengers")

# %% [markdown]
# ## Forecast

# %%
ahead = ALL - KNOWN
draws = Predictive(model, posterior_samples=posterior, return_sites=["y"])(
    random.key(2), None, years_ahead=ahead // 12
)
forecast = draws["y"][:, KNOWN:].exp()
low, middle, high = forecast.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
truth = passengers[KNOWN:]
error = ((middle - truth) / truth).abs().mean()
naive = ((passengers[KNOWN - 12 : KNOWN].repeat(2) - truth) / truth).abs().mean()
inside = ((low <= truth) & (truth <= high)).float().mean()
print(
    f"mean error {error:.1%} (last year repeated: {naive:.1%}); {inside:.0%} inside the 90 % band"
)

# %% tags=["thumbnail"]
year = 1949 + torch.arange(ALL) / 12
figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
axes.plot(year, passengers, ".-", color="0.35", markersize=3, linewidth=0.8, label="passengers")
axes.fill_between(year[KNOWN:], low, high, alpha=0.3, linewidth=0, label="90 % of the forecast")
axes.plot(year[KNOWN:], middle, linewidth=2, label="median of the forecast")
axes.axvline(float(year[KNOWN]), color="0.8", linewidth=1)
axes.set(xlabel="year", ylabel="thousands a month", title="Ten years known, two years ahead")
axes.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# The band widens with time, since growth may change again. Its parts can be had as well: `growth`,
# `season` and the changes of each draw are in `posterior`.

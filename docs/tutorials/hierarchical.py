# %% [markdown]
# # Hierarchical models
#
# Eighteen baseball players, 45 attempts each: what partial pooling is, how fields and plates say
# it, and what it gains.
#
# The data of Efron and Morris (1977): for each player the hits in his first 45 times at bat of the
# season of 1970, and his average in the rest of that season, which is what one would like to know.
# Forty-five attempts say little: who hit 18 of 45 was lucky too.

# %%
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Module, Prior, PyroSample, describe, random
from purepyro.infer import SVI, AutoMultivariateNormal, Predictive

# fmt: off
players = [
    "Clemente", "F. Robinson", "F. Howard", "Johnstone", "Berry", "Spencer", "Kessinger",
    "Alvarado", "Santo", "Swoboda", "Unser", "Williams", "Scott", "Petrocelli", "E. Rodriguez",
    "Campaneris", "Munson", "Alvis",
]
hits = torch.tensor([18.0, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])
rest = torch.tensor([
    0.346, 0.298, 0.276, 0.222, 0.273, 0.270, 0.263, 0.210, 0.269,
    0.230, 0.264, 0.256, 0.303, 0.264, 0.226, 0.285, 0.316, 0.200,
])
# fmt: on
ATTEMPTS = 45

# %% [markdown]
# ## Fields and plates
#
# Each player has an ability; the abilities share a mean and a spread, which are learnt too. So
# every player tells something about the others. In the class below `ability` is read inside the
# plate of players, and through its prior so are `mean` and `spread`.
#
# A field is drawn at its first read. If that is inside a plate, what is meant? `local=True` says:
# one for each row of the plate. `local=False` says: one, whatever plate reads it first.


# %%
class Players(Module):
    mean = PyroSample(dist.Normal(-1.0, 1.0), local=False)
    spread = PyroSample(dist.HalfNormal(0.5), local=False)

    @PyroSample(local=True)
    def ability(self) -> Prior:  # in logits: the log odds of a hit
        return dist.Normal(self.mean, self.spread)

    def forward(self, attempts: Tensor, hits: Tensor | None = None) -> Tensor:
        with pyro.plate("players", len(attempts)):
            counts = dist.Binomial(attempts, logits=self.ability)
            return pyro.sample("hits", counts, obs=hits)


model = Players()
attempts = torch.full([len(players)], float(ATTEMPTS))
print(describe(model, attempts, hits))

# %% [markdown]
# ### The trap
#
# Without `local=` a field that is first read in a plate is local to it, as in Pyro. Had we left it
# out, each player would have had a mean and a spread of his own, and nothing would be pooled. That
# warns, and `describe` shows it:


# %%
class Unpooled(Module):
    mean = PyroSample(dist.Normal(-1.0, 1.0))

    def forward(self, attempts: Tensor, hits: Tensor | None = None) -> Tensor:
        with pyro.plate("players", len(attempts)):
            return pyro.sample("hits", dist.Binomial(attempts, logits=self.mean), obs=hits)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(describe(Unpooled(), attempts, hits))
print(str(caught[0].message).split(". ")[0])

# %% [markdown]
# Reading the field before the plate (`mean = self.mean`) says the same as `local=False`, for
# fields that `forward` itself reads. [Fields in plates](../plates.md) has the whole story.
#
# ## Fit
#
# A guide with correlations, since all abilities lean on the same mean.

# %%
guide = AutoMultivariateNormal(model)
svi = SVI(model, guide, torchopt.adam(0.03))
state, losses = svi.run(random.key(0), 400, attempts, hits)
print(f"loss: {losses[:50].mean():.1f} at first, {losses[-50:].mean():.1f} at last")

predictive = Predictive(
    model, guide=guide, params=state.params, num_samples=2_000, return_sites=["ability"]
)
rates = predictive(random.key(1), attempts)["ability"].sigmoid()
print(rates.shape)

# %% [markdown]
# ## Who is right about the rest of the season?
#
# Three predictions: every player by his own 45 attempts (no pooling), everyone by what all did
# together (complete pooling), and the posterior. The first two are simple enough for the exact
# posterior, a Beta distribution.


# %%
def report(name: str, draws: Tensor) -> None:
    low, high = draws.quantile(torch.tensor([0.05, 0.95]), dim=0)
    error = (draws.mean(0) - rest).square().mean().sqrt()
    inside = int(((low <= rest) & (rest <= high)).sum())
    width = (high - low).mean()
    print(
        f"{name:>8} pooling: error {error:.3f}, 90 % intervals {width:.2f} wide hold {inside} of 18"
    )


alone = dist.Beta(1 + hits, 1 + ATTEMPTS - hits)
all_hits, all_misses = hits.sum(), (ATTEMPTS - hits).sum()
together = dist.Beta(1 + all_hits, 1 + all_misses).expand([len(players)])
keys = random.split(random.key(4))
report("no", random.sample(random.Key(keys[0]), alone, [2_000]))
report("complete", random.sample(random.Key(keys[1]), together, [2_000]))
report("partial", rates)

# %% [markdown]
# Without pooling the errors are nearly twice as large, and the intervals too wide. Complete
# pooling guesses as well on average, but is far too sure: it takes all players for equal. Partial
# pooling did not have to choose.

# %% tags=["thumbnail"]
low, high = rates.quantile(torch.tensor([0.05, 0.95]), dim=0)
rows = torch.arange(len(players))
figure, axes = plt.subplots(figsize=(7, 5.5), layout="constrained")
axes.axvline(float(hits.mean()) / ATTEMPTS, color="0.85", linewidth=1, label="all players")
axes.hlines(rows, low, high, color="C0", alpha=0.35, linewidth=5, label="partial pooling, 90 %")
axes.plot(rates.mean(0), rows, "o", color="C0", label="partial pooling, mean")
axes.plot(
    hits / ATTEMPTS,
    rows,
    "|",
    color="C3",
    markersize=11,
    markeredgewidth=2,
    label="first 45 attempts",
)
axes.plot(rest, rows, "x", color="0.2", label="rest of the season")
axes.set(yticks=rows.tolist(), yticklabels=players, xlabel="batting average")
axes.set_title("Extreme starts are pulled to the middle, and the season agrees")
axes.invert_yaxis()
axes.legend(frameon=False, fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# ## A new player
#
# The model knows players in general too. For one who was never seen, give `Predictive` the
# posterior of what is shared and leave his ability to its prior: any number of rows in the plate
# will do.

# %%
shared = ["mean", "spread"]
posterior = Predictive(
    model, guide=guide, params=state.params, num_samples=2_000, return_sites=shared
)(random.key(2), attempts)
newcomer = Predictive(model, posterior_samples=posterior, return_sites=["ability"])
rate = newcomer(random.key(3), torch.tensor([45.0]))["ability"].sigmoid()
low, high = rate.quantile(torch.tensor([0.05, 0.95])).tolist()
print(f"a new player's average: {rate.mean():.3f}, 90 % between {low:.3f} and {high:.3f}")

# %% [markdown]
# A normal guide in log odds is an approximation: small spreads are under-explored, which shows
# where groups are many and data are few. [Which inference when](../which_inference.md) tells when
# MCMC is worth its cost.

# %% [markdown]
# # Two hundred networks at once
#
# An ensemble that is also a search: 200 members, each with its own learning rate and prior,
# trained as one; then the best are kept and predict together.
#
# An ensemble here is one stacked state: a step of all members is one `torch.vmap`, so 200 small
# networks cost little more than one. And since each member may have settings of its own, the
# search for good settings is one run.

# %%
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from purepyro import Ensemble, Lifted, Module, Prior, PyroSample, lift, random
from purepyro.ensemble import quantile_calibration_error
from purepyro.infer import SVI, AutoDelta, scale

bunch: Any = load_diabetes(scaled=False)
columns = torch.tensor(bunch.data, dtype=torch.float32)
score = torch.tensor(bunch.target, dtype=torch.float32)
order = random.permutation(random.key(0), len(score))
train, valid, test = order[:242], order[242:342], order[342:]
x = (columns - columns[train].mean(0)) / columns[train].std(0)
y = (score - score[train].mean()) / score[train].std()
print(f"{len(train)} patients to train, {len(valid)} to choose, {len(test)} to test")

# %% [markdown]
# ## A model with settings
#
# A field may be a tensor, so a setting may be one: the width of the prior here. `make_svi` makes
# the SVI of a member from its slice of the settings, and is called inside the `vmap`. `scale`
# takes the learning rate.


# %%
class Regression(Module):
    net: Lifted[[Tensor], Tensor]
    width: Tensor
    noise = PyroSample(dist.HalfNormal(1.0))

    @PyroSample
    def slopes(self) -> Prior:
        return dist.Normal(0.0, self.width).expand([10]).to_event(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, noise = x @ self.slopes + self.net(x).squeeze(-1), self.noise
        with pyro.plate("patients", len(x)):
            return pyro.sample("score", dist.Normal(mean, noise), obs=y)


net = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 1))


def make_svi(setting: dict[str, Tensor]) -> SVI[[Tensor, Tensor | None]]:
    model = Regression(lift(net, reinitialize=True), setting["width"])
    optim = torchopt.chain(torchopt.adam(1.0), scale(setting["rate"]))
    return SVI(model, AutoDelta(model), optim)


MEMBERS = 200
draws = random.uniform(random.key(1), 2, MEMBERS)
settings = {"rate": 10 ** (-4 + 3 * draws[0]), "width": 10 ** (-2 + 3 * draws[1])}
ensemble = Ensemble(make_svi, members=settings)
print({name: f"{v.min():.4f} to {v.max():.4f}" for name, v in settings.items()})

# %% [markdown]
# ## Train all
#
# One key for each member: weights start differently, by `reinitialize=True`.

# %%
keys = random.split(random.key(2), MEMBERS)
state, losses = ensemble.run(keys, 200, x[train], y[train])
print(f"losses: {tuple(losses.shape)}, best {losses[-1].min():.1f}, worst {losses[-1].max():.1f}")

# %% [markdown]
# ## Choose
#
# The score of each member alone on the patients kept for choosing: the mean negative log density
# of a row. A member that went bad (a loss that is not finite) was set apart by the run; we choose
# from those that are alive.

# %%
alive = ensemble.select(state, state.alive)
scores = ensemble.predictive(alive).member_nll(random.key(3), x[valid], y[valid]).mean(1)
best = scores.argsort()[:20]
rates, widths = settings["rate"][state.alive], settings["width"][state.alive]
print(f"loss on the rows to choose: best {scores.min():.3f}, median {scores.median():.3f}")
print(f"best rate {rates[best[0]]:.4f}, width {widths[best[0]]:.3f}")

# %% tags=["thumbnail"]
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
shown = scores.clamp(max=2.0)
dots = axes.scatter(rates, widths, c=shown, cmap="viridis_r", s=24)
axes.scatter(rates[best], widths[best], s=70, facecolors="none", edgecolors="C3", label="best 20")
figure.colorbar(dots, ax=axes, label="loss on the rows to choose (2 and more)")
axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="width of the prior")
axes.set_title("One run, two hundred settings")
axes.legend(frameon=False, loc="lower left")
plt.show()

# %% [markdown]
# ## Predict together
#
# The mixture of the twenty best, on patients that nobody has seen. Its variance has two parts: the
# noise that the members see (aleatoric), and what they disagree on (epistemic).

# %%
chosen = ensemble.select(alive, best)
groups = {"best alone": best[:1], "best 20": best, "all": torch.arange(len(scores))}
for name, members in groups.items():
    predictive = ensemble.predictive(ensemble.select(alive, members))
    nll = predictive.nll(random.key(4), x[test], y[test]).mean()
    error = quantile_calibration_error(predictive.cdf(random.key(4), x[test], y[test]))
    print(f"{name:10} loss {nll:.3f}   calibration error {error:.4f}")

mean, epistemic, aleatoric = ensemble.predictive(chosen).predict(random.key(5), x[test], None)
noise, disagreement = aleatoric.sqrt().mean(), epistemic.sqrt().mean()
print(f"noise {noise:.2f}, disagreement {disagreement:.2f} (in standard deviations of the score)")

# %% [markdown]
# The state of an ensemble is a tree of tensors: `ensemble.member(state, 3)` is an ordinary
# `SVIState`, `save` and `load` take it whole, and a run goes on with `run_from`.
# [Ensembles](../ensembles.md) has the rest: bootstraps, members that go bad, memory, and more than
# one machine. On a GPU hundreds of members are a set of large operations: [On a GPU](../gpu.md).

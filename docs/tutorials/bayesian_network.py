# %% [markdown]
# # A Bayesian network, and calibration
#
# A classifier of digits with few pictures to learn from: is it as sure as it is right?
#
# A network is *calibrated* if those of its predictions that it makes with 70 % confidence are
# right in 70 % of the cases. Networks whose weights are a single best guess are often too sure,
# above all on data unlike those of the training. Here the same network is trained twice: once with
# weights that are learnt, once with a last layer of random weights.

# %%
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchopt.schedule import linear_schedule

from purepyro import Lifted, Module, describe, fan_in_normal, lift, random
from purepyro.ensemble import EnsemblePredictive, calibration_error
from purepyro.infer import SVI, AutoNormal, TraceMeanField_ELBO

bunch: Any = load_digits()
order = random.permutation(random.key(0), len(bunch.target))
x = torch.tensor(bunch.data, dtype=torch.float32)[order] / 16.0
y = torch.tensor(bunch.target)[order]
TRAIN = 300
x_train, y_train, x_test, y_test = x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]
# Worse pictures than those of the training: half of the points are dark.
dark = random.uniform(random.key(9), *x_test.shape) < 0.5
x_hard = x_test.masked_fill(dark, 0.0)
print(f"{len(x_train)} pictures to train, {len(x_test)} to test")

# %% [markdown]
# ## One network, two models
#
# `lift(net)` makes a model of any `torch.nn` network. Without a prior its weights are learnt; with
# one they are random variables. Priors go by the names of the weights: here those of the last
# layer, `"2.*"`. (With all 2,410 weights random and 300 pictures, an independent guide learns
# little: the prior outweighs the data.) The network itself is not changed.


# %%
class Classifier(Module):
    net: Lifted[[Tensor], Tensor]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits = self.net(x)
        with pyro.plate("pictures", len(x)):
            pyro.sample("digit", dist.Categorical(logits=logits), obs=y)
        return logits


net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
learnt = Classifier(lift(net, reinitialize=True))
bayesian = Classifier(lift(net, {"2.*": fan_in_normal(3.0)}, reinitialize=True))
print(describe(bayesian))

# %% [markdown]
# ## Fit both
#
# The first has no latent sites, so its guide is empty. The second has a normal guide for each
# random weight, and learns the others beside it. The learning rate falls, so that the last steps
# settle.


# %%
def nothing(x: Tensor, y: Tensor | None = None) -> None:
    """The guide of a model without latent sites."""


point_svi = SVI(learnt, nothing, torchopt.adam(0.01))
point, _ = point_svi.run(random.key(1), 300, x_train, y_train)

guide = AutoNormal(bayesian, init_scale=0.02)
rate = linear_schedule(0.05, 0.0025, 400, 0)
svi = SVI(bayesian, guide, torchopt.adam(rate), TraceMeanField_ELBO())
posterior, losses = svi.run(random.key(2), 400, x_train, y_train)
print(f"loss: {losses[:20].mean():.0f} at first, {losses[-20:].mean():.0f} at last")

# %% [markdown]
# ## Predict
#
# `EnsemblePredictive.of_fit` takes a fit for an ensemble whose members are draws of its guide: 100
# draws of the weights, whose probabilities are averaged. Where the draws disagree, the average is
# less sure. A guide without draws needs one.

# %%
of_point = EnsemblePredictive.of_fit(point_svi, point, num_samples=1)
of_posterior = EnsemblePredictive.of_fit(svi, posterior, num_samples=100)


def report(name: str, predictive: EnsemblePredictive[[Tensor, Tensor | None]], x: Tensor) -> Tensor:
    probs = predictive.predict_proba(random.key(3), x, None).probs
    right = (probs.argmax(-1) == y_test).float().mean()
    score = -predictive.nll(random.key(3), x, y_test).mean()
    error = calibration_error(probs, y_test, num_bins=10)
    print(f"{name:22} right {right:.1%}   log score {score:.2f}   calibration error {error:.3f}")
    return probs


print("undamaged pictures:")
report("all weights learnt", of_point, x_test)
report("last layer random", of_posterior, x_test)
print("damaged pictures:")
results = {
    "all weights learnt": report("all weights learnt", of_point, x_hard),
    "last layer random": report("last layer random", of_posterior, x_hard),
}

# %% [markdown]
# On pictures like those of the training both are right equally often, and the single guess is well
# calibrated, while the average is somewhat too modest. On damaged ones the single guess does not
# notice; the average does.
#
# ## The reliability diagram
#
# Predictions are sorted into bins by their confidence. On the diagonal the network is as sure as
# it is right; below it, too sure.

# %% tags=["thumbnail"]
edges = torch.linspace(0.0, 1.0, 11)
figure, both = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
for axes, (name, probs) in zip(both, results.items(), strict=True):
    confidence, predicted = probs.max(-1)
    right = (predicted == y_test).float()
    bins = torch.bucketize(confidence, edges[1:-1])
    count = torch.bincount(bins, minlength=10)
    share = torch.zeros(10).index_add(0, bins, right) / count
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.bar((edges[:-1] + 0.05).tolist(), share.nan_to_num().tolist(), width=0.09, alpha=0.7)
    axes.set(xlabel="confidence", title=name, xlim=(0, 1), ylim=(0, 1))
both[0].set_ylabel("share that is right")
figure.suptitle("Damaged digits: is it as sure as it is right?")
plt.show()

# %% [markdown]
# ## The pictures it doubts

# %%
probs = results["last layer random"]
confidence = probs.max(-1).values
figure, cells = plt.subplots(2, 8, figsize=(8, 2.6), layout="constrained")
ranked = confidence.argsort()
for row, chosen in zip(cells, (ranked[:8], ranked[-8:]), strict=True):
    for axes, index in zip(row, chosen.tolist(), strict=True):
        axes.imshow(x_hard[index].reshape(8, 8).numpy(), cmap="gray_r")
        guess = int(probs[index].argmax())
        axes.set_title(f"{guess}? {confidence[index]:.0%}", fontsize=8)
        axes.axis("off")
figure.suptitle("Least and most sure")
plt.show()

# %% [markdown]
# Another way to the same end is an ensemble: [two hundred networks at once](ensemble.md). More on
# scores: [Ensembles](../ensembles.md#calibration).

# %% [markdown]
# # Linear and logistic regression
#
# Ten columns and a score, thirty columns and a diagnosis: vectors of coefficients, held-out
# scores, and probabilities that can be trusted.

# %%
import math
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor

from purepyro import Module, Prior, PyroSample, random
from purepyro.ensemble import calibration_error
from purepyro.infer import SVI, AutoMultivariateNormal, AutoNormal, LogLikelihood, Predictive


def split(x: Tensor, y: Tensor, test: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train and test rows at random; columns standardised by the training rows."""
    order = random.permutation(random.key(0), len(y))
    train, held_out = order[test:], order[:test]
    mean, sd = x[train].mean(0), x[train].std(0)
    x = (x - mean) / sd
    return x[train], y[train], x[held_out], y[held_out]


# %% [markdown]
# ## Linear regression
#
# The diabetes data again, with all ten columns. `expand` makes the prior a vector, `to_event(1)`
# says that the vector is one draw. The number of columns is an ordinary field of the model, and
# the prior is a method that reads it.

# %%
bunch: Any = load_diabetes(scaled=False)
score = torch.tensor(bunch.target, dtype=torch.float32)
score = (score - score.mean()) / score.std()
columns = torch.tensor(bunch.data, dtype=torch.float32)
x, y, x_test, y_test = split(columns, score, test=110)


class Linear(Module):
    columns: int
    intercept = PyroSample(dist.Normal(0.0, 1.0))
    noise = PyroSample(dist.HalfNormal(1.0))

    @PyroSample
    def coefficients(self) -> Prior:
        return dist.Normal(0.0, 0.5).expand([self.columns]).to_event(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, noise = x @ self.coefficients + self.intercept, self.noise
        with pyro.plate("patients", len(x)):
            return pyro.sample("score", dist.Normal(mean, noise), obs=y)


# %% [markdown]
# The columns are correlated, so the coefficients are too, and the guide should know:
# `AutoMultivariateNormal`. For comparison, `AutoNormal` takes them for independent, and comes out
# too sure of each.

# %%
model = Linear(columns=x.shape[1])
intervals = {}
for guide in (AutoMultivariateNormal(model), AutoNormal(model)):
    state, losses = SVI(model, guide, torchopt.adam(0.03)).run(random.key(1), 400, x, y)
    sites = ["coefficients", "intercept", "noise"]
    posterior = Predictive(
        model, guide=guide, params=state.params, num_samples=1_000, return_sites=sites
    )(random.key(2), x)
    intervals[type(guide).__name__] = posterior
    # The log density of held-out patients, at the mean over draws of their density.
    density = LogLikelihood(model, state.params, posterior)(x_test, y_test)["score"]
    held_out = (density.logsumexp(0) - math.log(1_000)).mean()
    print(
        f"{type(guide).__name__:23} loss {losses[-50:].mean():.1f}, held-out score {held_out:.3f}"
    )

# %% tags=["thumbnail"]
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
rows = torch.arange(x.shape[1])
axes.axvline(0.0, color="0.85", linewidth=1)
for shift, (name, posterior) in zip((-0.15, 0.15), intervals.items(), strict=True):
    low, middle, high = posterior["coefficients"].quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    (line,) = axes.plot(middle, rows + shift, "o", markersize=4, label=name)
    axes.hlines(rows + shift, low, high, linewidth=2.5, color=line.get_color())
axes.set(
    yticks=rows.tolist(), yticklabels=bunch.feature_names, xlabel="effect, in standard deviations"
)
axes.set_title("s1 to s4 are correlated: an independent guide is too sure of them")
axes.invert_yaxis()
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Logistic regression
#
# The breast cancer data of Wisconsin (with scikit-learn): 30 measurements of a tumour, and whether
# it is benign. The likelihood is a `Bernoulli` with logits; the prior is narrower, for the columns
# nearly repeat each other.

# %%
cancer: Any = load_breast_cancer()
features = torch.tensor(cancer.data, dtype=torch.float32)
benign = torch.tensor(cancer.target, dtype=torch.float32)
x, y, x_test, y_test = split(features, benign, test=170)


class Logistic(Module):
    columns: int
    intercept = PyroSample(dist.Normal(0.0, 2.0))

    @PyroSample
    def coefficients(self) -> Prior:
        return dist.Normal(0.0, 0.5).expand([self.columns]).to_event(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits = pyro.deterministic("logits", x @ self.coefficients + self.intercept)
        with pyro.plate("tumours", len(x)):
            return pyro.sample("benign", dist.Bernoulli(logits=logits), obs=y)


logistic = Logistic(columns=x.shape[1])
guide = AutoNormal(logistic)
state, losses = SVI(logistic, guide, torchopt.adam(0.03)).run(random.key(3), 400, x, y)
print(f"loss: {losses[:50].mean():.1f} at first, {losses[-50:].mean():.1f} at last")

# %% [markdown]
# `pyro.deterministic` records a value without density, so that `Predictive` returns it. A
# prediction is the mean of the probabilities over the posterior, which is less extreme than the
# probability at the mean.

# %%
predictive = Predictive(
    logistic, guide=guide, params=state.params, num_samples=1_000, return_sites=["logits"]
)
probability = predictive(random.key(4), x_test)["logits"].sigmoid().mean(0)
right = (probability > 0.5) == y_test.bool()
log_score = dist.Bernoulli(probability).log_prob(y_test).mean()
both = torch.stack([1 - probability, probability], -1)
error = calibration_error(both, y_test.long(), num_bins=10)
print(f"right: {right.float().mean():.1%}   log score: {log_score:.3f}")
print(f"calibration error: {error:.3f}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for value, name in ((0.0, "malignant"), (1.0, "benign")):
    axes.hist(probability[y_test == value], bins=20, range=(0, 1), alpha=0.6, label=name)
axes.set(xlabel="predicted probability that it is benign", ylabel="tumours", yscale="log")
axes.set_title("Most are clear, some are in doubt")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# More on scores and checks: [Diagnose](../diagnose.md). More than a line: [a Bayesian
# network](bayesian_network.md) or [a Gaussian process](gaussian_process.md).

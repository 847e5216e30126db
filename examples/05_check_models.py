"""Checking and comparing models on real data: ELBO, log likelihood per datum, calibration.

The breast cancer data of Wolberg et al. (1995): is a tumour malignant? Three logistic regressions
are compared by WAIC on the training rows, beside their score on rows held out; the predictions of
the largest are then checked against what was observed.

Run: python examples/05_check_models.py [folder for the plot]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from matplotlib.axes import Axes
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torchopt.schedule import linear_schedule

from purepyro import Module, Prior, PyroSample, random
from purepyro.infer import SVI, AutoNormal, LogLikelihood, Predictive, Trace_ELBO

STEPS, DRAWS, HELD_OUT, GROUPS = 500, 1_000, 200, 8
COLUMNS = ("mean texture", "mean smoothness", "mean radius", "mean concavity", "radius error")
SITES = ["coefficient", "intercept"]


class Logistic(Module):
    columns: int
    intercept = PyroSample(dist.Normal(0.0, 2.0))

    @PyroSample
    def coefficient(self) -> Prior:
        return dist.Normal(0.0, 2.0).expand([self.columns]).to_event(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits = x @ self.coefficient + self.intercept
        with pyro.plate("patients", len(x)):
            return pyro.sample("malignant", dist.Bernoulli(logits=logits), obs=y)


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Columns, standardised by the training rows, and malignant as 1; then those held out."""
    bunch: Any = load_breast_cancer()
    chosen = [list(bunch.feature_names).index(name) for name in COLUMNS]
    x = torch.tensor(bunch.data[:, chosen], dtype=torch.float32)
    y = 1.0 - torch.tensor(bunch.target, dtype=torch.float32)
    order = random.permutation(random.key(0), len(y))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    x = (x - x[train].mean(0)) / x[train].std(0)
    return x[train], y[train], x[test], y[test]


def waic(scores: Tensor) -> Tensor:
    """Expected log predictive density of new data, by datum, from scores (draws, data)."""
    return scores.logsumexp(0) - math.log(len(scores)) - scores.var(0)


def plot_elbo(axes: Axes, losses: Tensor, label: str) -> None:
    """The bound at each step, averaged over 20 steps."""
    axes.plot(torch.arange(20, STEPS + 1, 20), -losses.reshape(-1, 20).mean(1), label=label)


def plot_calibration(axes: Axes, draws: Tensor, y: Tensor) -> int:
    """Per group of patients of like probability: predicted and observed share of malignant."""
    groups = draws.mean(0).argsort().chunk(GROUPS)
    shares = torch.stack([draws[:, group].mean(1) for group in groups], 1)
    seen = torch.stack([y[group].mean() for group in groups])
    low, high = shares.quantile(torch.tensor([0.05, 0.95]), dim=0)
    inside, number = int(((low <= seen) & (seen <= high)).sum()), torch.arange(1, GROUPS + 1)
    axes.bar(number, high - low + 0.01, 0.5, low - 0.005, alpha=0.35, label="90 % interval")
    axes.plot(number, shares.mean(0), "_", color="C0", markersize=18, label="predicted mean")
    axes.plot(number, seen, "o", color="C3", markersize=6, label="observed")
    axes.set(xlabel=f"group of {len(groups[0])} patients, by predicted probability")
    axes.set(ylim=(-0.03, 1.05), ylabel="share of malignant")
    axes.set(title=f"Held out: {inside} of {GROUPS} groups inside")
    axes.legend(frameon=False, loc="upper left")
    return inside


def main(folder: Path) -> None:
    """Fit, compare, check and plot."""
    x_train, y, x_test, y_test = load()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    print("columns  WAIC a patient  held-out score a patient")
    for columns in (2, 3, 5):
        model, x, x_new = Logistic(columns), x_train[:, :columns], x_test[:, :columns]
        guide = AutoNormal(model)
        optim = torchopt.adam(linear_schedule(0.05, 0.001, STEPS, 0))
        svi = SVI(model, guide, optim, Trace_ELBO(num_particles=4))
        state, losses = svi.run(random.key(1), STEPS, x, y)
        plot_elbo(left, losses, f"{columns} columns")
        posterior = Predictive(
            model, guide=guide, params=state.params, num_samples=DRAWS, return_sites=SITES
        )(random.key(2), x, y)
        score = LogLikelihood(model, state.params, posterior)
        held_out = score(x_new, y_test)["malignant"].logsumexp(0) - math.log(DRAWS)
        elpd = waic(score(x, y)["malignant"]).mean()
        print(f"{columns:7}  {elpd:14.3f}  {held_out.mean():24.3f}")
        draws = Predictive(model, posterior_samples=posterior)(random.key(3), x_new)
    left.set(xlabel="step", ylabel="ELBO", title="The bound converges, higher with more columns")
    left.legend(frameon=False, loc="lower right")
    inside = plot_calibration(right, draws["malignant"], y_test)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "check_models.png"
    figure.savefig(path, dpi=130)
    print(f"{inside} of {GROUPS} groups lie in their 90 % interval. Plot: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

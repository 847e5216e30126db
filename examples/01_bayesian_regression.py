"""Bayesian linear regression on real data: posterior table, held-out score, plot.

The diabetes data of Efron et al. (2004): ten measurements of 442 patients, and a score of how far
the disease went in the year after. The fit is functional SVI; the held-out score stands beside
that of ordinary least squares.

Run: python examples/01_bayesian_regression.py [folder for the plot]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro import poutine
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_diabetes
from torch import Tensor
from torchopt.schedule import linear_schedule

from purepyro import Module, Prior, PyroSample, random, trace
from purepyro.infer import SVI, AutoNormal, Predictive, SVIState

SEED, STEPS, DRAWS, HELD_OUT = 0, 2_000, 2_000, 110


class Data(NamedTuple):
    """Standardised columns, the score in its own units, and the names of the columns."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    names: list[str]


class Regression(Module):
    """A line through the data. ``basis`` maps uncorrelated directions to the columns.

    The columns are correlated and the guide is mean-field, so the prior stands on uncorrelated
    directions, where the posterior is nearly independent too; the coefficients of the columns are
    a deterministic site. (The QR reparameterisation of the Stan user's guide, section 1.2.)
    """

    basis: Tensor
    spread: float
    intercept = PyroSample(dist.Normal(150.0, 100.0))
    noise = PyroSample(dist.HalfNormal(100.0))

    @PyroSample
    def direction(self) -> Prior:
        return dist.Normal(0.0, self.spread).expand([len(self.basis)]).to_event(1)

    @PyroSample
    def coefficient(self) -> Prior:
        return self.basis @ self.direction

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, noise = x @ self.coefficient + self.intercept, self.noise
        with pyro.plate("patients", len(x)):
            return pyro.sample("score", dist.Normal(mean, noise), obs=y)


def load() -> Data:
    """The data, split at random into training and test rows."""
    frame = load_diabetes(as_frame=True, scaled=False)["frame"]
    columns, score = frame.drop(columns="target"), frame["target"]
    x = torch.tensor(columns.to_numpy(), dtype=torch.float32)
    y = torch.tensor(score.to_numpy(), dtype=torch.float32)
    order = random.permutation(random.key(SEED), len(y))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    mean, sd = x[train].mean(0), x[train].std(0)
    x = (x - mean) / sd
    return Data(x[train], y[train], x[test], y[test], list(columns))


def least_squares(data: Data) -> tuple[Tensor, Tensor]:
    """The coefficients (intercept last) and the residual standard deviation."""
    design = torch.cat([data.x, torch.ones(len(data.x), 1)], 1)
    solution = torch.linalg.lstsq(design, data.y[:, None]).solution[:, 0]
    residual = data.y - design @ solution
    return solution, residual.norm() / math.sqrt(len(design) - design.shape[1])


def fit(model: Regression, data: Data) -> tuple[AutoNormal[[Tensor, Tensor | None]], SVIState]:
    """The mean-field posterior: the guide and the last state."""
    guide = AutoNormal(model, init_scale=1.0)
    rate = linear_schedule(0.5, 0.005, STEPS, 0)
    state, losses = SVI(model, guide, torchopt.adam(rate)).run(
        random.key(SEED + 1), STEPS, data.x, data.y
    )
    print(f"ELBO: {-losses[:100].mean():.1f} (first 100 steps), {-losses[-100:].mean():.1f} (last)")
    return guide, state


def held_out_density(model: Regression, draws: dict[str, Tensor], data: Data) -> Tensor:
    """The log predictive density of each held-out patient: log of the mean over draws."""
    latents = {name: draws[name] for name in ("intercept", "noise", "direction")}

    def of_one_draw(values: dict[str, Tensor]) -> Tensor:
        at_values = poutine.condition(model, data=values)
        _, record = trace(at_values, {}, random.key(0), data.x_test, data.y_test)
        return record.log_densities["score"]

    return torch.vmap(of_one_draw)(latents).logsumexp(0) - math.log(DRAWS)


def print_table(
    names: list[str], coefficients: Tensor, ols: Tensor, density: float, ols_density: float
) -> None:
    """Posterior mean, standard deviation and 90 % interval by column, beside least squares."""
    table = Table(title="Effect of one standard deviation on the score", title_justify="left")
    table.add_column("column")
    for heading in ("mean", "sd", "5 %", "95 %", "least squares"):
        table.add_column(heading, justify="right")
    quantiles = coefficients.quantile(torch.tensor([0.05, 0.95]), dim=0)
    for row in zip(names, coefficients.mean(0), coefficients.std(0), *quantiles, ols, strict=True):
        table.add_row(str(row[0]), *(f"{float(number):.1f}" for number in row[1:]))
    console = Console(width=90)
    console.print(table)
    console.print("Held-out log predictive density per patient (higher is better):")
    console.print(f"  purepyro {density:.4f}   least squares {ols_density:.4f}")


def plot(names: list[str], draws: dict[str, Tensor], ols: Tensor, data: Data, path: Path) -> float:
    """The posterior beside least squares, and the predictive check; returns the coverage."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    rows = torch.arange(len(names))
    low, middle, high = draws["coefficient"].quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    left.axvline(0.0, color="0.8", linewidth=1)
    left.hlines(rows, low, high, color="C0", linewidth=3, label="posterior, 90 %")
    left.plot(middle, rows, "o", color="C0", label="posterior median")
    left.plot(ols, rows, "x", color="C1", label="least squares")
    left.set(yticks=rows.tolist(), yticklabels=names, xlabel="effect of one sd on the score")
    left.invert_yaxis()
    left.legend(frameon=False, fontsize=9)
    left.set_title("Coefficients")

    low, high = draws["score"].quantile(torch.tensor([0.05, 0.95]), dim=0)
    inside = (low <= data.y_test) & (data.y_test <= high)
    mean = draws["score"].mean(0)
    ends = [float(data.y_test.min()), float(data.y_test.max())]
    right.plot(ends, ends, color="0.8", linewidth=1, zorder=0)
    for chosen, color, label in ((inside, "C0", "inside"), (~inside, "C3", "outside")):
        right.vlines(data.y_test[chosen], low[chosen], high[chosen], color=color, alpha=0.25)
        count = int(chosen.sum())
        right.plot(data.y_test[chosen], mean[chosen], ".", color=color, label=f"{label} ({count})")
    coverage = float(inside.float().mean())
    right.set(xlabel="observed score", ylabel="predicted score: mean and 90 % interval")
    right.set_title(f"Held-out patients: {coverage:.0%} inside their 90 % interval")
    right.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return coverage


def main(folder: Path) -> None:
    """Fit, score, print and plot."""
    data = load()
    # Columns times this are uncorrelated, with standard deviation one.
    basis = torch.linalg.inv(torch.linalg.qr(data.x).R) * math.sqrt(len(data.x))
    model = Regression(basis=basis, spread=100.0)
    guide, state = fit(model, data)

    sites = ["intercept", "noise", "direction", "coefficient", "score"]
    predictive = Predictive(
        model, guide=guide, params=state.params, num_samples=DRAWS, return_sites=sites
    )
    draws = predictive(random.key(SEED + 2), data.x_test)

    ols, residual_sd = least_squares(data)
    at_ols = dist.Normal(data.x_test @ ols[:-1] + ols[-1], residual_sd)
    density = float(held_out_density(model, draws, data).mean())
    ols_density = float(at_ols.log_prob(data.y_test).mean())
    print_table(data.names, draws["coefficient"], ols[:-1], density, ols_density)

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bayesian_regression.png"
    coverage = plot(data.names, draws, ols[:-1], data, path)
    print(f"{coverage:.0%} of held-out patients lie in their 90 % interval. Plot: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

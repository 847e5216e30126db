"""Bayesian linear regression on real data: posterior table, held-out score, plot.

The diabetes data of Efron et al. (2004): ten measurements of 442 patients, and a score of how far
the disease went in the year after. The fit is functional SVI; the held-out score stands beside
that of ordinary least squares.

Run: python examples/04_bayesian_regression.py [folder for the plot]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

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

SEED, STEPS, DRAWS, HELD_OUT = 0, 1_000, 2_000, 110


class Data(NamedTuple):
    """Columns and score, standardised by the training rows, and what the columns are called."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    names: list[str]
    mean: Tensor
    sd: Tensor

    def in_units(self, score: Tensor) -> Tensor:
        """A standardised score in the units of the data."""
        return score * self.sd + self.mean


class Regression(Module):
    """A line through the data. ``basis`` maps uncorrelated directions to the columns.

    The columns are correlated and the guide is mean-field, so the prior stands on uncorrelated
    directions, where the posterior is nearly independent too; the coefficients of the columns are
    a deterministic site. (The QR reparameterisation of the Stan user's guide, section 1.2.)
    """

    basis: Tensor
    intercept = PyroSample(dist.Normal(0.0, 1.0))
    noise = PyroSample(dist.HalfNormal(1.0))

    @PyroSample
    def direction(self) -> Prior:
        return dist.Normal(0.0, 1.0).expand([len(self.basis)]).to_event(1)

    @PyroSample
    def coefficient(self) -> Prior:
        return self.basis @ self.direction

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, noise = x @ self.coefficient + self.intercept, self.noise
        with pyro.plate("patients", len(x)):
            return pyro.sample("score", dist.Normal(mean, noise), obs=y)


def load() -> Data:
    """The data, split at random into training and test rows."""
    bunch: Any = load_diabetes(scaled=False)
    x = torch.tensor(bunch.data, dtype=torch.float32)
    y = torch.tensor(bunch.target, dtype=torch.float32)
    order = random.permutation(random.key(SEED), len(y))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    mean, sd = y[train].mean(), y[train].std()
    x, y = (x - x[train].mean(0)) / x[train].std(0), (y - mean) / sd
    names = list(bunch.feature_names)
    return Data(x[train], y[train], x[test], y[test], names, mean, sd)


def least_squares(data: Data) -> tuple[Tensor, Tensor]:
    """The coefficients (intercept last) and the residual standard deviation."""
    design = torch.cat([data.x, torch.ones(len(data.x), 1)], 1)
    solution = torch.linalg.lstsq(design, data.y[:, None]).solution[:, 0]
    residual = data.y - design @ solution
    return solution, residual.norm() / math.sqrt(len(design) - design.shape[1])


def fit(model: Regression, data: Data) -> tuple[AutoNormal[[Tensor, Tensor | None]], SVIState]:
    """The mean-field posterior: the guide and the last state."""
    guide = AutoNormal(model)
    rate = linear_schedule(0.05, 0.0005, STEPS, 0)
    state, losses = SVI(model, guide, torchopt.adam(rate)).run(
        random.key(SEED + 1), STEPS, data.x, data.y
    )
    print(f"ELBO: {-losses[:100].mean():.1f} (first 100 steps), {-losses[-100:].mean():.1f} (last)")
    return guide, state


def held_out_density(model: Regression, draws: dict[str, Tensor], data: Data) -> Tensor:
    """Per held-out patient, the log of the density's mean over draws, in units of the data."""
    latents = {name: draws[name] for name in ("intercept", "noise", "direction")}

    def of_one_draw(values: dict[str, Tensor]) -> Tensor:
        at_values = poutine.condition(model, data=values)
        _, record = trace(at_values, {}, random.key(0), data.x_test, data.y_test)
        return record.log_densities["score"]

    per_draw = torch.vmap(of_one_draw)(latents)
    return per_draw.logsumexp(0) - math.log(DRAWS) - data.sd.log()


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

    score, y_test = data.in_units(draws["score"]), data.in_units(data.y_test)
    low, high = score.quantile(torch.tensor([0.05, 0.95]), dim=0)
    inside = (low <= y_test) & (y_test <= high)
    ends = [float(y_test.min()), float(y_test.max())]
    right.plot(ends, ends, color="0.8", linewidth=1, zorder=0)
    for chosen, color, label in ((inside, "C0", "inside"), (~inside, "C3", "outside")):
        mean, count = score.mean(0)[chosen], int(chosen.sum())
        right.vlines(y_test[chosen], low[chosen], high[chosen], color=color, alpha=0.25)
        right.plot(y_test[chosen], mean, ".", color=color, label=f"{label} ({count})")
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
    model = Regression(basis=basis)
    guide, state = fit(model, data)

    sites = ["intercept", "noise", "direction", "coefficient", "score"]
    predictive = Predictive(
        model, guide=guide, params=state.params, num_samples=DRAWS, return_sites=sites
    )
    draws = predictive(random.key(SEED + 2), data.x_test)

    ols, residual_sd = least_squares(data)
    at_ols = dist.Normal(data.x_test @ ols[:-1] + ols[-1], residual_sd)
    density = float(held_out_density(model, draws, data).mean())
    ols_density = float((at_ols.log_prob(data.y_test) - data.sd.log()).mean())
    draws["coefficient"], ols = draws["coefficient"] * data.sd, ols[:-1] * data.sd
    print_table(data.names, draws["coefficient"], ols, density, ols_density)

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bayesian_regression.png"
    coverage = plot(data.names, draws, ols, data, path)
    print(f"{coverage:.0%} of held-out patients lie in their 90 % interval. Plot: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

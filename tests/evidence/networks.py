"""Networks on real regression data: a deep ensemble, a mean-field Bayesian network, least squares.

Two data sets that come with scikit-learn, 20 random splits of each into nine tenths to train on and
one tenth to test on. All members for all splits are one ensemble, each with data of its own.

Run, for the tables: python tests/evidence/networks.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro.distributions import constraints
from sklearn.datasets import load_diabetes, load_wine
from torch import Tensor, nn
from torchopt.schedule import linear_schedule

from purepyro import (
    Ensemble,
    Lifted,
    Module,
    PyroParam,
    PyroSample,
    fan_in_normal,
    lift,
    random,
    replace,
)
from purepyro.ensemble import EnsembleState
from purepyro.infer import SVI, AutoNormal

SPLITS, MEMBERS, UNITS, DRAWS = 20, 10, 50, 100
STEPS, BAYES_STEPS = 80, 500

Fit = Ensemble[[Tensor, Tensor | None]]


class Data(NamedTuple):
    """Standardised by the training rows of each split; splits first."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    sd: Tensor  # of the target, by split, in its units


class Scores(NamedTuple):
    """By split, in the units of the target."""

    rmse: Tensor
    nll: Tensor


class Network(Module):
    """Two layers for the mean, and one noise, learnt as well."""

    net: Lifted[[Tensor], Tensor]
    noise = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean, noise = self.net(x).squeeze(-1), self.noise
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)


def network(columns: int) -> nn.Sequential:
    """For so many columns."""
    return nn.Sequential(nn.Linear(columns, UNITS), nn.Tanh(), nn.Linear(UNITS, 1))


def nothing(x: Tensor, y: Tensor | None = None) -> None:
    """A guide for a model without latent sites."""


def diabetes() -> tuple[Tensor, Tensor]:
    """Ten measurements of 442 patients, and how far the disease went (Efron et al. 2004)."""
    bunch: Any = load_diabetes(scaled=False)
    return torch.tensor(bunch.data), torch.tensor(bunch.target)


def wine() -> tuple[Tensor, Tensor]:
    """Twelve measurements of 178 wines, and their alcohol in per cent (Forina et al. 1991)."""
    bunch: Any = load_wine()
    table = torch.tensor(bunch.data)
    return table[:, 1:], table[:, 0]


SETS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"diabetes": diabetes, "wine": wine}


def split(x: Tensor, y: Tensor, key: random.Key) -> Data:
    """All splits, each by a permutation of its own."""
    orders = torch.stack([random.permutation(k, len(y)) for k in random.split(key, SPLITS)])
    held_out = len(y) // 10
    test, train = orders[:, :held_out], orders[:, held_out:]
    mean, sd = x[train].mean(1, keepdim=True), x[train].std(1, keepdim=True)
    middle, spread = y[train].mean(1, keepdim=True), y[train].std(1, keepdim=True)
    x, x_test = (x[train] - mean) / sd, (x[test] - mean) / sd
    y, y_test = (y[train] - middle) / spread, (y[test] - middle) / spread
    return Data(x.float(), y.float(), x_test.float(), y_test.float(), spread[:, 0].float())


def fit_members(data: Data, key: random.Key) -> tuple[Fit, EnsembleState]:
    """Ten members for each split, those of a split side by side."""
    model = Network(lift(network(data.x.shape[-1]), reinitialize=True))
    svi = SVI(model, nothing, torchopt.adam(0.01), compiled=False, progress_bar=False)
    ensemble = Ensemble(svi, in_dims=0, progress_bar=False)
    own = [each.repeat_interleave(MEMBERS, dim=0) for each in (data.x, data.y)]
    return ensemble, ensemble.run(random.split(key, SPLITS * MEMBERS), STEPS, *own).state


def fit_bayes(data: Data, key: random.Key) -> tuple[Fit, EnsembleState]:
    """A mean-field posterior over all weights for each split."""
    lifted = Network(lift(network(data.x.shape[-1]), fan_in_normal()))
    model = replace(lifted, {"noise": PyroSample(dist.HalfNormal(1.0))})
    optim = torchopt.adam(linear_schedule(0.02, 0.001, BAYES_STEPS, 0))
    svi = SVI(model, AutoNormal(model), optim, compiled=False, progress_bar=False)
    ensemble = Ensemble(svi, in_dims=0, progress_bar=False)
    return ensemble, ensemble.run(random.split(key, SPLITS), BAYES_STEPS, data.x, data.y).state


def scores(
    data: Data,
    fit: tuple[Fit, EnsembleState],
    groups: list[list[int]],
    splits: list[int],
    draws: int = 1,
) -> Scores:
    """Of the mixture of each group of members, on the test rows of a split."""
    ensemble, state = fit
    rmse, nll = [], []
    for group, s in zip(groups, splits, strict=True):
        some = ensemble.select(state, group)
        predictive = ensemble.predictive(some, num_samples=draws)
        x, y = data.x_test[s], data.y_test[s]
        mean = predictive.predict(random.key(s), x, None).mean
        rmse.append((mean - y).square().mean().sqrt() * data.sd[s])
        nll.append(predictive.nll(random.key(s), x, y).mean() + data.sd[s].log())
    return Scores(torch.stack(rmse), torch.stack(nll))


def least_squares(data: Data) -> Scores:
    """A line with normal noise."""
    ones = torch.ones_like(data.y)[..., None]
    design = torch.cat([data.x, ones], -1)
    test = torch.cat([data.x_test, torch.ones_like(data.y_test)[..., None]], -1)
    solution = torch.linalg.lstsq(design, data.y[..., None]).solution
    residual = data.y - (design @ solution)[..., 0]
    freedom = design.shape[1] - design.shape[2]
    noise = residual.norm(dim=1, keepdim=True) / math.sqrt(freedom)
    return _of_normal(data, (test @ solution)[..., 0], noise)


def mean_only(data: Data) -> Scores:
    """The mean and standard deviation of the training rows."""
    return _of_normal(data, torch.zeros_like(data.y_test), torch.ones(SPLITS, 1))


def _of_normal(data: Data, mean: Tensor, noise: Tensor) -> Scores:
    rmse = (mean - data.y_test).square().mean(1).sqrt() * data.sd
    log_density = dist.Normal(mean, noise).log_prob(data.y_test)
    return Scores(rmse, data.sd.log() - log_density.mean(1))


def compared(data: Data) -> dict[str, Scores]:
    """All contenders; a single member's scores are means over the ten members of a split."""
    each = list(range(SPLITS))
    members = fit_members(data, random.key(1))
    groups = [list(range(MEMBERS * s, MEMBERS * (s + 1))) for s in each]
    alone = scores(
        data,
        members,
        [[i] for i in range(SPLITS * MEMBERS)],
        [i // MEMBERS for i in range(SPLITS * MEMBERS)],
    )
    return {
        "ensemble": scores(data, members, groups, each),
        "one member": Scores(*(score.view(SPLITS, MEMBERS).mean(1) for score in alone)),
        "Bayesian network": scores(
            data, fit_bayes(data, random.key(2)), [[s] for s in each], each, DRAWS
        ),
        "least squares": least_squares(data),
        "mean only": mean_only(data),
    }


def with_error(value: Tensor) -> str:
    """The mean over splits, and its standard error."""
    return f"{value.mean():.3f} ± {value.std() / math.sqrt(len(value)):.3f}"


def main() -> None:
    """Print the tables."""
    for name, load in SETS.items():
        print(f"\n{name}: mean and standard error over {SPLITS} splits\n\n| | RMSE | NLL |")
        print("|---|---|---|")
        for what, (rmse, nll) in compared(split(*load(), random.key(0))).items():
            print(f"| {what} | {with_error(rmse)} | {with_error(nll)} |")


if __name__ == "__main__":
    main()

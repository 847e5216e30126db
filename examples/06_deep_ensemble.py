"""A deep ensemble: one hundred networks, trained as one, and what they do not know.

Any `torch.nn` network becomes a model by `lift`; with `reinitialize=True` each member starts from
numbers of its own key. The data are simulated, so that the plot can show the truth: a thermometer
that is read through one day, noisier in the afternoon, and that failed for some hours. There the
members have nothing to agree on.

Run: python examples/06_deep_ensemble.py [folder for the plot]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor, nn
from torch.nn.functional import softplus

from purepyro import Ensemble, Lifted, Module, lift, random
from purepyro.ensemble import Prediction
from purepyro.infer import SVI

MEMBERS, STEPS = 100, 400
ROWS, DAY, GAP = 160, (0.0, 24.0), (9.0, 15.0)


class Network(Module):
    """Two heads: the mean and, by softplus, the noise."""

    net: Lifted[[Tensor], Tensor]

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean, raw = self.net(x).unbind(-1)
        with pyro.plate("readings", len(x)):
            pyro.sample("temperature", dist.Normal(mean, 0.05 + softplus(raw)), obs=y)


def nothing(x: Tensor, y: Tensor | None = None) -> None:
    """The guide of a model without latent sites: its parameters are all there is to learn."""


def truth(hour: Tensor) -> Tensor:
    """The temperature through the day, °C."""
    turn = 2 * math.pi * (hour - 9.0) / 24.0
    return 14.0 + 6.0 * turn.sin() + (2 * turn).cos()


def load() -> tuple[Tensor, Tensor]:
    """Hours and readings, without those in the gap."""
    hour = random.uniform(random.key(10), ROWS) * DAY[1]
    sd = 0.4 + 0.8 * (hour > 12.0)
    reading = truth(hour) + sd * random.normal(random.key(11), ROWS)
    works = (hour < GAP[0]) | (hour > GAP[1])
    return hour[works], reading[works]


def plot(hours: Tensor, found: Prediction, x: Tensor, y: Tensor, path: Path) -> None:
    """The band of what the members disagree on, inside that of all there is; the gap is marked."""
    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    axes.axvspan(*GAP, color="0.93", zorder=0, linewidth=0, label="no data")
    bands = (
        ("90 %: noise (aleatoric) and disagreement", found.variance, 0.2),
        ("90 %: disagreement (epistemic) alone", found.epistemic, 0.5),
    )
    for label, variance, alpha in bands:
        half = 1.645 * variance.sqrt()
        low, high = (found.mean - half).tolist(), (found.mean + half).tolist()
        axes.fill_between(
            hours.tolist(), low, high, color="C0", alpha=alpha, linewidth=0, label=label
        )
    axes.plot(hours, found.mean, color="C0", linewidth=2, label="mean of the members")
    axes.plot(hours, truth(hours), color="C3", linestyle="--", linewidth=1, label="truth")
    axes.plot(x, y, ".", color="0.2", markersize=4, label="readings")
    axes.set(xlabel="hour of the day, h", ylabel="temperature, °C", xlim=DAY, ylim=(4, 28))
    axes.set_xticks(range(0, 25, 3))
    axes.set_title(f"{MEMBERS} networks trained as one: they disagree where there are no data")
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(folder: Path) -> None:
    """Train, predict, print and plot."""
    x, y = load()
    mean, sd = y.mean(), y.std()

    def scaled(hour: Tensor) -> Tensor:
        # Wide, so that networks as torch starts them are curves of many shapes, not lines.
        return hour[:, None] - 12.0

    # All members take a step as one, by vmap; with 1,000 steps or more they would be compiled too.
    net = nn.Sequential(nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 2))
    svi = SVI(Network(lift(net, reinitialize=True)), nothing, torchopt.adam(0.005))
    ensemble = Ensemble(svi)
    keys = random.split(random.key(0), MEMBERS)
    state, losses = ensemble.run(keys, STEPS, scaled(x), (y - mean) / sd)
    print(f"Loss of a member: {losses[0].mean():.0f} at first, {losses[-1].mean():.0f} at last")

    # The variance of the mixture has two parts: the variance of the members' means (epistemic:
    # they disagree) and the mean of their variances (aleatoric: the noise they see).
    hours = torch.linspace(*DAY, 241)
    predictive = ensemble.predictive(state)
    found = predictive.predict(random.key(1), scaled(hours), None)
    found = Prediction(found.mean * sd + mean, found.epistemic * sd**2, found.aleatoric * sd**2)
    print("hour  mean  disagreement  noise (°C)")
    for i in (50, 110, 200):
        parts = (found.mean[i], found.epistemic[i].sqrt(), found.aleatoric[i].sqrt())
        print("{:4.0f}  {:4.1f}  {:12.2f}  {:5.2f}".format(hours[i], *map(float, parts)))

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "deep_ensemble.png"
    plot(hours, found, x, y, path)
    print(f"Plot: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

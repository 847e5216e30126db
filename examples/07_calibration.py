"""Is a classifier as sure as it is right? One network and an ensemble of twenty, on digits.

The handwritten digits of scikit-learn: 1,797 pictures of 8 x 8 points, of which few are used to
train, so that there is something to be unsure of. If a prediction is calibrated, those that are
made with 70 % confidence are right in 70 % of the cases.

Run: python examples/07_calibration.py [folder for the plot]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from matplotlib.axes import Axes
from sklearn.datasets import load_digits
from torch import Tensor, nn

from purepyro import Ensemble, Lifted, Module, lift, random
from purepyro.ensemble import ClassPrediction, calibration_error
from purepyro.infer import SVI

MEMBERS, STEPS, ROWS, BINS = 20, 150, 150, 10


class Classifier(Module):
    """A network whose outputs are logits of the ten digits."""

    net: Lifted[[Tensor], Tensor]

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        logits = self.net(x)
        with pyro.plate("pictures", len(x)):
            pyro.sample("digit", dist.Categorical(logits=logits), obs=y)


def nothing(x: Tensor, y: Tensor | None = None) -> None:
    """The guide of a model without latent sites: its parameters are all there is to learn."""


def load() -> tuple[Tensor, Tensor]:
    """Pictures and digits, in random order."""
    bunch: Any = load_digits()
    order = random.permutation(random.key(0), len(bunch.target))
    x = torch.tensor(bunch.data, dtype=torch.float32) / 16.0
    return x[order], torch.tensor(bunch.target)[order]


def plot_reliability(axes: Axes, probs: Tensor, y: Tensor, title: str) -> None:
    """By bin of confidence: the share that is right, and how many there are."""
    confidence, predicted = probs.max(-1)
    right = (predicted == y).float()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    counts = torch.bincount(bins, minlength=BINS)
    seen = counts > 0
    shares = torch.bincount(bins, right, minlength=BINS)[seen] / counts[seen]
    middle = ((torch.arange(BINS) + 0.5) / BINS)[seen].tolist()
    error = (shares * (1 - shares) / counts[seen]).sqrt().tolist()
    heights, numbers = shares.tolist(), counts[seen].tolist()
    axes.bar(middle, heights, 0.09, color="C0", alpha=0.35, label="right, share")
    axes.errorbar(middle, heights, error, fmt="none", color="C0", capsize=2, label="standard error")
    axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1, label="calibrated")
    for at, count in zip(middle, numbers, strict=True):
        axes.text(at, 0.02, str(int(count)), ha="center", fontsize=7, color="0.35")
    ece = float(calibration_error(probs, y, BINS))
    axes.set(xlabel="confidence (below: number of pictures)", ylabel="share that is right")
    axes.set(xlim=(0, 1), ylim=(0, 1.05))
    axes.set_title(f"{title}: calibration error {ece:.3f}")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def plot_doubt(axes: Axes, found: ClassPrediction, y: Tensor) -> None:
    """How much the members disagree, where the mixture is right and where it is wrong."""
    right = found.probs.argmax(-1) == y
    top = float(found.epistemic.max())
    edges = torch.linspace(0.0, top, 25).tolist()
    for chosen, color, label in ((right, "C0", "right"), (~right, "C3", "wrong")):
        values = found.epistemic[chosen].tolist()
        label = f"{label} ({len(values)})"
        axes.hist(values, edges, density=True, color=color, alpha=0.5, label=label)
    axes.set(xlabel="disagreement of the members, nats", ylabel="density")
    axes.set_title("Members disagree where they are wrong")
    axes.legend(frameon=False, fontsize=9)


def main(folder: Path) -> None:
    """Train, predict, print and plot."""
    x, y = load()
    net = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    model = Classifier(lift(net, reinitialize=True))
    ensemble = Ensemble(SVI(model, nothing, torchopt.adam(0.02)))
    # Each member has pictures of its own, drawn with replacement.
    keys = random.split(random.key(1), MEMBERS)
    rows = random.randint(random.key(2), MEMBERS, ROWS, low=0, high=ROWS)
    bagged = Ensemble(ensemble.svi, in_dims=0)
    state, _ = bagged.run(keys, STEPS, x[rows], y[rows])

    x_test, y_test = x[ROWS:], y[ROWS:]
    print("           right  NLL    calibration error")
    found = {}
    for name, some in (("one member", ensemble.select(state, [0])), ("ensemble", state)):
        predictive = ensemble.predictive(some)
        found[name] = predictive.predict_proba(random.key(3), x_test, None)
        probs = found[name].probs
        right = float((probs.argmax(-1) == y_test).float().mean())
        nll = float(predictive.nll(random.key(4), x_test, y_test).mean())
        error = float(calibration_error(probs, y_test, BINS))
        print(f"{name:10}  {right:.3f}  {nll:.3f}  {error:.3f}")

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    plot_reliability(axes[0], found["one member"].probs, y_test, "One member")
    plot_reliability(axes[1], found["ensemble"].probs, y_test, f"Ensemble of {MEMBERS}")
    plot_doubt(axes[2], found["ensemble"], y_test)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "calibration.png"
    figure.savefig(path, dpi=130)
    print(f"Plot: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

"""MCMC on eight schools: divergences of the centred form, what cures them, and what SVI misses.

Eight schools tried a coaching programme; for each there is an estimated effect on test scores and
its standard error (Rubin 1981). How much the effects differ, `tau`, is hardly known, and where it
is small the effects are tied together: in the centred form that is a funnel, too narrow for the
steps of a sampler. The non-centred form draws the effects in units of `tau`, and has no funnel.

Run: python examples/09_mcmc.py [folder for the plot]
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Module, Prior, PyroSample, random
from purepyro.infer import MCMC, NUTS, SVI, AutoNormal, MCMCResult, Predictive

EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
# Many chains cost hardly more than one; each may then be short.
CHAINS, WARMUP, DRAWS = 20, 150, 50


class Centred(Module):
    """The effects are drawn from their distribution over schools."""

    mu = PyroSample(dist.Normal(0.0, 5.0))
    tau = PyroSample(dist.HalfCauchy(5.0))

    @PyroSample
    def theta(self) -> Prior:
        return dist.Normal(self.mu, self.tau).expand([8]).to_event(1)

    def forward(self, error: Tensor, effect: Tensor | None = None) -> Tensor:
        theta = self.theta
        with pyro.plate("schools", len(error)):
            return pyro.sample("effect", dist.Normal(theta, error), obs=effect)


class NonCentred(Module):
    """The same distribution: the effects are deterministic, given draws in units of `tau`."""

    mu = PyroSample(dist.Normal(0.0, 5.0))
    tau = PyroSample(dist.HalfCauchy(5.0))
    z = PyroSample(dist.Normal(0.0, 1.0).expand([8]).to_event(1))

    @PyroSample
    def theta(self) -> Prior:
        return self.mu + self.tau * self.z

    def forward(self, error: Tensor, effect: Tensor | None = None) -> Tensor:
        theta = self.theta
        with pyro.plate("schools", len(error)):
            return pyro.sample("effect", dist.Normal(theta, error), obs=effect)


def run(model: Centred | NonCentred) -> MCMCResult:
    """The chains of a form, and what they say of themselves."""
    mcmc = MCMC(NUTS(model), num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS)
    result = mcmc.run(random.key(0), ERROR, EFFECT)
    divergent = int(result.stats["diverging"].sum())
    print(f"{type(model).__name__}: {divergent} of {CHAINS * DRAWS:,} draws diverged")
    return result


def fit(model: NonCentred) -> dict[str, Tensor]:
    """Draws of a mean-field guide, for comparison."""
    guide = AutoNormal(model)
    state, _ = SVI(model, guide, torchopt.adam(0.02)).run(random.key(1), 1_000, ERROR, EFFECT)
    predictive = Predictive(
        model,
        guide=guide,
        params=state.params,
        num_samples=CHAINS * DRAWS,
        return_sites=["tau", "theta"],
    )
    return predictive(random.key(2), ERROR)


def plot(panels: Mapping[str, tuple[Mapping[str, Tensor], Tensor]], path: Path) -> None:
    """The first school's effect against log tau, divergent draws apart."""
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(11, 4), sharex=True, sharey=True, layout="constrained"
    )
    for axes, (title, (draws, divergent)) in zip(all_axes, panels.items(), strict=True):
        effect, log_tau = draws["theta"][..., 0].flatten(), draws["tau"].flatten().log()
        apart = divergent.flatten()
        axes.plot(effect[~apart], log_tau[~apart], ".", color="C0", alpha=0.3, markersize=4)
        if apart.any():
            axes.plot(effect[apart], log_tau[apart], ".", color="C3", label="divergent")
            axes.legend(frameon=False, loc="lower right")
        axes.set(title=title, xlabel="effect of the first school")
    all_axes[0].set(ylabel="log tau", xlim=(-25, 45), ylim=(-5, 4))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(folder: Path) -> None:
    """Run both forms and a guide, print and plot."""
    logging.getLogger("purepyro.infer").setLevel(logging.ERROR)  # the report is printed below
    centred, non_centred = run(Centred()), run(NonCentred())
    print(f"The report on the centred form begins: {centred.warnings[0].split(':')[0]}\n")
    print(non_centred.summary())

    by_guide = fit(NonCentred())
    tail = torch.tensor([0.05, 0.95])
    print("\ntau, 5 % and 95 %")
    for name, tau in (("NUTS", non_centred.get_samples()["tau"]), ("guide", by_guide["tau"])):
        low, high = tau.quantile(tail).tolist()
        print(f"  {name:<6} {low:5.2f} {high:6.2f}")

    none = torch.zeros(CHAINS * DRAWS, dtype=torch.bool)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mcmc.png"
    panels = {
        "centred": (centred.samples, centred.stats["diverging"]),
        "non-centred": (non_centred.samples, non_centred.stats["diverging"]),
        "mean-field guide": (by_guide, none),
    }
    plot(panels, path)
    print(f"Plot: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

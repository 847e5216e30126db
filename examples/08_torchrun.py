"""An ensemble on several processes: each rank trains its members, one of them scores them all.

The diabetes data of Efron et al. (2004). Twenty small networks are spread over the ranks that
torchrun has started; the negative log likelihood of rows held out is that of the mixture of all,
beside that of its members one by one. Neither depends on how many ranks there are.

Run: torchrun --nproc-per-node=2 examples/08_torchrun.py [folder for the checkpoint]
or, in one process: python examples/08_torchrun.py [folder]
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torchopt
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch import distributed as processes

from purepyro import Ensemble, Module, Prior, PyroParam, PyroSample, random
from purepyro.distributed import Sharded, start
from purepyro.infer import SVI, AutoDelta

MEMBERS, STEPS, HELD_OUT, HIDDEN = 20, 100, 110, 16


class Network(Module):
    """One hidden layer, whose weights start from the member's key, and a noise of its own."""

    columns: int

    @PyroParam
    def first(self) -> Tensor:
        return torch.randn(self.columns, HIDDEN) / math.sqrt(self.columns)

    @PyroParam
    def last(self) -> Tensor:
        return torch.randn(HIDDEN) / math.sqrt(HIDDEN)

    @PyroSample
    def noise(self) -> Prior:
        return dist.HalfNormal(1.0)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, noise = (x @ self.first).tanh() @ self.last, self.noise
        with pyro.plate("patients", len(x)):
            pyro.sample("score", dist.Normal(mean, noise), obs=y)
        return mean


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Columns and score, standardised by the training rows; the same on every rank."""
    bunch: Any = load_diabetes(scaled=False)
    x = torch.tensor(bunch.data, dtype=torch.float32)
    y = torch.tensor(bunch.target, dtype=torch.float32)
    order = random.permutation(random.key(0), len(y))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    x, y = (x - x[train].mean(0)) / x[train].std(0), (y - y[train].mean()) / y[train].std()
    return x[train], y[train], x[test], y[test]


def main(folder: Path) -> None:
    with start() as device:
        rank, size = processes.get_rank(), processes.get_world_size()
        x, y, x_test, y_test = (each.to(device) for each in load())
        model = Network(x.shape[1])
        ensemble = Ensemble(SVI(model, AutoDelta(model), torchopt.adam(0.01)))
        sharded = Sharded(ensemble)

        # All ranks pass all keys; each trains its own part, and nothing travels meanwhile.
        keys = random.split(random.key(1), MEMBERS).to(device)
        begin = time.perf_counter()
        mine = sharded.run(random.Key(keys), STEPS, x, y)
        seconds = time.perf_counter() - begin

        # One file, from which any number of ranks can go on.
        folder.mkdir(parents=True, exist_ok=True)
        sharded.save(folder / "ensemble.pt", mine.state)

        state, _ = sharded.gather(mine)
        times: list[Any] = [None] * size
        processes.all_gather_object(times, (len(mine.state.alive), seconds))
        if rank:
            return
        print(f"{MEMBERS} members on {size} rank{'s' if size > 1 else ''}, {STEPS} steps")
        for i, (members, spent) in enumerate(times):
            print(f"  rank {i}: {members} members in {spent:.1f} s")

        key = random.key(2)
        mixture = ensemble.predictive(state).nll(key, x_test, y_test).mean()
        alone = [
            ensemble.predictive(ensemble.select(state, [i])).nll(key, x_test, y_test).mean()
            for i in range(MEMBERS)
        ]
        print(f"Negative log likelihood of {HELD_OUT} rows held out, by row:")
        print(f"  of a single member {torch.stack(alone).mean():.3f}, on average")
        print(f"  of the ensemble    {mixture:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out"))

"""What the ranks of a test do: ``python jobs.py NAME FOLDER RANK SIZE``, once for each rank.

Each leaves its results in ``FOLDER/NAME.SIZE.RANK.pt``, where the tests look at them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import attrs
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor, nn
from torch import distributed as processes
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from models import regression, regression_data
from purepyro import Ensemble, Lifted, Module, Prior, PyroSample, disable_jit, lift, random
from purepyro.distributed import DataParallel, Sharded, start
from purepyro.infer import SVI, AutoDelta, AutoNormal, SVIRecord, scale

MODEL = regression()
FIT = SVI(MODEL, AutoNormal(MODEL), torchopt.adam(0.05))
KEYS = random.split(random.key(3), 5)
X, Y = regression_data(24)
STEPS = 20


class Line(Module):
    """A prior of its own for each member."""

    width: Tensor
    slope = PyroSample(lambda self: dist.Normal(0.0, self.width))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean = self.slope * x[:, 0]
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def make_svi(setting: dict[str, Tensor]) -> SVI[[Tensor, Tensor | None]]:
    """The fit of a member, of its own settings."""
    line = Line(setting["width"])
    optim = torchopt.chain(torchopt.adam(1.0), scale(setting["rate"]))
    return SVI(line, AutoDelta(line), optim)


SETTINGS = {"width": torch.linspace(0.1, 2.0, 5), "rate": torch.linspace(0.01, 0.1, 5)}
# How each ensemble of the tests is made, and with what it is called.
ENSEMBLES: dict[str, tuple[Ensemble[[Tensor, Tensor | None]], tuple[Tensor, Tensor]]] = {
    "vmap": (Ensemble(FIT), (X, Y)),
    "loop": (Ensemble(FIT, map="loop"), (X, Y)),
    "chunks": (Ensemble(FIT, chunk_size=1), (X, Y)),
    "settings": (Ensemble(make_svi, members=SETTINGS), (X, Y)),
    "own data": (
        Ensemble(FIT, in_dims=(0, 1)),
        (torch.stack([X[i : i + 16] for i in range(5)]),
         torch.stack([Y[i : i + 16] for i in range(5)], dim=1)),
    ),
    "double": (
        Ensemble(make_svi, members={name: each.double() for name, each in SETTINGS.items()}),
        (X.double(), Y.double()),
    ),
}  # fmt: skip
BAD = torch.stack([Y, Y, Y * torch.nan, Y, Y])


class Rows(Module):
    """A regression whose rows stand for all."""

    total: int

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(0.0, 1.0).expand([3]).to_event(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean = x @ self.weight
        with pyro.plate("data", self.total, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


ROWS = SVI(Rows(24), AutoNormal(Rows(24)), torchopt.adam(0.05))


def whole_batches() -> list[tuple[Tensor, Tensor]]:
    """The minibatches of all ranks together."""
    return list(zip(torch.split(X, 6), torch.split(Y, 6), strict=True))


def fit_of(net: Lifted[[Tensor], Tensor]) -> SVI[[Tensor]]:
    """A fit whose start is that of a torch.nn module."""

    def guide(x: Tensor) -> None:
        """No latent sites."""

    return SVI(net, guide, torchopt.adam(0.1))


def third(record: SVIRecord) -> bool:
    """Stops a run."""
    return record.step == 3


def errors_of(calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What each call raises."""
    found = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = "nothing"
    return found


def together(folder: Path, rank: int, size: int) -> dict[str, object]:
    """All that goes well, and all the disagreements after which ranks can go on."""
    found: dict[str, object] = {}
    for name, (ensemble, data) in ENSEMBLES.items():
        sharded = Sharded(ensemble)
        mine = sharded.run(KEYS, STEPS, *data)
        found[name] = tuple(sharded.gather(mine))
        found[f"{name}: mine"] = len(mine.state.alive)
    sharded = Sharded(ENSEMBLES["vmap"][0])
    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("members",))
    few = Sharded(ENSEMBLES["vmap"][0], mesh["members"])
    found["two members"] = tuple(few.gather(few.run(KEYS[:2], STEPS, X, Y)))
    found["no steps"] = tuple(sharded.gather(sharded.run(KEYS, 0, X, Y)))

    # A checkpoint: written by two ranks, read by any number.
    half = sharded.run(KEYS, STEPS // 2, X, Y).state
    path = folder / "half.pt"
    if size == 2:
        sharded.save(path, half)
    like = sharded.init(random.split(random.key(9), 5), X, Y)
    again = sharded.load(path, like=like)
    found["resumed"] = sharded.gather(sharded.run_from(again, STEPS // 2, X, Y)).state

    # Members that go bad, by their numbers among all.
    result = Sharded(Ensemble(FIT, in_dims=(None, 0))).run(KEYS, 3, X, BAD)
    found["quarantined"] = sharded.gather(result).quarantined

    rows = slice(rank * 24 // size, (rank + 1) * 24 // size)
    parallel = DataParallel(ROWS, data_size=24)
    found["rows"] = tuple(parallel.run(random.key(1), 50, X[rows], Y[rows]))
    uneven = slice(0, 4) if rank == 0 else slice(4 + (rank - 1) * 20 // (size - 1),
                                                4 + rank * 20 // (size - 1))  # fmt: skip
    found["uneven"] = tuple(parallel.run(random.key(1), 50, X[uneven], Y[uneven]))
    part = slice(rank * 6 // size, (rank + 1) * 6 // size)
    batches = [(x[part], y[part]) for x, y in whole_batches()]
    first = parallel.fit(random.key(1), batches, epochs=1)
    found["batches"] = parallel.fit_from(first.state, batches, epochs=2).state
    state = parallel.init(random.key(1), X[rows], Y[rows])
    for _ in range(3):
        state, _ = parallel.step(state, X[rows], Y[rows])
    found["steps"] = state
    skipping = DataParallel(attrs.evolve(ROWS, on_nonfinite="skip"), data_size=24)
    one = rank == 1  # the rank that differs
    bad = Y[rows] * (torch.nan if one else 1.0)
    bad_batches = [(x, y * torch.nan if one and i == 2 else y) for i, (x, y) in enumerate(batches)]
    found["skipped"] = tuple(skipping.fit(random.key(1), bad_batches))
    found["stopped"] = len(
        DataParallel(attrs.evolve(ROWS, callback=third), data_size=None)
        .run(random.key(1), 9, X[rows], Y[rows])
        .losses
    )

    torch.manual_seed(rank)
    net = lift(nn.Linear(3, 1))
    calls: dict[str, Callable[[], object]] = {
        "keys": lambda: sharded.run(random.split(random.key(rank), 5), 2, X, Y),
        "count": lambda: sharded.run(KEYS[: 4 if one else 5], 2, X, Y),
        "data": lambda: sharded.run(KEYS, 2, X + rank, Y),
        "num_steps": lambda: sharded.run(KEYS, 2 + rank, X, Y),
        "start": lambda: Sharded(Ensemble(fit_of(net))).run(KEYS, 2, X),
        "call": lambda: sharded.run(KEYS, 2, X, Y) if one else sharded.gather(half),
        "all bad": lambda: sharded.run(KEYS, 2, X, Y * torch.nan),
        "mesh": lambda: Sharded(ENSEMBLES["vmap"][0], mesh_of_two(size)).gather(half),
        "no keys": lambda: sharded.run(random.key(0), 2, X, Y),
        "missing file": lambda: sharded.load(folder / "none.pt", like=like),
        "key": lambda: parallel.run(random.key(rank), 2, X[rows], Y[rows]),
        "shape": lambda: parallel.init(
            random.key(0), X[rows], Y[rows].double() if one else Y[rows]
        ),
        "steps": lambda: parallel.run(random.key(0), 2 + rank, X[rows], Y[rows]),
        "its start": lambda: DataParallel(fit_of(net), data_size=None).init(random.key(0), X),
        "state": lambda: parallel.run_from(state._replace(step=state.step + rank), 2, X, Y),
        "all rows": lambda: parallel.run(random.key(0), 2, X, Y),
        "unscaled": lambda: DataParallel(FIT, data_size=24).init(random.key(0), X[rows], Y[rows]),
        "batches": lambda: parallel.fit(random.key(0), batches[: 3 if one else 4]),
        "one fails": lambda: parallel.run(random.key(0), 2, X[rows], bad),
        "gone bad": lambda: parallel.fit(random.key(0), bad_batches),
        "vmap": lambda: torch.vmap(lambda key: parallel.step(state, X[rows], Y[rows]))(KEYS),
    }

    def breaks(record: SVIRecord) -> None:
        if one and record.step == 2:
            raise ArithmeticError("a callback of one rank")

    def late() -> None:
        if one:
            time.sleep(4.0)
        impatient.gather(half)

    group = processes.new_group(timeout=timedelta(seconds=2))
    assert isinstance(group, processes.ProcessGroup)
    impatient = Sharded(ENSEMBLES["vmap"][0], DeviceMesh.from_group(group, "cpu"))
    calls["late"] = late

    # After these the ranks are apart, so it is one for each job.
    breaking = DataParallel(attrs.evolve(ROWS, callback=breaks), data_size=24)
    if size == 2:
        calls["apart"] = lambda: parallel.fit(random.key(0), iter(batches[: 3 if one else 4]))
    else:
        calls["apart"] = lambda: breaking.run(random.key(0), 9, X[rows], Y[rows])
    found["errors"] = errors_of(calls)
    return found


def mesh_of_two(size: int) -> DeviceMesh:
    """A mesh of two dimensions."""
    return init_device_mesh("cpu", (size, 1), mesh_dim_names=("members", "data"))


def killed_in_a_step(folder: Path, rank: int, size: int) -> dict[str, object]:
    """One rank is killed in the middle of data-parallel steps."""

    def kill(record: SVIRecord) -> None:
        if rank == 1 and record.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    parallel = DataParallel(attrs.evolve(ROWS, callback=kill), data_size=None)
    call = errors_of({"error": lambda: parallel.run(random.key(0), 10_000, X, Y)})
    return dict(call)


def killed_while_training(folder: Path, rank: int, size: int) -> dict[str, object]:
    """One rank is killed while it trains its members, and the others wait for them."""
    sharded = Sharded(ENSEMBLES["vmap"][0])
    mine = sharded.run(KEYS, 5, X, Y)
    sharded.save(folder / "before.pt", mine.state)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return dict(errors_of({"error": lambda: sharded.gather(mine)}))


JOBS: dict[str, Callable[[Path, int, int], dict[str, object]]] = {
    job.__name__: job for job in (together, killed_in_a_step, killed_while_training)
}


def main(name: str, folder: Path, rank: int, size: int) -> None:
    """The life of one rank."""
    torch.set_num_threads(1)
    # A file joins the ranks, so that tests beside each other want no port.
    processes.init_process_group(
        "gloo",
        init_method=f"file://{folder}/{name}.{size}.store",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    with start(), disable_jit():
        found = JOBS[name](folder, rank, size)
    torch.save(found, folder / f"{name}.{size}.{rank}.pt")
    # A group in which ranks are apart or gone cannot be taken down.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

"""What users hand to other processes gets there, and does the same there."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchopt.base import GradientTransformation
from torchopt.schedule import polynomial_schedule

from models import regression, regression_data
from purepyro import Ensemble, Module, PyroParam, jit, lift, random
from purepyro._core import _pickling
from purepyro._core._pickling import Portable, arrived
from purepyro._core._trees import named_leaves
from purepyro._errors import DeclarationError
from purepyro.infer import (
    SVI,
    AutoNormal,
    LogLikelihood,
    Optimizer,
    Predictive,
    Trace_ELBO,
    clip_grad_norm,
    scale,
)
from purepyro.infer.autoguide import init_to_value

Y = torch.tensor([1.0, 2.0, 6.0])


def model(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def through(value: Any) -> Any:  # noqa: ANN401
    return pickle.loads(pickle.dumps(value))


def same(first: object, second: object) -> bool:
    a, b = named_leaves(first), named_leaves(second)
    return a.keys() == b.keys() and all(
        torch.equal(leaf, other)
        if isinstance(leaf, Tensor) and isinstance(other, Tensor)
        else leaf == other
        for leaf, other in zip(a.values(), b.values(), strict=True)
    )


def by_hand(rate: float) -> Optimizer:
    """An optimiser as a user may write one: closures, one of which finds itself."""

    def init(params: dict[str, Tensor]) -> tuple[()]:
        return ()

    def down(tree: Any, depth: int = 0) -> Any:  # noqa: ANN401
        if isinstance(tree, dict):
            return {name: down(leaf, depth=depth + 1) for name, leaf in tree.items()}
        return -rate * tree

    def update(gradients: Any, state: Any, *, params: Any = None, inplace: bool = True) -> Any:  # noqa: ANN401
        return down(gradients), state

    made: Any = GradientTransformation
    optim: Optimizer = made(init, update)
    return optim


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    **{
        name: partial(getattr(torchopt, name), 0.05)
        for name in ("sgd", "adam", "adamw", "adadelta", "adagrad", "rmsprop")
    },
    "momentum": lambda: torchopt.sgd(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "maximize": lambda: torchopt.adam(0.05, weight_decay=0.1, maximize=True),
    "masked": lambda: torchopt.adamw(0.05, mask=lambda params: [True for _ in params]),
    "scheduled": lambda: torchopt.sgd(polynomial_schedule(0.1, 0.01, 1, 10)),
    "lambda": lambda: torchopt.sgd(lambda step: 0.1 / (1 + step)),
    "chained": lambda: torchopt.chain(
        clip_grad_norm(1.0), torchopt.adam(1.0), scale(torch.tensor(0.05))
    ),
    "by pattern": lambda: {"locs.*": torchopt.adam(0.1), "*": torchopt.sgd(0.01)},
    "by hand": lambda: by_hand(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_gets_through(name: str, key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), OPTIMIZERS[name]())
    again: SVI[[Tensor]] = through(svi)
    assert same(again.run(key, 5, Y), svi.run(key, 5, Y))
    assert same(through(again).run(key, 5, Y), svi.run(key, 5, Y))


def test_a_chain_keeps_its_kind() -> None:
    optim = torchopt.chain(clip_grad_norm(1.0), torchopt.adam(1.0))
    svi: SVI[[Tensor]] = through(SVI(model, AutoNormal(model), optim))
    assert type(svi.optim) is type(optim)


class Shift(Module):
    by = PyroParam(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


def test_what_users_hold_gets_through(key: random.Key) -> None:
    net, data = regression(), regression_data()
    start = init_to_value(values={"sigma": torch.tensor(2.0)})
    svi = SVI(net, AutoNormal(net, init_loc_fn=start), torchopt.adam(0.05), Trace_ELBO(2))
    state = svi.init(key, *data)
    again = through(svi)
    assert same(again.init(key, *data), state)
    assert same(through(state), state)
    ensemble = Ensemble(svi, chunk_size=2)
    states = ensemble.init(random.split(key, 3), *data)
    assert same(through(ensemble).step(states, *data), ensemble.step(states, *data))
    mixture = ensemble.predictive(states)
    assert same(through(mixture).predict(key, *data), mixture.predict(key, *data))
    predictive = Predictive(
        net, guide=svi.guide, params=state.params, num_samples=3, return_sites=["obs"]
    )
    assert same(through(predictive)(key, *data), predictive(key, *data))
    layer = lift(torch.nn.Linear(2, 1), dist.Normal(0.0, 1.0))
    assert repr(through(layer)) == repr(layer)


def test_functions_made_by_functions_get_through(key: random.Key) -> None:
    spread = torch.tensor(2.0)

    def local(y: Tensor, scale: float = 1.0) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, spread))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(loc, scale), obs=y)

    svi = SVI(local, AutoNormal(local), torchopt.adam(0.1), callback=lambda record: False)
    assert same(through(svi).run(key, 3, Y), svi.run(key, 3, Y))
    draws = {"loc": torch.zeros(2)}
    score = LogLikelihood(local, {}, draws)
    assert same(through(score)(Y), score(Y))

    def make_svi(rate: Tensor) -> SVI[[Tensor]]:
        optim = torchopt.chain(torchopt.sgd(1.0), scale(rate))
        return SVI(model, AutoNormal(model), optim)

    ensemble = Ensemble(make_svi, members=torch.tensor([0.1, 0.2]))
    keys = random.split(key, 2)
    assert same(through(ensemble).init(keys, Y), ensemble.init(keys, Y))


def test_jitted_functions_get_through(key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    state = svi.init(key, Y)
    again = through(jit(svi.step, max_specializations=3))
    assert again.cache_info().maxsize == 3
    assert same(again.__wrapped__(state, Y), svi.step(state, Y))
    states = torch.vmap(lambda key: svi.init(random.Key(key), Y))(random.split(key, 2))
    many = through(jit(torch.vmap(svi.step, in_dims=(0, None))))
    assert same(many.__wrapped__(states, Y), torch.vmap(svi.step, in_dims=(0, None))(states, Y))


def test_copies_hold_the_same_functions() -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    for made in (copy.copy(svi), copy.deepcopy(svi)):
        assert (made.model, made.optim, made.loss) == (svi.model, svi.optim, svi.loss)
    assert copy.copy(jit(svi.step)).__wrapped__ == svi.step
    assert copy.deepcopy(jit(local := lambda y: y)).__wrapped__ is local


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers() | st.text() | st.none(), min_size=1, max_size=5),
    default=st.integers(),
)
def test_a_closure_gets_through_with_what_it_holds(values: list[Any], default: int) -> None:
    def outer(*held: Any) -> Callable[..., Any]:
        first = held[0]

        def inner(x: int = default, *, y: int = default + 1) -> Any:  # noqa: ANN401
            return (first, held, x, y, lambda: [first for _ in held])

        return inner

    found = arrived(through(Portable(outer(*values))))
    assert found()[:4] == (values[0], tuple(values), default, default + 1)
    assert found()[4]() == [values[0]] * len(values)
    assert found.__qualname__ == outer(*values).__qualname__


def test_a_module_without_what_a_function_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "one = 1\ndef make(a):\n    def inner(): return a + one\n    return inner\n"
    (tmp_path / "maker.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    maker: Any = importlib.import_module("maker")
    pickled = pickle.dumps(Portable(maker.make(1)))
    assert pickle.loads(pickled)() == 2
    monkeypatch.delattr(maker, "one")
    match = r"make.<locals>.inner of the module 'maker' was pickled, and uses one, .*same versions"
    with pytest.raises(DeclarationError, match=match):
        pickle.loads(pickled)
    monkeypatch.delitem(sys.modules, "maker")
    (tmp_path / "maker.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(
        DeclarationError, match=r"cannot be imported here \(No module named 'maker'"
    ):
        pickle.loads(pickled)
    monkeypatch.setattr(_pickling, "MAGIC_NUMBER", b"old")
    with pytest.raises(DeclarationError, match=r"by another version of Python"):
        pickle.loads(pickled)


# Other processes


class Losses(Dataset[Tensor]):
    """A data set whose rows are computed by a fit, in whatever process asks for them."""

    def __init__(self, svi: SVI[[Tensor]], step: Callable[..., Any]) -> None:
        self.svi, self.step = svi, step

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        state = self.svi.init(random.key(i), Y)
        loss: Tensor = self.step(state, Y)[1]
        return loss


def one_loss(given: tuple[SVI[[Tensor]], int]) -> float:
    return float(Losses(given[0], given[0].step)[given[1]])


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers_of_a_data_loader(way: str) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    data = Losses(svi, jit(svi.step).__wrapped__)
    loader: Iterator[Tensor] = iter(
        DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context=way)
    )
    assert torch.equal(torch.cat(list(loader)), torch.stack([data[i] for i in range(4)]))


def test_a_pool_of_spawned_processes() -> None:
    svi = SVI(model, AutoNormal(model), {"*": torchopt.adam(0.1)})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(one_loss, [(svi, i) for i in range(2)])
    assert found == [one_loss((svi, i)) for i in range(2)]


SCRIPT = """
import multiprocessing
import pyro, pyro.distributions as dist
import torch, torchopt
from purepyro import random
from purepyro.infer import SVI, AutoNormal

def model(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

def run(svi):
    return svi.run(random.key(0), 3, torch.tensor(1.0)).losses.tolist()

if __name__ == "__main__":
    svi = SVI(model, AutoNormal(model), torchopt.sgd(lambda step: 0.1 / (1 + step)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(run, (svi,)) == run(svi)
"""


@pytest.mark.slow
def test_a_script_of_a_users(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=120)

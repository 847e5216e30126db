"""Minibatches: their scale to the full data set, ragged and empty ones, epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from purepyro import random
from purepyro._errors import DeclarationError, ShapeError
from purepyro.infer import SVI, AutoNormal

ROWS = 40
X = torch.linspace(-1.0, 3.0, ROWS)


def pieces(size: int) -> list[Tensor]:
    return [X[start : start + size] for start in range(0, ROWS, size)]


def scaled(y: Tensor) -> None:
    """The full data set has ``ROWS`` rows, of which ``y`` is a part."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", ROWS, subsample_size=len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def unscaled(y: Tensor) -> None:
    """The classic mistake: a batch is taken for all the data."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def local(index: Tensor, y: Tensor) -> None:
    """Each row has a latent site of its own."""
    with pyro.plate("data", ROWS, subsample=index):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def local_guide(index: Tensor, y: Tensor) -> None:
    with pyro.plate("data", ROWS, subsample=index):
        loc = pyro.param("locs.z", torch.zeros(ROWS), event_dim=0)
        pyro.sample("z", dist.Normal(loc, 0.7))


def fitted(model: Any, rate: float = 0.05) -> SVI[Any]:  # noqa: ANN401
    return SVI(model, AutoNormal(model), torchopt.adam(rate))


def test_the_posterior_of_minibatches_is_that_of_all_data(key: random.Key) -> None:
    """The exact mean is 40 / 41; 4 batches of 10 rows, 150 epochs; within .1, sd within 20 %."""
    batches = [X[i::4] for i in range(4)]
    state, losses = fitted(scaled).fit(key, batches, data_size=ROWS, epochs=150)
    assert losses.shape == (600,)
    assert state.step == 600
    scale = torch.nn.functional.softplus(state.params["scales.loc"])
    torch.testing.assert_close(state.params["locs.loc"], torch.tensor(40 / 41), atol=0.1, rtol=0)
    torch.testing.assert_close(scale, torch.tensor(41**-0.5), atol=0, rtol=0.2)


def test_fitting_is_a_loop_of_steps(key: random.Key) -> None:
    svi, batches = fitted(scaled), pieces(10)
    result = svi.fit(key, batches, data_size=ROWS, epochs=2)
    state = svi.init(key, batches[0])
    for batch in [*batches, *batches]:
        state, _ = svi.step(state, batch)
    torch.testing.assert_close(result.state, state, rtol=0, atol=0)


def test_going_on_from_a_state(key: random.Key) -> None:
    svi, batches = fitted(scaled), pieces(10)
    half = svi.fit(key, batches, data_size=ROWS)
    rest = svi.fit_from(half.state, batches, data_size=ROWS)
    whole = svi.fit(key, batches, data_size=ROWS, epochs=2)
    torch.testing.assert_close(rest.state, whole.state, rtol=0, atol=0)


def test_local_latents_by_index(key: random.Key) -> None:
    index = torch.arange(ROWS)
    svi = SVI(local, local_guide, torchopt.adam(0.05))
    batches = [(index[:10], X[:10]), (index[10:20], X[10:20])]
    state, _ = svi.fit(key, batches, data_size=ROWS)
    moved = state.params["locs.z"] != svi.init(key, *batches[0]).params["locs.z"]
    assert moved.sum() == 20


def test_kinds_of_batches(key: random.Key) -> None:
    svi = SVI(local, local_guide, torchopt.adam(0.05))
    index, y = torch.arange(10), X[:10]
    by_tuple = svi.fit(key, [(index, y)], data_size=ROWS).state
    by_list = svi.fit(key, [[index, y]], data_size=ROWS).state
    by_name = svi.fit(key, [{"y": y, "index": index}], data_size=ROWS).state
    by_loader = svi.fit(
        key, DataLoader(TensorDataset(index, y), batch_size=10), data_size=ROWS
    ).state
    for other in (by_list, by_name, by_loader):
        torch.testing.assert_close(by_tuple, other, rtol=0, atol=0)


def test_an_endless_stream_with_a_callback(key: random.Key) -> None:
    def stream() -> Iterator[Tensor]:
        while True:
            yield X[:10]

    svi = SVI(
        scaled, AutoNormal(scaled), torchopt.adam(0.1), callback=lambda record: record.step == 7
    )
    assert svi.fit(key, stream(), data_size=ROWS).losses.shape == (7,)


def test_a_scale_by_hand(key: random.Key) -> None:
    by_hand = poutine.scale(unscaled, scale=4.0)
    assert fitted(by_hand).fit(key, pieces(10), data_size=ROWS).losses.isfinite().all()


def test_several_observed_sites(key: random.Key) -> None:
    def half_scaled(y: Tensor) -> None:
        scaled(y)
        pyro.sample("total", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))  # not one of rows
        with pyro.plate("again", len(y)):
            pyro.sample("z", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises(ShapeError, match=r"observed site 'z'.*scale 1, but 40 / 10 = 4 is needed"):
        fitted(half_scaled).fit(key, pieces(10), data_size=ROWS)


# Bad input


def test_a_scale_that_was_forgotten(key: random.Key) -> None:
    with pytest.raises(
        ShapeError,
        match=r"'y' has 10 of 40 rows and the scale 1, .*prior would count 4 times.*"
        r'pyro\.plate\("data", 40, subsample_size=len\(x\)\)',
    ):
        fitted(unscaled).fit(key, pieces(10), data_size=ROWS)
    assert fitted(unscaled).fit(key, pieces(10), data_size=None).losses.shape == (4,)


def test_a_scale_that_is_wrong_when_going_on(key: random.Key) -> None:
    svi = fitted(unscaled)
    state = svi.init(key, X[:10])
    with pytest.raises(ShapeError, match=r"'y' has 10 of 40 rows and the scale 1"):
        svi.fit_from(state, pieces(10), data_size=ROWS)


def test_a_data_size_smaller_than_an_epoch(key: random.Key) -> None:
    with pytest.raises(ShapeError, match=r"One epoch has 50 rows or more, but data_size is 40"):
        fitted(scaled).fit(key, [*pieces(10), X[:10]], data_size=ROWS)
    with pytest.raises(ShapeError, match=r"One batch has 50 rows or more, but data_size is 40"):
        fitted(scaled).fit(key, iter([X.repeat(2)[:50]]), data_size=ROWS)
    drawn = fitted(scaled).fit(key, (X[:10] for _ in range(6)), data_size=ROWS)
    assert drawn.losses.shape == (6,)


def test_an_empty_batch(key: random.Key) -> None:
    with pytest.raises(ShapeError, match=r"minibatch is empty.*Leave it out"):
        fitted(scaled).fit(key, [X[:10], X[:0]], data_size=ROWS)
    with pytest.raises(ShapeError, match=r"minibatch is empty"):
        fitted(scaled).fit(key, [X[:0]], data_size=None)


def test_no_batches(key: random.Key) -> None:
    svi = fitted(scaled)
    for batches, epochs in (([], 1), ([X], 0)):
        with pytest.raises(ShapeError, match=r"no batch to initialise from"):
            svi.fit(key, batches, data_size=ROWS, epochs=epochs)
    state = svi.init(key, X)
    assert svi.fit_from(state, [], data_size=ROWS).losses.shape == (0,)


def test_a_ragged_batch_says_what_it_costs_and_is_scaled_right(key: random.Key) -> None:
    svi = fitted(scaled)
    with pytest.warns(
        UserWarning, match=r"8 rows where the first had 16.*counts 2 times.*drop_last"
    ):
        state, losses = svi.fit(key, pieces(16), data_size=ROWS, epochs=2)
    assert losses.shape == (6,)
    expected = svi.init(key, X[:16])
    for batch in pieces(16) * 2:
        expected, _ = svi.step(expected, batch)
    torch.testing.assert_close(state, expected, rtol=0, atol=0)


def test_an_iterator_for_several_epochs(key: random.Key) -> None:
    with pytest.raises(DeclarationError, match=r"an iterator, <.*used up after one of 2 epochs"):
        fitted(scaled).fit(key, iter(pieces(10)), data_size=ROWS, epochs=2)


def test_a_batch_without_rows(key: random.Key) -> None:
    with pytest.raises(ShapeError, match=r"data_size is 40, but a batch has no tensor with rows"):
        fitted(lambda y: None).fit(key, [torch.tensor(1.0)], data_size=ROWS)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_data_size_that_is_none(key: random.Key, size: Any) -> None:  # noqa: ANN401
    with pytest.raises(ShapeError, match=r"data_size is .*number of rows"):
        fitted(scaled).fit(key, [X], data_size=size)


def test_a_number_of_epochs_that_is_none(key: random.Key) -> None:
    with pytest.raises(ShapeError, match=r"epochs is -1.*epochs >= 0"):
        fitted(scaled).fit(key, [X], data_size=ROWS, epochs=-1)

"""States on disk: resuming in another process bit for bit, and strict loading."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor

from models import regression, regression_data
from purepyro import random
from purepyro._errors import (
    DeclarationError,
    DtypeError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
)
from purepyro.infer import SVI, AutoNormal, load, save

Y = torch.tensor([1.0, 2.0, 6.0])

RESUME = """
import sys
import torch, torchopt
from models import regression, regression_data
from purepyro import random
from purepyro.infer import SVI, AutoNormal, load, save
torch.set_num_threads(1)
folder = sys.argv[1]
model, data = regression(), regression_data()
optim = {"scales.*": torchopt.sgd(0.01, momentum=0.9), "*": torchopt.adam(0.05)}
svi = SVI(model, AutoNormal(model), optim, frozen="linear.scale")
state = load(f"{folder}/half.pt", like=svi.init(random.key(99), *data))
save(f"{folder}/whole.pt", svi.run_from(state, 5, *data).state)
"""


def model(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


SVI_OF_MODEL = SVI(model, AutoNormal(model), torchopt.adam(0.1))


def test_resuming_in_a_new_process_bit_for_bit(key: random.Key, tmp_path: Path) -> None:
    net, data = regression(), regression_data()
    optim = {"scales.*": torchopt.sgd(0.01, momentum=0.9), "*": torchopt.adam(0.05)}
    svi = SVI(net, AutoNormal(net), optim, frozen="linear.scale")
    half = svi.run(key, 5, *data).state
    save(tmp_path / "half.pt", half)
    path = [*(p for p in sys.path if p), str(Path(__file__).parents[1])]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{RESUME}", str(tmp_path)],
        check=True,
    )
    whole = svi.run(key, 10, *data).state
    resumed = load(tmp_path / "whole.pt", like=half)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert resumed.step == 10
    assert type(resumed.opt_state["*"][0]) is type(whole.opt_state["*"][0])


def test_the_file_is_data_with_names(key: random.Key, tmp_path: Path) -> None:
    save(tmp_path / "state.pt", SVI_OF_MODEL.init(key, Y))
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    assert content["schema"] == 1
    assert sorted(content["tensors"]) == [
        "key",
        "opt_state/0/count/0",
        "opt_state/0/count/1",
        "opt_state/0/mu/0",
        "opt_state/0/mu/1",
        "opt_state/0/nu/0",
        "opt_state/0/nu/1",
        "params/locs.loc",
        "params/scales.loc",
        "step",
    ]


def test_a_stack_of_states(key: random.Key, tmp_path: Path) -> None:
    states = torch.vmap(lambda k: SVI_OF_MODEL.init(random.Key(k), Y))(random.split(key, 3))
    save(str(tmp_path / "stack.pt"), states)
    again = load(str(tmp_path / "stack.pt"), like=states)
    torch.testing.assert_close(again, states, rtol=0, atol=0)
    with pytest.raises(ShapeError, match=r"params/locs.loc: float32\[3\] in the file, float32\[\]"):
        load(tmp_path / "stack.pt", like=SVI_OF_MODEL.init(key, Y))


def test_a_member_of_a_stack_is_saved_alone(key: random.Key, tmp_path: Path) -> None:
    many = {"w": torch.zeros(1_000, 1_000)}
    save(tmp_path / "row.pt", {"w": many["w"][0]})
    assert (tmp_path / "row.pt").stat().st_size < 20_000


# Another model


def test_all_differences_are_listed(key: random.Key, tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1), "d": torch.zeros(1)}
    save(tmp_path / "state.pt", tensors)
    like = {
        "a": torch.zeros(2),
        "b": torch.zeros(4),
        "c": torch.zeros(1, dtype=torch.float64),
        "e": torch.zeros(1),
        "f": torch.zeros(1),
    }
    match = (
        r"does not fit.*\n  missing: e, f\n  unexpected: d\n  of another shape or dtype: "
        r"b: float32\[3\] in the file, float32\[4\] in like; c: float32\[1\] in the file, float64"
        r"(.|\n)*Load with the model"
    )
    with pytest.raises(MissingNameError, match=match):
        load(tmp_path / "state.pt", like=like)
    del like["e"], like["f"]
    with pytest.raises(UnknownNameError, match=r"unexpected: d"):
        load(tmp_path / "state.pt", like=like)
    like["d"] = torch.zeros(1)
    with pytest.raises(ShapeError, match=r"b: float32\[3\]"):
        load(tmp_path / "state.pt", like=like)
    like["b"] = torch.zeros(3)
    with pytest.raises(DtypeError, match=r"c: float32\[1\] in the file, float64\[1\] in like"):
        load(tmp_path / "state.pt", like=like)


def test_a_checkpoint_of_another_model(key: random.Key, tmp_path: Path) -> None:
    net, data = regression(), regression_data()
    state = SVI(net, AutoNormal(net), torchopt.adam(0.05)).init(key, *data)
    save(tmp_path / "state.pt", state)
    with pytest.raises(
        MissingNameError, match=r"missing: params/locs.loc, params/scales.loc\n.*params/linear.sc"
    ):
        load(tmp_path / "state.pt", like=SVI_OF_MODEL.init(key, Y))


def test_a_checkpoint_of_another_optimiser(key: random.Key, tmp_path: Path) -> None:
    save(tmp_path / "state.pt", SVI_OF_MODEL.init(key, Y))
    other = SVI(model, AutoNormal(model), torchopt.sgd(0.1)).init(key, Y)
    with pytest.raises(UnknownNameError, match=r"unexpected: opt_state/0/mu/0"):
        load(tmp_path / "state.pt", like=other)


def test_a_file_of_something_else(key: random.Key, tmp_path: Path) -> None:
    state = SVI_OF_MODEL.init(key, Y)
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(DeclarationError, match=r"other.pt' was not written by purepyro.infer.save"):
        load(tmp_path / "other.pt", like=state)
    later = {"format": "purepyro state", "schema": 2, "tensors": {}}
    torch.save(later, tmp_path / "later.pt")
    with pytest.raises(DeclarationError, match=r"has the schema 2, and this purepyro reads 1 only"):
        load(tmp_path / "later.pt", like=state)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt", like=state)


def test_a_file_with_code_in_it_is_not_run(key: random.Key, tmp_path: Path) -> None:
    torch.save({"format": model}, tmp_path / "code.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load(tmp_path / "code.pt", like=SVI_OF_MODEL.init(key, Y))


def test_a_leaf_that_is_no_tensor(tmp_path: Path) -> None:
    with pytest.raises(
        DeclarationError, match=r"The leaf 'opt/0' of the state is 0.5, which is no"
    ):
        save(tmp_path / "state.pt", {"opt": (0.5,), "w": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_earlier_file(
    key: random.Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SVI_OF_MODEL.init(key, Y)
    save(tmp_path / "state.pt", state)

    def broken(content: object, file: Any) -> None:  # noqa: ANN401
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "state.pt", state)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    torch.testing.assert_close(load(tmp_path / "state.pt", like=state), state)

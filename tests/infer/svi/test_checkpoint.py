"""States on disk: resuming in another process bit for bit, and strict loading."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import regression, regression_data
from purepyro import random
from purepyro._core._trees import named_leaves
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
    path = [*(p for p in sys.path if p), str(Path(__file__).parents[2])]
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
    with pytest.raises(DeclarationError, match=r"other.pt' .* no checkpoint of ours: it was not w"):
        load(tmp_path / "other.pt", like=state)
    later = {"format": "purepyro state", "schema": 2, "tensors": {}}
    torch.save(later, tmp_path / "later.pt")
    with pytest.raises(DeclarationError, match=r"has the schema 2, and this purepyro reads 1 only"):
        load(tmp_path / "later.pt", like=state)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt", like=state)


def test_a_file_with_code_in_it_is_not_run(key: random.Key, tmp_path: Path) -> None:
    torch.save({"format": model}, tmp_path / "code.pt")
    with pytest.raises(DeclarationError, match=r"as plain data \(UnpicklingError\)") as caught:
        load(tmp_path / "code.pt", like=SVI_OF_MODEL.init(key, Y))
    assert "weights_only=False" not in str(caught.value)
    assert caught.value.__suppress_context__


# Damage

STATE = {
    "params": {"w": torch.arange(120.0).reshape(40, 3), "b": torch.zeros(5, dtype=torch.float64)},
    "opt_state": ({"mu": torch.zeros(40, 3), "nu": torch.zeros(40, 3), "count": torch.tensor(7)},),
    "key": torch.tensor([1, 0]),
    "z": torch.tensor([1 + 2j, -0.0 + 1j]),
    "half": torch.tensor([0.5, float("nan")], dtype=torch.bfloat16),
    "none": torch.zeros(0, 3),
    "mask": torch.tensor([True, False]),
}


def bits(state: object) -> list[tuple[object, ...]]:
    return [
        (name, leaf.dtype, tuple(leaf.shape), leaf.reshape(-1).view(torch.uint8).tolist())
        for name, leaf in named_leaves(state).items()
        if isinstance(leaf, Tensor) and type(leaf) is Tensor and not leaf.requires_grad
    ]


def save_as_before(path: Path, state: object) -> None:
    """How files were written before they had a checksum."""
    tensors = {
        name: leaf.detach().clone()
        for name, leaf in named_leaves(state).items()
        if isinstance(leaf, Tensor)
    }
    torch.save({"format": "purepyro state", "schema": 1, "tensors": tensors}, path)


def test_every_dtype_comes_back_to_the_bit(tmp_path: Path) -> None:
    save(tmp_path / "state.pt", STATE)
    assert bits(load(tmp_path / "state.pt", like=STATE)) == bits(STATE)


def test_a_checkpoint_without_a_checksum_still_loads(tmp_path: Path) -> None:
    save_as_before(tmp_path / "state.pt", STATE)
    assert bits(load(tmp_path / "state.pt", like=STATE)) == bits(STATE)


@pytest.mark.parametrize("write", [save, save_as_before])
def test_damage_is_seen(write: Callable[[Path, object], None], tmp_path: Path) -> None:
    file, right, rng = tmp_path / "state.pt", bits(STATE), Random(0)
    write(file, STATE)
    whole, refused, unharmed = file.read_bytes(), 0, 0
    for i in range(1_500):
        content = bytearray(whole)
        if i % 10 == 9:
            del content[rng.randrange(len(content)) :]
        else:
            for bit in [rng.randrange(8 * len(content)) for _ in range(rng.choice([1, 1, 4]))]:
                content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        try:
            found = load(file, like=STATE)
        except DeclarationError as error:
            refused += "damaged, or no checkpoint of ours" in str(error)
        else:
            assert bits(found) == right
            unharmed += 1  # the archive is padded
    assert refused + unharmed == 1_500
    assert refused > 500


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04", r"torch cannot read it as plain data \(\w+\)"),
        (b"GIF89a", "it begins with b'GIF8'"),
        (b"\x80\x02}q\x00.", "it begins with"),
    ],
)
def test_a_foreign_file(content: bytes, seen: str, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(content)
    match = (
        rf"of \d+ bytes is damaged, or no checkpoint of ours: {seen}.*Go back to an earlier file"
    )
    with pytest.raises(DeclarationError, match=match):
        load(tmp_path / "other.pt", like=STATE)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_foreign_file(tmp_path_factory: Any, content: bytes) -> None:  # noqa: ANN401
    file: Path = tmp_path_factory.getbasetemp() / "any.pt"
    file.write_bytes(content)
    with pytest.raises(DeclarationError, match="damaged, or no checkpoint of ours"):
        load(file, like=STATE)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DeclarationError, match="no regular file"):
        load(tmp_path / "pipe", like=STATE)
    with pytest.raises(OSError, match="regular files only"):
        save(tmp_path / "pipe", STATE)


@pytest.mark.parametrize(
    "content",
    [
        {"w": torch.zeros(3, requires_grad=True)},
        {"w": torch.zeros(3).to_sparse()},
        {"w": 3},
        {3: torch.zeros(3)},
        [torch.zeros(3)],
    ],
)
def test_contents_that_save_never_writes(content: object, tmp_path: Path) -> None:
    torch.save({"format": "purepyro state", "schema": 1, "tensors": content}, tmp_path / "other.pt")
    with pytest.raises(DeclarationError, match="something else than plain tensors by name"):
        load(tmp_path / "other.pt", like={"w": torch.zeros(3)})


# What is kept


def test_tensors_are_saved_as_plain_ones(tmp_path: Path) -> None:
    w = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    state = {"w": w, "row": w[1], "t": w.mT, "imag": torch.tensor([1 + 2j]).conj().imag, "w2": w}
    save(tmp_path / "state.pt", state)
    again = load(tmp_path / "state.pt", like=state)
    assert [type(leaf) for leaf in again.values()] == [Tensor] * 5
    assert not any(leaf.requires_grad for leaf in again.values())
    for name, leaf in state.items():
        assert torch.equal(again[name], leaf), name
    assert again["t"].stride() == state["t"].stride()
    again["w"].zero_()  # no two leaves share memory
    assert torch.equal(again["w2"], w)


class Marked(Tensor):
    pass


def ragged() -> Tensor:
    made: Tensor = torch.nested.as_nested_tensor(
        [torch.ones(1), torch.ones(2)], layout=torch.jagged
    )
    return made


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: torch.zeros(3).to_sparse(), r"float32\[3\], of the layout .*to_dense"),
        (lambda: torch.zeros(3, device="meta"), "on the device meta.*a real device"),
        (ragged, "a nested tensor.*Pad it"),
        (lambda: torch.zeros(3).as_subclass(Marked), "of the class Marked"),
    ],
)
def test_a_tensor_that_is_not_plain(make: Callable[[], Tensor], match: str, tmp_path: Path) -> None:
    leaf = make()
    with pytest.raises(DeclarationError, match=f"The leaf 'a/0' of the state is .*{match}"):
        save(tmp_path / "state.pt", {"a": (leaf,)})
    assert not list(tmp_path.iterdir())
    save(tmp_path / "state.pt", {"a": (torch.zeros(3),)})
    with pytest.raises(DeclarationError, match=f"The leaf 'a/0' of like is .*{match}"):
        load(tmp_path / "state.pt", like={"a": (leaf,)})


def test_a_tensor_inside_vmap(tmp_path: Path) -> None:
    def inside(x: Tensor) -> Tensor:
        save(tmp_path / "state.pt", {"x": x})
        return x

    with pytest.raises(DeclarationError, match=r"inside a transform.*Save what the transform"):
        torch.vmap(inside)(torch.zeros(3))


def test_two_leaves_of_one_name(tmp_path: Path) -> None:
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    with pytest.raises(DeclarationError, match="Several leaves of the state have the name 'a/b'"):
        save(tmp_path / "state.pt", state)


def test_a_leaf_that_is_no_tensor(tmp_path: Path) -> None:
    with pytest.raises(
        DeclarationError, match=r"The leaf 'opt/0' of the state is 0.5, which is no"
    ):
        save(tmp_path / "state.pt", {"opt": (0.5,), "w": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


# The file


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems that can write a file without a name, and those that cannot."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("way")
def test_an_interrupted_write_leaves_the_earlier_file(
    key: random.Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SVI_OF_MODEL.init(key, Y)
    save(tmp_path / "state.pt", state)

    def broken(content: object, file: Any) -> None:  # noqa: ANN401
        file.write(b"half")
        raise KeyboardInterrupt

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    places: list[tuple[object, str, object]] = [
        (torch, "save", broken),
        (os, "fsync", stop),
        (Path, "replace", stop),
    ]
    if hasattr(os, "O_TMPFILE"):
        places.append((os, "link", stop))
    for owner, name, replacement in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, replacement)
            with pytest.raises(KeyboardInterrupt):
                save(tmp_path / "state.pt", {"w": torch.zeros(3)})
        assert names_in(tmp_path) == ["state.pt"]
        torch.testing.assert_close(load(tmp_path / "state.pt", like=state), state)


# A scan of the folder that is cut short is closed when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("way")
def test_interrupts_at_random_moments(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    save(tmp_path / "state.pt", STATE)
    rng, right, interrupted = Random(0), bits(STATE), 0
    descriptors = len(os.listdir("/dev/fd"))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 5e-3))
                save(tmp_path / "state.pt", STATE)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert names_in(tmp_path) == ["state.pt"]
            assert bits(load(tmp_path / "state.pt", like=STATE)) == right
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 20
    assert len(os.listdir("/dev/fd")) == descriptors


@pytest.mark.usefixtures("way")
def test_many_writers_to_one_path(tmp_path: Path) -> None:
    def write(i: int) -> None:
        save(tmp_path / "state.pt", {"w": torch.full((1_000,), float(i))})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(80)))
    assert names_in(tmp_path) == ["state.pt"]
    found = load(tmp_path / "state.pt", like={"w": torch.zeros(1_000)})["w"]
    assert (found == found[0]).all()


KILLED = """
import sys
import torch
from purepyro.infer import save
state = {"w": torch.zeros(2_000_000)}
print("ready", flush=True)
while True:
    save(sys.argv[1], state)
"""


def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    save(tmp_path / "state.pt", {"w": torch.zeros(2_000_000)})
    command = [sys.executable, "-c", KILLED, str(tmp_path / "state.pt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    load(tmp_path / "state.pt", like={"w": torch.zeros(2_000_000)})
    if hasattr(os, "O_TMPFILE"):
        # Between getting a name and getting its place a file may be seen; that is soon over.
        parts = [name for name in names_in(tmp_path) if name != "state.pt"]
        assert len(parts) <= 1


def test_old_parts_are_swept(tmp_path: Path) -> None:
    old, new, other = (
        tmp_path / name for name in (".purepyro-1.part", ".purepyro-2.part", ".other-3.part")
    )
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        long_ago = time.time() - 7_200
        os.utime(path, (long_ago, long_ago))
    save(tmp_path / "state.pt", STATE)
    assert names_in(tmp_path) == [".other-3.part", ".purepyro-2.part", "state.pt"]


@pytest.mark.usefixtures("way")
def test_links_are_followed_and_modes_kept(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.pt", tmp_path / "state.pt"
    link.symlink_to(Path("disk") / "real.pt")
    with umask(0o027):
        save(link, STATE)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    real.chmod(0o604)
    save(link, {"w": torch.ones(1)})
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o604
    assert load(real, like={"w": torch.zeros(1)})["w"] == 1
    assert names_in(tmp_path / "disk") == ["real.pt"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, " ", "-", "a\nb", ".purepyro-x.part"])
def test_any_legal_name(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path / name, STATE)
    assert names_in(tmp_path) == [name]
    assert bits(load(tmp_path / name, like=STATE)) == bits(STATE)


@pytest.mark.usefixtures("way")
def test_a_full_disk(tmp_path: Path) -> None:
    save(tmp_path / "state.pt", STATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large; save writes.*state.pt'$") as caught:
            save(tmp_path / "state.pt", {"w": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert names_in(tmp_path) == ["state.pt"]
    assert bits(load(tmp_path / "state.pt", like=STATE)) == bits(STATE)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder has to be there.*none/state.pt'$"):
        save(tmp_path / "none" / "state.pt", STATE)
    with pytest.raises(IsADirectoryError, match="wants a file"):
        save(tmp_path, STATE)
    with pytest.raises(IsADirectoryError):
        load(tmp_path, like=STATE)


def test_a_file_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "state.pt", STATE)
    # Root may write to any file.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match=r"does not replace a file that is read-only"):
        save(tmp_path / "state.pt", STATE)


def test_a_large_state_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w, given = torch.zeros(1_000), []
    write = torch.save

    def watching(content: Any, file: Any) -> None:  # noqa: ANN401
        given.append(content["tensors"]["w"].data_ptr())
        write(content, file)

    monkeypatch.setattr(torch, "save", watching)
    save(tmp_path / "state.pt", {"w": w})
    assert given == [w.data_ptr()]

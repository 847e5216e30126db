"""Compiled code is kept on disk: the next process compiles nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from purepyro._compile.inductor import _inductor

PROGRAM = """
import json, torch, torchopt
from torch._dynamo.utils import counters
from models import regression, regression_data
from purepyro import random, jit
from purepyro.infer import SVI, AutoNormal

torch.set_num_threads(1)
x, y = regression_data()
model = regression()
svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), progress_bar=False, compiled=True)
losses = svi.run(random.key(0), 30, x, y).losses
doubled = jit(lambda x: 2 * x)(x)
found = {name: counters["inductor"][name] for name in ("fxgraph_cache_hit", "fxgraph_cache_miss")}
print(json.dumps([found, losses.tolist()]))
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    env["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])
    found = []
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr
        found.append(json.loads(ran.stdout))
    (cold, losses), (warm, again) = found
    assert cold == {"fxgraph_cache_hit": 0, "fxgraph_cache_miss": 2}
    assert warm == {"fxgraph_cache_hit": 2, "fxgraph_cache_miss": 0}
    assert losses == again


def test_other_sources_are_another_key(tmp_path: Path) -> None:
    """One setting in a copy of our code, or the version of the package, is enough."""
    home = tmp_path / "_compile"
    shutil.copytree(Path(_inductor.__file__).parents[1], home)
    before = _inductor.mark_of_sources([home], "1.0")
    assert before == _inductor.mark_of_sources([home], "1.0")
    assert before != _inductor.mark_of_sources([home], "1.1")
    changed = home / "inductor" / "_cpp_buffers.py"
    text = changed.read_text()
    changed.write_text(text.replace("_SMALL = 16 << 10", "_SMALL = 17 << 10"))
    assert changed.read_text() != text
    after = _inductor.mark_of_sources([home], "1.0")
    assert after != before
    (home / "_new.py").touch()
    assert _inductor.mark_of_sources([home], "1.0") not in (before, after)


def test_the_key_is_of_our_own_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those here, and those that say what a draw becomes; they are part of torch's key."""
    seen: list[list[str]] = []

    def look(folders: Sequence[Path], _: str) -> str:
        seen.append([path.name for folder in folders for path in folder.rglob("*.py")])
        return "mark"

    monkeypatch.setattr(_inductor, "mark_of_sources", look)
    _inductor.own_code.cache_clear()
    try:
        assert _inductor.own_code() == "mark"
    finally:
        _inductor.own_code.cache_clear()
    assert {"_cpp_buffers.py", "_cpp_wrapper.py", "_inductor.py", "_tanh.py", "_philox.py"} <= {
        *seen[0]
    }


FALLBACK = """
import warnings
import torch
from purepyro import jit

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for n in 3, 4:
        assert jit(lambda x: x * n)(torch.ones(3)).tolist() == [n] * 3
ours = [str(each.message) for each in caught if "purepyro" in str(each.message)]
assert len(ours) == 1, ours
assert "The folder TORCHINDUCTOR_CACHE_DIR=" in ours[0], ours
assert "Name another folder" in ours[0], ours
assert "g++" not in ours[0], ours
"""


@pytest.mark.slow
@pytest.mark.parametrize("below", [".", "sub"])
def test_a_folder_that_cannot_be_used(tmp_path: Path, below: str) -> None:
    """A file where the folder should be, or on the way to it: one warning, and right results."""
    (tmp_path / "file").touch()
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "file" / below)}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", FALLBACK],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr

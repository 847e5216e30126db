"""Without a C++ compiler all works, with one warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import warnings
import attrs, torch, torchopt
from models import regression, regression_data
from purepyro import jit, random
from purepyro.infer import SVI, AutoNormal

x, y = regression_data()
model = regression()
svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), progress_bar=False, compiled=True)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = svi.run(random.key(0), 30, x, y)
    state, loss = jit(svi.step)(found.state, x, y)
    doubled = jit(lambda x: 2 * x)(x)
ours = [each for each in caught if "purepyro" in str(each.message)]
assert len(ours) == 1, [str(each.message) for each in caught]
assert ours[0].category is RuntimeWarning
message = str(ours[0].message)
assert message.startswith("There is no C++ compiler, so purepyro.jit and compiled runs"), message
assert "Install g++ or clang" in message
wanted = attrs.evolve(svi, compiled=False).run(random.key(0), 31, x, y)
torch.testing.assert_close(torch.cat([found.losses, loss[None]]), wanted.losses)
torch.testing.assert_close(state.params, wanted.state.params)
assert torch.equal(doubled, 2 * x)
"""


@pytest.mark.slow
def test_it_works_with_one_warning(tmp_path: Path) -> None:
    # Nothing on the path; what a compiler is named by leads nowhere.
    env = {**os.environ, "PATH": str(tmp_path), "CXX": "/nowhere/c++", "CC": "/nowhere/cc"}
    env["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])
    env["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr

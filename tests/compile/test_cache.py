"""Compiled code is kept on disk: the next process compiles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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

"""Each example runs as a script and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# What each script must print, as a pattern.
PRINTED = {
    "01_declare.py": r"layers\.0\.scale +\[\] +mean 0\.500.*layers\.0\.weight +\[4, 3\] ",
    "02_run.py": r"draws the same: True.*Their sum (-\d+\.\d+) is the joint log density \1\n",
    "03_transform.py": r"most probable rate on a grid 0\.9.*draw 500 is the single run: True",
    "04_bayesian_regression.py": r"bmi .*25\.\d.*purepyro -5\.4\d+ .*least squares -5\.4\d+",
    "05_check_models.py": r"2 +-0\.4[67]\d .*5 +-0\.15\d +-0\.1[56]\d\n[78] of 8 groups lie",
    "06_deep_ensemble.py": r" 5 +8\.\d +0\.[12]\d .* 11 +1[78]\.\d +0\.[3-6]\d .* 20 +16\.\d +0\.1",
    "07_calibration.py": r"member +0\.8\d+  0\.9\d+  0\.\d+\n.* 0\.9[0-3]\d  0\.3\d+  0\.0[1-4]",
    "08_torchrun.py": r"20 members on 1 rank, .*member (\d\.\d+), on average\n.*ensemble +1\.",
    "09_mcmc.py": r"Centred: [1-9]\d* of.*tau +3\.[2-9].*theta\[0\] +[56]\.\d.*NUTS +0\.[0-4]\d +",
}


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(PRINTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_an_example(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(PRINTED[name], result.stdout, flags=re.DOTALL), result.stdout
    for plot in re.findall(r"Plot: (\S+)", result.stdout):
        assert Path(plot).stat().st_size > 10_000

"""The built wheel brings the package and its types: what a user gets, checked as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "tests" / "typing" / "accept").glob("p[1-5]_*.py"))
NAMES = [program.name for program in PROGRAMS]

# torch-stubs are there for mypy; pyright keeps torch's own types, of which these are not known.
FOR_MYPY = """
from typing import assert_type

from torch import Tensor, ones
from torch.distributions import Normal, constraints, kl_divergence

normal = Normal(0.0, ones(3))
assert_type(normal.log_prob(ones(3)), Tensor)
assert_type(normal.expand([2, 3]), Normal)
assert_type(kl_divergence(normal, normal), Tensor)
assert_type(constraints.positive.check(ones(3)), Tensor)
"""

# What an editable install of this project puts into site-packages.
OURS = ("purepyro", "_purepyro", "pyro-stubs")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its whole output is shown if it fails."""
    words = [str(word) for word in command]
    ran = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(words)}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project: the five programs, and an environment with the wheel.

    The dependencies are links to those of the running interpreter, so that they lie beside the
    wheel's files in one site-packages, as they do for a user.
    """
    folder = tmp_path_factory.mktemp("project")
    run(sys.executable, "-m", "venv", "--without-pip", ".venv", cwd=folder)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python_of(folder), "-c", script, cwd=folder).strip())
    for installed in {sysconfig.get_path(name) for name in ("purelib", "platlib")}:
        for path in Path(installed).iterdir():
            if path.suffix != ".pth" and not path.name.startswith(OURS):
                (site / path.name).symlink_to(path)
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    for program in PROGRAMS:
        (folder / program.name).write_bytes(program.read_bytes())
    return folder


def python_of(project: Path) -> Path:
    """The interpreter of the project's environment."""
    return project / ".venv" / "bin" / "python"


def test_contents(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        marks = {name: archive.read(name) for name in names if name.endswith(("py.typed", ".pth"))}
    assert marks == {
        "purepyro/py.typed": b"",
        "pyro-stubs/py.typed": b"partial\n",
        # With a newline, pyright would take the stubs for all of torch.
        "_purepyro_stubs/torch-stubs/py.typed": b"partial",
        "purepyro_stubs.pth": b"_purepyro_stubs\n",
    }
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"purepyro", "pyro-stubs", "_purepyro_stubs", "purepyro_stubs.pth"}

    sources = {
        "src/purepyro": "purepyro",
        "stubs/pyro-stubs": "pyro-stubs",
        "stubs/torch-stubs": "_purepyro_stubs/torch-stubs",
    }
    for source, target in sources.items():
        folder = ROOT / source
        files = [path for kind in ("*.py", "*.pyi") for path in folder.rglob(kind)]
        expected = {f"{target}/{path.relative_to(folder).as_posix()}" for path in files}
        assert expected
        assert expected == {
            name
            for name in names
            if name.startswith(f"{target}/") and name.endswith((".py", ".pyi"))
        }


def test_the_wheel_is_what_is_imported(project: Path) -> None:
    script = "import purepyro.infer; print(purepyro.__file__)"
    assert run(python_of(project), "-c", script, cwd=project).startswith(str(project))


def test_programs_pass_mypy_strict(project: Path) -> None:
    (project / "for_mypy.py").write_text(FOR_MYPY, encoding="utf-8")
    options = ["--strict", "--python-executable", str(python_of(project))]
    said = run(sys.executable, "-m", "mypy", *options, *NAMES, "for_mypy.py", cwd=project)
    assert "no issues found in 6 source files" in said


def test_programs_pass_pyright(project: Path) -> None:
    options = ["--outputjson", "--pythonpath", str(python_of(project))]
    report = json.loads(run(sys.executable, "-m", "pyright", *options, *NAMES, cwd=project))
    assert report["summary"]["filesAnalyzed"] == 5
    assert report["generalDiagnostics"] == []

"""The programs on the pages run, print what the pages show, and pass both checkers, strictly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```python\n" in path.read_text("utf-8"))

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^```python\n[^`]*?^```\n+```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# Pages with tests of their own: one compiles, the programs of the other stand each for itself.
ELSEWHERE = ("compile.md", "migration.md")

# Strict, but for what torch, matplotlib and scikit-learn leave unknown.
PYRIGHT = {
    "typeCheckingMode": "strict",
    "reportMissingTypeStubs": False,
    "reportUnknownArgumentType": False,
    "reportUnknownLambdaType": False,
    "reportUnknownMemberType": False,
    "reportUnknownVariableType": False,
}


def programs(page: Path) -> list[str]:
    """The programs of a page: one in all its blocks, or on the page of migration one in each."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return blocks if page.name == "migration.md" else ["\n\n".join(blocks)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=str)
def test_a_page_runs_and_prints_what_it_shows(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = programs(page)
    exec(compile(program, page.name, "exec"), {"__name__": page.stem})
    printed = capsys.readouterr().out
    for shown in PRINTED.findall(page.read_text(encoding="utf-8")):
        assert shown in printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of all pages, of the README and the tutorials, as files."""
    folder = tmp_path_factory.mktemp("pages")
    for page in (*PAGES, ROOT / "README.md"):
        for number, program in enumerate(programs(page)):
            if "PyroModule" not in program:  # Pyro's own, which is shown beside ours
                name = f"page_{page.stem.lower()}_{number}.py"
                (folder / name).write_text(program, encoding="utf-8")
    for script in (DOCS / "tutorials").glob("*.py"):
        shutil.copy(script, folder / f"tutorial_{script.name}")
    return folder


@pytest.mark.slow
def test_mypy_accepts_every_program(folder: Path) -> None:
    command = [
        *(sys.executable, "-m", "mypy", "--strict"),
        *("--config-file", str(ROOT / "pyproject.toml"), "--python-executable", sys.executable),
        *("--cache-dir", str(ROOT / ".mypy_cache" / "pages")),
        *sorted(path.name for path in folder.glob("*.py")),
    ]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_pyright_accepts_every_program(folder: Path) -> None:
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr

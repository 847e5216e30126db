"""Both checkers accept the programs in ``typing/accept`` and reject those in ``typing/reject``.

A line of a rejected program that has to be an error says so, with the codes of both checkers:

    layer.wieght  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]

A comment that stands alone is about the line below it. A checker that the comment leaves out is
known to accept the line. Nothing else may be an error, and nothing less.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*/*.py"))
ACCEPTED = [path for path in PROGRAMS if path.parent.name == "accept"]

EXPECTED = re.compile(r"# E: ((?:\w+\[[\w, -]+\] ?)+)$")
CODES = re.compile(r"(\w+)\[([\w, -]+)\]")

Errors: TypeAlias = dict[str, dict[str, str]]
"""By ``file:line``, then by error code: a message of the checker."""


def shown(errors: Errors) -> list[str]:
    """Errors as text, a line each."""
    return [
        f"{place} [{code}] {message}"
        for place, codes in sorted(errors.items())
        for code, message in sorted(codes.items())
    ]


def expected_errors(checker: str) -> Iterator[tuple[str, str]]:
    """The places and codes that the programs state for ``checker``."""
    for path in PROGRAMS:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            comment = EXPECTED.search(line)
            if comment:
                below = line.lstrip().startswith("#")
                place = f"{path.parent.name}/{path.name}:{number + below}"
                for name, codes in CODES.findall(comment[1]):
                    if name == checker:
                        yield from ((place, code) for code in codes.split(", "))


def mypy_errors(folder: Path) -> Errors:
    """What mypy finds in the programs under ``folder``, with the settings of the project."""
    command = [
        *(sys.executable, "-m", "mypy", "--strict", "--output", "json"),
        *("--config-file", str(ROOT / "pyproject.toml"), "--python-executable", sys.executable),
        *("--cache-dir", str(ROOT / ".mypy_cache" / "programs")),
        *(str(folder / path.parent.name / path.name) for path in PROGRAMS),
    ]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found: Errors = {}
    for line in ran.stdout.splitlines():
        error = json.loads(line)
        if error["severity"] == "error":
            place = f"{'/'.join(Path(error['file']).parts[-2:])}:{error['line']}"
            found.setdefault(place, {})[str(error["code"])] = error["message"]
    return found


def pyright_errors(folder: Path) -> Errors:
    """What pyright finds in the programs under ``folder``, with its standard settings."""
    settings = {"typeCheckingMode": "standard", "include": ["."]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    assert report["summary"]["filesAnalyzed"] == len(PROGRAMS)
    found: Errors = {}
    for error in report["generalDiagnostics"]:
        if error["severity"] == "error":
            line = error["range"]["start"]["line"] + 1
            place = f"{'/'.join(Path(error['file']).parts[-2:])}:{line}"
            found.setdefault(place, {})[str(error.get("rule"))] = error["message"]
    return found


@pytest.fixture(scope="session")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Errors]:
    """The errors of each checker, in a folder out of reach of the project's other files."""
    folder = tmp_path_factory.mktemp("programs")
    for kind in ("accept", "reject"):
        shutil.copytree(ROOT / "tests" / "typing" / kind, folder / kind)
    return {"mypy": mypy_errors(folder), "pyright": pyright_errors(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_programs_are_accepted(checker: str, findings: dict[str, Errors]) -> None:
    complaints = [error for error in shown(findings[checker]) if error.startswith("accept")]
    assert not complaints, "\n".join(complaints)


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_mistakes_are_found(checker: str, findings: dict[str, Errors]) -> None:
    expected = set(expected_errors(checker))
    assert expected
    found = {(place, code) for place, codes in findings[checker].items() for code in codes}
    unexpected = {
        place: {code: text for code, text in codes.items() if (place, code) not in expected}
        for place, codes in findings[checker].items()
        if place.startswith("reject")
    }
    complaints = [f"not stated: {error}" for error in shown(unexpected)]
    complaints += [f"not found: {place} [{code}]" for place, code in sorted(expected - found)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_accepted_programs_run(path: Path) -> None:
    runpy.run_path(str(path))

"""The programs of ``docs/migration.md`` run, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_program_runs(program: str) -> None:
    exec(compile(program, str(PAGE), "exec"), {"__name__": "migration"})


def test_both_programs_fit_the_same_model() -> None:
    theirs: dict[str, torch.Tensor] = {}
    ours: dict[str, torch.Tensor] = {}
    for program, samples in zip(PROGRAMS, (theirs, ours), strict=False):
        scope: dict[str, dict[str, torch.Tensor]] = {}
        exec(compile(program, str(PAGE), "exec"), scope)
        samples.update(scope["samples"])
    assert ours["y"].shape == theirs["y"].shape == (100, 20)
    error = (ours["y"].mean(0) - theirs["y"].mean(0)).abs().max()
    assert float(error) < 1.0


def test_every_row_stands_in_the_tables_once() -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)]
    assert rows == list(range(1, 51))


def test_every_row_has_a_test() -> None:
    tests = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    named = re.findall(r"^def test_row_(\d+)_(?:and_(\d+)_)?", "\n".join(tests), re.MULTILINE)
    assert {int(number) for pair in named for number in pair if number} == set(range(1, 51))

"""A private name that a release lacks costs what it is needed for, and nothing else."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from purepyro._compat._private import TESTED, Missing, held, private, private_or
from purepyro._errors import UnsupportedVersionError

ROOT = Path(__file__).parents[2]
COMPAT = ROOT / "src" / "purepyro" / "_compat"


def looked_up() -> Iterator[str]:
    """The names that ``_compat`` looks up."""
    for path in sorted(COMPAT.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("private", "private_or")
            ):
                name = node.args[0]
                if path.name != "_private.py":
                    assert isinstance(name, ast.Constant), f"{path.name}:{node.lineno}"
                    yield str(name.value)


NAMES = sorted(set(looked_up()))

# Names whose absence changes nothing that is used here, or only how fast it is.
FREE = frozenset[str]()


@pytest.mark.slow  # forks and imports: about a second for each name
def test_a_name_that_is_gone_costs_its_use_only() -> None:
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hidden_names.py"))],
        input="\n".join(NAMES),
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    found = {name: json.loads(outcome) for name, outcome in lines}
    assert set(found) == {"", *NAMES}, run.stderr
    right = found.pop("")
    assert "refused" not in right.values()
    assert not [error for error in right.values() if "Error" in error]
    wrong = {
        f"{name}, {use}: {outcome}"
        for name, outcomes in found.items()
        for use, outcome in outcomes.items()
        if outcome not in ("refused", right.get(use))
    }
    assert not wrong, "\n".join(sorted(wrong))
    # Draws need none of what plain torch does not have, and runs none of the compiler's.
    for name, outcomes in found.items():
        if name.startswith(("torch._C._dynamo", "torch.fx", "torch._subclasses", "torch.ops")):
            assert {use for use in outcomes if outcomes[use] == "refused"} <= {"graph"}, name


def test_a_missing_name_refuses_each_use() -> None:
    gone = private("torch:_no_such_name", "showing this")
    assert isinstance(gone, Missing)
    message = r"torch .* has no torch\._no_such_name, which purepyro needs for showing this\."
    for use in (
        lambda: gone(1),
        lambda: gone.attribute,
        lambda: isinstance(1, gone),
        lambda: bool(gone),
        lambda: list(gone),
        lambda: len(gone),
        lambda: gone["x"],
        lambda: vars(gone),
    ):
        with pytest.raises(UnsupportedVersionError, match=message):
            use()
    with pytest.raises(UnsupportedVersionError, match=rf"pip install torch=={TESTED['torch'][1]}"):
        gone.attribute = 1
    with pytest.raises(UnsupportedVersionError, match="pyro-ppl"):
        private("pyro.no_such_module:name", "this")()


def test_another_way_is_taken_with_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "purepyro"):
        assert private_or("torch:_no_such_name", 3, "it takes longer") == 3
    assert caplog.messages[0].endswith("has no torch._no_such_name: it takes longer.")
    assert len(caplog.messages) == 1


def test_an_attribute_that_is_gone_is_named() -> None:
    with pytest.raises(UnsupportedVersionError, match=r"has no torch\.nn\..*Linear\._gone"):
        held(__import__("torch").nn.Linear(1, 1), "_gone", "this")


def test_the_tested_range_is_what_the_papers_say() -> None:
    oldest, newest = TESTED["torch"]
    assert f"torch=={oldest}" in (ROOT / "constraints-dev.txt").read_text(encoding="utf-8")
    for page in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert newest in text, page
        assert oldest in text, page

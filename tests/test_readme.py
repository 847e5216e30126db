"""What the README shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The first block prints predictions beside the truth, which noise keeps within 0.15."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert "tensor" in capsys.readouterr().out
    x, draws, losses = names["x"], names["draws"], names["losses"]
    assert isinstance(x, torch.Tensor)
    assert isinstance(draws, dict)
    assert isinstance(losses, torch.Tensor)
    torch.testing.assert_close(draws["y"].mean(0), 2 * x, atol=0.15, rtol=0)
    assert losses.shape == (20, 100)


def test_the_first_example_is_short() -> None:
    first = re.search(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert first is not None
    lines = [line for line in first[1].splitlines() if line.strip()]
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert len(lines) - len(imports) <= 20


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(((?!http)[^)\s]+)\)", README.read_text())
    assert targets
    assert all((README.parent / target).exists() for target in targets)

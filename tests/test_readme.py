"""What the README shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


TEXT = README.read_text(encoding="utf-8")


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """What stands below the first program is what it prints."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    shown = re.search(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)
    assert shown is not None
    assert capsys.readouterr().out.startswith(shown[1])
    losses = names["losses"]
    assert isinstance(losses, torch.Tensor)
    assert losses.shape == (20, 100)


def test_the_first_example_is_short() -> None:
    first = re.search(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert first is not None
    lines = [line for line in first[1].splitlines() if line.strip()]
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert len(lines) - len(imports) <= 20


def test_a_visitor_reads_what_it_is_first() -> None:
    """Before the second heading: what it is, a picture, figures, a program, how to get it."""
    first, _, rest = TEXT.partition("\n## ")
    for needed in ("Bayesian", "PyTorch", "NumPyro", ".png)", "µs", "pip install", "MCMC(NUTS("):
        assert needed in first, needed
    assert rest.startswith("When to use NumPyro or Pyro instead")


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(((?!http|#)[^)\s]+)\)", TEXT)
    assert targets
    assert all((README.parent / target).exists() for target in targets)
    anchors = re.findall(r"\]\(#([^)\s]+)\)", TEXT)
    headings = [heading.lower() for heading in re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE)]
    assert all(anchor.replace("-", " ") in headings for anchor in anchors)

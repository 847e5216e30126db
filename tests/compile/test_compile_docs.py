"""What the page on compiling shows, runs."""

from __future__ import annotations

import linecache
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "compile.md"


@pytest.mark.compiled
@pytest.mark.usefixtures("uncompiled")
def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for i, block in enumerate(blocks):
        name = f"compile.md block {i}"
        linecache.cache[name] = (len(block), None, block.splitlines(keepends=True), name)
        exec(compile(block, name, "exec"), names)
    shown = capsys.readouterr().out
    assert "CacheInfo(hits=2, misses=1, maxsize=32, currsize=1)" in shown
    assert "\n3\n" in shown
    assert "`return x[x > 0]`" in shown
    assert "tensor([2., 2.])" in shown
    assert "torch.Size([500])" in shown

"""Graphs that run as they are: what a graph holds can be seen without the seconds of a compiler."""

from __future__ import annotations

import pytest

from purepyro._compile.inductor import _backend


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions are traced, guarded and cached as ever, and their graphs run by torch."""
    monkeypatch.setattr(_backend, "_missing", lambda inputs: "compiler that is quick")
    monkeypatch.setattr(_backend, "_warn", lambda reason: None)

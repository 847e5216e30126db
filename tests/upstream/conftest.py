"""Pyro's own algorithms draw from global generators: each test starts them from one seed."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pytest
from pyro.util import get_rng_state, set_rng_state


@pytest.fixture(autouse=True)
def pyro_seed() -> Iterator[None]:
    """The global generators start from a seed, and are put back at the end."""
    before = get_rng_state()
    pyro.set_rng_seed(0)
    yield
    set_rng_state(before)

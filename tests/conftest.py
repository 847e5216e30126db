"""What all tests share: one thread, a clean parameter store, a key, reproducible properties."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pytest
import torch
from hypothesis import HealthCheck, settings

from purepyro import disable_jit, random

# Programs for the type checkers: test_typing.py reads them, nobody imports them.
collect_ignore_glob = ["typing/accept/*", "typing/reject/*"]

# Sums are then in one order everywhere, and timings compare.
torch.set_num_threads(1)

settings.register_profile(
    "purepyro",
    deadline=None,  # the first call of a torch operator is slow
    derandomize=True,
    max_examples=25,
    # A key is never changed, so an example may see the one of the example before it.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("purepyro")


@pytest.fixture(autouse=True)
def empty_param_store() -> Iterator[None]:
    """Pyro's global parameter store is empty when a test starts, and again when it ends."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def validated() -> Iterator[None]:
    """Distributions check their numbers, though torch.compile switches that off for good."""
    pyro.enable_validation(True)
    yield
    pyro.enable_validation(True)


@pytest.fixture(autouse=True)
def eager(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing is compiled, since it takes seconds, but in tests marked ``compiled``."""
    if request.node.get_closest_marker("compiled"):
        yield
        return
    with disable_jit():
        yield


@pytest.fixture
def key() -> random.Key:
    """A key, the same in every test."""
    return random.key(0)

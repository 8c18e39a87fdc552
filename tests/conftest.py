"""What every test runs under: one thread per worker, seeded generators, NaN in memory that nobody wrote."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# A worker of pytest-xdist gets one core; tests of threads set their own number.
torch.set_num_threads(1)

# Examples are derived from the test's code, so that a run is repeatable and leaves no files behind.  The first draw of
# a processor may build noise or a filter bank, so slow generation says nothing.
settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("ci"), max_examples=1000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan() -> Iterator[None]:
    """In its deterministic mode torch fills what `torch.empty` and its kin return; it also refuses what varies."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw from the global generators give the same in any order."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # the global generator is what is seeded here
    random.seed(0)


@pytest.fixture
def threads() -> Iterator[None]:
    """For tests that change the number of threads: puts it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

"""For tests of the compiled library alone."""

from __future__ import annotations

import pytest

from dasp.kernels._library import library


@pytest.fixture
def compiled_library() -> None:
    """Skips where there is none, or it is switched off."""
    if library.reason:
        pytest.skip(f"no compiled library: {library.reason}")

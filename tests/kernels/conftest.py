"""For tests of the compiled library alone, and of the CUDA kernels without a GPU."""

from __future__ import annotations

import os

import pytest
import torch

from dasp.kernels._library import library

# Without a GPU the CUDA kernels run in Triton's interpreter, which is chosen when Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def compiled_library() -> None:
    """Skips where there is none, or it is switched off."""
    if library.reason:
        pytest.skip(f"no compiled library: {library.reason}")

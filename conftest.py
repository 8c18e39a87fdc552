"""The names that examples in docstrings use without importing them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dasp
import dasp.functional
import dasp.gradients

# They have no examples, and importing them takes Triton.
collect_ignore = ["dasp/kernels/cuda", "tests/kernels/compile_cuda.py"]


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace |= {"F": dasp.functional, "dasp": dasp, "math": math, "np": np, "torch": torch}

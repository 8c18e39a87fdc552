"""The kernels for GPUs, in Triton, which comes with CUDA builds of torch and is imported when the first tensor arrives.

One file for each operator cuts the signal and launches what is in `device`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch

# For each operator the module that has its kernels, and what these take before the arguments of the operator.
_MODULES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "sosfilt": ("sosfilt", ()),
    "svf": ("svf", ()),
    "ballistics": ("ballistics", ()),
    "recurrence": ("recurrence", ()),
    "compress_max": ("dynamics", (1, False)),
    "compress_mean": ("dynamics", (1, True)),
    "expand_max": ("dynamics", (-1, False)),
    "expand_mean": ("dynamics", (-1, True)),
}


class Kernels(NamedTuple):
    """With the arguments of an `Operator`'s own."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def reason() -> str:
    """Why there are no kernels; empty where there are."""
    if os.environ.get("DASP_DISABLE_CUDA_KERNELS", "") not in ("", "0"):
        return "switched off by DASP_DISABLE_CUDA_KERNELS"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return ""


def describe() -> str:
    """What runs on tensors of a GPU: "triton", the reason why the CPU's kernels do, or "-" without a GPU."""
    if not torch.cuda.is_available():
        return "-"
    return f"fallback: {reason()}" if reason() else "triton"


@cache
def find(name: str) -> Kernels | None:
    """The kernels of the operator `name`, if there are any."""
    if name not in _MODULES or reason():
        return None
    module_name, settings = _MODULES[name]
    module = importlib.import_module(f"dasp.kernels.cuda.{module_name}")
    return Kernels(partial(module.forward, *settings), partial(module.backward, *settings))

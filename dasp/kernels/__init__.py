"""The per-sample loops, and the only place that knows devices.

Each operator takes rows, of samples or of settings, and has a compiled CPU kernel, a reference, gradients of any order,
forward mode, vmap and a fake kernel, all registered in one place.
"""

from __future__ import annotations

import os

import torch

from dasp.kernels import cuda
from dasp.kernels._ballistics import ballistics
from dasp.kernels._biquads import KINDS, biquads
from dasp.kernels._convolution import convolve
from dasp.kernels._delay import delay
from dasp.kernels._dynamics import automated_dynamics, automated_gain, dynamics
from dasp.kernels._gain_computer import DYNAMICS_CONTROLS, gain_computer
from dasp.kernels._library import library
from dasp.kernels._mix import mix
from dasp.kernels._noise import band_noise, decaying_noise
from dasp.kernels._prototypes import prototypes
from dasp.kernels._recurrence import recurrence
from dasp.kernels._registration import numbers, readable
from dasp.kernels._sosfilt import sosfilt
from dasp.kernels._svf import svf

__all__ = [
    "DYNAMICS_CONTROLS",
    "KINDS",
    "automated_dynamics",
    "automated_gain",
    "ballistics",
    "band_noise",
    "biquads",
    "convolve",
    "decaying_noise",
    "delay",
    "describe",
    "dynamics",
    "gain_computer",
    "mix",
    "numbers",
    "prototypes",
    "readable",
    "recurrence",
    "sosfilt",
    "svf",
]


def _use_one_thread() -> None:
    torch.set_num_threads(1)


# The threads of torch, on which the kernels run where they can, do not survive a fork: torch 2.13 hangs in a forked
# child at the first operation that uses them.  DASP_DISABLE_FORK_HOOK=1 leaves the child as it is.
if hasattr(os, "register_at_fork") and os.environ.get("DASP_DISABLE_FORK_HOOK", "") in ("", "0"):
    os.register_at_fork(after_in_child=_use_one_thread)


def describe() -> dict[str, str]:
    """What the kernels run on.

    `cpu_kernels` is "compiled" or the reason why not, `instruction_set` the one in use; `cuda_kernels` is "triton", the
    reason why the CPU's kernels take its place, or "-" without a CUDA device.
    """
    state = f"fallback: {library.reason}" if library.reason else "compiled"
    return {
        "cpu_kernels": state,
        "instruction_set": "-" if library.reason else library.instruction_set,
        "cuda_kernels": cuda.describe(),
    }

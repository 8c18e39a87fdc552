"""The time that memory alone must take: the bytes that a call has to move, and copies that show how fast they move."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.measure import Call

# A copy reads and writes each byte.
_MOVES_OF_A_COPY = 2


def bytes_moved(inputs: Iterable[Tensor], outputs: Iterable[Tensor], backward: bool) -> int:
    """The bytes that a call must move at least, if no value is kept in a cache between forward and backward.

    Forward reads the inputs and writes the outputs; backward reads the inputs and the gradients of the outputs, and
    writes the gradients of the inputs.
    """
    read, written = (sum(t.numel() * t.element_size() for t in tensors) for tensors in (inputs, outputs))
    return read + written + (read + written + read if backward else 0)


def share(moved: int, call_ns: float, copied: int, copy_ns: float) -> float:
    """How much of the speed of a copy a call reaches, both counted in bytes moved.

    Args:
        moved: The bytes that the call must move.
        call_ns: What it takes.
        copied: The size of what is copied, in bytes.
        copy_ns: What the copy takes.
    """
    return (moved / call_ns) / (_MOVES_OF_A_COPY * copied / copy_ns)


def copy_to_existing(x: Tensor) -> Call:
    """Copies `x` into memory that has been written before."""
    y = x.clone()
    return lambda: y.copy_(x)


def copy_to_fresh(x: Tensor) -> Call:
    """Copies `x` into memory that is new from the system, which provides each page at the first write to it."""
    size = x.numel() * x.element_size()
    return lambda: torch.frombuffer(mmap.mmap(-1, size), dtype=x.dtype).view(x.shape).copy_(x)

"""How a signal is cut for the GPU, and how kernels are launched."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Samples that a thread walks through one after another.  Twenty million samples are then 160000 threads, which fill the
# largest GPU, and the states between chunks are a small part of the traffic.  A power of 2.
LENGTH = 128
# Of short signals chunks are shorter, down to this, so that a warp is not left idle.
SHORTEST = 16
# Chunks, and threads, of one program: up to 4 warps.
LANES = 128
FEWEST_LANES = 32


class Chunks(NamedTuple):
    """How rows are cut.

    The cut depends on the number of samples alone, never on the rows: a row has the same result in any company.

    Attributes:
        rows: Rows.
        samples: Samples of a row.
        vec: Samples in 16 bytes, where that divides their number, else 1.
        length: Samples of a chunk.
        lanes: Chunks of a block, which is what one program owns.
        chunks: Chunks of a row.
        blocks: Blocks of a row.
    """

    rows: int
    samples: int
    vec: int
    length: int
    lanes: int
    chunks: int
    blocks: int

    @property
    def programs(self) -> int:
        return self.rows * self.blocks

    @property
    def tiles(self) -> int:
        """Loads of a row: its length in a form from which Triton sees how addresses are aligned."""
        return self.samples // self.vec

    @property
    def block(self) -> dict[str, int]:
        """The constants of a kernel."""
        return {"LENGTH": self.length, "VEC": self.vec, "LANES": self.lanes}


def cut(*signals: Tensor) -> Chunks:
    """Cuts the rows of `signals`, all `(rows, samples)`: those that a kernel reads and those that it writes."""
    rows, samples = signals[0].shape
    length = min(LENGTH, max(SHORTEST, power_of_2(-(-samples // FEWEST_LANES))))
    chunks = -(-samples // length)
    lanes = min(LANES, max(FEWEST_LANES, power_of_2(chunks)))
    vec = 16 // max(signal.element_size() for signal in signals)
    if samples % vec or any(signal.data_ptr() % 16 for signal in signals):
        vec = 1
    return Chunks(rows, samples, vec, length, lanes, chunks, -(-chunks // lanes))


def power_of_2(number: int) -> int:
    """The least one that is not below `number`."""
    return 1 << max(0, number - 1).bit_length()


def launch(kernel: Any, programs: int, lanes: int, *arguments: Tensor | int, **constants: int) -> None:
    """Runs `kernel` with one thread to a lane."""
    kernel[(programs,)](*arguments, **constants, num_warps=max(1, lanes // 32))


def doubles(like: Tensor, *shape: int) -> Tensor:
    """Memory for states and sums."""
    return torch.empty(shape, dtype=torch.float64, device=like.device)

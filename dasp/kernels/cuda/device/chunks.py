"""What all kernels share: tiles of samples in registers, and scans over affine maps z -> a z + b.

A lane is a chunk of `LENGTH` samples that a thread walks through in float64; a program owns `LANES` consecutive chunks
of one row.  A thread reads 16 bytes at a time, `VEC` samples, and takes them apart in registers: what a transaction
brings is used whole, although neighbouring threads are a chunk apart.

Backwards in time everything is the same with the samples counted from the end of the row (`REVERSED`), so that a
partial chunk is always the last one and the known state always that before the first chunk.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_columns(pointer, start, t, samples, VEC: tl.constexpr, LANES: tl.constexpr, REVERSED: tl.constexpr):
    """The samples start + t ... start + t + VEC - 1 of each lane as VEC vectors in float64; zeros beyond the row."""
    first = samples - VEC - start - t if REVERSED else start + t
    offsets = first[:, None] + tl.arange(0, VEC)[None, :]
    # VEC divides the number of samples: a tile lies within the row, or beyond it.
    tile = tl.load(pointer + offsets, mask=(start + t < samples)[:, None], other=0.0).to(tl.float64)
    if VEC == 1:
        return (tl.reshape(tile, [LANES]),)
    elif VEC == 2:
        a, b = tl.split(tile)
        if REVERSED:
            return b, a
        return a, b
    else:
        even, odd = tl.split(tl.reshape(tile, [LANES, 2, 2]))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        if REVERSED:
            return d, c, b, a
        return a, b, c, d


@triton.jit
def store_columns(pointer, start, t, samples, values, VEC: tl.constexpr, LANES: tl.constexpr, REVERSED: tl.constexpr):
    """Writes what `load_columns` reads."""
    first = samples - VEC - start - t if REVERSED else start + t
    offsets = first[:, None] + tl.arange(0, VEC)[None, :]
    if REVERSED:
        values = values[::-1]
    if VEC == 1:
        tile = tl.reshape(values[0], [LANES, 1])
    elif VEC == 2:
        tile = tl.join(values[0], values[1])
    else:
        tile = tl.reshape(tl.join(tl.join(values[0], values[2]), tl.join(values[1], values[3])), [LANES, 4])
    tl.store(pointer + offsets, tile.to(pointer.dtype.element_ty), mask=(start + t < samples)[:, None])


@triton.jit
def reversed_offsets(row, step, samples, chunk, chunks, LENGTH: tl.constexpr):
    """Where the sample `step` of reversed chunks lies in an array (rows, LENGTH, chunks), and whether it exists.

    In such an array neighbouring lanes have neighbouring addresses, in either direction of time.
    """
    n = samples - 1 - step
    column = n // LENGTH - chunk
    return (row * LENGTH + n % LENGTH) * chunks + column, (chunk * LENGTH + step < samples) & (column >= 0)


@triton.jit
def compose(a1, b1, a2, b2):
    """The map (a1, b1) and after it (a2, b2).  A state of zero stays zero, however large the slope has become."""
    return a1 * a2, tl.where(b1 == 0, b2, a2 * b1 + b2)


@triton.jit
def apply(a, b, z):
    return tl.where(z == 0, b, a * z + b)


@triton.jit
def pick(values, lane, index):
    """The value of one lane, as a scalar."""
    return tl.sum(tl.where(lane == index, values, 0.0), 0)


@triton.jit
def state_before(a, b, z, count, LANES: tl.constexpr):
    """z after the first `count` of the maps at a and b."""
    lane = tl.arange(0, LANES)
    for first in range(0, count, LANES):
        inside = first + lane < count
        slope = tl.load(a + first + lane, mask=inside, other=1.0)
        offset = tl.load(b + first + lane, mask=inside, other=0.0)
        slope, offset = tl.associative_scan((slope, offset), 0, compose)
        z = apply(pick(slope, lane, LANES - 1), pick(offset, lane, LANES - 1), z)
    return z


@triton.jit
def store_maps(slope, offset, maps, block_maps, row, block, rows, chunks, blocks, LANES: tl.constexpr):
    """Keeps the map of each chunk, and that of the whole block.  `maps` is (2, rows, chunks), slopes first."""
    lane = tl.arange(0, LANES)
    index = row * chunks + block * LANES + lane
    inside = block * LANES + lane < chunks
    tl.store(maps + index, slope, mask=inside)
    tl.store(maps + rows * chunks + index, offset, mask=inside)
    slope, offset = tl.associative_scan((slope, offset), 0, compose)
    tl.store(block_maps + row * blocks + block, pick(slope, lane, LANES - 1))
    tl.store(block_maps + (rows + row) * blocks + block, pick(offset, lane, LANES - 1))


@triton.jit
def states_from_maps(maps, block_maps, z, row, block, rows, chunks, blocks, LANES: tl.constexpr):
    """The state before each chunk of a block, from that before the row and the maps that `store_maps` kept."""
    z = state_before(block_maps + row * blocks, block_maps + (rows + row) * blocks, z, block, LANES)
    lane = tl.arange(0, LANES)
    chunk = block * LANES + lane
    earlier = (lane > 0) & (chunk < chunks)
    index = row * chunks + chunk - 1
    slope = tl.load(maps + index, mask=earlier, other=1.0)
    offset = tl.load(maps + rows * chunks + index, mask=earlier, other=0.0)
    slope, offset = tl.associative_scan((slope, offset), 0, compose)
    return apply(slope, offset, z)

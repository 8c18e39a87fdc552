"""y[n] = a[n] y[n-1] + x[n], and its adjoint: the map of each chunk, then each chunk from its state."""

from __future__ import annotations

import triton
import triton.language as tl

from dasp.kernels.cuda.device.chunks import load_columns, states_from_maps, store_columns, store_maps


@triton.jit
def recurrence_maps(
    a,
    x,
    maps,
    block_maps,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    REVERSED: tl.constexpr,
):
    """What each chunk makes of the state before it.  Of the adjoint, the state is a[n] gx[n]."""
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    start = (block * LANES + tl.arange(0, LANES)) * LENGTH
    slope = tl.full([LANES], 1.0, tl.float64)
    offset = tl.zeros([LANES], tl.float64)
    for t in range(0, LENGTH, VEC):
        poles = load_columns(a + row * tiles * VEC, start, t, samples, VEC, LANES, REVERSED)
        inputs = load_columns(x + row * tiles * VEC, start, t, samples, VEC, LANES, REVERSED)
        for i in tl.static_range(VEC):
            if REVERSED:
                offset = poles[i] * (inputs[i] + offset)
            else:
                offset = poles[i] * offset + inputs[i]
            slope *= poles[i]
    store_maps(slope, offset, maps, block_maps, row, block, rows, chunks, blocks, LANES)


@triton.jit
def recurrence_run(
    a,
    x,
    zi,
    maps,
    block_maps,
    y,
    zf,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    start = (block * LANES + tl.arange(0, LANES)) * LENGTH
    state = states_from_maps(maps, block_maps, tl.load(zi + row), row, block, rows, chunks, blocks, LANES)
    for t in range(0, LENGTH, VEC):
        poles = load_columns(a + row * tiles * VEC, start, t, samples, VEC, LANES, False)
        inputs = load_columns(x + row * tiles * VEC, start, t, samples, VEC, LANES, False)
        outputs = ()
        for i in tl.static_range(VEC):
            state = poles[i] * state + inputs[i]
            outputs = outputs + (state,)
        store_columns(y + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, False)
        tl.store(zf + row + start * 0, state, mask=start + t + VEC == samples)


@triton.jit
def recurrence_adjoint(
    a,
    gy,
    y,
    zi,
    gzf,
    maps,
    block_maps,
    ga,
    gx,
    gzi,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
):
    """gx[n] = gy[n] + a[n+1] gx[n+1], ga[n] = gx[n] y[n-1]."""
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    start = (block * LANES + tl.arange(0, LANES)) * LENGTH
    carry = states_from_maps(maps, block_maps, tl.load(gzf + row), row, block, rows, chunks, blocks, LANES)
    before = tl.load(zi + row)
    for t in range(0, LENGTH, VEC):
        poles = load_columns(a + row * tiles * VEC, start, t, samples, VEC, LANES, True)
        grads = load_columns(gy + row * tiles * VEC, start, t, samples, VEC, LANES, True)
        inside = start + t < samples
        of_pole, of_input = (), ()
        for i in tl.static_range(VEC):
            n = samples - 1 - t - i - start
            previous = tl.load(y + row * tiles * VEC + n - 1, mask=inside & (n > 0), other=0.0).to(tl.float64)
            total = grads[i] + carry
            carry = poles[i] * total
            of_input = of_input + (total,)
            of_pole = of_pole + (total * tl.where(n == 0, before, previous),)
        store_columns(ga + row * tiles * VEC, start, t, samples, of_pole, VEC, LANES, True)
        store_columns(gx + row * tiles * VEC, start, t, samples, of_input, VEC, LANES, True)
        tl.store(gzi + row + start * 0, carry, mask=start + t + VEC == samples)

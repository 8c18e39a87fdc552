"""The branching one-pole and its adjoint.

The state after a chunk is a function of that before it: piecewise linear, increasing, and concave or convex as the
attack is shorter or longer than the release.  Newton's method on all chunks at once: each runs from a guess, and finds
its end and its slope, the product of the poles it took; where ends do not meet the next guesses, the differences,
carried on by the slopes, correct them.  Each round makes at least one more chunk right for good, in practice nearly all
within a few.  A block does this by itself (`solve`), for the state it is given; the blocks of a row do the same to each
other (`ballistics_round`); what is then still open is solved block by block (`ballistics_settle`).

Attack and release are `(rows,)`, or with VARYING `(rows, samples)`: a pole is then not a number but where those of the
row begin, and the function of a chunk may be neither concave nor convex, so that Newton's method can take more rounds.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dasp.kernels.cuda.device.chunks import (
    compose,
    load_columns,
    pick,
    reversed_offsets,
    states_from_maps,
    store_columns,
    store_maps,
)


@triton.jit
def differ(a, b):
    """Whether two states are further apart than rounding within a chunk makes them; false for NaN.

    2^-46 is 128 half units in the last place, one for each sample; what is below 1e-200 is at rest.
    """
    scale = tl.where(tl.abs(a) > tl.abs(b), tl.abs(a), tl.abs(b)) * 1.4210854715202004e-14
    least = tl.full((), 1e-200, tl.float64)
    return tl.abs(a - b) > tl.where(scale > least, scale, least)


@triton.jit
def poles_of_row(attack, release, row, tiles, VEC: tl.constexpr, VARYING: tl.constexpr):
    if VARYING:
        return attack + row * tiles * VEC, release + row * tiles * VEC
    else:
        return tl.load(attack + row), tl.load(release + row)


@triton.jit
def poles_of_samples(
    pole, start, t, samples, VEC: tl.constexpr, LANES: tl.constexpr, REVERSED: tl.constexpr, VARYING: tl.constexpr
):
    """A pole for each of the samples that `load_columns` reads."""
    if VARYING:
        return load_columns(pole, start, t, samples, VEC, LANES, REVERSED)
    else:
        poles = ()
        for _ in tl.static_range(VEC):
            poles = poles + (pole,)
        return poles


@triton.jit
def walk(
    g,
    start,
    samples,
    y,
    attack,
    release,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    VARYING: tl.constexpr,
):
    """The state after each chunk, and its derivative with respect to that before it."""
    slope = tl.full([LANES], 1.0, tl.float64)
    for t in range(0, LENGTH, VEC):
        inputs = load_columns(g, start, t, samples, VEC, LANES, False)
        down = poles_of_samples(attack, start, t, samples, VEC, LANES, False, VARYING)
        up = poles_of_samples(release, start, t, samples, VEC, LANES, False, VARYING)
        for i in tl.static_range(VEC):
            d = y - inputs[i]
            a = tl.where(d > 0, down[i], up[i])
            y = inputs[i] + a * d
            slope *= a
    return y, slope


@triton.jit
def solve(
    g,
    block,
    z,
    state,
    attack,
    release,
    samples,
    chunks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    VARYING: tl.constexpr,
):
    """From guesses z to the states before the chunks of a block, given that before the first; its end and its slope."""
    lane = tl.arange(0, LANES)
    chunk = block * LANES + lane
    first = lane == 0
    live = chunk < chunks
    z = tl.where(first, state, z)
    end, slope = state, state
    wrong, rounds = 1, 0
    # A block has as many chunks as lanes, so that the limit ends what NaN and overflow might keep going, nothing else.
    while (wrong > 0) & (rounds < 3 * LANES):
        ends, slopes = walk(g, chunk * LENGTH, samples, z, attack, release, LENGTH, VEC, LANES, VARYING)
        before = tl.gather(ends, tl.maximum(lane - 1, 0), 0)
        slope_before = tl.where(first, 1.0, tl.gather(slopes, tl.maximum(lane - 1, 0), 0))
        compared = live & (lane > 0)
        wrong = tl.sum((compared & differ(before, z)).to(tl.int32), 0)
        # Infinite states that agree have no difference.
        gap = tl.where(compared & (before != z), before - z, 0.0)
        slope_before, gap = tl.associative_scan((slope_before, gap), 0, compose)
        z += gap
        final = tl.minimum(chunks - block * LANES, LANES) - 1
        end = pick(tl.where(gap == 0, ends, ends + slopes * gap), lane, final)
        slope = pick(slope_before * slopes, lane, final)
        rounds += 1
    return z, end, slope


@triton.jit
def ballistics_round(
    g,
    attack,
    release,
    zi,
    states,
    old,
    new,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    FIRST: tl.constexpr,
    VARYING: tl.constexpr,
):
    """One round of Newton's method on blocks: solves each block whose state was corrected.

    `states` (rows, chunks) are those before the chunks.  `old` and `new` (3, rows, blocks) have the state before each
    block, that after it, and the slope: two copies, since other programs read the old ones meanwhile.  The first round
    guesses that a block begins where its input is.
    """
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    lane = tl.arange(0, LANES)
    chunk = block * LANES + lane
    signal = g + row * tiles * VEC
    down, up = poles_of_row(attack, release, row, tiles, VEC, VARYING)
    target = states + row * chunks + chunk
    if FIRST:
        z = tl.load(signal + chunk * LENGTH, mask=chunk < chunks, other=0.0).to(tl.float64)
        state = pick(z, lane, 0)
        if block == 0:
            state = tl.load(zi + row)
        z, end, slope = solve(signal, block, z, state, down, up, samples, chunks, LENGTH, VEC, LANES, VARYING)
        tl.store(target, z, mask=chunk < chunks)
    else:
        state = tl.load(old + pid)
        end = tl.load(old + rows * blocks + pid)
        slope = tl.load(old + 2 * rows * blocks + pid)
        corrected = state + correction(old, row, block, rows, blocks, LANES)
        # A state that became NaN is as different as can be; one that is NaN stays.
        if (differ(corrected, state) | (corrected != corrected)) & (state == state):
            state = corrected
            z = tl.load(target, mask=chunk < chunks, other=0.0)
            z, end, slope = solve(signal, block, z, state, down, up, samples, chunks, LENGTH, VEC, LANES, VARYING)
            tl.store(target, z, mask=chunk < chunks)
    tl.store(new + pid, state)
    tl.store(new + rows * blocks + pid, end)
    tl.store(new + 2 * rows * blocks + pid, slope)


@triton.jit
def correction(old, row, block, rows, blocks, LANES: tl.constexpr):
    """What to add to the state before a block: d[k+1] = (end[k] - state[k+1]) + slope[k] d[k]."""
    lane = tl.arange(0, LANES)
    delta = tl.load(old + row * blocks) * 0.0
    for first in range(0, block, LANES):
        inside = first + lane < block
        at = old + row * blocks + first + lane
        after = tl.load(at + 1, mask=inside, other=0.0)
        end = tl.load(at + rows * blocks, mask=inside, other=0.0)
        slope = tl.load(at + 2 * rows * blocks, mask=inside, other=1.0)
        slope, gap = tl.associative_scan((slope, tl.where(end == after, 0.0, end - after)), 0, compose)
        scaled = tl.where(delta == 0, 0.0, pick(slope, lane, LANES - 1) * delta)
        delta = pick(gap, lane, LANES - 1) + scaled
    return delta


@triton.jit
def ballistics_settle(
    g,
    attack,
    release,
    states,
    solved,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    VARYING: tl.constexpr,
):
    """Makes sure of every row: one program to a row goes through its blocks and solves those that are still wrong."""
    row = tl.program_id(0).to(tl.int64)
    samples = tiles * VEC
    lane = tl.arange(0, LANES)
    signal = g + row * tiles * VEC
    down, up = poles_of_row(attack, release, row, tiles, VEC, VARYING)
    starts = solved + row * blocks
    ends = starts + rows * blocks
    wrong = blocks
    for first in range(0, blocks - 1, LANES):
        inside = first + lane < blocks - 1
        end = tl.load(ends + first + lane, mask=inside, other=0.0)
        after = tl.load(starts + first + lane + 1, mask=inside, other=0.0)
        bad = differ(end, after) | ((end != end) & (after == after))
        wrong = tl.minimum(wrong, tl.min(tl.where(inside & bad, first + lane + 1, blocks), 0))
    state = tl.load(ends + wrong - 1)
    for block in range(wrong, blocks):
        start = tl.load(starts + block)
        end = tl.load(ends + block)
        if (differ(state, start) | (state != state)) & (start == start):
            chunk = block * LANES + lane
            target = states + row * chunks + chunk
            z = tl.load(target, mask=chunk < chunks, other=0.0)
            z, end, _ = solve(signal, block, z, state, down, up, samples, chunks, LENGTH, VEC, LANES, VARYING)
            tl.store(target, z, mask=chunk < chunks)
        state = end


@triton.jit
def ballistics_run(
    g,
    attack,
    release,
    states,
    y,
    zf,
    differences,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    SMOOTH: tl.constexpr,
    KEEP: tl.constexpr,
    VARYING: tl.constexpr,
):
    """Each chunk from its state.

    With SMOOTH to y, which may be g, and zf; with KEEP y[n-1] - g[n] goes to `differences` (rows, LENGTH, chunks).
    """
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    chunk = block * LANES + tl.arange(0, LANES)
    start = chunk * LENGTH
    down, up = poles_of_row(attack, release, row, tiles, VEC, VARYING)
    state = tl.load(states + row * chunks + chunk, mask=chunk < chunks, other=0.0)
    for t in range(0, LENGTH, VEC):
        inputs = load_columns(g + row * tiles * VEC, start, t, samples, VEC, LANES, False)
        downs = poles_of_samples(down, start, t, samples, VEC, LANES, False, VARYING)
        ups = poles_of_samples(up, start, t, samples, VEC, LANES, False, VARYING)
        outputs = ()
        for i in tl.static_range(VEC):
            d = state - inputs[i]
            if KEEP:
                tl.store(differences + (row * LENGTH + t + i) * chunks + chunk, d, mask=chunk < chunks)
            state = inputs[i] + tl.where(d > 0, downs[i], ups[i]) * d
            outputs = outputs + (state,)
        if SMOOTH:
            store_columns(y + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, False)
            tl.store(zf + row + start * 0, state, mask=start + t + VEC == samples)


@triton.jit
def ballistics_adjoint_maps(
    gy,
    attack,
    release,
    differences,
    maps,
    block_maps,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    VARYING: tl.constexpr,
):
    """What each chunk makes of the gradient that comes from after it."""
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    chunk = block * LANES + tl.arange(0, LANES)
    down, up = poles_of_row(attack, release, row, tiles, VEC, VARYING)
    slope = tl.full([LANES], 1.0, tl.float64)
    offset = tl.zeros([LANES], tl.float64)
    for t in range(0, LENGTH, VEC):
        grads = load_columns(gy + row * tiles * VEC, chunk * LENGTH, t, samples, VEC, LANES, True)
        downs = poles_of_samples(down, chunk * LENGTH, t, samples, VEC, LANES, True, VARYING)
        ups = poles_of_samples(up, chunk * LENGTH, t, samples, VEC, LANES, True, VARYING)
        for i in tl.static_range(VEC):
            kept, real = reversed_offsets(row, t + i, samples, chunk, chunks, LENGTH)
            a = tl.where(tl.load(differences + kept, mask=real, other=0.0) > 0, downs[i], ups[i])
            offset = a * (grads[i] + offset)
            slope *= a
    store_maps(slope, offset, maps, block_maps, row, block, rows, chunks, blocks, LANES)


@triton.jit
def ballistics_adjoint(
    gy,
    attack,
    release,
    gzf,
    differences,
    maps,
    block_maps,
    gg,
    gzi,
    sums,
    tiles,
    rows,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    VARYING: tl.constexpr,
):
    """With the branches known: total[n] = gy[n] + a[n+1] total[n+1], gg = (1 - a) total.

    gg may be gy.  The gradients of attack and release go to `sums` (2, rows, blocks), a part for each block, or with
    VARYING (2, rows, samples).
    """
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    chunk = block * LANES + tl.arange(0, LANES)
    start = chunk * LENGTH
    down, up = poles_of_row(attack, release, row, tiles, VEC, VARYING)
    carry = states_from_maps(maps, block_maps, tl.load(gzf + row), row, block, rows, chunks, blocks, LANES)
    falling = tl.zeros([LANES], tl.float64)
    rising = tl.zeros([LANES], tl.float64)
    for t in range(0, LENGTH, VEC):
        grads = load_columns(gy + row * tiles * VEC, start, t, samples, VEC, LANES, True)
        downs = poles_of_samples(down, start, t, samples, VEC, LANES, True, VARYING)
        ups = poles_of_samples(up, start, t, samples, VEC, LANES, True, VARYING)
        outputs, of_attack, of_release = (), (), ()
        for i in tl.static_range(VEC):
            kept, real = reversed_offsets(row, t + i, samples, chunk, chunks, LENGTH)
            d = tl.load(differences + kept, mask=real, other=0.0)
            total = grads[i] + carry
            share = tl.where(real, total * d, 0.0)
            if VARYING:
                of_attack = of_attack + (tl.where(d > 0, share, 0.0),)
                of_release = of_release + (tl.where(d > 0, 0.0, share),)
            else:
                falling += tl.where(d > 0, share, 0.0)
                rising += tl.where(d > 0, 0.0, share)
            carry = tl.where(d > 0, downs[i], ups[i]) * total
            outputs = outputs + (total - carry,)
        store_columns(gg + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, True)
        if VARYING:
            store_columns(sums + row * tiles * VEC, start, t, samples, of_attack, VEC, LANES, True)
            store_columns(sums + (rows + row) * tiles * VEC, start, t, samples, of_release, VEC, LANES, True)
        tl.store(gzi + row + start * 0, carry, mask=start + t + VEC == samples)
    if not VARYING:
        tl.store(sums + pid, tl.sum(falling, 0))
        tl.store(sums + rows * blocks + pid, tl.sum(rising, 0))

"""Cascades of second-order sections and their adjoint, and the join of chunks by a transition matrix.

States are kept as (s1, p) with p = s1 + s2, of transposed direct form II.  With d1 = 2 + a1 and d2 = 1 + a1 + a2,

    v = b0 u + s1,    s1' = s1 + (p - d1 s1 + c1 u),    p' = p - d2 s1 + e u,

where c1 = b1 - a1 b0 and e = b0 + b1 + b2 - d2 b0.  Where poles are close to 1, at low frequencies, all of these
coefficients are small and formed almost without rounding, and so is what the matrix of a whole chunk adds to a state.
In the plain form (s1, s2) its entries are as large as the chunk is long, and cancel.  The adjoint has the states
(w[n+1] - w[n+2], w[n+2]), and the transposed matrix.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dasp.kernels.cuda.device.chunks import load_columns, reversed_offsets, store_columns


@triton.jit
def load_section(sos, k: tl.constexpr):
    b0, b1, b2 = tl.load(sos + 5 * k), tl.load(sos + 5 * k + 1), tl.load(sos + 5 * k + 2)
    a1, a2 = tl.load(sos + 5 * k + 3), tl.load(sos + 5 * k + 4)
    # In this order no digit is lost where a1 is close to -2 and a2 to 1.
    return b0, b1, b2, a1, 2.0 + a1, (1.0 + a1) + a2


@triton.jit
def filter_coefficients(sos, K: tl.constexpr):
    """b0, c1, e, d1, d2 of each section.

    The differences are formed with one rounding.  Of a section with equal numerator and denominator c1 and e are 0: it
    passes its input to the bit.
    """
    c = ()
    for k in tl.static_range(K):
        b0, b1, b2, a1, d1, d2 = load_section(sos, k)
        c = c + (b0, tl.fma(-a1, b0, b1), tl.fma(-d2, b0, (b0 + b1) + b2), d1, d2)
    return c


@triton.jit
def adjoint_coefficients(sos, K: tl.constexpr):
    """b0, b0 - b2, b0 + b1 + b2, d1, d2 of each section."""
    c = ()
    for k in tl.static_range(K):
        b0, b1, b2, _, d1, d2 = load_section(sos, k)
        c = c + (b0, b0 - b2, (b0 + b1) + b2, d1, d2)
    return c


@triton.jit
def initial_states(states, index, inside, unit, lane, K: tl.constexpr, LANES: tl.constexpr, MAPS: tl.constexpr):
    """From memory; or zero, and of a program that measures the matrix, the unit vectors."""
    s = ()
    for i in tl.static_range(2 * K):
        if MAPS:
            s = s + (tl.where(unit & (lane == i), 1.0, 0.0).to(tl.float64),)
        else:
            s = s + (tl.load(states + index * 2 * K + i, mask=inside, other=0.0),)
    return s


@triton.jit
def sosfilt_chunks(
    x,
    sos,
    states,
    y,
    zf,
    signals,
    tiles,
    rows,
    share,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    K: tl.constexpr,
    MAPS: tl.constexpr,
    KEEP: tl.constexpr,
):
    """All sections on every chunk.

    With MAPS from a state of zero, and only the state after it is kept; one more program for each filter runs the unit
    states without input, whose results are the columns of the matrix of a chunk.  Else from the states before the
    chunks, to y and zf; with KEEP the output of every section to `signals` (K, rows, LENGTH, chunks) instead.
    """
    pid = tl.program_id(0).to(tl.int64)
    unit = pid >= rows * blocks
    row, block = tl.where(unit, 0, pid // blocks), pid % blocks
    which = tl.where(unit, pid - rows * blocks, row // share)
    samples = tl.where(unit, 0, tiles * VEC)
    lane = tl.arange(0, LANES)
    chunk = block * LANES + lane
    start = chunk * LENGTH
    index = tl.where(unit, rows * chunks + which * 2 * K + lane, row * chunks + chunk)
    inside = tl.where(unit, lane < 2 * K, chunk < chunks)
    c = filter_coefficients(sos + which * 5 * K, K)
    s = initial_states(states, index, inside, unit, lane, K, LANES, MAPS)
    for t in range(0, LENGTH, VEC):
        inputs = load_columns(x + row * tiles * VEC, start, t, samples, VEC, LANES, False)
        outputs = ()
        for i in tl.static_range(VEC):
            u = inputs[i]
            new = ()
            for k in tl.static_range(K):
                s1, p = s[2 * k], s[2 * k + 1]
                new = new + (
                    s1 + ((p - c[5 * k + 3] * s1) + c[5 * k + 1] * u),
                    (p - c[5 * k + 4] * s1) + c[5 * k + 2] * u,
                )
                u = c[5 * k] * u + s1
                if KEEP:
                    kept = ((k * rows + row) * LENGTH + t + i) * chunks + chunk
                    tl.store(signals + kept, u, mask=inside)
            s = new
            outputs = outputs + (u,)
        if not MAPS and not KEEP:
            store_columns(y + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, False)
            for k in tl.static_range(K):
                final = zf + (row * K + k) * 2 + start * 0
                tl.store(final, s[2 * k], mask=start + t + VEC == samples)
                tl.store(final + 1, s[2 * k + 1] - s[2 * k], mask=start + t + VEC == samples)
    if MAPS:
        for i in tl.static_range(2 * K):
            tl.store(states + index * 2 * K + i, s[i], mask=inside)


@triton.jit
def sosfilt_adjoint(
    gy,
    x,
    sos,
    states,
    signals,
    gx,
    gzi,
    sums,
    tiles,
    rows,
    share,
    chunks,
    blocks,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    K: tl.constexpr,
    MAPS: tl.constexpr,
    WANTED: tl.constexpr,
):
    """The same backwards in time, from the last section to the first: w = (1/A)^T g, then g <- B^T w.

    With WANTED the gradients of the coefficients, sums of w[n + i] u[n] and of -w[n + i] v[n], go to `sums`
    (rows, blocks, K, 5), a part for each block.
    """
    pid = tl.program_id(0).to(tl.int64)
    unit = pid >= rows * blocks
    row, block = tl.where(unit, 0, pid // blocks), pid % blocks
    which = tl.where(unit, pid - rows * blocks, row // share)
    samples = tl.where(unit, 0, tiles * VEC)
    lane = tl.arange(0, LANES)
    chunk = block * LANES + lane
    start = chunk * LENGTH
    index = tl.where(unit, rows * chunks + which * 2 * K + lane, row * chunks + chunk)
    inside = tl.where(unit, lane < 2 * K, chunk < chunks)
    c = adjoint_coefficients(sos + which * 5 * K, K)
    s = initial_states(states, index, inside, unit, lane, K, LANES, MAPS)
    total = ()
    for _ in tl.static_range(5 * K):
        total = total + (tl.zeros([LANES], tl.float64),)
    for t in range(0, LENGTH, VEC):
        grads = load_columns(gy + row * tiles * VEC, start, t, samples, VEC, LANES, True)
        if WANTED:
            inputs = load_columns(x + row * tiles * VEC, start, t, samples, VEC, LANES, True)
        outputs = ()
        for i in tl.static_range(VEC):
            g = grads[i]
            if WANTED:
                kept, real = reversed_offsets(row, t + i, samples, chunk, chunks, LENGTH)
                v = tl.load(signals + (K - 1) * rows * LENGTH * chunks + kept, mask=real, other=0.0)
            new, part = (), ()
            for k in tl.static_range(K - 1, -1, -1):
                q, w2 = s[2 * k], s[2 * k + 1]
                change = (g - c[5 * k + 4] * w2) - c[5 * k + 3] * q
                w1 = w2 + q
                g = (c[5 * k + 2] * w1 + c[5 * k + 1] * q) + c[5 * k] * change
                next_q = q + change
                if WANTED:
                    w = w1 + next_q
                    if k == 0:
                        u = inputs[i]
                    else:
                        u = tl.load(signals + (k - 1) * rows * LENGTH * chunks + kept, mask=real, other=0.0)
                    part = (
                        total[5 * k] + w * u,
                        total[5 * k + 1] + w1 * u,
                        total[5 * k + 2] + w2 * u,
                        total[5 * k + 3] - w1 * v,
                        total[5 * k + 4] - w2 * v,
                    ) + part
                    v = u
                new = (next_q, w1) + new
            s = new
            if WANTED:
                total = part
            outputs = outputs + (g,)
        if not MAPS:
            store_columns(gx + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, True)
            for k in tl.static_range(K):
                first = gzi + (row * K + k) * 2 + start * 0
                tl.store(first, s[2 * k] + s[2 * k + 1], mask=start + t + VEC == samples)
                tl.store(first + 1, s[2 * k + 1], mask=start + t + VEC == samples)
    if MAPS:
        for i in tl.static_range(2 * K):
            tl.store(states + index * 2 * K + i, s[i], mask=inside)
    if WANTED:
        for i in tl.static_range(5 * K):
            tl.store(sums + (row * blocks + block) * 5 * K + i, tl.sum(total[i], 0))


@triton.jit
def join_states(
    states,
    columns,
    initial,
    ends,
    rows,
    share,
    chunks,
    groups,
    group,
    S: tl.constexpr,
    SIZE: tl.constexpr,
    MAPS: tl.constexpr,
    ADJOINT: tl.constexpr,
):
    """The recursion over chunks z <- M z + states, each program over a group of them.

    `columns` (filters, S, S) holds M column by column.  With MAPS from a state of zero, and the state after the group
    goes to `ends`, followed by the columns of the matrix of a group; else from `initial`, and each state is replaced by
    that before its chunk.  A later section never reaches an earlier one (in the adjoint the other way round), and a
    state of zero stays zero, also where the other factor is infinite or NaN.
    """
    pid = tl.program_id(0).to(tl.int64)
    unit = pid >= rows * groups
    number = pid - rows * groups
    row = tl.where(unit, 0, pid // groups)
    first = tl.where(unit, 0, (pid % groups) * group)
    which = tl.where(unit, number // S, row // share)
    to, of = tl.arange(0, SIZE), tl.arange(0, SIZE)
    exists = (to < S)[:, None] & (of < S)[None, :]
    matrix = tl.load(columns + which * S * S + of[None, :] * S + to[:, None], mask=exists, other=0.0)
    if ADJOINT:
        reached = (to // 2)[:, None] <= (of // 2)[None, :]
    else:
        reached = (to // 2)[:, None] >= (of // 2)[None, :]
    if MAPS:
        z = tl.where(unit & (to == number % S), 1.0, 0.0).to(tl.float64)
    else:
        z = tl.load(initial + pid * S + to, mask=to < S, other=0.0)
    count = tl.minimum(group, chunks - first)
    if MAPS:
        # A group that is cut short is the last of its row, and nothing follows it.
        count = tl.where(unit, group, count)
    address = states + (row * chunks + first) * S + to
    forced = tl.load(address, mask=(to < S) & (unit == 0), other=0.0)
    for i in range(0, count):
        # Asked for a step ahead, since memory takes longer than a step.
        ahead = tl.load(address + S, mask=(to < S) & (unit == 0) & (i + 1 < count), other=0.0)
        if not MAPS:
            tl.store(address, z, mask=to < S)
        z = forced + tl.sum(tl.where(reached & (z != 0.0)[None, :], matrix * z[None, :], 0.0), 1)
        address += S
        forced = ahead
    if MAPS:
        tl.store(ends + pid * S + to, z, mask=to < S)

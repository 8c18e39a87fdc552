"""Sections in state-variable form whose coefficients change with time, and their adjoint.

A step takes the states s to [[2 d - 1, -2 g d], [2 g d, 1 - 2 g^2 d]] s + [2 g d, 2 g^2 d] u, and its adjoint has the
transposed matrix.  So what a chunk makes of the states before it is an affine map of six numbers.  No step's matrix
makes a vector longer: products of any number of them are as well conditioned as a single one.

A launch runs one section, from the states that the maps of its chunks give, and finds the maps of the section that
comes next on what it writes: so every signal between sections is written once and read once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dasp.kernels.cuda.device.chunks import load_columns, pick, reversed_offsets, store_columns


@triton.jit
def compose_pairs(a1, b1, c1, d1, p1, q1, a2, b2, c2, d2, p2, q2):
    """The map s -> [[a, b], [c, d]] s + [p, q] with index 1, and after it that with index 2."""
    # States of zero stay zero, however large the matrix of an unstable filter has become.
    rest = (p1 == 0) & (q1 == 0)
    p = tl.where(rest, p2, (a2 * p1 + b2 * q1) + p2)
    q = tl.where(rest, q2, (c2 * p1 + d2 * q1) + q2)
    return a2 * a1 + b2 * c1, a2 * b1 + b2 * d1, c2 * a1 + d2 * c1, c2 * b1 + d2 * d1, p, q


@triton.jit
def apply_pairs(pair_map, s1, s2):
    a, b, c, d, p, q = pair_map
    rest = (s1 == 0) & (s2 == 0)
    return tl.where(rest, p, (a * s1 + b * s2) + p), tl.where(rest, q, (c * s1 + d * s2) + q)


@triton.jit
def load_maps(maps, stride, inside):
    """The identity where not inside."""
    return (
        tl.load(maps, mask=inside, other=1.0),
        tl.load(maps + stride, mask=inside, other=0.0),
        tl.load(maps + 2 * stride, mask=inside, other=0.0),
        tl.load(maps + 3 * stride, mask=inside, other=1.0),
        tl.load(maps + 4 * stride, mask=inside, other=0.0),
        tl.load(maps + 5 * stride, mask=inside, other=0.0),
    )


@triton.jit
def store_pair_maps(chunk_map, maps, block_maps, row, block, rows, chunks, blocks, LANES: tl.constexpr):
    """Keeps in `maps` (6, rows, chunks) what a block does up to the end of each chunk, and that of the whole block."""
    lane = tl.arange(0, LANES)
    chunk = block * LANES + lane
    scanned = tl.associative_scan(chunk_map, 0, compose_pairs)
    for i in tl.static_range(6):
        tl.store(maps + (i * rows + row) * chunks + chunk, scanned[i], mask=chunk < chunks)
        tl.store(block_maps + (i * rows + row) * blocks + block + lane * 0, scanned[i], mask=lane == LANES - 1)


@triton.jit
def states_from_pair_maps(maps, block_maps, s1, s2, row, block, rows, chunks, blocks, LANES: tl.constexpr):
    """The states before each chunk of a block, from those before the row and the maps that `store_pair_maps` kept."""
    lane = tl.arange(0, LANES)
    for first in range(0, block, LANES):
        of_blocks = load_maps(block_maps + row * blocks + first + lane, rows * blocks, first + lane < block)
        scanned = tl.associative_scan(of_blocks, 0, compose_pairs)
        whole = ()
        for i in tl.static_range(6):
            whole = whole + (pick(scanned[i], lane, LANES - 1),)
        s1, s2 = apply_pairs(whole, s1, s2)
    chunk = block * LANES + lane
    earlier = (lane > 0) & (chunk < chunks)
    return apply_pairs(load_maps(maps + row * chunks + chunk - 1, rows * chunks, earlier), s1, s2)


@triton.jit
def integrate(u, s1, s2, g, d):
    """v1 and v2, the outputs of the integrators."""
    v1 = d * (s1 + g * (u - s2))
    return v1, s2 + g * v1


@triton.jit(do_not_specialize=["offset", "section"])
def svf_chunks(
    x,
    coefficients,
    zi,
    maps,
    block_maps,
    next_maps,
    next_block_maps,
    signals,
    y,
    zf,
    tiles,
    rows,
    share,
    chunks,
    blocks,
    hop,
    offset,
    frames,
    section,
    sections,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    FIRST: tl.constexpr,
    RUN: tl.constexpr,
    NEXT: tl.constexpr,
    KEEP: tl.constexpr,
):
    """With RUN the section from its maps, with NEXT the maps of the section after it.

    The first section reads x, the last one writes y; what is between is in `signals` (rows, LENGTH, chunks).  With
    KEEP these are (sections, 3, rows, LENGTH, chunks), the input and both states of every section, and there is no y.
    A frame holds for `hop` samples, and `offset` of those of the first frame are before the signal.
    """
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    chunk = block * LANES + tl.arange(0, LANES)
    start = chunk * LENGTH
    frame = (offset + start) // hop
    inside = offset + start - frame * hop
    sets = coefficients + (row // share * frames * sections + section) * 5
    plane = tl.cast(rows, tl.int64) * LENGTH * chunks
    source, target = signals, signals
    if KEEP:
        source += 3 * section * plane
        target += 3 * (section + 1) * plane
    if RUN:
        initial = zi + (row * sections + section) * 2
        s1, s2 = tl.load(initial), tl.load(initial + 1)
        s1, s2 = states_from_pair_maps(maps, block_maps, s1, s2, row, block, rows, chunks, blocks, LANES)
    if NEXT:
        zero = tl.zeros([LANES], tl.float64)
        a, b, c, d, p, q = zero + 1.0, zero, zero, zero + 1.0, zero, zero
    for t in range(0, LENGTH, VEC):
        if FIRST:
            inputs = load_columns(x + row * tiles * VEC, start, t, samples, VEC, LANES, False)
        outputs = ()
        for i in tl.static_range(VEC):
            live = start + t + i < samples
            place = (row * LENGTH + t + i) * chunks + chunk
            current = sets + frame * sections * 5
            if FIRST:
                u = inputs[i]
            else:
                u = tl.load(source + place, mask=live, other=0.0)
            if RUN:
                if KEEP:
                    if FIRST:
                        tl.store(source + place, u, mask=live)
                    tl.store(source + plane + place, s1, mask=live)
                    tl.store(source + 2 * plane + place, s2, mask=live)
                g = tl.load(current, mask=live, other=0.0)
                damping = tl.load(current + 1, mask=live, other=0.0)
                m0 = tl.load(current + 2, mask=live, other=0.0)
                m1 = tl.load(current + 3, mask=live, other=0.0)
                m2 = tl.load(current + 4, mask=live, other=0.0)
                v1, v2 = integrate(u, s1, s2, g, damping)
                u = m0 * u + (m1 * v1 + m2 * v2)
                s1, s2 = 2.0 * v1 - s1, 2.0 * v2 - s2
            if NEXT:
                if RUN:
                    tl.store(target + place, u, mask=live)
                g = tl.load(current + 5, mask=live, other=0.0)
                damping = tl.load(current + 6, mask=live, other=0.0)
                gd = 2.0 * g * damping
                ggd = g * gd
                first, second = 2.0 * damping - 1.0, 1.0 - ggd
                a, c = first * a - gd * c, gd * a + second * c
                b, d = first * b - gd * d, gd * b + second * d
                p, q = first * p + gd * (u - q), (gd * p + q) + ggd * (u - q)
            outputs = outputs + (u,)
            inside += 1
            frame = tl.where(inside == hop, frame + 1, frame)
            inside = tl.where(inside == hop, 0, inside)
        if RUN and not KEEP:
            if not NEXT:
                store_columns(y + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, False)
            final = zf + (row * sections + section) * 2 + start * 0
            tl.store(final, s1, mask=start + t + VEC == samples)
            tl.store(final + 1, s2, mask=start + t + VEC == samples)
    if NEXT:
        store_pair_maps((a, b, c, d, p, q), next_maps, next_block_maps, row, block, rows, chunks, blocks, LANES)


@triton.jit(do_not_specialize=["offset", "section"])
def svf_adjoint(
    gy,
    coefficients,
    gzf,
    maps,
    block_maps,
    next_maps,
    next_block_maps,
    signals,
    gradients,
    gx,
    gzi,
    sums,
    open_sums,
    tiles,
    rows,
    share,
    chunks,
    blocks,
    hop,
    offset,
    frames,
    section,
    sections,
    LENGTH: tl.constexpr,
    VEC: tl.constexpr,
    LANES: tl.constexpr,
    FIRST: tl.constexpr,
    RUN: tl.constexpr,
    NEXT: tl.constexpr,
    WANTED: tl.constexpr,
    DIRECT: tl.constexpr,
):
    """The same backwards in time, from the last section, here the FIRST, to the one with index 0.

    `gradients` (rows, LENGTH, chunks), of reversed chunks, are those between sections.  With WANTED `signals` is what
    `svf_chunks` keeps, and the chunk that has the first sample of a frame puts the gradients of coefficients to `sums`
    (rows, frames, 5), summed over those of the frame's samples that it has; what it has of a frame that begins earlier
    goes to `open_sums` (rows, chunks, 5).  With DIRECT every sample is a frame, and `sums` all of the gradient.
    """
    pid = tl.program_id(0).to(tl.int64)
    row, block = pid // blocks, pid % blocks
    samples = tiles * VEC
    chunk = block * LANES + tl.arange(0, LANES)
    start = chunk * LENGTH
    # Of chunks that do not exist nothing is loaded.
    last = offset + tl.maximum(samples - 1 - start, 0)
    frame = last // hop
    inside = last - frame * hop
    sets = coefficients + (row // share * frames * sections + section) * 5
    plane = tl.cast(rows, tl.int64) * LENGTH * chunks
    zero = tl.zeros([LANES], tl.float64)
    if RUN:
        initial = gzf + (row * sections + section) * 2
        l1, l2 = tl.load(initial), tl.load(initial + 1)
        l1, l2 = states_from_pair_maps(maps, block_maps, l1, l2, row, block, rows, chunks, blocks, LANES)
    if NEXT:
        a, b, c, d, p, q = zero + 1.0, zero, zero, zero + 1.0, zero, zero
    if WANTED:
        kept = signals + 3 * section * plane
        total = (zero, zero, zero, zero, zero)
    for t in range(0, LENGTH, VEC):
        if FIRST:
            inputs = load_columns(gy + row * tiles * VEC, start, t, samples, VEC, LANES, True)
        outputs = ()
        for i in tl.static_range(VEC):
            n = samples - 1 - t - i - start
            live = n >= 0
            place = (row * LENGTH + t + i) * chunks + chunk
            current = sets + frame * sections * 5
            if FIRST:
                y = inputs[i]
            else:
                y = tl.load(gradients + place, mask=live, other=0.0)
            if RUN:
                g = tl.load(current, mask=live, other=0.0)
                damping = tl.load(current + 1, mask=live, other=0.0)
                m0 = tl.load(current + 2, mask=live, other=0.0)
                m1 = tl.load(current + 3, mask=live, other=0.0)
                m2 = tl.load(current + 4, mask=live, other=0.0)
                gv2 = m2 * y + 2.0 * l2
                gv1 = (m1 * y + 2.0 * l1) + g * gv2
                e = damping * gv1
                l1, l2 = e - l1, (gv2 - l2) - g * e
                if WANTED:
                    there, _ = reversed_offsets(row, t + i, samples, chunk, chunks, LENGTH)
                    u = tl.load(kept + there, mask=live, other=0.0)
                    s1 = tl.load(kept + plane + there, mask=live, other=0.0)
                    s2 = tl.load(kept + 2 * plane + there, mask=live, other=0.0)
                    v1, v2 = integrate(u, s1, s2, g, damping)
                    total = (
                        total[0] + (gv2 * v1 + e * (u - s2)),
                        total[1] + gv1 * (s1 + g * (u - s2)),
                        total[2] + y * u,
                        total[3] + y * v1,
                        total[4] + y * v2,
                    )
                    begins = (inside == 0) | (n == 0)
                    if DIRECT:
                        sum_place = sums + ((row * frames + frame) * sections + section) * 5
                    else:
                        sum_place = sums + (row * frames + frame) * 5
                    rest = ()
                    for j in tl.static_range(5):
                        tl.store(sum_place + j, total[j], mask=live & begins)
                        rest = rest + (tl.where(begins, 0.0, total[j]),)
                    total = rest
                y = m0 * y + g * e
            if NEXT:
                if RUN:
                    tl.store(gradients + place, y, mask=live)
                g = tl.load(current - 5, mask=live, other=0.0)
                damping = tl.load(current - 4, mask=live, other=0.0)
                m1 = tl.load(current - 2, mask=live, other=0.0)
                m2 = tl.load(current - 1, mask=live, other=0.0)
                gd = 2.0 * g * damping
                first, second = 2.0 * damping - 1.0, 1.0 - g * gd
                a, c = first * a + gd * c, second * c - gd * a
                b, d = first * b + gd * d, second * d - gd * b
                e = damping * (m1 * y + g * (m2 * y))
                p, q = (first * p + gd * q) + e, (second * q - gd * p) + (m2 * y - g * e)
            outputs = outputs + (y,)
            frame = tl.where(inside == 0, frame - 1, frame)
            inside = tl.where(inside == 0, hop, inside) - 1
        if RUN:
            if not NEXT:
                store_columns(gx + row * tiles * VEC, start, t, samples, outputs, VEC, LANES, True)
            final = gzi + (row * sections + section) * 2 + start * 0
            tl.store(final, l1, mask=start + t + VEC == samples)
            tl.store(final + 1, l2, mask=start + t + VEC == samples)
    if WANTED and not DIRECT:
        for j in tl.static_range(5):
            tl.store(open_sums + (row * chunks + chunk) * 5 + j, total[j], mask=chunk < chunks)
    if NEXT:
        store_pair_maps((a, b, c, d, p, q), next_maps, next_block_maps, row, block, rows, chunks, blocks, LANES)


@triton.jit(do_not_specialize=["offset"])
def svf_sums(
    sums,
    open_sums,
    gradients,
    samples,
    share,
    chunks,
    hop,
    offset,
    frames,
    groups,
    LENGTH: tl.constexpr,
    FRAMES: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Gradients of coefficients from what `svf_adjoint` left: sums over chunks of a frame and rows of a filter.

    Each program sums for FRAMES frames, CHUNKS chunks of each at a time, always in the same order.
    """
    pid = tl.program_id(0).to(tl.int64)
    which, group = pid // groups, pid % groups
    frame = group * FRAMES + tl.arange(0, FRAMES)
    exists = frame < frames
    # The last sample of a frame is in the first of its chunks, which run backwards, and its first sample in the last.
    first = (samples - tl.minimum((frame + 1) * hop - offset, samples)) // LENGTH
    owner = (samples - 1 - tl.maximum(frame * hop - offset, 0)) // LENGTH
    most = tl.max(tl.where(exists, owner - first, 0), 0)
    for j in tl.static_range(5):
        total = tl.zeros([FRAMES], tl.float64)
        for row in range(which * share, (which + 1) * share):
            part = tl.zeros([FRAMES, CHUNKS], tl.float64)
            for begin in range(0, most, CHUNKS):
                chunk = (first + begin)[:, None] + tl.arange(0, CHUNKS)[None, :]
                found = exists[:, None] & (chunk < owner[:, None])
                part += tl.load(open_sums + (row * chunks + chunk) * 5 + j, mask=found, other=0.0)
            total += tl.sum(part, 1) + tl.load(sums + (row * frames + frame) * 5 + j, mask=exists, other=0.0)
        tl.store(gradients + (which * frames + frame) * 5 + j, total, mask=exists)

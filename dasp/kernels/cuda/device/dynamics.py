"""The parts of a compressor or expander around its smoother, sample by sample.

Each program takes `BLOCK` samples of all channels of one group.  Levels are natural logarithms of amplitudes; `curve`
is (groups, 4): threshold, slope, knee, range.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def constant(value: tl.constexpr):
    """A number in float64.  In a comparison Triton rounds one that is written out to float32, whatever it compares."""
    return tl.full((), value, tl.float64)


@triton.jit
def exponential(x):
    """exp(x), x acting as clamped to [-708, 709], where the result is a normal number; NaN is itself."""
    x = tl.where(x < -708.0, -708.0, x)
    return tl.exp(tl.where(x > 709.0, 709.0, x))


@triton.jit
def linked_amplitude(x, group, n, channels, samples, MEAN: tl.constexpr):
    """The mean or the loudest of the channels, at least 1e-8, which is silence; NaN if any is."""
    inside = n < samples
    row = x + group * channels * samples + n
    amplitude = tl.abs(tl.load(row, mask=inside, other=0.0).to(tl.float64))
    for channel in range(1, channels):
        other = tl.abs(tl.load(row + channel * samples, mask=inside, other=0.0).to(tl.float64))
        if MEAN:
            amplitude += other
        else:
            amplitude = tl.where(other > amplitude, other, tl.where(amplitude >= other, amplitude, amplitude + other))
    if MEAN:
        amplitude = amplitude * (constant(1.0) / channels)
    silence = constant(1e-8)
    return tl.where(amplitude < silence, silence, amplitude)


@triton.jit
def gain_computer(amplitude, curve, group, DIRECTION: tl.constexpr):
    """Position within the knee from 0 to 1, the bent level above the threshold, and slope times that."""
    threshold, slope = tl.load(curve + 4 * group), tl.load(curve + 4 * group + 1)
    knee = tl.load(curve + 4 * group + 2)
    # A knee narrower than 1e-6 dB is a corner, at which the position jumps.
    corner = knee < constant(1.151293e-7)
    half = tl.where(corner, 0.0, 0.5 * knee)
    inverse = 1.0 / tl.where(corner, constant(1e-300), knee)
    over = DIRECTION * (tl.log(amplitude) - threshold)
    position = (over + half) * inverse
    position = tl.where(position < 0.0, 0.0, position)
    position = tl.where(position > 1.0, 1.0, position)
    beyond = over - half
    bend = position * position * half + tl.where(beyond < 0.0, 0.0, beyond)
    return position, bend, slope * bend


@triton.jit
def dynamics_target(
    x,
    curve,
    g,
    channels,
    samples,
    blocks,
    DIRECTION: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gain before smoothing, (groups, samples) in float64."""
    pid = tl.program_id(0).to(tl.int64)
    group = pid // blocks
    n = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)
    _, _, gain = gain_computer(linked_amplitude(x, group, n, channels, samples, MEAN), curve, group, DIRECTION)
    least = -tl.load(curve + 4 * group + 3)
    tl.store(g + group * samples + n, tl.where(gain < least, least, gain), mask=n < samples)


@triton.jit
def dynamics_gain(x, smoothed, makeup, y, channels, samples, blocks, BLOCK: tl.constexpr):
    """x exp(smoothed + makeup)."""
    pid = tl.program_id(0).to(tl.int64)
    group = pid // blocks
    n = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = n < samples
    gain = exponential(tl.load(smoothed + group * samples + n, mask=inside, other=0.0))
    for channel in range(channels):
        row = group * channels + channel
        factor = gain * exponential(tl.load(makeup + row))
        value = tl.load(x + row * samples + n, mask=inside, other=0.0).to(tl.float64) * factor
        tl.store(y + row * samples + n, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def dynamics_products(x, gy, smoothed, makeup, gradient, gmakeup, channels, samples, blocks, BLOCK: tl.constexpr):
    """The gradient of the smoothed gain, and that of makeup, `gmakeup` (groups, channels, blocks), in parts."""
    pid = tl.program_id(0).to(tl.int64)
    group, block = pid // blocks, pid % blocks
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < samples
    gain = exponential(tl.load(smoothed + group * samples + n, mask=inside, other=0.0))
    total = tl.zeros([BLOCK], tl.float64)
    for channel in range(channels):
        row = group * channels + channel
        factor = gain * exponential(tl.load(makeup + row))
        direct = tl.load(gy + row * samples + n, mask=inside, other=0.0).to(tl.float64) * factor
        product = direct * tl.load(x + row * samples + n, mask=inside, other=0.0).to(tl.float64)
        # Beyond the end 0 times an infinite makeup would be NaN.
        product = tl.where(inside, product, 0.0)
        total += product
        tl.store(gmakeup + row * blocks + block, tl.sum(product, 0))
    tl.store(gradient + group * samples + n, total, mask=inside)


@triton.jit
def dynamics_adjoint(
    x,
    gy,
    curve,
    smoothed,
    makeup,
    gg,
    gx,
    gcurve,
    channels,
    samples,
    blocks,
    DIRECTION: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """From the gradient of the gain before smoothing to those of x and of the curve, `gcurve` (groups, 4, blocks)."""
    pid = tl.program_id(0).to(tl.int64)
    group, block = pid // blocks, pid % blocks
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < samples
    amplitude = linked_amplitude(x, group, n, channels, samples, MEAN)
    position, bend, gain = gain_computer(amplitude, curve, group, DIRECTION)
    gradient = tl.load(gg + group * samples + n, mask=inside, other=0.0)
    limited = gain < -tl.load(curve + 4 * group + 3)
    free = tl.where(limited, 0.0, gradient)
    gbend = free * tl.load(curve + 4 * group + 1)
    glevel = DIRECTION * (gbend * position)
    parts = gcurve + group * 4 * blocks + block
    tl.store(parts, tl.sum(tl.where(inside, -glevel, 0.0), 0))
    tl.store(parts + blocks, tl.sum(tl.where(inside, free * bend, 0.0), 0))
    knee = gbend * (0.5 * (position - position * position))
    tl.store(parts + 2 * blocks, tl.sum(tl.where(inside, knee, 0.0), 0))
    tl.store(parts + 3 * blocks, tl.sum(tl.where(limited, -gradient, 0.0), 0))
    heard = tl.where(amplitude > constant(1e-8), glevel / amplitude, 0.0)
    if MEAN:
        heard = heard * (constant(1.0) / channels)
    else:
        # The loudest channel has the gradient of the level; equally loud ones share it.
        loudest = tl.zeros([BLOCK], tl.float64)
        for channel in range(channels):
            value = tl.load(x + (group * channels + channel) * samples + n, mask=inside, other=0.0).to(tl.float64)
            loudest += tl.where(tl.abs(value) < amplitude, 0.0, 1.0)
        heard = heard / tl.where(loudest > 0.0, loudest, 1.0)
    gain = exponential(tl.load(smoothed + group * samples + n, mask=inside, other=0.0))
    for channel in range(channels):
        row = group * channels + channel
        value = tl.load(x + row * samples + n, mask=inside, other=0.0).to(tl.float64)
        direct = tl.load(gy + row * samples + n, mask=inside, other=0.0).to(tl.float64)
        through_level = tl.where(value < 0.0, -heard, tl.where(value > 0.0, heard, 0.0))
        if not MEAN:
            through_level = tl.where(tl.abs(value) < amplitude, 0.0, through_level)
        result = direct * (gain * exponential(tl.load(makeup + row))) + through_level
        tl.store(gx + row * samples + n, result.to(gx.dtype.element_ty), mask=inside)

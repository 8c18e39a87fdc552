"""`convolve(x, h, zi) -> y`: causal convolution by partitioned FFT, in memory that does not grow with the audio.

The impulse response is cut into parts of equal length and the audio into blocks.  Every part and every block is
transformed once; a block of output is the transform back of the sum of products of parts and earlier blocks, without
its beginning, which a circular convolution wraps around (overlap-save).  Nothing but the inputs is kept for gradients,
which are correlations by the same scheme.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dasp.kernels._registration import Operator, Tensors, register

# Lengths of transforms, as powers of two: others are slower by up to 8 times.  Longer ones gain nothing, for they leave
# the cache of a core.
_SHORTEST, _LONGEST = 5, 15
# Nanoseconds on one core, which decide between lengths: a call of a transform per sample of its length, for torch 2.13
# prepares it anew each time; each transform and each product of two spectra per sample; a call of any operator.
_CALL_NS, _TRANSFORM_NS, _PRODUCT_NS, _OPERATOR_NS = 3.5, 1.2, 0.25, 5_000.0
# Values that go through one call of an operator.  More of them gain little on the CPU, and take memory.
_VALUES_ON_CPU, _VALUES_ELSEWHERE = 2**17, 2**24


class _Plan(NamedTuple):
    """How a convolution is cut.

    Attributes:
        size: Length of the transforms, at least `hop + part - 1`.
        hop: Samples in a block.
        part: Taps in a part of the impulse response; as many as samples in a block if there are several.
        parts: Parts of the impulse response.
    """

    size: int
    hop: int
    part: int
    parts: int


@functools.lru_cache(maxsize=256)
def _plan(samples: int, taps: int, past: int) -> _Plan:
    """The cheapest way to compute `samples` values after `past` known ones."""

    def cost(plan: _Plan) -> float:
        blocks = math.ceil(samples / plan.hop)
        calls = 1 + 2 * math.ceil(blocks * plan.size / _VALUES_ON_CPU)
        transforms = 2 * blocks + plan.parts + min(plan.parts - 1, math.ceil(past / plan.hop))
        work = _CALL_NS * calls + _TRANSFORM_NS * transforms + _PRODUCT_NS * blocks * plan.parts
        return plan.size * work + _OPERATOR_NS * calls * (3 + plan.parts)

    plans = []
    for size in (1 << bits for bits in range(_SHORTEST, _LONGEST + 1)):
        if size >= taps:
            plans.append(_Plan(size, size - taps + 1, taps, 1))
        else:
            plans.append(_Plan(size, size // 2, size // 2, math.ceil(taps / (size // 2))))
    return min(plans, key=cost)


def _groups(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _frames(signal: Tensor, start: int, count: int, length: int, hop: int) -> Tensor:
    """`(..., count, length)`: stretches of a signal that begin `hop` samples apart, silent beyond its ends."""
    samples = signal.shape[-1]
    stop = start + (count - 1) * hop + length
    low = min(max(start, 0), samples)
    high = max(min(stop, samples), low)
    before = min(max(-start, 0), stop - start)
    after = stop - start - before - (high - low)
    piece = signal[..., low:high]
    if before or after:
        piece = torch.nn.functional.pad(piece, (before, after))
    return piece.unfold(-1, length, hop)


def _spectra(frames: Tensor, plan: _Plan) -> Tensor:
    spectra: Tensor = torch.fft.rfft(frames, plan.size)
    return spectra


def _signals(spectra: Tensor, plan: _Plan) -> Tensor:
    signals: Tensor = torch.fft.irfft(spectra, plan.size)
    return signals


def _write(blocks: Tensor, out: Tensor) -> None:
    """Writes blocks `(..., count, hop)` one after another; the last may be cut."""
    hop = blocks.shape[-1]
    whole = out.shape[-1] // hop
    out[..., : whole * hop].unflatten(-1, (whole, hop)).copy_(blocks[..., :whole, :])
    if whole < blocks.shape[-2]:
        out[..., whole * hop :].copy_(blocks[..., whole, : out.shape[-1] - whole * hop])


class _Rows:
    """What a convolution computes with: inputs by filter and row of a filter, cut to what has an effect, and its plan.

    Attributes:
        signal: `(filters, share, channels, past + samples)`.
        h: `(filters, 1, channels of h, taps)`.
        past: Samples of `signal` before the first of the output.
        unheard: Samples further back than the impulse response is long.
    """

    def __init__(self, x: Tensor, h: Tensor, zi: Tensor) -> None:
        samples, taps = x.shape[-1], h.shape[-1]
        self.past = min(zi.shape[-1], taps - 1)
        self.unheard = zi.shape[-1] - self.past
        known = torch.cat([zi[..., self.unheard :], x], -1) if self.past else x
        self.signal = known.reshape(h.shape[0], -1, *known.shape[1:])
        self.h = h[..., : self.past + samples].unsqueeze(1)
        self.channels = max(x.shape[-2], h.shape[-2])
        self.plan = _plan(samples, self.h.shape[-1], self.past)
        self.values = _VALUES_ON_CPU if x.device.type == "cpu" else _VALUES_ELSEWHERE

    def filters(self) -> Iterator[tuple[slice, Tensor]]:
        """Filters in groups, with the spectra `(filters, 1, channels of h, parts, frequencies)` of their parts."""
        plan = self.plan
        for group in _groups(len(self.h), max(1, self.values // (self.channels * plan.parts * plan.size))):
            h = self.h[group]
            spectra = h.new_empty(*h.shape[:-1], plan.parts, plan.size // 2 + 1, dtype=h.dtype.to_complex())
            for parts in self.blocks(h, plan.parts):
                frames = _frames(h, parts.start * plan.part, parts.stop - parts.start, plan.part, plan.part)
                spectra[..., parts, :] = _spectra(frames, plan)
            yield group, spectra
            # They are large, and go before the next are made.
            del spectra

    def rows(self, filters: slice) -> Iterator[slice]:
        """The rows of a group of filters, in groups."""
        one = (filters.stop - filters.start) * self.channels * self.plan.size
        return _groups(self.signal.shape[1], max(1, self.values // one))

    def blocks(self, rows: Tensor, count: int) -> Iterator[slice]:
        """Blocks in groups, for these rows of the signal."""
        one = rows.shape[0] * rows.shape[1] * self.channels * self.plan.size
        return _groups(count, max(1, self.values // one))


def _forward(x: Tensor, h: Tensor, zi: Tensor) -> Tensors:
    samples = x.shape[-1]
    y = x.new_empty(x.shape[0], max(x.shape[-2], h.shape[-2]), samples)
    if y.numel():
        rows = _Rows(x, h, zi)
        out = y.view(*rows.signal.shape[:2], *y.shape[1:])
        for filters, spectra in rows.filters():
            for group in rows.rows(filters):
                _overlap_save(rows, rows.signal[filters, group], spectra, out[filters, group])
            del spectra
    return (y,)


def _overlap_save(rows: _Rows, signal: Tensor, h: Tensor, out: Tensor) -> None:
    """Writes the convolution of a group of rows with spectra of a group of filters."""
    plan, past, samples = rows.plan, rows.past, out.shape[-1]
    kept = plan.parts - 1
    groups = list(rows.blocks(signal, math.ceil(samples / plan.hop)))
    longest = groups[0].stop - groups[0].start + kept
    # The blocks of a group after those that are still heard; block 0 begins with the output.
    heard = h.new_zeros(*signal.shape[:-1], longest, h.shape[-1])
    product = h.new_empty(*out.shape[:-1], longest - kept, h.shape[-1])

    def transform(start: int, count: int, into: Tensor) -> None:
        begin = past + start * plan.hop - (plan.part - 1)
        into.copy_(_spectra(_frames(signal, begin, count, plan.part - 1 + plan.hop, plan.hop), plan))

    before = min(kept, math.ceil(past / plan.hop))
    for group in rows.blocks(signal, before):
        start = kept - before + group.start
        transform(
            group.start - before, group.stop - group.start, heard[..., start : start + group.stop - group.start, :]
        )
    for group in groups:
        count = group.stop - group.start
        transform(group.start, count, heard[..., kept : kept + count, :])
        total = product[..., :count, :]
        torch.mul(heard[..., kept : kept + count, :], h[..., :1, :], out=total)
        # What lies before the first known block is silent.
        for part in range(1, min(plan.parts, group.stop + before)):
            total.addcmul_(heard[..., kept - part : kept - part + count, :], h[..., part : part + 1, :])
        if kept:
            heard[..., :kept, :] = heard[..., count : count + kept, :].clone()
        begin, end = group.start * plan.hop, min(group.stop * plan.hop, samples)
        _write(_signals(total, plan)[..., plan.part - 1 : plan.part - 1 + plan.hop], out[..., begin:end])


def _fake(x: Tensor, h: Tensor, zi: Tensor) -> Tensors:
    channels = h.shape[-2] if x.shape[-2] == 1 else x.shape[-2]
    return (x.new_empty(x.shape[0], channels, x.shape[-1]),)


def _backward(inputs: Tensors, outputs: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, h, zi = inputs
    (gy,) = grads
    if gy.numel() == 0:
        return tuple(torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs)
    rows = _Rows(x, h, zi)
    gh = torch.zeros_like(h, memory_format=torch.contiguous_format)
    gsignal = torch.empty_like(rows.signal, memory_format=torch.contiguous_format) if needs[0] or needs[2] else None
    gradient = gy.reshape(*rows.signal.shape[:2], *gy.shape[1:])
    for filters, spectra in rows.filters():
        spectra.conj_physical_()
        total = torch.zeros_like(spectra) if needs[1] else None
        for group in rows.rows(filters):
            into = gsignal[filters, group] if gsignal is not None else None
            _correlate(rows, rows.signal[filters, group], spectra, gradient[filters, group], into, total)
        if total is not None:
            parts = _signals(total.squeeze(1), rows.plan)[..., : rows.plan.part]
            _write(parts, gh[filters, :, : rows.h.shape[-1]])
            del parts
        del spectra, total
    if gsignal is None:
        return torch.zeros_like(x), gh, torch.zeros_like(zi)
    known = gsignal.view(x.shape[0], x.shape[1], -1)
    gzi = torch.nn.functional.pad(known[..., : rows.past], (rows.unheard, 0))
    return known[..., rows.past :].contiguous(), gh, gzi.contiguous()


def _correlate(rows: _Rows, signal: Tensor, h: Tensor, gy: Tensor, gsignal: Tensor | None, gh: Tensor | None) -> None:
    """Writes the gradient of a group of rows, and adds that of the spectra of their filters, whose conjugate is h.

    A block of the signal reaches the block of the output at its place and as many after it as there are parts.  So the
    blocks are taken from the last to the first.
    """
    plan, past, samples = rows.plan, rows.past, signal.shape[-1]
    kept = plan.parts - 1
    groups = list(rows.blocks(signal, math.ceil(samples / plan.hop)))
    longest = groups[0].stop - groups[0].start + kept
    # Blocks of the gradient from the first of a group on; those beyond the end are silent.
    reached = h.new_zeros(*gy.shape[:-1], longest, h.shape[-1])
    # One buffer for all products: the C library does not give the same place to the same size twice.
    product = h.new_empty(*gy.shape[:-1], longest - kept, h.shape[-1])
    for group in reversed(groups):
        count = group.stop - group.start
        begin, end = group.start * plan.hop, min(group.stop * plan.hop, samples)
        if kept:
            reached[..., count : count + kept, :] = reached[..., :kept, :].clone()
        reached[..., :count, :] = _spectra(_frames(gy, begin - past, count, plan.hop + plan.part - 1, plan.hop), plan)
        work = product[..., :count, :]
        # What lies after the last block is silent.
        parts = min(plan.parts, groups[-1].stop - group.start)
        if gh is not None:
            here = _spectra(_frames(signal, begin, count, plan.hop, plan.hop), plan).conj_physical_()
            dims = (1, 2, 3) if gh.shape[2] < gy.shape[2] else (1, 3)
            for part in range(parts):
                torch.mul(here, reached[..., part : part + count, :], out=work)
                gh[..., part, :] += work.sum(dims, keepdim=True).squeeze(3)
            del here
        if gsignal is not None:
            torch.mul(reached[..., :count, :], h[..., :1, :], out=work)
            for part in range(1, parts):
                work.addcmul_(reached[..., part : part + count, :], h[..., part : part + 1, :])
            total = work.sum(2, keepdim=True) if signal.shape[2] < work.shape[2] else work
            _write(_signals(total, plan)[..., : plan.hop], gsignal[..., begin:end])


def _vjp(inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
    """Correlations as convolutions of signals in reversed time."""
    x, h, zi = inputs
    gy = grads[0].flip(-1)
    nothing, before = gy[..., :0], zi.shape[-1]
    gx = convolve(gy, h, nothing)
    gzi = convolve(gy.new_zeros(*gy.shape[:-1], before), h, gy)
    if x.shape[-2] < gy.shape[-2]:
        gx, gzi = gx.sum(-2, keepdim=True), gzi.sum(-2, keepdim=True)
    # gh[k] = sum over n of gy[n] signal[n - k]: what lies k before the end of the signal convolved with gy.
    signal = torch.cat([zi, x], -1)
    taps = min(h.shape[-1], signal.shape[-1])
    if gy.shape[-1]:
        past, recent = signal.split([signal.shape[-1] - taps, taps], -1)
        gh = convolve(recent, gy, past).flip(-1)
    else:
        gh = gy.new_zeros(*gy.shape[:-1], taps)
    gh = gh.reshape(h.shape[0], -1, *gh.shape[1:]).sum(1) if h.shape[0] else gh.new_zeros(0, *gh.shape[1:])
    if h.shape[-2] < gh.shape[-2]:
        gh = gh.sum(-2, keepdim=True)
    return gx.flip(-1), torch.nn.functional.pad(gh, (0, h.shape[-1] - taps)), gzi.flip(-1)


def _jvp(inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    x, h, zi = inputs
    dx, dh, dzi = tangents
    return (convolve(dx, h, dzi) + convolve(x, dh, zi),)


_call = register(
    Operator(
        "convolve",
        ("x", "h", "zi"),
        ("y",),
        _forward,
        _fake,
        _backward,
        _vjp,
        _jvp,
        any_device=True,
    )
)


def convolve(x: Tensor, h: Tensor, zi: Tensor) -> Tensor:
    """Causal convolution: y[n] = sum over k of h[k] x[n - k].

    Transforms are in the type of the inputs; in float32 the error is about -130 dB of the largest output, as with any
    float32 FFT; in float64 it is -300 dB.

    Args:
        x: `(rows, channels, samples)`, float32 or float64.
        h: `(filters, channels, taps)` as x, with at least one tap; each filter is for as many consecutive rows as rows
            over filters.  Either h or x may be mono.
        zi: `(rows, channels, past)` as x: any number of samples before the first of x, silence before those.

    Returns:
        `(rows, channels, samples)`, with as many channels as the wider of x and h.
    """
    (y,) = _call(x, h, zi)
    return y

"""Sections with coefficients for every frame on the GPU: for each section the maps of chunks, then chunks from states.

A launch runs a section and finds the maps of the next one, so that K sections are K + 1 launches.  Between sections,
and in the backward pass for states, signals are kept in float64: what is too much for that is filtered in several goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dasp.kernels._registration import Tensors
from dasp.kernels.cuda import _chunks
from dasp.kernels.cuda._chunks import Chunks, cut, doubles, launch
from dasp.kernels.cuda.device.svf import svf_adjoint, svf_chunks, svf_sums

# Bytes for signals that are neither input nor output.
SCRATCH = 1 << 29
# Chunks of frames that one program sums at a time, with 4 warps.
SUMS = 1024
_THREADS = 128


class Frames(NamedTuple):
    """Coefficients of a signal: `(filters, frames, sections, 5)`, each frame for `hop` samples.

    Of those of the first frame `offset` are before the signal.
    """

    coefficients: Tensor
    hop: int
    offset: int

    @property
    def sections(self) -> int:
        return self.coefficients.shape[2]


class Part(NamedTuple):
    """Samples that are filtered at once, the frames they are in, and samples of the first frame before them."""

    samples: slice
    frames: slice
    offset: int


class Piece(NamedTuple):
    """Rows that are filtered at once, their filters, and the parts they are cut into.

    Either all rows of each filter, or some of one filter; more than one part only of a single row.  So what is cut out
    of a contiguous tensor is contiguous.
    """

    rows: slice
    filters: slice
    parts: list[Part]


def forward(x: Tensor, coefficients: Tensor, zi: Tensor) -> Tensors:
    x, coefficients, zi = x.contiguous(), coefficients.contiguous(), zi.contiguous()
    if x.numel() == 0 or coefficients.shape[2] == 0:
        return x.clone(), zi.clone()
    y, zf = torch.empty_like(x), torch.empty_like(zi)
    hop = x.shape[1] // coefficients.shape[1]
    for rows, filters, parts in _pieces(x, coefficients, 8):
        state = zi[rows]
        for samples, frames, offset in parts:
            f = Frames(coefficients[filters, frames], hop, offset)
            state = _filter(x[rows, samples], f, state, y[rows, samples])
        zf[rows] = state
    return y, zf


def backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, coefficients, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if x.numel() == 0 or coefficients.shape[2] == 0:
        return gy.clone(), torch.zeros_like(coefficients), gzf.clone()
    gx, gcoefficients, gzi = torch.empty_like(x), torch.zeros_like(coefficients), torch.empty_like(zi)
    hop = x.shape[1] // coefficients.shape[1]
    # A program of the adjoint has nobody to sum with.
    direct = hop == 1 and x.shape[0] == coefficients.shape[0]
    # For each sample the input and the states of each section, the gradient between sections, and those of a section's
    # coefficients before and after they are summed.
    for rows, filters, parts in _pieces(x, coefficients, 8 * (3 * coefficients.shape[2] + 11) if needs[1] else 8):
        of_parts = [Frames(coefficients[filters, frames], hop, offset) for _, frames, offset in parts]
        states = [zi[rows]]
        for (samples, _, _), f in zip(parts[:-1] if needs[1] else (), of_parts, strict=False):
            part = x[rows, samples]
            states.append(_filter(part, f, states[-1], torch.empty_like(part)))
        g = gzf[rows]
        for number, (samples, frames, _) in reversed(list(enumerate(parts))):
            f, part, gpart = of_parts[number], gy[rows, samples], gx[rows, samples]
            if not needs[1]:
                g = _adjoint(part, f, g, gpart)
                continue
            kept = _signals(x[rows, samples], f, states[number])
            g = _adjoint(part, f, g, gpart, kept, gcoefficients[filters, frames], direct)
        gzi[rows] = g
    return gx, gcoefficients, gzi


def _pieces(x: Tensor, coefficients: Tensor, size: int) -> Iterator[Piece]:
    """How to filter x with `size` bytes for each sample in no more than SCRATCH.

    Where a row is cut depends on the number of samples alone.
    """
    (rows, samples), filters, hop = x.shape, coefficients.shape[0], x.shape[1] // coefficients.shape[1]
    share, fitting, length = rows // filters, SCRATCH // (size * samples), samples
    if fitting == 0:
        # Aligned as the row is.
        length = max(1, SCRATCH // (size * _chunks.LENGTH)) * _chunks.LENGTH
    at_once = max(1, fitting if fitting < share else fitting // share * share)
    parts = []
    for start in range(0, samples, length):
        end, first = min(start + length, samples), start // hop
        parts.append(Part(slice(start, end), slice(first, (end - 1) // hop + 1), start - first * hop))
    group = max(at_once, share)
    for start in range(0, rows, group):
        for first in range(start, min(start + group, rows), at_once):
            last = min(first + at_once, start + group, rows)
            yield Piece(slice(first, last), slice(first // share, (last - 1) // share + 1), parts)


class _Maps:
    """Maps of chunks and blocks: those of the section that runs, and those that are found of the next one."""

    def __init__(self, like: Tensor, c: Chunks) -> None:
        self._pairs = [(doubles(like, 6, c.rows, c.chunks), doubles(like, 6, c.rows, c.blocks)) for _ in range(2)]

    def swap(self) -> Tensors:
        """For the next launch."""
        self._pairs.reverse()
        return *self._pairs[0], *self._pairs[1]


def _filter(x: Tensor, f: Frames, zi: Tensor, y: Tensor) -> Tensor:
    """Writes to y, and returns the final states."""
    zf, c = torch.empty_like(zi), cut(x, y)
    _cascade(c, x, f, zi, doubles(x, c.rows, c.length, c.chunks) if f.sections > 1 else y, y, zf, KEEP=0)
    return zf


def _signals(x: Tensor, f: Frames, zi: Tensor) -> Tensor:
    """The input and both states of every section, `(sections, 3, rows, length, chunks)`."""
    c = cut(x)
    signals = doubles(x, f.sections, 3, c.rows, c.length, c.chunks)
    _cascade(c, x, f, zi, signals, x, zi, KEEP=1)
    return signals


def _cascade(c: Chunks, x: Tensor, f: Frames, zi: Tensor, signals: Tensor, y: Tensor, zf: Tensor, KEEP: int) -> None:
    maps = _Maps(x, c)
    for section in range(-1, f.sections):
        constants = {"FIRST": int(section < 1), "RUN": int(section >= 0), "NEXT": int(section < f.sections - 1)}
        tensors = (x, f.coefficients, zi, *maps.swap(), signals, y, zf)
        launch(svf_chunks, c.programs, c.lanes, *tensors, *_sizes(c, f, section), **c.block, **constants, KEEP=KEEP)


def _adjoint(
    gy: Tensor,
    f: Frames,
    gzf: Tensor,
    gx: Tensor,
    kept: Tensor | None = None,
    gcoefficients: Tensor | None = None,
    direct: bool = False,
) -> Tensor:
    """Writes the gradients of x, and returns those of the states.

    From what `_signals` keeps it writes the gradients of the coefficients if they are `direct`, or else adds to them:
    another part may have samples of the same frames, and another piece rows of the same filter.
    """
    c, gzi = cut(gy, gx), torch.empty_like(gzf)
    maps = _Maps(gy, c)
    gradients = doubles(gy, c.rows, c.length, c.chunks) if f.sections > 1 else gx
    signals = sums = open_sums = gradients
    if kept is not None and gcoefficients is not None:
        signals, sums = kept, gcoefficients
        if not direct:
            sums, open_sums = doubles(gy, c.rows, f.coefficients.shape[1], 5), doubles(gy, c.rows, c.chunks, 5)
    for section in range(f.sections, -1, -1):
        run = section < f.sections
        constants = {"FIRST": int(section >= f.sections - 1), "RUN": int(run), "NEXT": int(section > 0)}
        constants |= {"WANTED": int(run and kept is not None), "DIRECT": int(direct)}
        tensors = (gy, f.coefficients, gzf, *maps.swap(), signals, gradients, gx, gzi, sums, open_sums)
        launch(svf_adjoint, c.programs, c.lanes, *tensors, *_sizes(c, f, section), **c.block, **constants)
        if run and gcoefficients is not None and not direct:
            gcoefficients[:, :, section] += _sum(c, f, sums, open_sums)
    return gzi


def _sum(c: Chunks, f: Frames, sums: Tensor, open_sums: Tensor) -> Tensor:
    """The gradients of the coefficients of one section, `(filters, frames, 5)`."""
    filters, frames, _, numbers = f.coefficients.shape
    gradients = doubles(sums, filters, frames, numbers)
    # A frame ends in one chunk, and goes on into as many.
    chunks = min(SUMS, _chunks.power_of_2(-(-f.hop // c.length)))
    groups = -(-frames // (SUMS // chunks))
    sizes = (c.samples, c.rows // filters, c.chunks, f.hop, f.offset, frames, groups)
    constants = {"LENGTH": c.length, "FRAMES": SUMS // chunks, "CHUNKS": chunks}
    launch(svf_sums, filters * groups, _THREADS, sums, open_sums, gradients, *sizes, **constants)
    return gradients


def _sizes(c: Chunks, f: Frames, section: int) -> tuple[int, ...]:
    filters, frames, sections, _ = f.coefficients.shape
    return c.tiles, c.rows, c.rows // filters, c.chunks, c.blocks, f.hop, f.offset, frames, section, sections

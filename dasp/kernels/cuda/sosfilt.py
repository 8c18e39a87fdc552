"""Cascades of sections on the GPU: chunks from a state of zero, the join of their states, chunks from their states.

All sections are filtered in one pass, in registers, so that the audio is read twice and written once.  The matrix that
takes a state over a chunk is measured by running unit states along with the first pass.  The states of ten million
samples are too many for one sequential pass: groups of chunks are joined first, with the matrix of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels._registration import Tensors
from dasp.kernels.cuda._chunks import Chunks, cut, doubles, launch
from dasp.kernels.cuda.device.sosfilt import join_states, sosfilt_adjoint, sosfilt_chunks

# Sections of one pass, as many as fit into registers; between passes the signal is in float64.
SECTIONS = 6
# Chunks that are joined one after another: in groups, and where this many are left, at once.
GROUP = 64
DIRECT = 256
# Bytes for the signals between sections in the backward pass; more rows are filtered in several goes.
SCRATCH = 1 << 29


def forward(x: Tensor, sos: Tensor, zi: Tensor) -> Tensors:
    x, sos, zi = x.contiguous(), sos.contiguous(), zi.contiguous()
    if x.numel() == 0 or sos.shape[1] == 0:
        return x.clone(), zi.clone()
    y, final = x, []
    for first in range(0, sos.shape[1], SECTIONS):
        part = slice(first, first + SECTIONS)
        last = first + SECTIONS >= sos.shape[1]
        y, zf = _filter(y, sos[:, part].contiguous(), zi[:, part].contiguous(), x.dtype if last else torch.float64)
        final.append(zf)
    return y, torch.cat(final, 1) if len(final) > 1 else final[0]


def backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, sos, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    rows, samples = x.shape
    if x.numel() == 0 or sos.shape[1] == 0:
        return gy.clone(), torch.zeros_like(sos), gzf.clone()
    per_row = sos.repeat_interleave(rows // sos.shape[0], 0)
    at_once = max(1, SCRATCH // (8 * samples * min(SECTIONS, sos.shape[1]))) if needs[1] else rows
    parts = [
        _backward_of_rows(x[go], per_row[go], zi[go], gy[go], gzf[go], needs[1])
        for go in (slice(first, first + at_once) for first in range(0, rows, at_once))
    ]
    gx, gsos, gzi = (torch.cat(values) if len(parts) > 1 else values[0] for values in zip(*parts, strict=True))
    return gx, gsos.reshape(sos.shape[0], -1, *sos.shape[1:]).sum(1), gzi


def _backward_of_rows(x: Tensor, sos: Tensor, zi: Tensor, gy: Tensor, gzf: Tensor, wanted: bool) -> Tensors:
    """Gradients of x, of the coefficients of each row (zeros if not wanted) and of zi."""
    starts = range(0, sos.shape[1], SECTIONS)
    borders = [x]
    for first in starts[:-1] if wanted else ():
        part = slice(first, first + SECTIONS)
        borders.append(_filter(borders[-1], sos[:, part].contiguous(), zi[:, part].contiguous(), torch.float64)[0])
    gsos, gzi = torch.zeros_like(sos), torch.empty_like(zi)
    g = gy
    for number in reversed(range(len(starts))):
        part = slice(starts[number], starts[number] + SECTIONS)
        sections, state, end = (values[:, part].contiguous() for values in (sos, zi, gzf))
        dtype = gy.dtype if number == 0 else torch.float64
        g, sums, gzi[:, part] = _adjoint(g, borders[number] if wanted else None, sections, state, end, dtype)
        if sums is not None:
            gsos[:, part] = sums
    return g, gsos, gzi


def _filter(x: Tensor, sos: Tensor, zi: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    y, zf = torch.empty_like(x, dtype=dtype), torch.empty_like(zi)
    c = cut(x, y)
    states = _states(x, sos, zi, c)
    _launch_filter(c, x, sos, states, y, zf, y, MAPS=0, KEEP=0)
    return y, zf


def _signals(x: Tensor, sos: Tensor, zi: Tensor) -> Tensor:
    """The output of every section, `(sections, rows, length, chunks)` in float64."""
    c = cut(x)
    states = _states(x, sos, zi, c)
    signals = doubles(x, sos.shape[1], c.rows, c.length, c.chunks)
    _launch_filter(c, x, sos, states, x, zi, signals, MAPS=0, KEEP=1)
    return signals


def _states(x: Tensor, sos: Tensor, zi: Tensor, c: Chunks) -> Tensor:
    """The state before every chunk."""
    states, columns = _room(x, c.rows, c.chunks, sos)
    _launch_filter(c, x, sos, states, x, zi, x, MAPS=1, KEEP=0)
    _join(states, columns, torch.stack([zi[..., 0], zi.sum(-1)], -1), c, adjoint=False)
    return states


def _adjoint(
    gy: Tensor, x: Tensor | None, sos: Tensor, zi: Tensor, gzf: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of the input, of the coefficients where x is given, and of the initial state."""
    gx, gzi = torch.empty_like(gy, dtype=dtype), torch.empty_like(gzf)
    c = cut(gy, gx, gy if x is None else x)
    states, columns = _room(gy, c.rows, c.chunks, sos)
    _launch_adjoint(c, gy, gy, sos, states, gy, gx, gzi, gy, MAPS=1, WANTED=0)
    _join(states, columns, torch.stack([gzf[..., 0] - gzf[..., 1], gzf[..., 1]], -1), c, adjoint=True)
    if x is None:
        _launch_adjoint(c, gy, gy, sos, states, gy, gx, gzi, gy, MAPS=0, WANTED=0)
        return gx, None, gzi
    signals, sums = _signals(x, sos, zi), doubles(gy, c.rows, c.blocks, *sos.shape[1:])
    _launch_adjoint(c, gy, x, sos, states, signals, gx, gzi, sums, MAPS=0, WANTED=1)
    return gx, sums.sum(1), gzi


def _room(like: Tensor, rows: int, chunks: int, sos: Tensor) -> tuple[Tensor, Tensor]:
    """Memory for the states of chunks, and behind it for the columns of the matrices; a view of the latter."""
    filters, size = sos.shape[0], 2 * sos.shape[1]
    states = doubles(like, rows * chunks + filters * size, size)
    return states, states[rows * chunks :]


def _launch_filter(c: Chunks, *tensors: Tensor, MAPS: int, KEEP: int) -> None:
    filters, sections = tensors[1].shape[:2]
    sizes = (c.tiles, c.rows, c.rows // filters, c.chunks, c.blocks)
    programs = c.programs + MAPS * filters
    launch(sosfilt_chunks, programs, c.lanes, *tensors, *sizes, **c.block, K=sections, MAPS=MAPS, KEEP=KEEP)


def _launch_adjoint(c: Chunks, *tensors: Tensor, MAPS: int, WANTED: int) -> None:
    filters, sections = tensors[2].shape[:2]
    sizes = (c.tiles, c.rows, c.rows // filters, c.chunks, c.blocks)
    programs = c.programs + MAPS * filters
    launch(sosfilt_adjoint, programs, c.lanes, *tensors, *sizes, **c.block, K=sections, MAPS=MAPS, WANTED=WANTED)


def _join(states: Tensor, columns: Tensor, initial: Tensor, c: Chunks, adjoint: bool) -> None:
    """Puts the state before each chunk in the place of what the chunk makes of zero."""
    _join_level(states, columns, initial.contiguous(), c.rows, c.chunks, adjoint)


def _join_level(states: Tensor, columns: Tensor, initial: Tensor, rows: int, chunks: int, adjoint: bool) -> None:
    size = states.shape[1]
    filters = columns.shape[0] // size
    constants = {"S": size, "SIZE": 1 << (size - 1).bit_length(), "ADJOINT": int(adjoint)}
    groups, group = (1, chunks) if chunks <= DIRECT else (-(-chunks // GROUP), GROUP)
    sizes = (rows, rows // filters, chunks, groups, group)
    if groups > 1:
        ends = doubles(states, rows * groups + filters * size, size)
        programs = rows * groups + filters * size
        launch(join_states, programs, 32, states, columns, ends, ends, *sizes, **constants, MAPS=1)
        _join_level(ends, ends[rows * groups :], initial, rows, groups, adjoint)
        initial = ends
    launch(join_states, rows * groups, 32, states, columns, initial, initial, *sizes, **constants, MAPS=0)

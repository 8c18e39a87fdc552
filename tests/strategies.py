"""Hypothesis strategies that follow from a processor's declaration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import hypothesis.extra.numpy as numpy_strategies
import hypothesis.strategies as st
import torch
from torch import Tensor

from tests.cases import SAMPLE_RATE, Case

seeds = st.integers(0, 2**31 - 1)

# Both ends of a range are as likely as all that lies between them.
unit_interval = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


def batches(most_dims: int = 2, most: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Batch dimensions, also none."""
    return st.lists(st.integers(1, most), max_size=most_dims).map(tuple)


def channel_counts(case: Case) -> st.SearchStrategy[int]:
    """Numbers of channels that a processor takes."""
    return st.sampled_from(case.spec.channels or (1, 2, 3))


@st.composite
def audio(
    draw: st.DrawFn,
    case: Case,
    batch: st.SearchStrategy[tuple[int, ...]] | None = None,
    samples: st.SearchStrategy[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Audio of a shape that a processor takes."""
    return case.audio(
        draw(batches() if batch is None else batch),
        draw(st.integers(1, 150) if samples is None else samples),
        dtype,
        draw(channel_counts(case)),
        draw(seeds),
    )


@st.composite
def normalized_controls(
    draw: st.DrawFn, case: Case, batch: Sequence[int], dtype: torch.dtype = torch.float64
) -> Tensor:
    """One setting per item over the whole usual ranges, ends included."""
    count = math.prod(batch) * case.num_controls
    array = draw(numpy_strategies.arrays("float64", (count,), elements=unit_interval, fill=unit_interval))
    return torch.from_numpy(array).to(dtype).reshape(*batch, case.num_controls)


@st.composite
def broadcasting_control(draw: st.DrawFn, case: Case, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """A control as it may be given for x, in any of its shapes, and the same in the fullest of them."""
    size = case.spec.size(name, case.options)
    bands = () if size is None else (size,)
    full = (*x.shape[:-2], x.shape[-2] if varies_between_channels(case, name) else 1)
    shape = [draw(st.sampled_from([1, length])) for length in full]
    samples = x.shape[-1]
    if case.spec.automation and draw(st.booleans()):
        full = (*full, samples)
        shape.append(draw(st.sampled_from([n for n in range(1, samples + 1) if samples % n == 0])))
    u = torch.rand(*shape, *bands, generator=torch.Generator().manual_seed(draw(seeds)), dtype=torch.float64)
    value = case.spec.controls[name].denormalize(u, SAMPLE_RATE)
    each = value if len(full) < x.ndim else value.repeat_interleave(samples // shape[-1], x.ndim - 1)
    expanded = each.expand(*full, *bands)
    if len(full) == x.ndim - 1 and shape[-1] == 1 and draw(st.booleans()):
        value = value.squeeze(x.ndim - 2)
        while value.ndim > len(bands) and value.shape[0] == 1 and draw(st.booleans()):
            value = value.squeeze(0)
    return value, expanded


def varies_between_channels(case: Case, name: str) -> bool:
    """Whether a control may be another for each channel; where not, the error has to say which control is meant."""
    x = case.audio((2,), 8)
    controls = case.controls(x)
    value = controls[name].unsqueeze(x.ndim - 2)
    try:
        case(x, {**controls, name: value.expand(*x.shape[:-1], *value.shape[x.ndim - 1 :])})
    except ValueError as error:
        if not str(error).startswith(f"{case.spec.name}: {name} "):
            raise
        return False
    return True

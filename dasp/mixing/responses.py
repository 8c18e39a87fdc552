"""Frequency responses of the stages of a console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import dasp.functional as F


def equalizer_response(
    kinds: Sequence[str], controls: Mapping[str, Tensor], sample_rate: float, frequency_hz: Tensor
) -> Tensor:
    """Response of a parametric equaliser.

    Args:
        kinds: The kind of each band.
        controls: frequency_hz, gain_db and q, `(..., bands)` each.
        sample_rate: Sample rate in Hz.
        frequency_hz: Frequencies `(points,)` in Hz.

    Returns:
        `(..., points)`, complex128.
    """
    names = ("frequency_hz", "gain_db", "q")
    bands = [
        F.biquad(kind, sample_rate, *(controls[name][..., band] for name in names)) for band, kind in enumerate(kinds)
    ]
    return F.sosfreqz(torch.stack(bands, -2), frequency_hz, sample_rate)

"""Whether tracks and a mix begin together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# What is compared: so many seconds where the tracks are loud.
_EXCERPT_S = 20.0
# A peak that is so many times the root mean square of the correlation is one.
_CLEAR = 12.0


def find_offset(tracks: Sequence[Tensor], reference: Tensor, sample_rate: float, longest_s: float = 1.0) -> int | None:
    """How many samples later the reference has what the tracks have, by cross-correlation of whitened spectra.

    Args:
        tracks: One or more tracks `(channels, samples)`, which are summed.
        reference: The mix `(channels, samples)`.
        sample_rate: Sample rate in Hz.
        longest_s: Longest offset looked for, in either direction.

    Returns:
        Samples, less than 0 where the reference is early; None where the correlation has no clear peak.
    """
    total = torch.stack([track.double().mean(0) for track in tracks]).sum(0)
    mix = reference.double().mean(0)
    longest = min(round(longest_s * sample_rate), len(total) - 1)
    samples = min(round(_EXCERPT_S * sample_rate), len(total), len(mix))
    loud = total.square()[: len(mix)].cumsum(0)
    power = loud[samples - 1 :] - torch.nn.functional.pad(loud[:-samples], (1, 0)) if samples < len(loud) else loud[-1:]
    begin = int(power.argmax())
    size = 1 << (samples + longest).bit_length()
    a, b = (torch.fft.rfft(x[begin : begin + samples], size) for x in (total, mix))
    if not bool(a.abs().any() and b.abs().any()):
        return None
    # Whitening by each spectrum makes the peak narrow, whatever is played; with a floor, so that noise stays noise.
    cross = b * a.conj() / ((a.abs() + 1e-3 * a.abs().amax()) * (b.abs() + 1e-3 * b.abs().amax()))
    correlation = torch.fft.irfft(cross, size).abs()
    near = torch.cat([correlation[-longest:], correlation[: longest + 1]]) if longest else correlation[:1]
    peak, place = near.max(0)
    if float(peak) < _CLEAR * float(correlation.square().mean().sqrt()):
        return None
    return int(place) - longest


def shifted(x: Tensor, samples: int) -> Tensor:
    """Audio later by some samples, or earlier by less than none, as long as before, with silence where nothing is."""
    y = torch.zeros_like(x)
    count = max(0, x.shape[-1] - abs(samples))
    if samples >= 0:
        y[..., samples:] = x[..., :count]
    else:
        y[..., :count] = x[..., x.shape[-1] - count :]
    return y

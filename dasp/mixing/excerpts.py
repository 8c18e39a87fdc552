"""Which parts of a song tell most about its mix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Windows begin at multiples of this share of their length.
_HOP = 0.25


def choose_excerpts(tracks: Sequence[Tensor], length: int, count: int, grid: int = 1) -> list[int]:
    """Where to listen: the windows that together have most of every track, loud ones and those with all tracks first.

    Args:
        tracks: Tracks `(channels, samples)`.
        length: Samples of a window.
        count: Number of windows; fewer where the song is short.
        grid: Windows begin at multiples of this.

    Returns:
        First samples of windows that do not overlap, in their order in time.
    """
    samples = tracks[0].shape[-1]
    length = min(length, samples)
    hop = max(1, round(_HOP * length) // grid) * grid
    begins = list(range(0, samples - length + 1, hop)) or [0]
    # Sums of power up to each hop, from which those of windows are differences.
    power = []
    for track in tracks:
        own = track.square().sum(0)
        power.append(torch.stack([own[begin : begin + length].sum() for begin in begins]).double())
    shares = torch.stack(power)
    shares = shares / shares.amax(-1, keepdim=True).clamp_min(1e-20)
    have = torch.zeros(len(tracks), 1, dtype=torch.float64)
    chosen: list[int] = []
    left = torch.ones(len(begins), dtype=torch.bool)
    places = torch.tensor(begins)
    while len(chosen) < count and bool(left.any()):
        # The root gives a track that has not been heard yet more weight than one that has.
        worth = ((have + shares).sqrt() - have.sqrt()).sum(0)
        best = int(torch.where(left, worth, -1.0).argmax())
        chosen.append(begins[best])
        have = have + shares[:, best : best + 1]
        left &= (places - begins[best]).abs() >= length
    return sorted(chosen)

"""The states of ReaEQ and ReaComp as REAPER keeps them in a project; layouts that Cockos does not document."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from dasp.interchange._text import factor
from dasp.interchange.equalizers import Band

REAEQ = 'VST "VST: ReaEQ (Cockos)" reaeq.dll 0 "" 1919247729<56535472656571726561657100000000> ""'
REACOMP = 'VST "VST: ReaComp (Cockos)" reacomp.dll 0 "" 1919247213<5653547265636D726561636F6D700000> ""'
_TRAILER = bytes([0, 0, 16, 0, 0, 0])
# Bytes of state in one line of base64.
_PER_LINE = 96
_TYPES = {
    "low_shelf": 0,
    "high_shelf": 1,
    "lowpass": 3,
    "highpass": 4,
    "allpass": 5,
    "notch": 6,
    "bandpass": 7,
    "peaking": 8,
}
LOWEST_SHELF_BANDWIDTH = 0.915
"""Octaves below which ReaEQ's shelves are not those of the cookbook."""
MAX_RATIO, MAX_ATTACK_MS, MAX_RELEASE_MS, MAX_KNEE_DB = 100.0, 500.0, 5000.0, 24.0


class ReaEQBand(NamedTuple):
    """A band as ReaEQ keeps it: type, whether it is on, Hz, linear gain, and bandwidth in octaves."""

    type: int
    enabled: bool
    frequency_hz: float
    gain: float
    bandwidth: float


def reaeq_bandwidth(band: Band, sample_rate: float) -> float:
    """Octaves at which ReaEQ has the same filter as a band with its Q; nan if there are none.

    A peak of ReaEQ has alpha = sin w sinh(ln 2 / 2 bandwidth w / sin w), one of ours sin w / (2 q).  A shelf has slope
    S = 1 / bandwidth^2, and 1 / q^2 = (A + 1 / A) (1 / S - 1) + 2.  Others have q = 1 / (2 sinh(ln 2 / 2 bandwidth)).
    """
    if band.kind in ("low_shelf", "high_shelf"):
        root = math.pow(10, band.gain_db / 40)
        squared = (1 / band.q**2 - 2) / (root + 1 / root) + 1
        return math.sqrt(squared) if squared > 0 else math.nan
    octaves = 2 / math.log(2) * math.asinh(1 / (2 * band.q))
    if band.kind == "peaking":
        w = 2 * math.pi * band.frequency_hz / sample_rate
        octaves *= math.sin(w) / w
    return octaves


def reaeq_band(band: Band, sample_rate: float) -> ReaEQBand:
    """A band in ReaEQ's terms; a shelf steeper than it has gets the steepest."""
    octaves = reaeq_bandwidth(band, sample_rate)
    if band.kind in ("low_shelf", "high_shelf"):
        octaves = LOWEST_SHELF_BANDWIDTH if math.isnan(octaves) else max(octaves, LOWEST_SHELF_BANDWIDTH)
    return ReaEQBand(_TYPES[band.kind], True, band.frequency_hz, factor(band.gain_db), octaves)


def reaeq(bands: Sequence[ReaEQBand], gain: float = 1.0) -> list[str]:
    """The lines of base64 of ReaEQ with bands and a linear gain."""
    parts = [struct.pack("<iiddd?", b.type, b.enabled, b.frequency_hz, b.gain, b.bandwidth, True) for b in bands]
    head, tail = struct.pack("<ii", 33, len(bands)), struct.pack("<iid4i", 1, 1, gain, 0, 0x1FD, 0x15C, 2)
    state = head + b"".join(parts) + tail
    header = (
        struct.pack("<4sI", b"qeer", 0xFEED5EEE) + _pins(2) + _pins(2) + struct.pack("<III", len(state), 1, 0x100000)
    )
    return _lines(header, state)


def reacomp(
    threshold_db: float, ratio: float, attack_ms: float, release_ms: float, knee_db: float, makeup_gain_db: float
) -> list[str]:
    """The lines of base64 of ReaComp, its detector at peaks; values beyond its ranges are at their ends."""
    fields = [0.0] * 21
    fields[0] = factor(threshold_db)
    fields[1] = (min(ratio, MAX_RATIO) - 1) / 99
    fields[2] = min(attack_ms, MAX_ATTACK_MS) / 500
    fields[3] = min(release_ms, MAX_RELEASE_MS) / 5000
    fields[6] = 1.0
    fields[10] = math.pow(10, -7.5)
    fields[11] = factor(makeup_gain_db)
    fields[14] = min(knee_db, MAX_KNEE_DB) / 24
    fields[17] = 0.25
    state = struct.pack("<II21f", 0xDEADBEEF, 0xDEADF00D, *fields)
    header = (
        struct.pack("<4sI", b"mcer", 0xFEED5EEF) + _pins(4) + _pins(2) + struct.pack("<III", len(state), 0, 0x100000)
    )
    return _lines(header, state)


def _pins(count: int) -> bytes:
    """A number of inputs or outputs, each connected to the channel of its number."""
    return struct.pack(f"<I{count}Q", count, *(1 << pin for pin in range(count)))


def _lines(header: bytes, state: bytes) -> list[str]:
    """Each line is encoded on its own."""
    parts = [header, *(state[first : first + _PER_LINE] for first in range(0, len(state), _PER_LINE)), _TRAILER]
    return [base64.b64encode(part).decode("ascii") for part in parts]

"""Interchange: mixes as projects of workstations, strips as programs in Faust, and equalisers as text of others."""

from __future__ import annotations

from dasp.interchange.dawproject import write_dawproject
from dasp.interchange.equalizers import (
    Band,
    Equalizer,
    equalizer,
    from_eqapo,
    to_camilladsp,
    to_eqapo,
    to_ffmpeg,
    to_sos,
    to_sos_json,
    to_sox,
)
from dasp.interchange.faust import Faust, to_faust
from dasp.interchange.reaper import write_reaper

__all__ = [
    "Band",
    "Equalizer",
    "Faust",
    "equalizer",
    "from_eqapo",
    "to_camilladsp",
    "to_eqapo",
    "to_faust",
    "to_ffmpeg",
    "to_sos",
    "to_sos_json",
    "to_sox",
    "write_dawproject",
    "write_reaper",
]

"""What a mix does to each track, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import SEND

# Longer names make their own lines longer, and no other.
_MOST_COLUMNS = 24
# Less is not worth a word.
_LEAST_EQ_DB, _LEAST_REDUCTION_DB, _LEAST_PAN = 0.5, 0.1, 0.03
_PLACES = {"low_shelf": "below", "high_shelf": "above", "peaking": "around"}
_CUTS = {"highpass": "below", "lowpass": "above"}


def summarize(
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    names: Sequence[str],
    tracks: Sequence[Tensor],
) -> list[str]:
    """A line for each track, and one for the master.

    Args:
        console: The console.
        controls: Normalised controls of one mix.
        names: A name for each track.
        tracks: Audio `(channels, samples)` each, on which compressors are measured.

    Returns:
        Lines such as `kick: -3.2 dB, centre; EQ +3.1 dB around 2.4 kHz; 4.0:1 above -24 dB, 3.0 dB on average`.
    """
    values, gains = console.denormalize(controls), console.signals(tracks, controls).gain_db
    width = min(_MOST_COLUMNS, max(map(len, [*names, "master"])))
    lines = []
    for position, name in enumerate(names):
        parts = [_place(console, values["track"], position)]
        for stage, own in values["track"].items():
            picked = {control: value[position] for control, value in own.items()}
            gain = gains.get(f"track.{stage}")
            parts.append(_stage(console, "track", stage, picked, None if gain is None else gain[position]))
        parts += [
            f"{send.removesuffix('_db')} {float(value[position]):.0f} dB"
            for send, value in values["track"]["send"].items()
            if float(value[position]) > SEND.low + 1
        ]
        lines.append(f"{name:{width}}  {'; '.join(filter(None, parts))}")
    parts = [_stage(console, "master", s, own, gains.get(f"master.{s}")) for s, own in values["master"].items()]
    said = "; ".join(filter(None, parts))
    return [*lines, f"{'master':{width}}  {said or 'nothing'}"]


def _place(console: DifferentiableMixingConsole, values: Mapping[str, Mapping[str, Tensor]], track: int) -> str:
    """Level and position."""
    level_db = sum(
        float(value[track])
        for own in values.values()
        for control, value in own.items()
        if control == "makeup_gain_db" or (control == "gain_db" and value.ndim == 1)
    )
    pan = next((float(own["pan"][track]) for own in values.values() if "pan" in own), None)
    said = f"{level_db:+.1f} dB"
    if pan is None:
        return said
    where = "centre" if abs(pan) < _LEAST_PAN else f"{100 * abs(pan):.0f} % {'left' if pan < 0 else 'right'}"
    return f"{said}, {where}"


def _stage(
    console: DifferentiableMixingConsole, section: str, name: str, own: Mapping[str, Tensor], gain_db: Tensor | None
) -> str:
    if name == "send":
        return ""
    stage = console.sections()[section].stages()[name]
    if stage.spec.name == "parametric_eq":
        bands = zip(stage.options["kinds"], own["frequency_hz"].tolist(), own["gain_db"].tolist(), strict=True)
        moves = [_move(*band) for band in sorted(bands, key=lambda band: band[1])]
        said = ", ".join(filter(None, moves))
        return f"EQ {said}" if said else ""
    if gain_db is not None:
        # On average over the time in which it does something.
        lowered = -gain_db[gain_db < -_LEAST_REDUCTION_DB]
        if lowered.numel() < 0.01 * gain_db.numel():
            return ""
        side = "above" if stage.spec.name == "compressor" else "below"
        mean = float(lowered.mean())
        threshold = float(own["threshold_db"])
        return f"{float(own['ratio']):.1f}:1 {side} {threshold:.0f} dB, {mean:.1f} dB on average"
    return ""


def _move(kind: str, frequency_hz: float, gain_db: float) -> str:
    where = f"{frequency_hz / 1000:.1f} kHz" if frequency_hz >= 1000 else f"{frequency_hz:.0f} Hz"
    if kind in _CUTS:
        return f"cut {_CUTS[kind]} {where}"
    return f"{gain_db:+.1f} dB {_PLACES[kind]} {where}" if kind in _PLACES and abs(gain_db) >= _LEAST_EQ_DB else ""

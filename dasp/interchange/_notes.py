"""What stands beside an exported project: the mix in numbers, what differs, and responses of reverberation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from dasp import io
from dasp.interchange._session import Channel, Session, Stage
from dasp.interchange._text import file_name, one_line
from dasp.interchange.equalizers import bands_of, is_filter

REVERBS = ("noise_shaped_reverb", "convolution_reverb")


def check_stems(who: str, session: Session, stems: Mapping[str, object]) -> None:
    """Refuses stems that are not those of a description."""
    names = [track.name for track in session.tracks]
    odd = [name for name in names if name not in stems] + [name for name in stems if name not in names]
    if odd:
        what = "has no stem for track" if odd[0] in names else "has no track of the description for stem"
        shown = ", ".join(map(one_line, names))
        raise ValueError(f"{who}: stems {what} {one_line(odd[0])!r}, expected {shown}")


def text(session: Session, title: str, remarks: Sequence[str]) -> str:
    """The mix in numbers, after remarks of what differs."""
    lines = [title, "=" * len(title), "", *(f"* {remark}" for remark in remarks)]
    if session.groups or any(c.sends for c in session.channels):
        lines += ["", "Pre-fader sends leave before the fader, the others behind fader and pan."]
    for channel in session.channels:
        lines += ["", *_channel(session, channel)]
    return "\n".join(lines) + "\n"


def _channel(session: Session, channel: Channel) -> list[str]:
    name = one_line(channel.name)
    lines = [name, "-" * len(name)]
    for stage in channel.stages:
        lines += [f"{stage.name}{' (bypassed)' if stage.bypassed else ''}"]
        if is_filter(stage):
            lines += [
                f"    {b.kind:10} {b.frequency_hz:9.1f} Hz  {b.gain_db:+6.2f} dB  Q {b.q:.3f}"
                for b in bands_of(stage, session.sample_rate)
            ]
        else:
            lines += [f"    {control} {_shown(value)}" for control, value in stage.controls.items()]
            lines += [f"    {option} {_shown(value)}" for option, value in stage.options.items()]
    lines.append(f"fader {_db(channel.gain)}, left {_db(channel.left)}, right {_db(channel.right)}")
    lines += ["polarity inverted"] if channel.inverted else []
    lines += [f"goes to group {one_line(channel.group)}"] if channel.group is not None else []
    lines += [word for word, on in (("muted", channel.mute), ("soloed", channel.solo)) if on]
    for send in channel.sends:
        lines.append(f"send to {one_line(send.bus)} {_db(send.gain)}{' pre-fader' if send.pre_fader else ''}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_shown, value))
    return f"{value:.6g}" if isinstance(value, float) else one_line(str(value))


def _db(gain: float) -> str:
    return f"{20 * math.log10(gain):+.2f} dB" if gain > 0 else "off"


def responses(session: Session, output: Path) -> dict[Path, Callable[[Path], object]]:
    """Impulse responses of the reverberations of a session, as files beside an output, and how to write them."""
    found: dict[Path, Callable[[Path], object]] = {}
    for number, channel in enumerate(session.channels, 1):
        for stage in channel.stages:
            if stage.processor in REVERBS and not stage.bypassed:
                name = f"{output.name}-{number:02d}-{file_name(channel.name)}-{stage.name}.wav"
                found[output.with_name(name)] = _writer(stage, session.sample_rate)
    return found


def _writer(stage: Stage, sample_rate: float) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        io.save(path, impulse_response(stage, sample_rate), int(sample_rate), force=True)

    return write


def impulse_response(stage: Stage, sample_rate: float) -> torch.Tensor:
    """What a reverberation makes of an impulse in both channels, dry part included, `(2, samples)`."""
    decay = stage.controls["decay_s"]
    longest = max(decay) if isinstance(decay, list) else decay
    delay = stage.controls["pre_delay_ms"]
    samples = math.ceil((longest + (max(delay) if isinstance(delay, list) else delay) / 1000) * sample_rate) + 1
    impulse = torch.zeros(2, samples)
    impulse[:, 0] = 1
    controls = {name: torch.tensor(value) for name, value in stage.controls.items()}
    with torch.no_grad():
        return stage.module.process(impulse, **controls)

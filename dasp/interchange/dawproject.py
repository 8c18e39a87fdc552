"""Mixes as DAWproject files, which Bitwig Studio, Studio One, Cubase and others read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dasp._version
from dasp import io
from dasp.interchange import _notes
from dasp.interchange._session import Channel, Session, Stage, session
from dasp.interchange._text import file_name, one_line, plain, relative, write_all
from dasp.interchange.equalizers import WITH_GAIN, bands_of, is_filter

_BANDS = {
    "low_shelf": "lowShelf",
    "high_shelf": "highShelf",
    "peaking": "bell",
    "lowpass": "lowPass",
    "highpass": "highPass",
    "bandpass": "bandPass",
    "notch": "notch",
}
# Of every entry, so that one mix gives one file: the earliest that the format of archives has.
_TIME = (1980, 1, 1, 0, 0, 0)
_COPIED = 2**20

Element = ElementTree.Element


def write_dawproject(
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
    stems: Mapping[str, str | os.PathLike[str]],
    embed: bool = True,
    force: bool = False,
) -> list[Path]:
    """Writes a mix as a DAWproject (version 1.0), and beside it a text of what differs from dasp.

    Tracks with clips, groups (channels that tracks go to), buses, sends before and after the fader, mute, solo, faders,
    pans, equalisers, compressors and expanders (noise gates) as the devices that the format has.

    Args:
        output: The project, a .dawproject file.
        settings: A description, as `DifferentiableMixingConsole.describe` gives it.
        stems: The audio file of each track.
        embed: Whether stems are copied into the project; if not, it refers to them from its own folder.
        force: Replace files that exist.

    Returns:
        The files written: the project, its text, and an impulse response for each reverberation, which the format has
        no device for.

    Raises:
        SettingsError: If settings is no description.
        ValueError: If stems are not those of the description, one cannot be named in a project, or a level is
            beyond 400 dB.
        AudioFileError: If a stem cannot be read.
        FileExistsError: If a file exists and force is not set.

    Example:
        >>> dasp.interchange.write_dawproject("song.dawproject", settings, {"voice": "voice.wav"})  # doctest: +SKIP
        [PosixPath('song.dawproject'), PosixPath('song.dawproject.txt')]
    """
    path, described = Path(output), session(settings)
    if path.suffix.lower() != ".dawproject":
        raise ValueError(f"write_dawproject: output is {path.name!r}, expected a name that ends in .dawproject")
    _notes.check_stems("write_dawproject", described, stems)
    files = {name: Path(stem) for name, stem in stems.items()}
    if embed:
        inside = {t.name: _inside(number, t.name, files[t.name]) for number, t in enumerate(described.tracks, 1)}
    else:
        inside = {name: relative(stem, path.absolute().parent) for name, stem in files.items()}
    project = _Project(described, files, inside, embed)
    document = project.document()
    copied = {inside[name]: stem for name, stem in files.items()} if embed else {}
    responses = _notes.responses(described, path)
    remarks = _remarks([found.name for found in responses]) + project.remarks
    notes = _notes.text(described, f"{one_line(path.name)}, by dasp", remarks)
    outputs: dict[Path, Callable[[Path], object]] = {
        path: lambda temporary: _zip(temporary, document, copied),
        path.with_name(f"{path.name}.txt"): lambda temporary: temporary.write_text(
            notes, encoding="utf-8", newline="\n"
        ),
        **responses,
    }
    return write_all(outputs, force)


def _inside(number: int, name: str, path: Path) -> str:
    """Where a stem stands in the archive."""
    suffix = "".join(c for c in path.suffix.lower() if c.isascii() and (c.isalnum() or c == "."))
    return f"audio/{number:02d} {file_name(name)}{suffix}"


def _remarks(responses: list[str]) -> list[str]:
    return [
        "No part of this project was opened in a workstation by its authors; it obeys the schema of the format.",
        "Pan: the number is that of dasp's panner; which law a workstation gives it is its own affair.  Factors of the "
        "left and the right side are below.",
        "Equaliser: frequency, gain and Q are those of the Audio EQ Cookbook; what a workstation's own equaliser makes "
        "of them is its own affair.  A gain between effects is an equaliser with an output gain.",
        "Compressor: the format has no knee.  Ratio is in percent, 100 (1 - 1 / ratio): 4:1 is 75.  Times in dasp are "
        "those in which 63 % of a step of the gain in dB are done.",
        *(
            f"{found}: what a reverberation does to an impulse, dry part included, for a convolver; the format has no "
            "device for it."
            for found in responses
        ),
    ]


def _zip(path: Path, document: Element, files: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, root in (("project.xml", document), ("metadata.xml", Element("MetaData"))):
            ElementTree.indent(root)
            archive.writestr(_entry(name), ElementTree.tostring(root, "utf-8", xml_declaration=True))
        for name, source in files.items():
            entry = _entry(name)
            # Audio gains next to nothing from compression.
            entry.compress_type = zipfile.ZIP_STORED
            entry.file_size = source.stat().st_size
            with source.open("rb") as reader, archive.open(entry, "w") as writer:
                while block := reader.read(_COPIED):
                    writer.write(block)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


class _Project:
    """The document of a project; what it could not say is in `remarks`."""

    def __init__(self, session: Session, files: Mapping[str, Path], inside: Mapping[str, str], embed: bool) -> None:
        self.remarks: list[str] = []
        self._session, self._files, self._inside, self._embed = session, files, inside, embed
        self._ids: dict[str, int] = {}
        # Names may be anything, identifiers may not.
        self._channels = {id(channel): f"channel{number}" for number, channel in enumerate(session.channels, 1)}
        self._group = {group.name: self._channels[id(group)] for group in session.groups}
        self._bus = {bus.name: self._channels[id(bus)] for bus in session.buses}

    def _id(self, kind: str) -> str:
        self._ids[kind] = self._ids.get(kind, 0) + 1
        return f"{kind}{self._ids[kind]}"

    def document(self) -> Element:
        s = self._session
        root = Element("Project", version="1.0")
        _add(root, "Application", name="dasp", version=dasp._version.__version__)
        transport = _add(root, "Transport")
        _add(transport, "Tempo", unit="bpm", value="120")
        _add(transport, "TimeSignature", numerator="4", denominator="4")
        structure = _add(root, "Structure")
        tracks = {
            id(channel): self._track(structure, channel, role)
            for kind, role in ((s.tracks, "regular"), (s.groups, "submix"), (s.buses, "effect"), ([s.master], "master"))
            for channel in kind
        }
        lanes = _add(_add(root, "Arrangement", id=self._id("arrangement")), "Lanes", timeUnit="seconds")
        for channel in s.tracks:
            self._clip(lanes, channel, tracks[id(channel)])
        return root

    def _track(self, structure: Element, channel: Channel, role: str) -> str:
        track = self._id("track")
        name = one_line(channel.name)
        element = _add(structure, "Track", contentType="audio", loaded="true", id=track, name=name)
        attributes = {
            "audioChannels": "2",
            "role": role,
            "solo": _flag(channel.solo),
            "id": self._channels[id(channel)],
        }
        if role != "master":
            master = self._channels[id(self._session.master)]
            attributes["destination"] = master if channel.group is None else self._group[channel.group]
        strip = _add(element, "Channel", **attributes)
        devices = [device for stage in channel.stages if (device := self._device(name, stage)) is not None]
        if devices:
            _add(strip, "Devices").extend(devices)
        _add(strip, "Mute", value=_flag(channel.mute))
        _add(strip, "Pan", unit="normalized", value=plain((channel.pan + 1) / 2), min="0", max="1")
        if channel.sends:
            sends = _add(strip, "Sends")
            for send in channel.sends:
                kind = "pre" if send.pre_fader else "post"
                _volume(_add(sends, "Send", destination=self._bus[send.bus], type=kind), send.gain)
        _volume(strip, channel.gain)
        if channel.inverted:
            self.remarks.append(f"{name}: its polarity is inverted in dasp, which the format cannot say.")
        if sum(stage.processor == "stereo_panner" and not stage.bypassed for stage in channel.fader) > 1:
            self.remarks.append(f"{name}: has several panners, of which the format cannot say the sum.")
        return track

    def _device(self, name: str, stage: Stage) -> Element | None:
        if is_filter(stage):
            bands = bands_of(stage, self._session.sample_rate)
            device = self._empty("Equalizer", stage)
            for band in bands:
                if band.kind not in _BANDS:
                    self.remarks.append(f"{name}, {stage.name}: the format has no {band.kind} filter, it was left out.")
                    continue
                # The order of highPass and lowPass: ours are of the second.
                element = _add(device, "Band", type=_BANDS[band.kind], order="2" if band.kind.endswith("pass") else "0")
                _real(element, "Freq", "hertz", band.frequency_hz)
                if band.kind in WITH_GAIN:
                    _real(element, "Gain", "decibel", band.gain_db)
                _real(element, "Q", "linear", band.q)
                _add(element, "Enabled", value="true")
            return device
        values = {control: value for control, value in stage.controls.items() if isinstance(value, float)}
        if stage.processor == "gain":
            device = self._empty("Equalizer", stage)
            _real(device, "OutputGain", "decibel", values["gain_db"])
        elif stage.processor == "compressor":
            device = self._empty("Compressor", stage)
            _real(device, "Attack", "seconds", values["attack_ms"] / 1000)
            _add(device, "AutoMakeup", value="false")
            _real(device, "InputGain", "decibel", 0.0)
            _real(device, "OutputGain", "decibel", values["makeup_gain_db"])
            self._shared(device, values)
        elif stage.processor == "expander":
            device = self._empty("NoiseGate", stage)
            _real(device, "Attack", "seconds", values["attack_ms"] / 1000)
            _real(device, "Range", "decibel", -values["range_db"])
            self._shared(device, values)
        else:
            if stage.processor not in _notes.REVERBS:
                self.remarks.append(f"{name}, {stage.name}: the format has no such device, it was left out.")
            return None
        return device

    @staticmethod
    def _shared(device: Element, values: Mapping[str, float]) -> None:
        """What compressors and gates have in common, in the order of the schema."""
        _real(device, "Ratio", "percent", 100 * (1 - 1 / values["ratio"]))
        _real(device, "Release", "seconds", values["release_ms"] / 1000)
        _real(device, "Threshold", "decibel", values["threshold_db"])

    def _empty(self, kind: str, stage: Stage) -> Element:
        device = Element(kind, deviceName=stage.name, deviceRole="audioFX", id=self._id("device"))
        _add(device, "Enabled", value=_flag(not stage.bypassed))
        return device

    def _clip(self, lanes: Element, channel: Channel, track: str) -> None:
        path = self._files[channel.name]
        form = io.inspect(path)
        seconds = plain(form.samples / form.sample_rate)
        clips = _add(_add(lanes, "Lanes", track=track, id=self._id("lanes")), "Clips")
        name = one_line(channel.name)
        clip = _add(clips, "Clip", time="0", duration=seconds, contentTimeUnit="seconds", playStart="0", name=name)
        audio = _add(
            clip,
            "Audio",
            channels=str(form.channels),
            duration=seconds,
            sampleRate=str(form.sample_rate),
            id=self._id("audio"),
        )
        _add(audio, "File", path=self._inside[channel.name], **({} if self._embed else {"external": "true"}))


def _add(parent: Element, tag: str, **attributes: str) -> Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _real(parent: Element, tag: str, unit: str, value: float) -> None:
    _add(parent, tag, unit=unit, value=plain(value))


def _volume(parent: Element, gain: float) -> None:
    _add(parent, "Volume", unit="linear", value=plain(gain), min="0", max=plain(max(2.0, gain)))


def _flag(on: bool) -> str:
    return "true" if on else "false"

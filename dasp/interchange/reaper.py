"""Mixes as projects of REAPER."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dasp import io
from dasp._checks import check_choice
from dasp.functional.stereo import centre_gain
from dasp.interchange import _chunks, _jsfx, _notes
from dasp.interchange._session import Channel, Session, Stage, session
from dasp.interchange._text import factor, one_line, plain, relative, write_all
from dasp.interchange.equalizers import bands_of, is_filter

EFFECTS = ("stock", "jsfx")
_SOURCES = {".flac": "FLAC", ".mp3": "MP3", ".ogg": "VORBIS", ".oga": "VORBIS", ".opus": "OPUS"}
_FIELDS = 64
# Of the numbers of tracks and effects, so that one description gives one project.
_NAMESPACE = uuid.UUID("6f7a2d2c-5b60-4b43-9a0e-0d6c5c1b8c55")


def write_reaper(
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
    stems: Mapping[str, str | os.PathLike[str]],
    effects: str = "stock",
    force: bool = False,
) -> list[Path]:
    """Writes a mix as a project of REAPER, and beside it a text of what differs from dasp.

    Tracks, groups (folder tracks), buses (tracks that receive), sends before and after the fader, mute, solo, bypass,
    faders, polarity and the master are those of the console.  A balance with the pan law of 0 dB gives each side the
    factor that the console's panner gives it, whatever its law; with exact effects, an effect does it, unless a send
    leaves from before the fader.

    Args:
        output: The project, a .rpp file.
        settings: A description, as `DifferentiableMixingConsole.describe` gives it.
        stems: The audio file of each track; the project refers to it from its own folder.
        effects: "stock", ReaEQ and ReaComp, which everyone with REAPER has; or "jsfx", effects that do to the sample
            what dasp does, in a folder that is to be copied to REAPER's Effects folder.
        force: Replace files that exist.

    Returns:
        The files written: the project, its text, the effects, and an impulse response for each reverberation, which no
        effect of the project stands for.

    Raises:
        SettingsError: If settings is no description.
        ValueError: If stems are not those of the description, one cannot be named in a project, effects is unknown, or
            a level is beyond 400 dB.
        AudioFileError: If a stem cannot be read.
        FileExistsError: If a file exists and force is not set.

    Example:
        >>> dasp.interchange.write_reaper("song.rpp", settings, {"voice": "stems/voice.wav"})  # doctest: +SKIP
        [PosixPath('song.rpp'), PosixPath('song.rpp.txt'), PosixPath('song.rpp-02-reverb-noise_shaped_reverb.wav')]
    """
    check_choice("write_reaper", "effects", effects, EFFECTS)
    path, described = Path(output), session(settings)
    if path.suffix.lower() != ".rpp":
        raise ValueError(f"write_reaper: output is {path.name!r}, expected a name that ends in .rpp")
    _notes.check_stems("write_reaper", described, stems)
    placed = _panned_by_effects(described) if effects == "jsfx" else described
    project = _Project(placed, stems, path.absolute().parent, effects)
    text = "\n".join(project.lines()) + "\n"
    folder = f"{path.name}-jsfx"
    responses = _notes.responses(described, path)
    remarks = _remarks(project, effects, [found.name for found in responses], one_line(folder))
    notes = _notes.text(described, f"{one_line(path.name)}, by dasp", remarks)
    outputs: dict[Path, Callable[[Path], object]] = {
        path: _text_writer(text),
        path.with_name(f"{path.name}.txt"): _text_writer(notes),
        **{
            path.parent / folder / _jsfx.FOLDER / f"{name}.jsfx": _text_writer(_jsfx.FILES[name]())
            for name in project.used
        },
        **responses,
    }
    return write_all(outputs, force)


def _text_writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8", newline="\n")


def _panned_by_effects(session: Session) -> Session:
    """Panners as effects behind the others, where nothing leaves between these and the fader."""

    def placed(channel: Channel, strip: bool) -> Channel:
        panners = [stage for stage in channel.fader if stage.processor == "stereo_panner" and not stage.bypassed]
        if not panners or any(send.pre_fader for send in channel.sends):
            return channel
        level = math.prod(1 / centre_gain(stage.options["law"]) for stage in panners) if strip else 1.0
        others = [stage for stage in channel.fader if stage not in panners]
        stages = [*channel.stages, *panners]
        return channel._replace(stages=stages, fader=others, left=level, right=level, pan=0.0)

    master = placed(session.master, False)
    if master.inverted:
        # The master has no switch for its polarity.
        whole = session.master.all_stages
        master = master._replace(stages=whole, fader=[], gain=1.0, left=1.0, right=1.0, inverted=False)
    return session._replace(
        tracks=[placed(channel, True) for channel in session.tracks],
        groups=[placed(channel, False) for channel in session.groups],
        buses=[placed(channel, False) for channel in session.buses],
        master=master,
    )


def _remarks(project: _Project, effects: str, responses: list[str], folder: str) -> list[str]:
    remarks = [
        "No part of this project was opened in REAPER by its authors: its form is that of public descriptions.",
        "Pan: the balance of a track with the pan law of 0 dB (PANLAW 1) is taken to turn one side down linearly; "
        "volume and balance are such that each side gets the factor that dasp gives it."
        + (" Tracks without a send from before the fader have an effect for it instead." if effects == "jsfx" else ""),
    ]
    if effects == "stock":
        remarks += [
            "ReaEQ: peaks, low-pass and high-pass filters have the bandwidths, shelves the slopes, of the same "
            "response, if ReaEQ is as others have measured it; all-pass, notch and band-pass filters go by the formula "
            "of low-pass filters, which nobody has confirmed.",
            "ReaComp: threshold, ratio, knee, times and makeup gain are the same numbers, with an RMS size of 0.  What "
            "its detector hears and what its times mean differ: dasp smooths the gain in dB, and a time is that in "
            "which 63 % of a step are done.",
            "Gains between effects are ReaEQs whose only band is off.",
        ]
    else:
        remarks.append(
            f"Effects: copy the folder {folder}/{_jsfx.FOLDER} to Effects/ in REAPER's resource path (Options, Show "
            "REAPER resource path).  They do what dasp does, in double precision."
        )
    remarks += [
        f"{found}: what a reverberation does to an impulse, dry part included, for a convolver such as ReaVerb with "
        "its dry level off; the project has no effect in its place."
        for found in responses
    ]
    return remarks + project.remarks


def quoted(name: str) -> str:
    """A name in one line between the quotes that a project needs for it."""
    text = one_line(name)
    for quote in ('"', "'", "`"):
        if quote not in text:
            return f"{quote}{text}{quote}"
    return "`" + text.replace("`", "'") + "`"


def _quoted_path(path: str) -> str:
    for quote in ('"', "'", "`"):
        if quote not in path:
            return f"{quote}{path}{quote}"
    raise ValueError(f"write_reaper: {path!r}: a project cannot name a file with all of \" ' and `, rename it")


def _guid(*parts: object) -> str:
    return "{" + str(uuid.uuid5(_NAMESPACE, repr(parts))).upper() + "}"


class _Project:
    """The lines of a project; what they could not say is in `remarks`, the effects they need in `used`."""

    def __init__(
        self, session: Session, stems: Mapping[str, str | os.PathLike[str]], folder: Path, effects: str
    ) -> None:
        self.remarks: list[str] = []
        self.used: list[str] = []
        self._session, self._effects = session, effects
        self._files = {name: (Path(path), relative(path, folder)) for name, path in stems.items()}
        self._order = list(self._ordered())
        self._index = {id(channel): position for position, (channel, _) in enumerate(self._order)}

    def _ordered(self) -> Iterator[tuple[Channel, str]]:
        """Tracks in the order of the project, with what ISBUS says of folders."""
        s = self._session
        yield from ((track, "0 0") for track in s.tracks if track.group is None)
        for group in s.groups:
            members = [track for track in s.tracks if track.group == group.name]
            yield group, "1 1" if members else "0 0"
            yield from ((track, "0 0") for track in members[:-1])
            yield from ((track, "2 -1") for track in members[-1:])
        yield from ((bus, "0 0") for bus in s.buses)

    def lines(self) -> list[str]:
        s = self._session
        lines = [
            '<REAPER_PROJECT 0.1 "7.0/dasp" 0',
            f"  SAMPLERATE {int(s.sample_rate)} 1 0",
            "  TEMPO 120 4 4",
            "  PANLAW 1",
            "  PANMODE 3",
            f"  MASTER_VOLUME {plain(self._signed(s.master))} {plain(s.master.balance)} -1 -1 1",
            *self._chain(s.master, "MASTERFXLIST", "  "),
        ]
        for position, (channel, folder) in enumerate(self._order):
            lines += self._track(channel, folder, position)
        return [*lines, ">"]

    def _signed(self, channel: Channel) -> float:
        if channel.inverted:
            self.remarks.append(f"{one_line(channel.name)}: its polarity is inverted in dasp, and is not here.")
        return channel.volume

    def _track(self, channel: Channel, folder: str, position: int) -> list[str]:
        guid = _guid("track", position)
        lines = [
            f"  <TRACK {guid}",
            f"    NAME {quoted(channel.name)}",
            f"    VOLPAN {plain(channel.volume)} {plain(channel.balance)} 1 -1 1",
            f"    MUTESOLO {int(channel.mute)} {2 if channel.solo else 0} 0",
            f"    IPHASE {int(channel.inverted)}",
            f"    ISBUS {folder}",
            "    NCHAN 2",
            "    FX 1",
            f"    TRACKID {guid}",
            *self._receives(channel),
            "    MAINSEND 1 0",
            *self._chain(channel, "FXCHAIN", "    "),
        ]
        if any(channel is track for track in self._session.tracks):
            lines += self._item(channel)
        return [*lines, "  >"]

    def _receives(self, channel: Channel) -> Iterator[str]:
        if not any(channel is bus for bus in self._session.buses):
            return
        for source, _ in self._order:
            for send in source.sends:
                if send.bus == channel.name:
                    mode = 3 if send.pre_fader else 0
                    index = self._index[id(source)]
                    yield f"    AUXRECV {index} {mode} {plain(send.gain)} 0 0 0 0 0 0 -1 0 -1"

    def _item(self, track: Channel) -> list[str]:
        path, shown = self._files[track.name]
        form = io.inspect(path)
        return [
            "    <ITEM",
            "      POSITION 0",
            f"      LENGTH {plain(form.samples / form.sample_rate)}",
            "      LOOP 0",
            f"      NAME {quoted(path.name)}",
            "      VOLPAN 1 0 1 -1",
            "      SOFFS 0",
            "      PLAYRATE 1 1 0 -1 0 0.0025",
            "      CHANMODE 0",
            f"      <SOURCE {_SOURCES.get(path.suffix.lower(), 'WAVE')}",
            f"        FILE {_quoted_path(shown)}",
            "      >",
            "    >",
        ]

    def _chain(self, channel: Channel, kind: str, indent: str) -> list[str]:
        effects = [(stage, *effect) for stage in channel.stages for effect in self._effect(channel, stage)]
        if not effects:
            return []
        lines = [f"<{kind}", "  SHOW 0", "  LASTSEL 0", "  DOCKED 0"]
        for number, (stage, head, body) in enumerate(effects):
            lines += [f"  BYPASS {int(stage.bypassed)} 0 0", f"  <{head}", *(f"    {line}" for line in body), "  >"]
            lines += ["  FLOATPOS 0 0 0 0", f"  FXID {_guid(kind, channel.name, number)}", "  WAK 0 0"]
        return [indent + line for line in [*lines, ">"]]

    def _effect(self, channel: Channel, stage: Stage) -> Iterator[tuple[str, list[str]]]:
        """Heads and bodies of the effects that a stage becomes."""
        what = f"{one_line(channel.name)}, {stage.name}"
        if self._effects == "jsfx":
            effects = _jsfx.effects_of(stage, self._session.sample_rate)
            for name, values in effects:
                if name not in self.used:
                    self.used.append(name)
                fields = [plain(value) if math.isfinite(value) else "1000000" for value in values]
                line = " ".join([*fields, *["-"] * (_FIELDS - len(fields))])
                yield f'JS "{_jsfx.FOLDER}/{name}.jsfx" ""', [line]
            missing = not effects
        else:
            body, missing = self._stock(what, stage), False
            if body is None:
                missing = True
            else:
                yield body
        if missing and stage.processor not in _notes.REVERBS:
            self.remarks.append(f"{what}: has no counterpart here and was left out.")

    def _stock(self, what: str, stage: Stage) -> tuple[str, list[str]] | None:
        rate = self._session.sample_rate
        if is_filter(stage):
            bands = bands_of(stage, rate)
            for number, band in enumerate(bands, 1):
                octaves = _chunks.reaeq_bandwidth(band, rate)
                if band.kind.endswith("shelf") and not octaves >= _chunks.LOWEST_SHELF_BANDWIDTH:
                    self.remarks.append(
                        f"{what}, band {number}: Q {band.q:.3f} is steeper than a shelf of ReaEQ can be."
                    )
            return _chunks.REAEQ, _chunks.reaeq([_chunks.reaeq_band(band, rate) for band in bands])
        controls = {name: value for name, value in stage.controls.items() if isinstance(value, float)}
        if stage.processor == "compressor":
            limits = {
                "ratio": _chunks.MAX_RATIO,
                "attack_ms": _chunks.MAX_ATTACK_MS,
                "release_ms": _chunks.MAX_RELEASE_MS,
                "knee_db": _chunks.MAX_KNEE_DB,
            }
            for name, most in limits.items():
                if controls[name] > most:
                    self.remarks.append(f"{what}: {name} is {controls[name]:g}, of which ReaComp has at most {most:g}.")
            return _chunks.REACOMP, _chunks.reacomp(**controls)
        if stage.processor == "gain":
            off = _chunks.ReaEQBand(8, False, 1000.0, 1.0, 2.0)
            return _chunks.REAEQ, _chunks.reaeq([off], factor(controls["gain_db"]))
        return None

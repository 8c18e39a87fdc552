"""Data sets of multitrack songs in folders, of which only the excerpts that are asked for are read."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from dasp import io
from dasp._checks import check_choice
from dasp.mixing.instruments import FAMILIES, recognise

__all__ = ["Excerpt", "MultitrackFolder", "Song", "Track"]

_SUFFIXES = (".wav", ".wave", ".flac", ".aif", ".aiff", ".w64", ".rf64", ".ogg", ".mp3")
_MIX = re.compile(r"(^|[ _-])(mix|mixture|mixdown|master)([ _-]?v?[0-9]+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Track:
    """A track of a song in a file.

    Attributes:
        name: Unique in its song.
        instrument: One of `dasp.mixing.instruments.FAMILIES`.
        path: The audio file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> dasp.io.save(folder / "snare.wav", torch.zeros(1, 4410), 44100)
        >>> track = dasp.mixing.MultitrackFolder(folder).songs[0].tracks[0]
        >>> track.name, track.instrument, track.tag, track.format.samples
        ('snare', 'snare', 'drums', 4410)
    """

    name: str
    instrument: str
    path: Path

    @property
    def tag(self) -> str:
        """Family of the instrument."""
        return FAMILIES[self.instrument]

    @cached_property
    def format(self) -> io.Format:
        """What the header of the file says, which is read when it is asked for, once.

        Raises:
            AudioFileError: If the file cannot be read, or has more than two channels.
        """
        found = io.inspect(self.path)
        _refuse_surround(self.path, found.channels)
        return found

    @property
    def channels(self) -> int:
        """Number of channels, 1 or 2."""
        return self.format.channels

    def excerpt(self, start: int, samples: int, sample_rate: int) -> Tensor:
        """Reads a part, (channels, samples), counted at the rate that it is resampled to; silent after its end.

        Raises:
            AudioFileError: If the file cannot be read, or has more than two channels.
        """
        x = io.load_excerpt(self.path, start, samples, sample_rate)
        _refuse_surround(self.path, x.shape[0])
        return x


def _refuse_surround(path: Path, channels: int) -> None:
    if channels > 2:
        raise io.AudioFileError(f"{path}: has {channels} channels, expected one or two")


@dataclass(frozen=True)
class Song:
    """A song of a folder.

    Attributes:
        name: Unique in its folder.
        tracks: Its tracks, sorted.
        mix: File of the mix, or None.
        split: "train" or "test" in MUSDB18, the drummer in ENST-drums, and "" elsewhere.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> dasp.io.save(folder / "snare.wav", torch.zeros(1, 4410), 44100)
        >>> dasp.io.save(folder / "mix.wav", torch.zeros(2, 4410), 44100)
        >>> song = dasp.mixing.MultitrackFolder(folder).songs[0]
        >>> [track.name for track in song.tracks], song.mix.name, song.length, song.sample_rate
        (['snare'], 'mix.wav', 4410, 44100)
    """

    name: str
    tracks: tuple[Track, ...]
    mix: Path | None = None
    split: str = ""

    @cached_property
    def sample_rate(self) -> int:
        """The sample rate in Hz that most of its tracks have."""
        return Counter(track.format.sample_rate for track in self.tracks).most_common(1)[0][0]

    @cached_property
    def length(self) -> int:
        """Samples of the longest track at the song's sample rate."""
        formats = [track.format for track in self.tracks]
        return max(math.ceil(Fraction(f.samples * self.sample_rate, f.sample_rate)) for f in formats)

    def mix_excerpt(self, start: int, samples: int, sample_rate: int) -> Tensor | None:
        """Reads a part of the mix, (2, samples), as `Track.excerpt` does; None if there is no mix.

        Raises:
            AudioFileError: If the file cannot be read, or has more than two channels.
        """
        if self.mix is None:
            return None
        mix = io.load_excerpt(self.mix, start, samples, sample_rate)
        _refuse_surround(self.mix, mix.shape[0])
        return mix.expand(2, -1).contiguous()


@dataclass(frozen=True)
class Excerpt:
    """A part of a song.

    Attributes:
        tracks: Audio of each track, (channels, samples) with one or two channels, float32.
        mix: Audio of the mix, (2, samples), or None.
        sample_rate: In Hz.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> dasp.io.save(folder / "snare.wav", torch.zeros(1, 44100), 44100)
        >>> songs = dasp.mixing.MultitrackFolder(folder)
        >>> excerpt = songs.excerpt(songs.songs[0], start_s=0.5, seconds=0.25)
        >>> [track.shape for track in excerpt.tracks], excerpt.mix
        ([torch.Size([1, 11025])], None)
    """

    tracks: list[Tensor]
    mix: Tensor | None
    sample_rate: int


class MultitrackFolder:
    """Songs in a folder, by the layout of a data set.

    Headers are read when a song's length, channels or sample rate are asked for, audio by `excerpt` only.  Layouts:

    - "plain": a folder for each song, with its tracks, or with these in a folder "stems" and the mix beside it; a file
      named mix, mixture, mixdown or master, or so at its end (`song_mix.wav`), is the mix.  A folder that has tracks
      itself is one song.
    - "musdb18": MUSDB18-HQ, `train/` and `test/` with a folder for each song of bass, drums, other, vocals and mixture.
    - "medleydb": MedleyDB 1 and 2, `Song/Song_STEMS/Song_STEM_01.wav` and `Song/Song_MIX.wav`, instruments from
      `Song_METADATA.yaml` where it is there; also one folder further down, as in `Audio/` or `V1/`.
    - "medleydb-raw": its raw tracks, `Song/Song_RAW/Song_RAW_01_01.wav`.
    - "moisesdb": a folder for each song with `data.json` and folders of instruments; also one folder further down.
    - "enst-drums": `drummer_1/audio/kick/take.wav`; a take is a song, its mix the file in `wet_mix`, else in `dry_mix`;
      the accompaniment is left out.

    Args:
        root: The folder.
        layout: One of the layouts, or "auto" for the first that fits, of "enst-drums", "musdb18", "moisesdb",
            "medleydb" and "plain".
        recognised: Takes the name of a track to its instrument; by default `dasp.mixing.instruments.recognise`.

    Attributes:
        root: The folder.
        layout: The layout that was found.
        songs: Its songs, sorted by name.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the layout is unknown, the folder has no songs in it, or a description of a song is broken.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> song = Path(tempfile.mkdtemp()) / "first song"
        >>> song.mkdir()
        >>> for name in ("bass", "snare"):
        ...     dasp.io.save(song / f"{name}.wav", torch.zeros(1, 44100), 44100)
        >>> folder = dasp.mixing.MultitrackFolder(song.parent)
        >>> folder.songs[0].name, [track.name for track in folder.songs[0].tracks]
        ('first song', ['bass', 'snare'])
        >>> folder = dasp.mixing.MultitrackFolder("musdb18hq")  # doctest: +SKIP
        >>> folder.songs[0].name, folder.songs[0].length / folder.songs[0].sample_rate  # doctest: +SKIP
        ('A Classic Education - NightOwl', 171.247)
        >>> len(folder.excerpt(folder.songs[0], start_s=30.0, seconds=5.0).tracks)  # doctest: +SKIP
        4
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: str = "auto",
        recognised: Callable[[str], str] | None = None,
    ) -> None:
        self.root = Path(root)
        check_choice("MultitrackFolder", "layout", layout, ("auto", *_LAYOUTS))
        if not self.root.is_dir():
            raise FileNotFoundError(f"MultitrackFolder: {self.root} is not a folder")
        self.songs: list[Song] = []
        self.layout = layout
        for name in _AUTOMATIC if layout == "auto" else (layout,):
            self.songs = sorted(
                _LAYOUTS[name](self.root, recognised or recognise), key=lambda song: (song.split, song.name)
            )
            if self.songs:
                self.layout = name
                break
        else:
            expected = "of any known layout" if layout == "auto" else f"of the layout {layout!r}"
            raise ValueError(f"MultitrackFolder: {self.root} has no songs {expected}")

    def __len__(self) -> int:
        return len(self.songs)

    def __repr__(self) -> str:
        return f"MultitrackFolder({str(self.root)!r}, layout={self.layout!r}): {len(self.songs)} songs"

    def excerpt(self, song: Song | str, start_s: float, seconds: float, sample_rate: int | None = None) -> Excerpt:
        """Reads a part of a song.

        Tracks of other sample rates are resampled, and those that end before others are silent then, as is what lies
        after the end of the song; lengths are not stretched.

        Args:
            song: A song of the folder, or its name.
            start_s: Where the part begins, in seconds.
            seconds: Its duration.
            sample_rate: Sample rate in Hz, by default the song's.

        Returns:
            The tracks in the order of the song's, each with its own channels, and the mix in stereo.

        Raises:
            AudioFileError: If a file cannot be read or has more than two channels; the text names it.
            ValueError: If the song is unknown, start_s is not within it, or seconds is not above 0.
        """
        song = self._song(song)
        rate = song.sample_rate if sample_rate is None else sample_rate
        length_s = song.length / song.sample_rate
        if not 0 <= start_s < length_s:
            raise ValueError(
                f"excerpt: start_s is {start_s}, expected 0 to below {length_s:.3f}, the length of {song.name!r}"
            )
        if not 0 < seconds < math.inf:
            raise ValueError(f"excerpt: seconds is {seconds}, expected a finite number above 0")
        start, samples = round(start_s * rate), round(seconds * rate)
        tracks = [track.excerpt(start, samples, rate) for track in song.tracks]
        return Excerpt(tracks, song.mix_excerpt(start, samples, rate), rate)

    def _song(self, song: Song | str) -> Song:
        if isinstance(song, Song):
            return song
        found = [one for one in self.songs if one.name == song]
        if not found:
            raise ValueError(f"excerpt: {self.root} has no song {song!r}")
        return found[0]


_Reader = Callable[[Path, Callable[[str], str]], Iterator[Song]]


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(place: Path) -> list[Path]:
    """Audio files in a folder; those that begin with a dot are notes of a file system."""
    if not place.is_dir():
        return []
    found = (path for path in place.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _two_levels(root: Path) -> list[Path]:
    """Folders in the root, and those in them."""
    first = _folders(root)
    return first + [inner for outer in first for inner in _folders(outer)]


def _tracks(named: list[tuple[str, str, Path]]) -> tuple[Track, ...]:
    """Tracks of names, instruments and paths; names that occur again are numbered."""
    tracks, taken = [], set()
    for base, instrument, path in named:
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base} {number}"
        taken.add(name)
        tracks.append(Track(name, instrument, path))
    return tuple(tracks)


def _plain(root: Path, recognised: Callable[[str], str]) -> Iterator[Song]:
    itself = _plain_song(root, recognised)
    if itself is not None:
        yield itself
        return
    for folder in _folders(root):
        song = _plain_song(folder, recognised)
        if song is not None:
            yield song


def _plain_song(folder: Path, recognised: Callable[[str], str]) -> Song | None:
    inner = next((path for path in _folders(folder) if path.name.lower() in ("stems", "tracks")), None)
    beside = _files(folder)
    mixes = [path for path in beside if _MIX.search(path.stem)]
    files = _files(inner) if inner else [path for path in beside if path not in mixes]
    if not files:
        return None
    named = [(path.stem, recognised(path.stem), path) for path in files]
    return Song(folder.resolve().name, _tracks(named), mixes[0] if mixes else None)


def _musdb18(root: Path, recognised: Callable[[str], str]) -> Iterator[Song]:
    for split in ("train", "test"):
        for folder in _folders(root / split) if (root / split).is_dir() else ():
            files = _files(folder)
            mixes = [path for path in files if path.stem == "mixture"]
            named = [(path.stem, recognised(path.stem), path) for path in files if path not in mixes]
            if mixes and named:
                yield Song(folder.name, _tracks(named), mixes[0], split)


def _medleydb(root: Path, recognised: Callable[[str], str]) -> Iterator[Song]:
    return _medleydb_songs(root, recognised, raw=False)


def _medleydb_raw(root: Path, recognised: Callable[[str], str]) -> Iterator[Song]:
    return _medleydb_songs(root, recognised, raw=True)


def _medleydb_songs(root: Path, recognised: Callable[[str], str], raw: bool) -> Iterator[Song]:
    for folder in _two_levels(root):
        files = _files(folder / f"{folder.name}_{'RAW' if raw else 'STEMS'}")
        if not files:
            continue
        described = _medleydb_instruments(folder / f"{folder.name}_METADATA.yaml")
        named = []
        for path in files:
            # Song_STEM_03.wav is called S03, Song_RAW_03_01.wav R03_01, as far as their instruments do not name them.
            number = path.stem.removeprefix(f"{folder.name}_").removeprefix("STEM_").removeprefix("RAW_")
            label = described.get(path.name, "")
            named.append((label or ("R" if raw else "S") + number, recognised(label), path))
        mix = next((path for path in _files(folder) if path.stem == f"{folder.name}_MIX"), None)
        yield Song(folder.name, _tracks(named), mix)


def _medleydb_instruments(path: Path) -> dict[str, str]:
    """Instrument of each file, of the stems and of the raw tracks in them."""
    if not path.is_file():
        return {}
    stems = _section(path).get("stems")
    if not isinstance(stems, dict):
        raise ValueError(f"{path}: has no stems, expected a description of MedleyDB")
    found: dict[str, str] = {}
    for stem in stems.values():
        raw = stem.get("raw") if isinstance(stem, dict) else None
        for entry in [stem, *(raw.values() if isinstance(raw, dict) else ())]:
            if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
                instrument = entry.get("instrument") or ""
                found[entry["filename"]] = instrument[0] if isinstance(instrument, list) else str(instrument)
    return found


_YAML_LINE = re.compile(r"^( *)(- +)?(?:([^\s:#'\"][^:]*|'[^']*'|\"[^\"]*\"):(?: +|$))?(.*)$")


def _section(path: Path) -> dict[str, Any]:
    """Nested mappings, lists of texts and texts, which is what MedleyDB uses of YAML."""
    root: dict[str, Any] = {}
    # Open mappings with their indentation, and the place where a list would begin.
    levels: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    last: tuple[dict[str, Any], str] | None = None
    for number, line in enumerate(_text(path).splitlines(), start=1):
        match = _YAML_LINE.match(line.rstrip())
        if not line.strip() or line.lstrip().startswith("#") or line.strip() in ("---", "..."):
            continue
        if match is None or "\t" in line[: len(line) - len(line.lstrip())]:
            raise ValueError(f"{path}, line {number}: is not the YAML of MedleyDB")
        indent, item, key, value = len(match[1]), match[2], match[3], match[4].strip().strip("'\"")
        if item and key is None:
            if last is None:
                raise ValueError(f"{path}, line {number}: is not the YAML of MedleyDB")
            holder, name = last
            holder[name] = [*(holder[name] if isinstance(holder[name], list) else []), value]
        elif key is not None and not item:
            while levels[-1][0] >= indent:
                levels.pop()
            holder, name = levels[-1][1], key.strip().strip("'\"")
            last = holder, name
            if value and value != "{}":
                holder[name] = value
            else:
                holder[name] = {}
                levels.append((indent, holder[name]))
        # Other lines continue a text, which none of what is wanted does.
    return root


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _moisesdb(root: Path, recognised: Callable[[str], str]) -> Iterator[Song]:
    for folder in _two_levels(root):
        if not (folder / "data.json").is_file():
            continue
        path = folder / "data.json"
        try:
            data = json.loads(_text(path))
            named = []
            for stem in data["stems"]:
                for track in stem["tracks"]:
                    file = folder / stem["stemName"] / f"{track['id']}.{track['extension']}"
                    own = recognised(str(track["trackType"]).replace("_", " "))
                    # "other_sounds" of the keys are keys still.
                    instrument = own if own != "other" else recognised(str(stem["stemName"]))
                    named.append((str(track["trackType"]), instrument, file))
            title = f"{data.get('artist', '')} - {data.get('song', '')}".strip(" -")
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: is not a description of MoisesDB ({type(error).__name__}: {error})") from error
        if named:
            yield Song(f"{title} ({folder.name})" if title else folder.name, _tracks(named))


def _enst_drums(root: Path, recognised: Callable[[str], str]) -> Iterator[Song]:
    for audio in sorted(root.glob("drummer_*/audio")):
        drummer = audio.parent.name
        mixes = {path.name: path for kind in ("dry_mix", "wet_mix") for path in _files(audio / kind)}
        takes: dict[str, list[tuple[str, str, Path]]] = {}
        for microphone in _folders(audio):
            if microphone.name not in ("dry_mix", "wet_mix", "accompaniment"):
                for path in _files(microphone):
                    takes.setdefault(path.name, []).append((microphone.name, recognised(microphone.name), path))
        for name, named in takes.items():
            yield Song(f"{drummer}/{Path(name).stem}", _tracks(named), mixes.get(name), drummer)


_LAYOUTS: dict[str, _Reader] = {
    "plain": _plain,
    "musdb18": _musdb18,
    "medleydb": _medleydb,
    "medleydb-raw": _medleydb_raw,
    "moisesdb": _moisesdb,
    "enst-drums": _enst_drums,
}
_AUTOMATIC = ("enst-drums", "musdb18", "moisesdb", "medleydb", "plain")

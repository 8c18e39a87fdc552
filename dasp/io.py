"""Audio files: reading and writing, whole and in blocks, resampling, outputs that are whole or not there, stems."""

from __future__ import annotations

import errno
import math
import os
import re
import secrets
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import scipy
import soundfile
import torch
from torch import Tensor

from dasp._checks import check_audio, check_sample_rate, shape_text

__all__ = [
    "Audio",
    "AudioFileError",
    "Format",
    "OutputExistsError",
    "TrackReader",
    "Tracks",
    "atomic",
    "find_stems",
    "inspect",
    "load",
    "load_excerpt",
    "load_tracks",
    "resample",
    "save",
    "writer",
]

Notify = Callable[[str], None]

# What libsndfile reads well; its parsers of rarer formats have had memory errors.
_READABLE = frozenset({"WAV", "WAVEX", "W64", "RF64", "FLAC", "AIFF", "OGG", "MP3"})
_SUFFIXES = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".w64": "W64",
    ".rf64": "RF64",
    ".flac": "FLAC",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
}
_DEFAULT_SUBTYPES = {"FLAC": "PCM_24", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
_MAX_CHANNELS = 64
_MAX_SAMPLE_RATE = 384_000
_MAX_NAME = 120
# What a disk says that is full or breaks while a file is open.
_OF_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
# Samples that are read at once where the caller does not care.
_READ = 2**20
# Samples of a file that are resampled at once, many more than its filter reaches at usual rates.
_RESAMPLED = 2**16
# Samples that are written at once: libsndfile 1.2 keeps all that it is given on the stack when it encodes Vorbis.
_WRITTEN = 2**16
# Their headers count bytes in 32 bits.
_MAX_BYTES = {"WAV": 2**32 - 1, "AIFF": 2**32 - 1}


class AudioFileError(ValueError):
    """An audio file cannot be used; the text is one line that names the file and says why."""


class OutputExistsError(FileExistsError):
    """An output file exists already and was not to be replaced; the text names it."""


class Audio(NamedTuple):
    """What a file holds: samples (channels, samples) in float32, and the sample rate in Hz."""

    samples: Tensor
    sample_rate: int


class Format(NamedTuple):
    """What the header of a file says: number of channels, samples of each, and sample rate in Hz."""

    channels: int
    samples: int
    sample_rate: int


class Tracks(NamedTuple):
    """Stems of one length and sample rate: each (channels, samples) with one or two channels."""

    names: list[str]
    tracks: list[Tensor]
    sample_rate: int


def _ignore(notice: str) -> None:
    """What is notified if nobody listens."""


def _shown(path: Path) -> str:
    """The path as one printable line."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def load(path: str | os.PathLike[str], notify: Notify = _ignore) -> Audio:
    """Reads a WAV, W64, RF64, FLAC, AIFF, OGG (Vorbis, Opus) or MP3 file.

    Args:
        path: The file. Its content decides the format, not its suffix.
        notify: Is told when the file is shorter than its header says.

    Returns:
        Samples (channels, samples) as float32, full scale at 1, and the sample rate in Hz.

    Raises:
        AudioFileError: If the file is missing, no regular file, not readable, of another format or damaged; if it has
            no samples, more than 64 channels, a sample rate above 384 kHz, or samples that are NaN or infinite.
    """
    path = Path(path)
    with _open(path) as file:
        blocks = list(_read(file, path, _READ, notify))
        return Audio(blocks[0] if len(blocks) == 1 else torch.cat(blocks, -1), file.samplerate)


def inspect(path: str | os.PathLike[str]) -> Format:
    """Reads the header of an audio file.

    Args:
        path: The file, see `load`.

    Raises:
        AudioFileError: If the file is missing, not readable, or of a format that `load` does not read.
    """
    with _open(Path(path)) as file:
        return Format(file.channels, file.frames, file.samplerate)


def load_excerpt(path: str | os.PathLike[str], start: int, samples: int, sample_rate: int | None = None) -> Tensor:
    """Reads a part of a file, and no more of it than the part takes.

    Args:
        path: The file, see `load`.
        start: First sample, counted at `sample_rate`.
        samples: Number of samples at that rate; what lies after the end of the file is silent.
        sample_rate: Sample rate in Hz to bring it to, by default the file's.

    Returns:
        Audio (channels, samples) in float32, equal to that part of the whole file resampled.

    Raises:
        AudioFileError: If the file cannot be read, or the part has samples that are NaN or infinite.
        TypeError: If sample_rate is not a whole number.
        ValueError: If start or samples is negative, or sample_rate is not positive.
    """
    path = Path(path)
    if start < 0 or samples < 0:
        raise ValueError(f"load_excerpt: start, samples are {start}, {samples}, expected 0 or more")
    with _open(path) as file:
        target = file.samplerate if sample_rate is None else sample_rate
        _check_whole_rate("load_excerpt", target)
        ratio = Fraction(int(target), file.samplerate)
        up, down = ratio.numerator, ratio.denominator
        # Samples of the file before and after the part that the filter reaches.
        context = (
            0 if ratio == 1 else math.ceil(Fraction(len(_resampling_filter(max(up, down))) // 2, up * down)) * down
        )
        # The filter has the phase that it has from the beginning of the file at multiples of the decimation.
        first = max(0, start * down // up // down * down - context)
        end = min(file.frames, math.ceil(Fraction((start + samples) * down, up)) + context)
        frames = np.zeros((0, file.channels), np.float32)
        if first < end:
            with _refused(_shown(path)):
                file.seek(first)
                frames = file.read(end - first, dtype="float32", always_2d=True)
        _check_finite(_shown(path), frames, first, file.samplerate)
        x = resample(torch.from_numpy(np.ascontiguousarray(frames.T)), file.samplerate, int(target))
    skipped = start - first * up // down
    return _fitted(x[..., skipped : skipped + samples], samples)


@contextmanager
def _refused(shown: str) -> Iterator[None]:
    """Errors of reading as such of the file."""
    try:
        yield
    except AudioFileError:
        raise
    except FileNotFoundError as error:
        raise AudioFileError(f"{shown}: does not exist") from error
    except soundfile.LibsndfileError as error:
        raise AudioFileError(f"{shown}: not a readable audio file ({_reason(error)})") from error
    except (OSError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise AudioFileError(f"{shown}: cannot be read ({reason})") from error


def _open(path: Path) -> soundfile.SoundFile:
    """The file, open, with a header that can be used."""
    shown = _shown(path)
    with _refused(shown), ExitStack() as opened:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise AudioFileError(f"{shown}: is {'a directory' if stat.S_ISDIR(mode) else 'no regular file'}")
        file = opened.enter_context(soundfile.SoundFile(_native(path)))
        _check_header(shown, file)
        opened.pop_all()
    return file


def _native(path: Path) -> str | bytes:
    """The path as libsndfile takes it: absolute, since "-" is the standard input, and with bytes that are no text."""
    absolute = os.path.abspath(path)
    return absolute if sys.platform == "win32" else os.fsencode(absolute)


def _read(file: soundfile.SoundFile, path: Path, size: int, notify: Notify) -> Iterator[Tensor]:
    """All there is, (channels, size) at a time: a header that promises too much reserves no memory."""
    shown, position = _shown(path), 0
    if file.tell():
        file.seek(0)
    while True:
        with _refused(shown):
            samples = file.read(size, dtype="float32", always_2d=True)
        _check_finite(shown, samples, position, file.samplerate)
        position += len(samples)
        if len(samples):
            yield torch.from_numpy(np.ascontiguousarray(samples.T))
        if len(samples) < size:
            break
    if position == 0:
        raise AudioFileError(f"{shown}: has no samples")
    with _refused(shown):
        truncated = position < file.frames or path.stat().st_size < _declared_bytes(path)
    if truncated:
        notify(f"{shown}: is truncated, read the {position / file.samplerate:.2f} s that are there")


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).removeprefix("Error :").strip().rstrip(".")


def _check_header(shown: str, file: soundfile.SoundFile) -> None:
    if file.format not in _READABLE:
        raise AudioFileError(f"{shown}: is a {file.format} file, expected WAV, W64, RF64, FLAC, AIFF, OGG or MP3")
    if file.channels > _MAX_CHANNELS:
        raise AudioFileError(f"{shown}: has {file.channels} channels, expected at most {_MAX_CHANNELS}")
    if file.samplerate > _MAX_SAMPLE_RATE:
        raise AudioFileError(f"{shown}: has a sample rate of {file.samplerate} Hz, expected at most {_MAX_SAMPLE_RATE}")


def _declared_bytes(path: Path) -> int:
    """Length of the file as its RIFF, RF64, W64 or AIFF header has it; 0 if it has none or leaves it open."""
    with path.open("rb") as raw:
        head = raw.read(32).ljust(32, b"\0")
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        # Programs that write to a pipe leave 0 or the largest number here.
        return 0 if size in (0, 2**32 - 1) else size + 8
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return int.from_bytes(head[20:28], "little") + 8
    if head[:4] == b"riff":
        return int.from_bytes(head[16:24], "little")
    return 0


def _check_finite(shown: str, samples: np.ndarray, position: int, sample_rate: int) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        frame, channel = np.unravel_index(int(finite.argmin()), finite.shape)
        kind, place = "NaN" if np.isnan(samples[frame, channel]) else "infinite", position + frame
        raise AudioFileError(
            f"{shown}: sample {place} ({place / sample_rate:.3f} s) of channel {channel + 1} is {kind}, "
            f"expected finite numbers"
        )


@lru_cache(maxsize=8)
def _resampling_filter(largest: int) -> np.ndarray:
    """Low-pass at 1/largest of Nyquist: 120 dB down there, flat up to 92 % of it (20.3 kHz of 22.05)."""
    width = 0.08
    taps, beta = scipy.signal.kaiserord(125.0, width / largest)
    return np.asarray(scipy.signal.firwin(taps | 1, (1 - width / 2) / largest, window=("kaiser", beta)))


def _check_whole_rate(name: str, sample_rate: float) -> None:
    check_sample_rate(name, sample_rate)
    if sample_rate != int(sample_rate):
        raise TypeError(f"{name}: a sample rate is {sample_rate}, expected a whole number of Hz")


def resample(x: Tensor, sample_rate: int, target: int) -> Tensor:
    """Changes the sample rate by a polyphase filter with a Kaiser window, in float64.

    Args:
        x: Audio (*batch, channels, samples), without gradient.
        sample_rate: Sample rate of x in Hz, a whole number.
        target: Sample rate of the result in Hz, a whole number.

    Returns:
        Audio (*batch, channels, ceil(samples * target / sample_rate)), with errors and images 110 dB down and no delay;
        x itself if the rates are equal. What lies above 92 % of the lower Nyquist frequency fades.

    Raises:
        TypeError: If x is not floating-point audio or a rate is not a whole number.
        ValueError: If the shape is not that of audio or a rate is not positive.
    """
    check_audio("resample", x)
    for rate in (sample_rate, target):
        _check_whole_rate("resample", rate)
    if sample_rate == target or x.numel() == 0:
        shape = (*x.shape[:-1], math.ceil(Fraction(x.shape[-1] * int(target), int(sample_rate))))
        return x if sample_rate == target else x.new_zeros(shape)
    ratio = Fraction(int(target), int(sample_rate))
    taps = _resampling_filter(max(ratio.numerator, ratio.denominator))
    samples = x.cpu().double().numpy()
    # The stubs of scipy do not know that the window may be a filter.
    resample_poly: Callable[..., np.ndarray] = scipy.signal.resample_poly
    return torch.from_numpy(resample_poly(samples, ratio.numerator, ratio.denominator, axis=-1, window=taps)).to(x)


def _resampled(blocks: Iterable[Tensor], sample_rate: int, target: int) -> Iterator[Tensor]:
    """What `resample` gives of the audio that blocks are together, in blocks of other lengths.

    Each call of it gets the samples before and after a block that its filter reaches.  It begins at a multiple of the
    decimation, where the filter has the same phase as at the beginning of the whole.
    """
    ratio = Fraction(target, sample_rate)
    up, down = ratio.numerator, ratio.denominator
    context = math.ceil(Fraction(len(_resampling_filter(max(up, down))) // 2, up * down)) * down
    held: Tensor | None = None
    # Samples of what is held whose result is out.
    done = 0
    for block in blocks:
        held = block if held is None else torch.cat([held, block], -1)
        known = (held.shape[-1] - context) // down * down
        if known > done:
            yield resample(held, sample_rate, target)[..., done * up // down : known * up // down]
            begin = max(0, known - context)
            held, done = held[..., begin:], known - begin
    if held is not None:
        yield resample(held, sample_rate, target)[..., done * up // down :]


def _regrouped(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same audio in blocks of one size, the last of which may be shorter."""
    held: Tensor | None = None
    for block in blocks:
        parts = (block if held is None else torch.cat([held, block], -1)).split(size, -1)
        whole = len(parts) if parts[-1].shape[-1] == size else len(parts) - 1
        yield from parts[:whole]
        held = parts[whole] if whole < len(parts) else None
    if held is not None:
        yield held


@contextmanager
def atomic(path: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Gives a temporary path in the same folder and moves it to `path` when the block ends without an exception.

    After any exception, KeyboardInterrupt too, the temporary file is gone and `path` is as it was.

    Args:
        path: The output. A symbolic link is written through.
        force: Replace an output that exists.

    Yields:
        Path of an empty file with the suffix of the output, to be written.

    Raises:
        OutputExistsError: If the output exists and force is not set, or it is no regular file.
        OSError: If the folder cannot be written, or the disk is full; its text names the output.

    Example:
        >>> with atomic("report.json", force=True) as temporary:  # doctest: +SKIP
        ...     temporary.write_text("{}")
    """
    target = Path(os.path.realpath(path))
    _check_output(path, target, force)
    temporary = target.with_name(f".{os.getpid()}-{secrets.token_hex(8)}{target.suffix[:16]}")
    try:
        temporary.touch(exist_ok=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "its folder does not exist", str(path)) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield temporary
        _check_output(path, target, force)
        temporary.replace(target)
    except OSError as error:
        # A file that is open does not know its name, and nobody else knows that of this one.
        if str(error.filename) == str(temporary) or (error.filename is None and error.errno in _OF_DISK):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Makes a folder, and takes it away again, with those made around it, if it is empty in the end."""
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in made:
            # What has a file in it stays.
            with suppress(OSError):
                place.rmdir()


def _check_output(path: str | os.PathLike[str], target: Path, force: bool) -> None:
    shown = _shown(Path(path))
    if target.exists() and not target.is_file():
        raise OutputExistsError(f"{shown}: exists and is not a regular file")
    if target.exists() and not force:
        raise OutputExistsError(f"{shown}: exists already, use force to replace it")


def save(
    path: str | os.PathLike[str],
    x: Tensor,
    sample_rate: int,
    subtype: str | None = None,
    force: bool = False,
    notify: Notify = _ignore,
) -> None:
    """Writes an audio file, whole or not at all.

    Args:
        path: The file; its suffix is the format: .wav, .w64, .rf64, .flac, .aiff, .ogg, .opus or .mp3.
        x: Audio (channels, samples).
        sample_rate: In Hz, a whole number.
        subtype: Name of the sample format in libsndfile, such as "PCM_16"; by default "FLOAT" where the format has it,
            "PCM_24" in FLAC, and the codec's own elsewhere.
        force: Replace a file that exists.
        notify: Is told when samples beyond full scale were clipped, which integer formats do.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If x is not (channels, samples) or not finite, or the suffix, the subtype or the sample rate does
            not go with the format.
        OutputExistsError: If the file exists and force is not set.
        OSError: If it cannot be written.
    """
    check_audio("save", x)
    _check_whole_rate("save", sample_rate)
    if x.ndim != 2:
        raise ValueError(f"save: x has shape {shape_text(x.shape)}, expected (channels, samples)")
    with writer(path, x.shape[0], sample_rate, subtype, force, notify) as write:
        write(x)


def encoded(x: Tensor, sample_rate: int, kind: str) -> bytes:
    """Audio (channels, samples) as what a file of a format of libsndfile holds, such as "MP3" or "FLAC"."""
    file = BytesIO()
    soundfile.write(file, x.T.numpy(), sample_rate, format=kind)
    return file.getvalue()


@contextmanager
def writer(
    path: str | os.PathLike[str],
    channels: int,
    sample_rate: int,
    subtype: str | None = None,
    force: bool = False,
    notify: Notify = _ignore,
) -> Iterator[Callable[[Tensor], None]]:
    """Gives a function that appends blocks of audio to a file, which is there when all of them are written.

    After any exception, KeyboardInterrupt too, `path` is as it was; see `atomic`.

    Args:
        path: The file, see `save`.
        channels: Number of channels.
        sample_rate: In Hz, a whole number.
        subtype: See `save`.
        force: Replace a file that exists.
        notify: Is told at the end when samples beyond full scale were clipped.

    Yields:
        A function of a block (channels, samples).  It raises TypeError if that is not floating-point audio, ValueError
        if it has other channels, is not finite, or makes a WAV or AIFF file longer than 4 GiB, and OSError if it cannot
        be written.

    Raises:
        ValueError: If the suffix, the subtype, the sample rate or the channels do not go with the format.
        OutputExistsError: If the file exists and force is not set.
        OSError: If it cannot be written.

    Example:
        >>> with writer("long.flac", 2, 44100) as write:  # doctest: +SKIP
        ...     for block in blocks:
        ...         write(block)
    """
    path = Path(path)
    shown = _shown(path)
    _check_whole_rate("writer", sample_rate)
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{shown}: has no suffix of an audio format, expected one of {', '.join(sorted(_SUFFIXES))}")
    subtype = subtype or ("OPUS" if path.suffix.lower() == ".opus" else _DEFAULT_SUBTYPES.get(kind, "FLOAT"))
    if not soundfile.check_format(kind, subtype):
        choices = ", ".join(soundfile.available_subtypes(kind))
        raise ValueError(f"{shown}: subtype is {subtype!r}, expected one of {choices}")
    with atomic(path, force) as temporary:
        try:
            file = soundfile.SoundFile(_native(temporary), "w", int(sample_rate), channels, subtype, format=kind)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{shown}: cannot be written as {kind} {subtype} ({_reason(error)})") from error
        output = _Output(shown, temporary, file, _MAX_BYTES.get(kind))
        try:
            yield output.write
        finally:
            output.close()
        if subtype in ("FLOAT", "DOUBLE"):
            _clear_time(temporary)
    if output.clipped and subtype.startswith("PCM"):
        peak_db = 20 * math.log10(output.peak)
        notify(f"{shown}: {output.clipped} of {output.count} samples clipped, the peak was {peak_db:+.1f} dBFS")


class _Output:
    """A file that is being written, and what is known of its samples."""

    def __init__(self, shown: str, path: Path, file: soundfile.SoundFile, most_bytes: int | None) -> None:
        self.count, self.clipped, self.peak = 0, 0, 0.0
        self._shown, self._path, self._file, self._most_bytes = shown, path, file, most_bytes

    def write(self, x: Tensor) -> None:
        check_audio("writer", x, argument="block")
        if x.ndim != 2 or x.shape[0] != self._file.channels:
            expected = f"({self._file.channels}, samples)"
            raise ValueError(f"writer: block has shape {shape_text(x.shape)}, expected {expected}")
        for part in x.detach().split(_WRITTEN, -1) if x.shape[-1] else ():
            samples = part.cpu().double().numpy().T
            largest = np.abs(samples)
            if not np.isfinite(largest).all():
                raise ValueError(f"{self._shown}: not written, the audio has NaN or infinite samples")
            self.count += samples.size
            self.clipped += int((largest > 1).sum())
            self.peak = max(self.peak, float(largest.max()))
            with self._named():
                self._file.write(samples)
        if self._most_bytes is not None and self._path.stat().st_size > self._most_bytes:
            raise ValueError(
                f"{self._shown}: not written, it gets too long for its format, which .w64 and .rf64 do not"
            )

    def close(self) -> None:
        with self._named():
            self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError) as error:
            raise OSError(f"{self._shown}: cannot be written ({str(error) or 'is the disk full?'})") from error


def _clear_time(path: Path) -> None:
    """Clears the time of writing, which libsndfile puts into the PEAK chunk, so that equal audio gives equal files."""
    with path.open("r+b") as file:
        begin = file.read(4096).find(b"PEAK")
        if begin >= 0:
            # Identifier, size and version stand before it, four bytes each.
            file.seek(begin + 12)
            file.write(bytes(4))


def find_stems(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """Lists the audio files to mix, with the names of their tracks.

    Args:
        paths: A folder, a file, or several. Of a folder, the audio files directly in it are taken, by suffix, sorted
            with numbers in order of value and without hidden files. Files that are named are taken as they are.

    Returns:
        Pairs of a name and a path, in the order of the arguments, each file once. The name is that of the file without
        suffix, in one line of at most 120 printable characters; equal names (in small letters) are numbered.

    Raises:
        AudioFileError: If a path does not exist, a folder cannot be read, or no audio file is found.
    """
    places = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    files = [file for place in places for file in _audio_files(place)]
    if not files:
        shown = ", ".join(map(_shown, places)) or "(no path)"
        raise AudioFileError(f"{shown}: no audio files, expected some with {', '.join(sorted(_SUFFIXES))}")
    unique: dict[str, Path] = {}
    for file in files:
        unique.setdefault(os.path.realpath(file), file)
    stems = list(unique.values())
    return list(zip(_track_names(stems), stems, strict=True))


def _audio_files(place: Path) -> list[Path]:
    try:
        if not place.is_dir():
            if not place.exists():
                raise AudioFileError(f"{_shown(place)}: does not exist")
            return [place]
        found = [file for file in place.iterdir() if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise AudioFileError(f"{_shown(place)}: cannot be read ({error.strerror})") from error
    return sorted((file for file in found if file.suffix.lower() in _SUFFIXES), key=_by_number)


def _by_number(file: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", file.name.casefold())
    # Text and numbers alternate, so that only like is compared with like.
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], file.name


def _track_names(files: Sequence[Path]) -> list[str]:
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        # In UTF-8 whatever the locale, so that settings name the same tracks in all of them.
        text = unicodedata.normalize("NFC", os.fsencode(file.stem).decode("utf-8", "surrogateescape"))
        base = "".join(c if c.isprintable() else "_" for c in text).strip()[:_MAX_NAME] or "track"
        name, number = base, 1
        while name.casefold() in taken:
            number += 1
            name = f"{base} {number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def load_tracks(
    stems: Iterable[tuple[str, str | os.PathLike[str]]],
    sample_rate: int | None = None,
    length: int | None = None,
    notify: Notify = _ignore,
) -> Tracks:
    """Reads stems and brings them to one sample rate and length.

    Args:
        stems: Names and paths, as `find_stems` gives them.
        sample_rate: Sample rate in Hz to bring them to; by default the one that most of them have.
        length: Samples, at that rate, to cut or pad with zeros at the end; by default the longest stem's.
        notify: Is told of each stem that is resampled, cut or padded, and of files shorter than their headers say.

    Returns:
        Names, tracks (channels, samples) of one or two channels each, and the sample rate.

    Raises:
        AudioFileError: If there is no stem, one cannot be read, or one has more than two channels.
    """
    with TrackReader(stems, sample_rate, notify) as reader:
        tracks = [blocks[0] if len(blocks) == 1 else torch.cat(blocks, -1) for blocks in map(list, reader._each(_READ))]
    end = max(track.shape[-1] for track in tracks) if length is None else length
    reader._notify_lengths([track.shape[-1] for track in tracks], end)
    return Tracks(reader.names, [_fitted(track, end) for track in tracks], reader.sample_rate)


def _fitted(track: Tensor, length: int) -> Tensor:
    """Cut, or silent at the end."""
    return track if track.shape[-1] == length else torch.nn.functional.pad(track, (0, length - track.shape[-1]))


class TrackReader:
    """Stems read in blocks, at one sample rate, in memory that does not depend on their length.

    It keeps the files open, and closes them as a context manager.

    Args:
        stems: Names and paths, as `find_stems` gives them.
        sample_rate: Sample rate in Hz to bring them to; by default the one that most of them have.
        notify: Is told of each stem that is resampled or padded, and of files shorter than their headers say.

    Attributes:
        names: Names of the tracks.
        sample_rate: Sample rate in Hz.
        samples: Length of the longest stem at that rate, as its header has it.

    Raises:
        AudioFileError: If there is no stem, one cannot be read, or one has more than two channels.

    Example:
        >>> with TrackReader(find_stems("stems")) as reader:  # doctest: +SKIP
        ...     for tracks in reader.blocks(131072):
        ...         print([track.shape for track in tracks])
    """

    def __init__(
        self,
        stems: Iterable[tuple[str, str | os.PathLike[str]]],
        sample_rate: int | None = None,
        notify: Notify = _ignore,
    ) -> None:
        pairs = [(name, Path(path)) for name, path in stems]
        if not pairs:
            raise AudioFileError("no stems to load")
        self.names, self._paths = [name for name, _ in pairs], [path for _, path in pairs]
        self._notify = notify
        with ExitStack() as opened:
            self._files: list[Any] = []
            for path in self._paths:
                file = opened.enter_context(_open(path))
                if file.channels > 2:
                    raise AudioFileError(
                        f"{_shown(path)}: has {file.channels} channels, expected a mono or stereo stem"
                    )
                self._files.append(file)
            self._opened = opened.pop_all()
        self.sample_rate = sample_rate or Counter(file.samplerate for file in self._files).most_common(1)[0][0]
        self._lengths = [math.ceil(Fraction(f.frames * self.sample_rate, f.samplerate)) for f in self._files]
        self.samples = max(self._lengths)
        for path, file in zip(self._paths, self._files, strict=True):
            if file.samplerate != self.sample_rate:
                notify(f"{_shown(path)}: resampled from {file.samplerate} to {self.sample_rate} Hz")

    def __enter__(self) -> TrackReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._opened.close()

    def blocks(self, size: int) -> Iterator[list[Tensor]]:
        """Reads all stems side by side, from the beginning.

        Args:
            size: Samples of a block, at least 1; the last block may be shorter.

        Yields:
            A block of each stem, (channels, samples) in float32, all of one length; silence after the end of a stem.

        Raises:
            AudioFileError: If a file cannot be read, has no samples, or samples that are NaN or infinite.
            ValueError: If size is less than 1.
        """
        if size < 1:
            raise ValueError(f"TrackReader: size is {size}, expected at least 1")
        self._notify_lengths(self._lengths, self.samples)
        for parts in zip_longest(*self._each(size)):
            length = max(part.shape[-1] for part in parts if part is not None)
            yield [
                torch.zeros(file.channels, length) if part is None else _fitted(part, length)
                for file, part in zip(self._files, parts, strict=True)
            ]

    def _each(self, size: int) -> list[Iterator[Tensor]]:
        """The blocks of each stem at the common rate, as long as it lasts."""
        streams = []
        for path, file in zip(self._paths, self._files, strict=True):
            if file.samplerate == self.sample_rate:
                streams.append(_read(file, path, size, self._notify))
            else:
                blocks = _read(file, path, _RESAMPLED, self._notify)
                streams.append(_regrouped(_resampled(blocks, file.samplerate, self.sample_rate), size))
        return streams

    def _notify_lengths(self, lengths: Sequence[int], end: int) -> None:
        for path, have in zip(self._paths, lengths, strict=True):
            if have != end:
                change, rate = "padded" if have < end else "cut", self.sample_rate
                self._notify(f"{_shown(path)}: {change} from {have / rate:.2f} to {end / rate:.2f} s")

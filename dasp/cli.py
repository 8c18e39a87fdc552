"""The `dasp` command: fit a console to a reference mix, mix with a controller or settings, train controllers."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import StringIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import NoReturn

import torch
from torch import Tensor

import dasp
import dasp.modules as M
from dasp import interchange, io
from dasp._spec import State
from dasp.mixing import settings as settings_format
from dasp.mixing.alignment import find_offset, shifted
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.constraints import Constraints
from dasp.mixing.controllers import Controller
from dasp.mixing.controls import Values
from dasp.mixing.deconvolution import noise_reverbs
from dasp.mixing.demo import Demo
from dasp.mixing.demo import make as make_demo
from dasp.mixing.excerpts import choose_excerpts
from dasp.mixing.fitting import FitResult, Progress, fit
from dasp.mixing.presets import DEFAULT_LOCKED, named_strip
from dasp.mixing.recipe import Recipe
from dasp.mixing.reporting import LONGEST_S, report
from dasp.mixing.summary import summarize
from dasp.mixing.training import OUTPUTS as _TRAINED
from dasp.mixing.training import STATE, train

_REPORT = "report.html"
_MIX_OUTPUTS = ("mix.wav", "settings.json", _REPORT)
_ROOM = "reverb.wav"
_HIDDEN = "hidden_settings.json"
_DEFAULT_DEMO_OUTPUT = "dasp-demo"
# What a shell gives for a program that a signal has ended.
_SIGNALLED = 128
_INTERRUPTED = _SIGNALLED + signal.SIGINT
_BROKEN_PIPE = 141
_ENDINGS = ("SIGTERM", "SIGHUP")
_STEPS, _DEMO_STEPS = 60, 100
# Samples that are mixed at once.  Shorter blocks make the impulse response of each reverberation more often: half of
# this takes 15 % more time, an eighth three times as much.  Longer ones gain nothing and take memory.
_BLOCK = 2**17
# The summary measures compressors on so much of the song.
_SUMMARY_S = 20.0
# A controller hears as many blocks of each track, the loudest in a row: 12 s at 44.1 kHz.
_HEARD = 4
# Shorter mixes are done before a bar is worth its line.
_LONG_S = 60.0
_PROJECTS = ("reaper", "dawproject")
_FAUST = "faust"
_EQUALIZERS: dict[str, Callable[[interchange.Equalizer, str], str]] = {
    "eqapo": interchange.to_eqapo,
    "camilladsp": interchange.to_camilladsp,
    "ffmpeg": lambda eq, _: interchange.to_ffmpeg(eq) + "\n",
    "sox": lambda eq, _: interchange.to_sox(eq) + "\n",
    "sos": lambda eq, _: interchange.to_sos_json(eq),
}


class CommandError(Exception):
    """Something the user can put right; the text is one line."""


class _Interrupted(KeyboardInterrupt):
    """An interrupt after which something is left; the text says what."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    That is 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP, 141 where nobody
    reads the output any more.
    """
    _prepare_streams()
    with _ending() as signals:
        try:
            code = _run(arguments)
        except KeyboardInterrupt as interrupt:
            print(f"dasp: interrupted, {_one_line(interrupt, 'nothing written')}", file=sys.stderr)
            code = _INTERRUPTED
        except BrokenPipeError:
            code = _BROKEN_PIPE
    return _SIGNALLED + signals[0] if signals and code == _INTERRUPTED else code


def _run(arguments: Sequence[str] | None) -> int:
    debug = False
    try:
        try:
            parsed = _parser().parse_args(arguments)
            debug = parsed.debug
            return int(parsed.run(parsed))
        finally:
            _flush()
    except BrokenPipeError:
        raise
    except (CommandError, ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        if debug:
            raise
        print(f"dasp: {_one_line(error)}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        # What torch says of memory that it does not get; all else is a defect, of which the traceback tells.
        if debug or "allocate" not in str(error):
            raise
        print(f"dasp: not enough memory ({_one_line(error)[:200]})", file=sys.stderr)
        return 1


def _prepare_streams() -> None:
    """Lets any name be printed in any encoding, and everything where a program has no standard streams."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, StringIO())
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left would be tried again, and complained of, when the program ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise OSError(error.errno, error.strerror, "standard output") from error


@contextmanager
def _ending() -> Iterator[list[int]]:
    """Makes signals that end a program interrupts, so that it removes its temporary files; gives those that came."""
    came: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in _ENDINGS if hasattr(signal, name)]
    here = threading.current_thread() is threading.main_thread()
    taken = [number for number in numbers if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _one_line(error: BaseException, otherwise: str = "") -> str:
    text = str(error) or otherwise or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    """Text without what would move a cursor or turn the direction of writing."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dasp", description="Differentiable audio signal processing for PyTorch.")
    parser.add_argument("--version", action="version", version=f"dasp {dasp.__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    found = commands.add_parser(
        "fit",
        help="find the console settings that reproduce a mix",
        description="Finds the settings of a mixing console with which STEMS become the reference mix, and writes "
        "mix.wav, settings.json, report.html and, with an impulse response, reverb.wav; prints what it found.",
    )
    found.add_argument("stems", nargs="*", type=_path, metavar="STEMS", help="a folder of audio files, or the files")
    found.add_argument("--reference", type=_path, metavar="FILE", help="the mix to reproduce")
    found.add_argument("--output", type=_path, metavar="FOLDER", help="where to write; made if it does not exist")
    found.add_argument("--demo", action="store_true", help="fit a synthetic multitrack mixed with hidden settings")
    found.add_argument("--steps", type=_count, metavar="N", help=f"steps of gradient descent (default {_STEPS})")
    found.add_argument("--seed", type=_count, default=0, metavar="N", help="seed of the choice of excerpts (default 0)")
    found.add_argument(
        "--reverb",
        choices=("impulse", "noise"),
        default="impulse",
        help="what the reverb bus is: an impulse response that is found for it (default), or noise with decays",
    )
    found.add_argument(
        "--strip",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="NAMES",
        help="processors of a track in their order, such as eq,comp,pan (default eq,comp,gain,pan)",
    )
    found.add_argument(
        "--align", action="store_true", help="shift the stems if the reference is found to be late or early"
    )
    found.add_argument(
        "--lock",
        type=_lock,
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="keep a control at a value, or at its default: kick.pan=0, 'track.compressor.*'; may be given again",
    )
    found.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="NAME=LOW..HIGH",
        help="keep a control within limits: track.gain_db=-20..6; may be given again",
    )
    found.set_defaults(run=_fit)

    rendered = commands.add_parser(
        "render",
        help="mix stems with settings that a fit has written",
        description="Mixes STEMS with the settings of a settings.json.",
    )
    rendered.add_argument("settings", type=_path, metavar="SETTINGS", help="a settings.json")
    rendered.add_argument("stems", nargs="+", type=_path, metavar="STEMS", help="a folder of audio files, or the files")
    rendered.add_argument(
        "--output", required=True, type=_path, metavar="FILE", help="the mix to write; its suffix is the format"
    )
    rendered.set_defaults(run=_render)

    mixed = commands.add_parser(
        "mix",
        help="mix stems with a trained controller",
        description="Mixes STEMS with settings that a trained network finds, and writes mix.wav, settings.json and "
        "report.html.",
    )
    mixed.add_argument("stems", nargs="+", type=_path, metavar="STEMS", help="a folder of audio files, or the files")
    mixed.add_argument("--reference", type=_path, metavar="FILE", help="a mix that this one should be like")
    mixed.add_argument("--model", type=_path, metavar="FILE", help="a controller.safetensors (default: that of dasp)")
    mixed.add_argument(
        "--output", required=True, type=_path, metavar="FOLDER", help="where to write; made if it does not exist"
    )
    mixed.set_defaults(run=_mix)

    trained = commands.add_parser(
        "train",
        help="train a controller",
        description="Trains a controller by the recipe in CONFIG, and writes controller.safetensors, and state.ckpt, "
        "from which --resume goes on.",
    )
    trained.add_argument(
        "config",
        type=_path,
        metavar="CONFIG",
        help=f"a TOML file, or a recipe of dasp: {', '.join(sorted(_recipes()))}",
    )
    trained.add_argument(
        "--output", required=True, type=_path, metavar="FOLDER", help="where to write; made if it does not exist"
    )
    trained.add_argument("--resume", action="store_true", help="go on where an earlier training was interrupted")
    trained.set_defaults(run=_train)

    exported = commands.add_parser(
        "export",
        help="write settings as a project, an effect or an equaliser of other programs",
        description="Writes a settings.json as a project of REAPER that refers to STEMS, or a DAWproject that has them "
        "in it, or one section as an effect in Faust, or its filters as text.",
    )
    exported.add_argument("settings", type=_path, metavar="SETTINGS", help="a settings.json")
    exported.add_argument(
        "stems", nargs="*", type=_path, metavar="STEMS", help="for projects: a folder of audio files, or the files"
    )
    exported.add_argument("--format", required=True, choices=(*_PROJECTS, _FAUST, *_EQUALIZERS), help="what to write")
    exported.add_argument("--output", required=True, type=_path, metavar="FILE", help="the file to write")
    exported.add_argument(
        "--section",
        metavar="NAME",
        help="for effects and equalisers: master, or the name of a track, group or bus (default master)",
    )
    exported.add_argument(
        "--effects",
        choices=("stock", "jsfx"),
        help="for REAPER: its own effects, or JSFX that do what dasp does (default stock)",
    )
    exported.set_defaults(run=_export)

    for command in (found, mixed):
        command.add_argument(
            "--report",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="write report.html, a page with players, curves and settings (default: yes)",
        )
    for command in (found, rendered, mixed, trained, exported):
        command.add_argument("--force", action="store_true", help="replace files that exist")
        command.add_argument("--quiet", action="store_true", help="print errors only")
        command.add_argument("--debug", action="store_true", help="show a traceback when something fails")

    info = commands.add_parser("info", help="versions and kernels, for bug reports")
    info.set_defaults(run=_info)
    return parser


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty, expected a file or a folder")
    return text


def _count(text: str) -> int:
    """A whole number that a generator of random numbers takes as a seed, too."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a whole number from 0 to 10^18")
    return int(text)


def _lock(text: str) -> tuple[str, float | None]:
    name, equals, value = text.rpartition("=") if "=" in text else (text, "", "")
    return name, _number(text, value, "NAME=VALUE") if equals else None


def _limit(text: str) -> tuple[str, tuple[float, float]]:
    name, _, ends = text.rpartition("=")
    low, _, high = ends.partition("..")
    return name, (_number(text, low, "NAME=LOW..HIGH"), _number(text, high, "NAME=LOW..HIGH"))


def _number(text: str, value: str, form: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected {form} with numbers") from None


def _info(_: argparse.Namespace) -> int:
    for name, value in dasp.info().items():
        print(f"{name:16} {value}")
    return 0


# ---- fit


def _fit(arguments: argparse.Namespace) -> int:
    say = _speaker(arguments.quiet)
    if arguments.demo:
        return _fit_demo(arguments, say)
    missing = [name for name in ("stems", "reference", "output") if not getattr(arguments, name)]
    if missing:
        names = {"stems": "STEMS", "reference": "--reference FILE", "output": "--output FOLDER"}
        print(f"dasp fit: {', '.join(names[m] for m in missing)} missing; see dasp fit --help", file=sys.stderr)
        return 2
    output = Path(arguments.output)
    found = io.find_stems(arguments.stems)
    inputs = [arguments.reference, *(path for _, path in found)]
    with _folder(output, (*_MIX_OUTPUTS, _ROOM), arguments.force, inputs):
        stems = io.load_tracks(found, notify=say)
        reference = _load_reference(arguments.reference, stems, say)
        _check_sounding(stems.names, stems.tracks, say)
        if not bool(reference.any()):
            raise CommandError(f"{arguments.reference}: is silent, expected a mix")
        console = _console(stems.sample_rate, arguments.strip)
        tracks = _aligned(stems, reference, arguments, say)
        length = reference.shape[-1]
        heard = [track[..., :length] for track in tracks]
        result = _run_fit(console, heard, stems.names, reference, arguments, _STEPS, say)
        _write(output, arguments.force, result, tracks, stems.names)
        with _written(output):
            if not arguments.quiet:
                _print_summary(result, tracks, stems.names)
            if arguments.report:
                parts = stems.names, heard, reference, result.losses
                _write_report(output, arguments.force, result.console, result.controls, *parts)
    say(_outcome(result, output))
    return _INTERRUPTED if result.interrupted else 0


def _check_sounding(names: Sequence[str], tracks: Sequence[Tensor], say: Callable[[str], None]) -> None:
    """Says which tracks are silent, and refuses to mix nothing."""
    silent = [name for name, track in zip(names, tracks, strict=True) if not bool(track.any())]
    if len(silent) == len(names):
        raise CommandError("every stem is silent: there is nothing to mix")
    for name in silent:
        say(f"{name}: is silent, its settings mean nothing")


def _console(sample_rate: int, strip: Sequence[str] | None) -> DifferentiableMixingConsole:
    """The default console, or one with other strips."""
    if strip is None:
        return DifferentiableMixingConsole(sample_rate)
    try:
        chain = named_strip(strip, sample_rate)
    except ValueError as error:
        raise CommandError(f"--{error}") from error
    locked = [name for name in DEFAULT_LOCKED if not name.startswith("track.") or "compressor" in chain.stages()]
    return DifferentiableMixingConsole(sample_rate, chain, locked=locked)


def _aligned(
    stems: io.Tracks, reference: Tensor, arguments: argparse.Namespace, say: Callable[[str], None]
) -> list[Tensor]:
    """The stems, shifted if that is wanted; says what does not begin with the reference."""
    rate, tracks = stems.sample_rate, list(stems.tracks)
    offset = find_offset(tracks, reference, rate)
    if offset:
        side = "late" if offset > 0 else "early"
        what = f"{arguments.reference}: is {abs(offset)} samples ({1000 * abs(offset) / rate:.1f} ms) {side}"
        if arguments.align:
            say(f"{what}: stems shifted")
            return [shifted(track, offset) for track in tracks]
        say(f"{what}, levels alone can be matched: use --align to shift the stems")
    return tracks


def _print_summary(result: FitResult, tracks: Sequence[Tensor], names: Sequence[str]) -> None:
    """What was found, a line for each track, measured where most of them play."""
    length = min(round(_SUMMARY_S * result.console.sample_rate), tracks[0].shape[-1])
    (begin,) = choose_excerpts(tracks, length, 1)
    with torch.no_grad():
        part = [track[..., begin : begin + length] for track in tracks]
        for line in summarize(result.console, result.controls, names, part):
            print(line)


def _load_reference(path: str, stems: io.Tracks, say: Callable[[str], None]) -> Tensor:
    """The reference in stereo, at the rate of the stems, no longer than they are."""
    audio = io.load(path, say)
    samples, rate = audio.samples, stems.sample_rate
    if samples.shape[0] > 2:
        raise CommandError(f"{path}: has {samples.shape[0]} channels, expected a stereo mix")
    if samples.shape[0] == 1:
        say(f"{path}: is mono, taken as both channels")
        samples = samples.expand(2, -1)
    if audio.sample_rate != rate:
        say(f"{path}: resampled from {audio.sample_rate} to {rate} Hz, the rate of the stems")
        samples = io.resample(samples, audio.sample_rate, rate)
    end = stems.tracks[0].shape[-1]
    if samples.shape[-1] != end:
        have, want = samples.shape[-1] / rate, end / rate
        what = "its end has no counterpart" if have > want else "the fit ends with it"
        say(f"{path}: lasts {have:.2f} s, the stems {want:.2f} s: {what}")
    return samples[..., :end].contiguous()


def _run_fit(
    console: DifferentiableMixingConsole,
    tracks: Sequence[Tensor],
    names: Sequence[str],
    reference: Tensor,
    arguments: argparse.Namespace,
    default_steps: int,
    say: Callable[[str], None],
) -> FitResult:
    steps = default_steps if arguments.steps is None else arguments.steps
    obey = Constraints(console, names, dict(arguments.lock), dict(arguments.limit))
    for bus in noise_reverbs(console) if arguments.reverb == "impulse" and steps else ():
        if not obey.leaves(bus):
            say(f"{bus}: has locks or limits, which an impulse response cannot obey: stays noise (--reverb noise)")
    with _progress(steps, arguments.quiet) as on_step:
        return fit(
            console,
            tracks,
            reference,
            steps=steps,
            seed=arguments.seed,
            on_step=on_step,
            constraints=obey,
            reverb=arguments.reverb,
        )


def _write(
    output: Path,
    force: bool,
    result: FitResult,
    tracks: Sequence[Tensor],
    names: Sequence[str],
) -> None:
    """Writes what a fit found, all of it or nothing; the mix is rendered from the settings as they read back."""
    console = result.console
    room = next((stage for bus in console.buses for stage in _rooms(console, bus)), None)
    with ExitStack() as opened:
        if room is not None:
            response = opened.enter_context(io.atomic(output / _ROOM, force))
            io.save(response, room.get_buffer("impulse_response"), int(console.sample_rate), force=True)
        blocks = zip(*(track.split(_BLOCK, -1) for track in tracks), strict=True)
        _write_mix(output, force, console, result.controls, names, blocks)
    if room is None:
        (output / _ROOM).unlink(missing_ok=True)


def _write_mix(
    output: Path,
    force: bool,
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    names: Sequence[str],
    blocks: Iterable[Sequence[Tensor]],
    on_samples: Callable[[int], None] = lambda samples: None,
) -> None:
    """Writes settings and their mix, both or nothing."""
    text = settings_format.to_json(console.describe(controls, names))
    with io.atomic(output / "settings.json", force) as description:
        description.write_text(text, encoding="utf-8")
        _render_blocks(settings_format.parse(text), blocks, output / "mix.wav", force, on_samples=on_samples)
    # What is there is of another mix.
    (output / _REPORT).unlink(missing_ok=True)


def _write_report(
    output: Path,
    force: bool,
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    names: Sequence[str],
    tracks: Sequence[Tensor],
    reference: Tensor | None,
    losses: Sequence[float] = (),
    start_s: float = 0.0,
) -> None:
    page = report(console, controls, names, tracks, reference, losses, title=output.resolve().name, start_s=start_s)
    with io.atomic(output / _REPORT, force) as file:
        file.write_text(page, encoding="utf-8")


@contextmanager
def _written(output: Path) -> Iterator[None]:
    """Says what an interrupt leaves that comes after the main thing is done."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _Interrupted(f"the mix and its settings are written to {output}") from interrupt


def _rooms(console: DifferentiableMixingConsole, bus: str) -> list[M.Processor]:
    """The convolutions of a bus."""
    return [s for s in console.sections()[bus].stages().values() if s.spec.name == "convolution_reverb"]


def _render_blocks(
    settings: settings_format.Settings,
    blocks: Iterable[Sequence[Tensor]],
    output: Path,
    force: bool,
    notify: Callable[[str], None] = lambda notice: None,
    on_samples: Callable[[int], None] = lambda samples: None,
) -> None:
    """Writes the mix of tracks that come in blocks, in the order of the settings; tells how many samples are done.

    Where the console is late the mix is not: its first samples are left out, and silence goes in after the last.
    """
    console, values, _, switches = settings_format.interpret(settings)
    state: State = {}
    done, early = 0, console.latency
    tracks: Sequence[Tensor] = ()
    with torch.no_grad(), io.writer(output, 2, int(console.sample_rate), force=force, notify=notify) as write:
        for tracks in blocks:
            mix, state = console.mix_block(tracks, state, values, switches=switches)
            late, early = min(early, mix.shape[-1]), max(0, early - mix.shape[-1])
            write(mix[..., late:])
            done += mix.shape[-1]
            on_samples(done)
        if tracks and console.latency:
            silence = [track.new_zeros(track.shape[0], console.latency) for track in tracks]
            write(console.mix_block(silence, state, values, switches=switches)[0][..., early:])


def _outcome(result: FitResult, output: Path) -> str:
    start, end = f"{result.start_loss:.2f} dB", f"{result.end_loss:.2f} dB"
    how = f"{len(result.losses)} step{'s' if len(result.losses) != 1 else ''}"
    how = f"interrupted after {how}" if result.interrupted else how
    if result.refined:
        how += ", then by waveform"
    return f"spectral distance {start} at the start, {end} after the fit ({how}); written to {output}"


@contextmanager
def _folder(
    output: Path, names: Sequence[str], force: bool, inputs: Sequence[str | os.PathLike[str]] = ()
) -> Iterator[None]:
    """A folder to write files to: refuses before the work and not after it, and is not there if nothing comes of it."""
    if output.exists() and not output.is_dir():
        raise CommandError(f"{output}: is a file, expected a folder to write to")
    outputs = [output / name for name in names]
    _check_no_inputs(outputs, inputs)
    existing = [path for path in outputs if path.exists()]
    if existing and not force:
        raise CommandError(f"{existing[0]}: exists already, use --force to replace it")
    with ExitStack() as made:
        try:
            made.enter_context(io.made_folder(output))
            # Whether a file can be made there shows when one is.
            TemporaryFile(dir=output).close()
        except OSError as error:
            raise CommandError(f"{output}: cannot be written to ({error.strerror})") from error
        try:
            yield
        except OSError as error:
            if error.filename is None and error.strerror:
                # What others write into the folder, such as the logs of a training.
                raise OSError(error.errno, error.strerror, str(output)) from error
            raise


def _check_no_inputs(outputs: Iterable[Path], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuses to write over what is read, with --force too."""
    given = [Path(path) for path in inputs]
    for output in outputs:
        for path in given:
            if output.exists() and path.exists() and output.samefile(path):
                raise CommandError(f"{output}: is read by this command, expected another place to write to")


# ---- fit --demo


def _fit_demo(arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    if arguments.stems or arguments.reference:
        print("dasp fit: --demo takes neither STEMS nor --reference; see dasp fit --help", file=sys.stderr)
        return 2
    output = Path(arguments.output or _DEFAULT_DEMO_OUTPUT)
    demo = make_demo(seed=arguments.seed)
    names, tracks = demo.song.names, list(demo.song.tracks)
    rate = demo.song.sample_rate
    sounds = {f"stems/{name}.wav": track for name, track in zip(names, tracks, strict=True)}
    sounds["reference.wav"] = demo.reference
    with _folder(output, (*_MIX_OUTPUTS, _ROOM, *sounds, _HIDDEN), arguments.force):
        console = _console(rate, arguments.strip)
        result = _run_fit(console, tracks, names, demo.reference, arguments, _DEMO_STEPS, say)
        _write(output, arguments.force, result, tracks, names)
        with _written(output):
            (output / "stems").mkdir(exist_ok=True)
            for name, samples in sounds.items():
                io.save(output / name, samples, rate, force=arguments.force)
            with io.atomic(output / _HIDDEN, arguments.force) as temporary:
                hidden = demo.console.describe(demo.controls, names)
                temporary.write_text(settings_format.to_json(hidden), encoding="utf-8")
            if arguments.report:
                parts = names, tracks, demo.reference, result.losses
                _write_report(output, arguments.force, result.console, result.controls, *parts)
    if not arguments.quiet:
        _print_found(demo, result.console.denormalize(result.controls))
    say(_outcome(result, output))
    return _INTERRUPTED if result.interrupted else 0


def _print_found(demo: Demo, found: Values) -> None:
    """True and found settings of each track side by side."""
    from rich.console import Console
    from rich.table import Table

    columns = (
        ("fader dB", "gain", "gain_db", ".1f"),
        ("pan", "stereo_panner", "pan", ".2f"),
        ("send dB", "send", "reverb_db", ".1f"),
        ("threshold dB", "compressor", "threshold_db", ".1f"),
        ("ratio", "compressor", "ratio", ".1f"),
    )
    table = Table(title="true and found settings")
    table.add_column("track")
    for title, *_ in columns:
        table.add_column(title, justify="right")
    for position, name in enumerate(demo.song.names):
        cells = []
        for _, stage, control, form in columns:
            pair = (values["track"][stage][control][position].item() for values in (demo.values, found))
            cells.append("  ".join(format(value, form) for value in pair))
        table.add_row(name, *cells)
    printer = Console(width=max(100, Console().width))
    printer.print(table)
    for title, stage, control, form in columns[:2]:
        error = (found["track"][stage][control] - demo.values["track"][stage][control]).abs().mean().item()
        print(f"mean error of {title}: {error:{form}}")


# ---- render


def _render(arguments: argparse.Namespace) -> int:
    say = _speaker(arguments.quiet)
    output = Path(arguments.output)
    settings, (console, _, names, _) = _read_settings(arguments.settings)
    paths, rate = list(_stems_of(names, arguments, say).items()), int(console.sample_rate)
    _check_file(output, arguments.force, [arguments.settings, *(path for _, path in paths)])
    with (
        io.TrackReader(paths, rate, say) as reader,
        _render_progress(reader.samples, rate, arguments.quiet) as on_samples,
    ):
        _render_blocks(settings, reader.blocks(_BLOCK), output, arguments.force, say, on_samples)
    say(f"written to {output}")
    return 0


def _check_file(output: Path, force: bool, inputs: Sequence[str | os.PathLike[str]]) -> None:
    _check_no_inputs([output], inputs)
    if output.exists() and not force:
        raise CommandError(f"{output}: exists already, use --force to replace it")


# ---- mix


def _mix(arguments: argparse.Namespace) -> int:
    say = _speaker(arguments.quiet)
    output = Path(arguments.output)
    stems = io.find_stems(arguments.stems)
    inputs = [path for path in (arguments.reference, arguments.model) if path is not None]
    with _folder(output, _MIX_OUTPUTS, arguments.force, [*inputs, *(path for _, path in stems)]):
        _mix_into(output, stems, arguments, say)
    say(f"written to {output}")
    return 0


def _mix_into(
    output: Path, stems: Sequence[tuple[str, Path]], arguments: argparse.Namespace, say: Callable[[str], None]
) -> None:
    with io.TrackReader(stems, notify=say) as reader:
        rate, names = reader.sample_rate, reader.names
        heard = _loudest(lambda: io.TrackReader(stems, rate), reader)
        controller = (
            Controller.load(arguments.model, sample_rate=rate)
            if arguments.model
            else Controller.pretrained(sample_rate=rate)
        )
        reference = _heard_reference(arguments.reference, rate, say) if arguments.reference else None
    _check_sounding(names, heard, say)
    with torch.no_grad():
        controls = controller(heard, reference=reference)
    with (
        io.TrackReader(stems, rate) as reader,
        _render_progress(reader.samples, rate, arguments.quiet) as on_samples,
    ):
        blocks = reader.blocks(_BLOCK)
        _write_mix(output, arguments.force, controller.console, controls, names, blocks, on_samples)
        samples = reader.samples
    if arguments.report:
        length = min(samples, round(LONGEST_S * rate))
        start = (samples - length) // 2
        with _written(output):
            part = [io.load_excerpt(path, start, length, rate) for _, path in stems]
            parts = names, part, reference, (), start / rate
            _write_report(output, arguments.force, controller.console, controls, *parts)


def _loudest(again: Callable[[], io.TrackReader], reader: io.TrackReader) -> list[Tensor]:
    """Of each track the stretch with the most energy, wherever that is: a controller hears each for itself."""
    energies: list[list[float]] = []
    kept: list[list[Tensor]] = []
    for tracks in reader.blocks(_BLOCK):
        energies.append([float(track.square().sum()) for track in tracks])
        kept = [*kept, tracks] if len(energies) <= _HEARD else []
    if len(energies) <= _HEARD:
        return [torch.cat(blocks, -1) for blocks in zip(*kept, strict=True)]
    windows = torch.tensor(energies, dtype=torch.float64).unfold(0, _HEARD, 1).sum(-1)
    starts = windows.argmax(0).tolist()
    parts: list[list[Tensor]] = [[] for _ in starts]
    with again() as second:
        for position, tracks in enumerate(second.blocks(_BLOCK)):
            for part, start, track in zip(parts, starts, tracks, strict=True):
                if start <= position < start + _HEARD:
                    # The last block of a song is shorter.
                    part.append(torch.nn.functional.pad(track, (0, _BLOCK - track.shape[-1])))
    return [torch.cat(part, -1) for part in parts]


def _heard_reference(path: str, rate: int, say: Callable[[str], None]) -> Tensor:
    """The loudest stretch of a reference, in stereo at a sample rate."""
    audio = io.load(path, say)
    samples = audio.samples
    if samples.shape[0] > 2:
        raise CommandError(f"{path}: has {samples.shape[0]} channels, expected a stereo mix")
    if samples.shape[0] == 1:
        say(f"{path}: is mono, taken as both channels")
        samples = samples.expand(2, -1)
    if not bool(samples.any()):
        raise CommandError(f"{path}: is silent, expected a mix")
    length = round(_HEARD * _BLOCK * audio.sample_rate / rate)
    if samples.shape[-1] > length:
        hop = max(1, audio.sample_rate // 2)
        energy = samples[:, : samples.shape[-1] // hop * hop].square().sum(0).reshape(-1, hop).sum(-1)
        start = int(energy.unfold(0, max(1, length // hop), 1).sum(-1).argmax()) * hop
        samples = samples[:, start : start + length]
    return io.resample(samples.contiguous(), audio.sample_rate, rate)


# ---- train


def _recipes() -> dict[str, Path]:
    """The recipes that come with dasp, by name."""
    return {path.stem: path for path in (Path(__file__).parent / "mixing" / "recipes").glob("*.toml")}


def _train(arguments: argparse.Namespace) -> int:
    say = _speaker(arguments.quiet)
    output, config = Path(arguments.output), Path(arguments.config)
    known = _recipes()
    config = known[arguments.config] if not config.exists() and arguments.config in known else config
    recipe = Recipe.read(config)
    with _folder(output, () if arguments.resume else _TRAINED, arguments.force, [config]):
        try:
            train(recipe, output, arguments.resume, not arguments.quiet and _is_live(), say)
        except KeyboardInterrupt as interrupt:
            state = output / STATE
            left = (
                f"the same command with --resume goes on from {state}" if state.exists() else "before the first state"
            )
            raise _Interrupted(left) from interrupt
    say(f"written to {output}")
    return 0


# ---- export


def _export(arguments: argparse.Namespace) -> int:
    say = _speaker(arguments.quiet)
    output, project = Path(arguments.output), arguments.format in _PROJECTS
    for option, value, wanted in (
        ("STEMS", arguments.stems, project),
        ("--section", arguments.section, not project),
        ("--effects", arguments.effects, arguments.format == "reaper"),
    ):
        if value and not wanted:
            print(
                f"dasp export: --format {arguments.format} takes no {option}; see dasp export --help", file=sys.stderr
            )
            return 2
    settings, mix = _read_settings(arguments.settings)
    _check_no_inputs([output], [arguments.settings])
    if project:
        if not arguments.stems:
            print(f"dasp export: --format {arguments.format} needs STEMS; see dasp export --help", file=sys.stderr)
            return 2
        stems = _stems_of(mix.names, arguments, say)
        _check_no_inputs([output], stems.values())
        if arguments.format == "reaper":
            written = interchange.write_reaper(output, settings, stems, arguments.effects or "stock", arguments.force)
        else:
            written = interchange.write_dawproject(output, settings, stems, force=arguments.force)
        say(f"written to {', '.join(map(str, written))}")
        return 0
    section = arguments.section or "master"
    if arguments.format == _FAUST:
        text, left_out = interchange.to_faust(settings, section)
        why = "which Faust has no counterpart of here"
    else:
        eq = interchange.equalizer(settings, section)
        text, left_out, why = _EQUALIZERS[arguments.format](eq, section), eq.left_out, "which are no filters"
    if left_out:
        say(f"{section}: without {', '.join(left_out)}, {why}")
    with io.atomic(output, arguments.force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"written to {output}")
    return 0


def _read_settings(path: str) -> tuple[settings_format.Settings, settings_format.Mix]:
    """A description and what it means, of which audio files can have the sample rate."""
    settings = settings_format.read(path)
    try:
        mix = settings_format.interpret(settings)
    except settings_format.SettingsError as error:
        raise settings_format.SettingsError(f"{path}: {error}") from error
    rate = mix.console.sample_rate
    if rate != int(rate):
        raise CommandError(f"{path}: sample_rate is {rate:g}, expected a whole number for audio files")
    return settings, mix


def _stems_of(names: Sequence[str], arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Path]:
    """The stem of each track of a description."""
    stems = dict(io.find_stems(arguments.stems))
    missing = [name for name in names if name not in stems]
    if missing:
        raise CommandError(f"{arguments.settings}: no stem for track {missing[0]!r}, found {', '.join(stems)}")
    for name in stems:
        if name not in names:
            say(f"{stems[name]}: has no track in {arguments.settings}, left out")
    return {name: stems[name] for name in names}


# ---- talking


def _speaker(quiet: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not quiet:
            print(_printable(text), file=sys.stderr)

    return say


def _is_live() -> bool:
    """Whether there is a terminal on which a bar can move."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


@contextmanager
def _progress(steps: int, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Shows a live bar on a terminal, and now and then a line elsewhere."""
    if quiet or steps == 0:
        yield None
    elif _is_live():
        with _bar("fitting", steps, "{task.completed}/{task.total}", "{task.fields[loss]:.2f} dB") as update:
            yield lambda progress: update(progress.step, total=progress.steps, loss=progress.loss)
    else:
        told: list[int] = []

        def line(progress: Progress) -> None:
            if progress.stage == "refinement":
                if not told:
                    print("refining against the waveform", file=sys.stderr, flush=True)
                    told.append(progress.step)
            elif progress.step == 1 or progress.step % max(1, steps // 10) == 0:
                print(f"step {progress.step} of {steps}: {progress.loss:.2f} dB", file=sys.stderr, flush=True)

        yield line


@contextmanager
def _render_progress(samples: int, sample_rate: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """The same for samples that are mixed, if they are many."""
    seconds = samples / sample_rate
    if quiet or seconds < _LONG_S:
        yield lambda done: None
    elif _is_live():
        with _bar("mixing", round(seconds), "{task.completed}/{task.total} s") as update:
            yield lambda done: update(round(done / sample_rate))
    else:
        tenths = 0

        def line(done: int) -> None:
            nonlocal tenths
            if 10 * done // samples > tenths:
                tenths = 10 * done // samples
                print(f"mixed {done / sample_rate:.0f} of {seconds:.0f} s", file=sys.stderr, flush=True)

        yield line


@contextmanager
def _bar(title: str, total: int, *texts: str) -> Iterator[Callable[..., None]]:
    """Gives a function that moves a bar; texts are formats of rich."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(title), BarColumn(), *map(TextColumn, texts), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, loss=float("nan"))
        yield lambda completed, **fields: bar.update(task, completed=completed, **fields)

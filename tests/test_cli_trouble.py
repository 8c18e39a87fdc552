"""The `dasp` command in trouble: odd names, full disks, outputs that are inputs, closed streams, signals."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dasp import cli, io
from dasp.cli import main
from dasp.gradients.checkpoints import read_checkpoint, write_checkpoint
from dasp.mixing import DifferentiableMixingConsole
from dasp.mixing import settings as settings_format

RATE = 8000
FIT = ("--steps", "0", "--reverb", "noise")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
# What a user may call a file, as bytes: the file systems of Linux take all but "/" and NUL.
NAMES = [
    *(b'a"b', b"it's `q`", b"<script>alert(1)<script>", b"line\nbreak", b"\x1b[31mred", b"=cmd()", b"-rf", b"con"),
    *(b"%s%n", b"{0}", b"$(id)", b"~", b" ", b"..x", b"Kick", b"kick", b"x" * 250, b"\xff\xfe"),
    *("🥁".encode(), "\u202eevil".encode(), ("鼓" * 83).encode()),
]


def sound(seed, samples=RATE, channels=1):
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))


def write(path, samples, rate=RATE):
    # By its descriptor: the wrapper of libsndfile takes no name whose bytes are no text.
    with open(path, "wb") as file:
        soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Two stems, their mix, and settings for them."""
    folder = tmp_path_factory.mktemp("song")
    (folder / "stems").mkdir()
    stems = [write(folder / "stems" / f"{name}.wav", sound(seed)) for seed, name in enumerate("ab")]
    write(folder / "mix.wav", np.repeat(sum(soundfile.read(path)[0] for path in stems)[:, None], 2, 1))
    console = DifferentiableMixingConsole(RATE)
    settings = console.describe(console.default_controls(2), ["a", "b"])
    (folder / "settings.json").write_text(settings_format.to_json(settings))
    return folder


@pytest.fixture
def here(song, tmp_path, monkeypatch):
    """A folder of its own with copies of them, which is the current one."""
    (tmp_path / "stems").mkdir()
    for path in (*(song / "stems").iterdir(), song / "mix.wav", song / "settings.json"):
        (tmp_path / path.relative_to(song)).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(capsys, *arguments):
    """The exit code, and the only line that is printed, if it is only one."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1, printed
    assert "Traceback" not in printed
    return code, printed.strip()


# ---- names


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems do not take these names")
def test_files_of_any_name_are_fitted_mixed_rendered_and_exported(tmp_path, capsys):
    stems = tmp_path / "stems"
    stems.mkdir()
    for seed, name in enumerate(NAMES):
        write(os.path.join(os.fsencode(stems), name + b".wav"), sound(seed, 800))
    reference = write(tmp_path / "mix.wav", sound(0, 800, 2))
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/out \xff\x1b[2J"))
    assert main(["fit", str(stems), "--reference", str(reference), "--output", str(out), *FIT]) == 0
    assert main(["mix", str(stems), "--output", str(tmp_path / "mixed")]) == 0
    settings = out / "settings.json"
    assert main(["render", str(settings), str(stems), "--output", str(out / "again.wav")]) == 0
    assert (out / "again.wav").read_bytes() == (out / "mix.wav").read_bytes()
    names = list(json.loads(settings.read_text())["tracks"])
    # A name that begins with a full stop is that of a hidden file, which a folder is read without.
    assert len({name.casefold() for name in names}) == len(NAMES) - 1
    assert {"Kick", "kick 2"} <= set(names) or {"kick", "Kick 2"} <= set(names)
    # The stems go into a DAWproject under names of their own.
    assert (
        main(["export", str(settings), str(stems), "--format", "dawproject", "--output", str(out / "x.dawproject")])
        == 0
    )
    printed = capsys.readouterr()
    for text in (*printed.out.splitlines(), *printed.err.splitlines(), *names):
        assert text.isprintable()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    # REAPER names them in a line of text, which some have no place in.
    code, line = run(capsys, "export", settings, stems, "--format", "reaper", "--output", out / "x.rpp")
    assert code == 1
    assert "a project cannot name a file with such characters, rename it" in line
    assert not (out / "x.rpp").exists()


def test_names_of_tracks_do_not_depend_on_the_locale(monkeypatch):
    # As Python reads the name of "é.wav" where the locale is ASCII.
    assert io._track_names([Path("\udcc3\udca9.wav")]) == ["é"]


def test_a_long_name_does_not_push_the_others_aside():
    console = DifferentiableMixingConsole(RATE)
    names = ["x" * 100, "b"]
    lines = cli.summarize(console, console.default_controls(2), names, [torch.ones(1, RATE)] * 2)
    assert len(lines[1]) < 60


def test_what_is_printed_moves_no_cursor(here, capsys):
    code, line = run(capsys, "render", "\x1b[2J\u202e.json", "stems", "--output", "x.wav")
    assert (code, line) == (1, "dasp: ?[2J?.json: cannot be read: No such file or directory")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "", "--reference", "mix.wav", "--output", "out"),
        ("fit", "stems", "--reference", "", "--output", "out"),
        ("fit", "stems", "--reference", "mix.wav", "--output", ""),
        ("mix", "stems", "--model", "", "--output", "out"),
        ("render", "settings.json", "stems", "--output", ""),
        ("train", "", "--output", "out"),
        ("fit", "stems", "--reference", "mix.wav", "--output", "out", "--seed", "-1"),
        ("fit", "stems", "--reference", "mix.wav", "--output", "out", "--seed", "9" * 30),
        ("fit", "stems", "--reference", "mix.wav", "--output", "out", "--steps", "1e3"),
    ],
)
def test_arguments_without_sense_are_wrong_usage(here, capsys, arguments):
    code, line = run(capsys, *arguments)
    assert code == 2
    assert "expected a file or a folder" in line or "expected a whole number" in line
    assert not (here / "out").exists()


# ---- outputs


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "stems", "--reference", "mix.wav", "--output", "."),
        ("mix", "stems", "--reference", "mix.wav", "--output", "."),
        ("mix", "mix.wav", "--output", "."),
        ("render", "settings.json", "stems", "--output", "stems/a.wav"),
        ("render", "settings.json", "stems", "--output", "link.wav"),
        ("export", "settings.json", "--format", "eqapo", "--output", "settings.json"),
        ("export", "settings.json", "stems", "--format", "reaper", "--output", "stems/a.wav"),
    ],
)
def test_what_is_read_is_not_written_over_by_force_either(here, capsys, arguments):
    (here / "link.wav").symlink_to(here / "stems" / "b.wav")
    before = contents(here)
    code, line = run(capsys, *arguments, "--force")
    assert code == 1
    assert "is read by this command, expected another place to write to" in line
    assert contents(here) == before


def test_the_demo_writes_over_no_stem_unless_told_so(here, capsys):
    first = cli.make_demo(seconds=1.0).song.names[0]
    precious = write(here / "stems" / f"{first}.wav", sound(5))
    before = contents(here)
    code, line = run(capsys, "fit", "--demo", "--output", here, *FIT)
    assert code == 1
    assert "--force" in line
    (here / "settings.json").unlink()
    (here / "mix.wav").unlink()
    code, line = run(capsys, "fit", "--demo", "--output", here, *FIT)
    assert code == 1
    assert f"{precious}: exists already" in line
    assert precious.read_bytes() == before[precious]


@pytest.mark.parametrize("command", ["fit", "mix"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(here, capsys, monkeypatch, command):
    def full(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", "/out/x1b2c3")

    monkeypatch.setattr(cli, "TemporaryFile", full)
    monkeypatch.setattr(cli.io, "load_tracks", pytest.fail)
    reference = ("--reference", "mix.wav")
    code, line = run(capsys, command, "stems", *reference, "--output", "new/out")
    assert (code, line) == (1, "dasp: new/out: cannot be written to (Read-only file system)")
    assert not (here / "new").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, where no folder can be made")
def test_a_folder_that_cannot_be_made_is_refused_before_the_work(here, capsys, monkeypatch):
    monkeypatch.setattr(cli.io, "load_tracks", pytest.fail)
    code, line = run(capsys, "fit", "stems", "--reference", "mix.wav", "--output", "/proc/dasp", *FIT)
    assert code == 1
    assert line.startswith("dasp: /proc/dasp: cannot be written to")


@pytest.mark.parametrize("path", ["none/x.wav", "mix.wav/x.wav"])
def test_a_file_without_a_folder_is_named(here, capsys, path):
    code, line = run(capsys, "render", "settings.json", "stems", "--output", path, "--quiet")
    assert code == 1
    assert line.startswith(f"dasp: {path}: ")
    assert "its folder does not exist" in line or "Not a directory" in line


LIMITED = """
import resource, signal
from dasp.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for size in 1, 60000:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    print(main(["mix", "stems", "--output", "out", "--quiet"]))
    project = ["settings.json", "stems", "--format", "dawproject", "--output", "x.dawproject", "--quiet"]
    print(main(["export", *project]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of the size of a file")
def test_a_disk_that_fills_up_is_named_and_leaves_nothing(here):
    """Files may grow to 1 byte, which stops the settings, and to 60 kB, which stops the mix."""
    before = contents(here)
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=ENVIRONMENT)
    assert done.stdout.split() == ["1"] * 4, done.stderr
    lines = done.stderr.splitlines()
    assert [line.startswith("dasp: out/") for line in lines] == [True, False, True, False], done.stderr
    assert [line.startswith("dasp: x.dawproject") for line in lines] == [False, True, False, True], done.stderr
    assert contents(here) == before
    assert not (here / "out").exists()


def test_an_error_of_a_file_without_a_name_gets_that_of_the_output(tmp_path):
    with pytest.raises(OSError, match="No space left on device") as caught, io.atomic(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "x")
    with pytest.raises(OSError, match="other") as caught, io.atomic(tmp_path / "x"):
        raise OSError(errno.ENOENT, "No such file", "other")
    assert caught.value.filename == "other"
    assert list(tmp_path.iterdir()) == []


def test_what_others_write_into_the_folder_is_named_by_it(here, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "train", full)
    code, line = run(capsys, "train", "small", "--output", "out")
    assert (code, line) == (1, "dasp: out: No space left on device")
    assert not (here / "out").exists()


def test_checkpoints_that_cannot_be_written_or_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_checkpoint(tmp_path / "none" / "x", {}, {}, "kind")
    assert caught.value.filename == str(tmp_path / "none" / "x")
    with pytest.raises(ValueError, match=f"^{tmp_path}: not a readable safetensors file"):
        read_checkpoint(tmp_path, "kind")


def test_a_report_of_another_mix_is_not_left_beside_a_new_one(here, capsys):
    assert main(["mix", "stems", "--output", "out", "--quiet"]) == 0
    assert main(["mix", "stems", "--output", "out", "--quiet", "--no-report", "--force"]) == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["mix.wav", "settings.json"]


# ---- settings and stems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.update(sample_rate=1e9),
            "sample_rate is 1000000000.0, expected more than 0 and at most 384000 Hz",
        ),
        (lambda d: d.update(sample_rate=44100.5), "sample_rate is 44100.5, expected a whole number for audio files"),
        (lambda d: d.update(sample_rate=-1), "sample_rate is -1, expected more than 0"),
        (lambda d: d["tracks"]["a"]["gain"].update(gain_db=1e999), "tracks.a.gain.gain_db is Infinity"),
        (lambda d: d["tracks"]["a"]["gain"].update(gian=1), "tracks.a.gain.gian is unknown, expected one of gain_db"),
        (lambda d: d["tracks"]["a"].update({"\x1b[2J": {}}), "tracks.a.?[2J is unknown"),
        (lambda d: d.update(dasp_settings=3), "dasp_settings is 3, expected 1 or 2: written by another version"),
        (lambda d: d.update(dasp_settings=10**400), "..., expected 1 or 2"),
    ],
)
def test_what_is_wrong_with_settings_is_said_with_file_and_place(here, capsys, change, message):
    settings = json.loads((here / "settings.json").read_text())
    change(settings)
    text = json.dumps(settings).replace("Infinity", "1e999")
    (here / "s.json").write_text(text)
    for arguments in (
        ("render", "s.json", "stems", "--output", "x.wav"),
        ("export", "s.json", "--format", "eqapo", "--section", "a", "--output", "x.txt"),
    ):
        code, line = run(capsys, *arguments)
        assert code == 1
        assert line.startswith("dasp: s.json: ")
        assert message.removeprefix("...") in line
        assert len(line) < 300


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe{\0}\0", "is not JSON: byte 0 is no UTF-8"),
        (b"[" * 100_000, "is not JSON: maximum recursion depth exceeded"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON: Exceeds the limit"),
    ],
)
def test_files_that_are_no_settings_are_named(here, capsys, data, message):
    (here / "s.json").write_bytes(data)
    code, line = run(capsys, "render", "s.json", "stems", "--output", "x.wav")
    assert code == 1
    assert line.startswith(f"dasp: s.json: {message}")


def test_settings_with_a_mark_of_byte_order_are_read(here):
    (here / "s.json").write_bytes(b"\xef\xbb\xbf" + (here / "settings.json").read_bytes())
    assert main(["render", "s.json", "stems", "--output", "x.wav", "--quiet"]) == 0


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no endless file")
def test_a_file_without_end_is_no_description(here, capsys, monkeypatch):
    monkeypatch.setattr(settings_format, "_MOST_BYTES", 1 << 20)
    code, line = run(capsys, "render", "/dev/zero", "stems", "--output", "x.wav")
    assert (code, line) == (1, "dasp: /dev/zero: is longer than 1 MiB, expected a description")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "is not TOML: byte 0 is no UTF-8"),
        (b"a = " + b"[" * 100_000, "is not TOML: maximum recursion depth exceeded"),
        (b"a = " + b"9" * 5000, "is not TOML: Exceeds the limit"),
        (bytes(2 << 20), "is longer than 1 MiB, expected a recipe"),
    ],
)
def test_files_that_are_no_recipes_are_named(here, capsys, data, message):
    (here / "r.toml").write_bytes(data)
    code, line = run(capsys, "train", "r.toml", "--output", "out")
    assert code == 1
    assert line.startswith(f"dasp: r.toml: {message}")
    assert not (here / "out").exists()


def test_stems_that_cannot_be_read_are_named(here, capsys, monkeypatch):
    def locked(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(io.soundfile, "SoundFile", locked)
    code, line = run(capsys, "render", "settings.json", "stems", "--output", "x.wav")
    assert (code, line) == (1, "dasp: stems/a.wav: cannot be read (Permission denied)")


@pytest.mark.parametrize("rate", [8000, 192000])
def test_audio_of_any_usual_rate_is_fitted_mixed_and_rendered(tmp_path, rate):
    stems = [str(write(tmp_path / f"{name}.wav", sound(seed, rate // 10), rate)) for seed, name in enumerate("ab")]
    reference = str(write(tmp_path / "mix.wav", sound(0, rate // 10, 2), rate))
    out = tmp_path / "out"
    assert main(["fit", *stems, "--reference", reference, "--output", str(out), "--quiet", *FIT]) == 0
    assert main(["mix", *stems, "--output", str(tmp_path / "mixed"), "--quiet"]) == 0
    again = str(tmp_path / "again.wav")
    assert main(["render", str(out / "settings.json"), *stems, "--output", again, "--quiet"]) == 0
    mix, found = soundfile.read(again)
    assert (mix.shape, found) == ((rate // 10, 2), rate)
    assert np.isfinite(mix).all()
    assert np.abs(mix).max() > 0


def test_many_tracks_silent_and_clipped_ones_are_fitted_and_mixed(tmp_path):
    stems = tmp_path / "stems"
    stems.mkdir()
    for number in range(64):
        scale = {3: 0.0, 5: 1e4}.get(number, 1.0)
        samples = scale * sound(number, 1000, 1 + number % 2)
        write(stems / f"{number}.wav", samples.clip(-1, 1) if number != 7 else np.sign(samples))
    reference = str(write(tmp_path / "mix.wav", sound(0, 1000, 2)))
    arguments = ("--output", str(tmp_path / "out"), "--quiet", *FIT)
    assert main(["fit", str(stems), "--reference", reference, *arguments]) == 0
    assert main(["mix", str(stems), "--output", str(tmp_path / "mixed"), "--quiet"]) == 0
    for folder in ("out", "mixed"):
        assert np.isfinite(soundfile.read(tmp_path / folder / "mix.wav")[0]).all()
        assert len(json.loads((tmp_path / folder / "settings.json").read_text())["tracks"]) == 64


def test_no_track_at_all_is_refused(song):
    console = DifferentiableMixingConsole(RATE)
    described = json.loads((song / "settings.json").read_text()) | {"tracks": {}}
    with pytest.raises(ValueError, match="tracks is empty, expected at least one track"):
        settings_format.interpret(described)
    with pytest.raises(ValueError, match="expected at least one track"):
        console(torch.zeros(0, 1, 100), console.default_controls(0))


def test_memory_that_torch_does_not_get_is_one_line(here, capsys, monkeypatch):
    def out_of_memory(*_, **__):
        torch.empty(1 << 60)

    monkeypatch.setattr(cli, "_render_blocks", out_of_memory)
    code, line = run(capsys, *ARGUMENTS["render"])
    assert code == 1
    assert line.startswith("dasp: not enough memory (")
    assert "allocate" in line


# ---- what a fit and a render say and do


def test_a_bus_with_locks_gets_no_impulse_response_and_that_is_said(here, capsys):
    arguments = ("fit", "stems", "--reference", "mix.wav", "--output", "out", "--no-report", "--steps", "1", "--force")
    assert main([*arguments, "--lock", "reverb.decay_s=1"]) == 0
    said = "reverb: has locks or limits, which an impulse response cannot obey: stays noise"
    assert said in capsys.readouterr().err
    assert main([*arguments, "--lock", "reverb.decay_s=1", "--reverb", "noise"]) == 0
    assert said not in capsys.readouterr().err


class Late(DifferentiableMixingConsole):
    """A console that comes late, as with a processor that looks ahead."""

    latency = 37

    def mix_block(self, tracks, state, values, **options):
        past = state.get("past", [track.new_zeros(track.shape[0], 37) for track in tracks])
        joined = [torch.cat(pair, -1) for pair in zip(past, tracks, strict=True)]
        length = tracks[0].shape[-1]
        mix, own = super().mix_block([track[..., :length] for track in joined], state.get("own", {}), values, **options)
        return mix, {"own": own, "past": [track[..., length:] for track in joined]}


@pytest.mark.parametrize("block", [30, 2**17])
def test_a_render_is_not_late_where_a_console_is(tmp_path, monkeypatch, block):
    track = torch.from_numpy(sound(1, 500).T.copy()).float()
    prompt = DifferentiableMixingConsole(RATE)
    controls = prompt.default_controls(1)
    description = prompt.describe(controls, ["a"])
    mix = settings_format.interpret(description)
    monkeypatch.setattr(settings_format, "interpret", lambda _: mix._replace(console=Late(RATE)))
    cli._render_blocks(description, ([part] for part in track.split(block, -1)), tmp_path / "x.wav", False)
    written = io.load(tmp_path / "x.wav").samples
    torch.testing.assert_close(written, prompt([track], controls), atol=1e-6, rtol=0)


# ---- streams and signals


def command(*arguments, **environment):
    """The command in a process of its own."""
    variables = {**ENVIRONMENT, **environment}
    parts = [sys.executable, "-m", "dasp", *map(str, arguments)]
    return subprocess.Popen(parts, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables)


def test_any_name_is_printed_in_any_encoding(here):
    (here / "stems" / "a.wav").rename(here / "stems" / "🥁.wav")
    arguments = ("fit", "stems", "--reference", "mix.wav", "--output", "out", "--no-report", *FIT)
    process = command(*arguments, PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"\\U0001f941" in out
    assert b"Error" not in err
    # No terminal: plain lines, without codes that would move a cursor.
    assert b"\x1b" not in out + err


class Broken:
    """A standard output whose reader is gone or whose disk is full."""

    def __init__(self, path, error):
        self.file, self.error = path.open("w"), error

    def write(self, text):
        return len(text)

    def flush(self):
        raise self.error

    def fileno(self):
        return self.file.fileno()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "dasp: standard output: No space left on device\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)
def test_a_standard_output_that_takes_nothing_is_one_line_or_none(tmp_path, capsys, error, code, said):
    broken = Broken(tmp_path / "x", error)
    with contextlib.redirect_stdout(broken):
        assert main(["info"]) == code
    assert capsys.readouterr().err == said
    # It is nowhere now, so that what Python writes to it in the end is lost in peace.
    assert os.fstat(broken.fileno()).st_rdev == os.stat(os.devnull).st_rdev
    broken.file.close()


def test_a_program_without_standard_streams_runs(here, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["render", "settings.json", "stems", "--output", "x.wav"]) == 0
    assert main(["render", "none.json", "stems", "--output", "x.wav"]) == 1


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_a_bar_moves_on_terminals_that_can_move_it(monkeypatch, capsys, term, live):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli._is_live() == live


def stopped_in(monkeypatch, place, name, number=signal.SIGINT):
    """Makes a signal arrive in a function."""

    def stop(*_, **__):
        os.kill(os.getpid(), number)
        # The interpreter runs its handler between two instructions.
        time.sleep(5)

    monkeypatch.setattr(place, name, stop)


STAGES = [
    ("fit", cli, "find_offset", "interrupted, nothing written", set()),
    ("fit", cli, "Constraints", "interrupted, nothing written", set()),
    ("fit", cli, "_render_blocks", "interrupted, nothing written", set()),
    ("fit", cli, "report", "interrupted, the mix and its settings are written to out", {"mix.wav", "settings.json"}),
    ("fit", cli, "summarize", "interrupted, the mix and its settings are written to out", {"mix.wav", "settings.json"}),
    ("mix", cli.Controller, "pretrained", "interrupted, nothing written", set()),
    ("mix", cli, "_render_blocks", "interrupted, nothing written", set()),
    ("mix", cli, "report", "interrupted, the mix and its settings are written to out", {"mix.wav", "settings.json"}),
    ("render", cli.io.TrackReader, "blocks", "interrupted, nothing written", set()),
    ("export", cli.interchange, "write_reaper", "interrupted, nothing written", set()),
    ("export", io, "inspect", "interrupted, nothing written", set()),
]
ARGUMENTS = {
    "fit": ("fit", "stems", "--reference", "mix.wav", "--output", "out", *FIT),
    "mix": ("mix", "stems", "--output", "out"),
    "render": ("render", "settings.json", "stems", "--output", "x.wav"),
    "export": ("export", "settings.json", "stems", "--format", "reaper", "--output", "x.rpp"),
}


@pytest.mark.parametrize(("kind", "place", "name", "message", "left"), STAGES)
def test_an_interrupt_says_what_it_leaves(here, monkeypatch, capsys, kind, place, name, message, left):
    before = set(contents(here))
    stopped_in(monkeypatch, place, name)
    assert main(ARGUMENTS[kind]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"dasp: {message}"
    assert {path.relative_to(here) for path in set(contents(here)) - before} == {Path("out", name) for name in left}
    assert (here / "out").exists() == bool(left)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_ends_the_command_leaves_no_temporary_file(here, monkeypatch, capsys, number, code):
    before = set(contents(here))
    stopped_in(monkeypatch, DifferentiableMixingConsole, "mix_block", getattr(signal, number))
    assert main(ARGUMENTS["render"]) == code
    assert set(contents(here)) == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_signals_that_somebody_handles_are_left_to_them(here, capsys):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with cli._ending():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- packages that are not installed


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("lightning", ("train", "small", "--output", "out"), "dasp[train]"),
        ("tensorboard", ("train", "small", "--output", "out"), "dasp[train]"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_command(
    here, capsys, monkeypatch, package, arguments, extra
):
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code, line = run(capsys, *arguments)
    assert code == 1
    assert package in line
    assert line.endswith(f"pip install '{extra}'")
    assert not (here / "out").exists()

"""The `dasp` command, run as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import dasp
from dasp import cli, io
from dasp.cli import main
from dasp.mixing import Controller, DeepSetController, DifferentiableMixingConsole, interpret
from dasp.mixing.settings import read, to_json

RATE = 16000
SECONDS = 2
FIT = ("--steps", "2")


def write(path, samples, rate=RATE, subtype=None):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Three stems of different kinds and their mix."""
    folder = tmp_path_factory.mktemp("song")
    (folder / "stems").mkdir()
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((3, RATE * SECONDS)) * np.linspace(0.3, 0.05, RATE * SECONDS)
    write(folder / "stems" / "1 drums.wav", noise[0], subtype="FLOAT")
    write(folder / "stems" / "2 bass.flac", noise[1])
    write(folder / "stems" / "3 pad.aiff", np.stack([noise[2], noise[2][::-1]], 1), subtype="PCM_24")
    left = noise[0] + 0.5 * noise[1] + 0.3 * noise[2]
    right = 0.7 * noise[0] + 0.5 * noise[1] + 0.3 * noise[2][::-1]
    write(folder / "mix.wav", np.stack([left, right], 1), subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def fitted(song):
    output = song / "out"
    assert main(["fit", str(song / "stems"), "--reference", str(song / "mix.wav"), "--output", str(output), *FIT]) == 0
    return output


def run_fit(song, tmp_path, *extra, reference="mix.wav", stems="stems"):
    reference = song / reference if isinstance(reference, str) else reference
    stems = song / stems if isinstance(stems, str) else stems
    return main(["fit", str(stems), "--reference", str(reference), "--output", str(tmp_path / "out"), *FIT, *extra])


def only_line(capsys):
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def test_fit_writes_mix_settings_and_report(fitted):
    samples, rate = soundfile.read(fitted / "mix.wav")
    assert (samples.shape, rate) == ((RATE * SECONDS, 2), RATE)
    assert soundfile.info(fitted / "mix.wav").subtype == "FLOAT"
    settings = json.loads((fitted / "settings.json").read_text())
    assert list(settings["tracks"]) == ["1 drums", "2 bass", "3 pad"]
    assert set(settings["tracks"]["2 bass"]) == {"parametric_eq", "compressor", "gain", "stereo_panner", "send"}
    left = {path.name for path in fitted.iterdir()} - {"reverb.wav"}
    assert left == {"mix.wav", "report.html", "settings.json"}
    # The impulse response stands beside the settings, if one brought the mix closer.
    stages = [stage["processor"] for stage in settings["console"]["buses"]["reverb"]]
    assert ("convolution_reverb" in stages) == (fitted / "reverb.wav").exists()


def test_fit_keeps_locks_and_limits(song, tmp_path):
    limits = ("--lock", "1 drums.pan=-0.5", "--lock=3 pad.*", "--limit", "track.gain_db=-20..-10")
    assert run_fit(song, tmp_path, "--quiet", *limits) == 0
    tracks = json.loads((tmp_path / "out" / "settings.json").read_text())["tracks"]
    assert tracks["1 drums"]["stereo_panner"]["pan"] == -0.5
    console = DifferentiableMixingConsole(RATE)
    default = console.describe(console.default_controls(1), ["pad"])["tracks"]["pad"]
    assert tracks["3 pad"] == default
    for name in ("1 drums", "2 bass"):
        assert -20.0001 <= tracks[name]["gain"]["gain_db"] <= -9.9999


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--lock=kick.pan=0", 1, "lock 'kick.pan' is not a control of this console"),
        ("--lock=1 drums.pann=0", 1, "did you mean 1 drums.pan"),
        ("--lock=1 drums.pan=left", 2, "'1 drums.pan=left', expected NAME=VALUE with numbers"),
        ("--limit=track.gain_db=-20", 2, "'track.gain_db=-20', expected NAME=LOW..HIGH with numbers"),
        ("--limit=track.gain_db=6..-20", 1, "limit 'track.gain_db' is 6.0 to -20.0"),
    ],
)
def test_wrong_locks_and_limits_are_told_in_one_line(song, tmp_path, capsys, option, code, message):
    try:
        done = run_fit(song, tmp_path, "--quiet", option)
    except SystemExit as end:
        done = end.code
    assert done == code
    assert message in only_line(capsys)


def test_render_reproduces_the_mix_to_the_bit(song, fitted, tmp_path):
    output = tmp_path / "again.wav"
    assert main(["render", str(fitted / "settings.json"), str(song / "stems"), "--output", str(output)]) == 0
    assert output.read_bytes() == (fitted / "mix.wav").read_bytes()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Two stems and their mix in a room that is another noise than that of the console."""
    folder = tmp_path_factory.mktemp("room")
    (folder / "stems").mkdir()
    generator = np.random.default_rng(2)
    bursts = np.repeat(generator.random((2, 20)) < 0.4, RATE // 10, -1)
    stems = 0.2 * bursts * generator.standard_normal(bursts.shape)
    for name, samples in zip("ab", stems, strict=True):
        write(folder / "stems" / f"{name}.wav", samples, subtype="FLOAT")
    decay = 10 ** (-3 * np.arange(RATE // 3) / (0.3 * RATE))
    h = 0.1 * decay * generator.standard_normal((2, RATE // 3))
    wet = np.stack([np.convolve(stems.sum(0), channel)[: RATE * 2] for channel in h], 1)
    write(folder / "mix.wav", wet + stems.sum(0)[:, None], subtype="FLOAT")
    return folder


def test_an_impulse_response_is_found_written_and_rendered(room, tmp_path, capsys):
    assert run_fit(room, tmp_path, "--steps", "5") == 0
    output = tmp_path / "out"
    said = capsys.readouterr()
    assert "then by waveform" in said.err
    assert [line.split()[0] for line in said.out.splitlines()] == ["a", "b", "master"]
    response, _ = soundfile.read(output / "reverb.wav", dtype="float32", always_2d=True)
    console, *_ = interpret(read(output / "settings.json"))
    found = console.sections()["reverb"].stages()["convolution_reverb"].impulse_response
    assert torch.equal(torch.from_numpy(response.T.copy()), found)
    again = tmp_path / "again.wav"
    assert main(["render", str(output / "settings.json"), str(room / "stems"), "--output", str(again), "--quiet"]) == 0
    assert again.read_bytes() == (output / "mix.wav").read_bytes()
    # Another fit without one leaves none behind.
    assert run_fit(room, tmp_path, "--reverb", "noise", "--force", "--quiet") == 0
    assert not (output / "reverb.wav").exists()


@pytest.mark.parametrize("late", [300, -300])
def test_an_offset_is_said_and_with_align_taken_out(room, tmp_path, capsys, late):
    mix, _ = soundfile.read(room / "mix.wav")
    other = write(tmp_path / "other.wav", np.roll(mix, late, 0), subtype="FLOAT")
    side = "late" if late > 0 else "early"
    assert run_fit(room, tmp_path, reference=other) == 0
    assert f"other.wav: is 300 samples (18.8 ms) {side}, levels alone" in capsys.readouterr().err
    assert run_fit(room, tmp_path, "--align", "--force", reference=other) == 0
    assert f"is 300 samples (18.8 ms) {side}: stems shifted" in capsys.readouterr().err


def test_a_strip_is_named(room, tmp_path):
    assert run_fit(room, tmp_path, "--quiet", "--strip", "dist,eq,pan", "--reverb", "noise") == 0
    track = json.loads((tmp_path / "out" / "settings.json").read_text())["tracks"]["a"]
    assert list(track) == ["distortion", "parametric_eq", "gain", "stereo_panner", "send"]


def test_an_unknown_strip_is_told_in_one_line(room, tmp_path, capsys):
    assert run_fit(room, tmp_path, "--quiet", "--strip", "eq,chorus") == 1
    assert only_line(capsys).startswith("dasp: --strip: 'chorus' is unknown, expected one of eq, comp, exp")


@pytest.fixture
def other_stems(song, tmp_path):
    """The stems and two more: one short, one of another rate."""
    stems = tmp_path / "stems"
    stems.mkdir()
    for path in (song / "stems").iterdir():
        (stems / path.name).write_bytes(path.read_bytes())
    generator = np.random.default_rng(1)
    write(stems / "4 short.wav", 0.1 * generator.standard_normal((RATE // 3, 2)))
    write(stems / "5 fast.flac", 0.1 * generator.standard_normal(RATE * 5), 44100)
    return stems


@pytest.mark.parametrize("block", [3001, 2**17])
def test_render_of_any_stems_reproduces_the_mix_to_the_bit(song, other_stems, tmp_path, monkeypatch, block):
    monkeypatch.setattr(cli, "_BLOCK", block)
    assert run_fit(song, tmp_path, "--quiet", stems=other_stems) == 0
    settings, output = tmp_path / "out" / "settings.json", tmp_path / "again.wav"
    assert main(["render", str(settings), str(other_stems), "--output", str(output), "--quiet"]) == 0
    assert output.read_bytes() == (tmp_path / "out" / "mix.wav").read_bytes()


def test_render_in_blocks_is_the_mix_of_the_whole(song, other_stems, tmp_path, monkeypatch):
    assert run_fit(song, tmp_path, "--quiet", stems=other_stems) == 0
    settings, output = tmp_path / "out" / "settings.json", tmp_path / "again.wav"
    monkeypatch.setattr(cli, "_BLOCK", 5001)
    assert main(["render", str(settings), str(other_stems), "--output", str(output), "--quiet"]) == 0
    console, values, names, _ = interpret(read(settings))
    loaded = io.load_tracks(io.find_stems(other_stems), RATE)
    assert loaded.names == names
    whole = console.mix(loaded.tracks, values)
    # Sums in float32 of sounds around 1.
    torch.testing.assert_close(io.load(output).samples, whole, atol=2e-6, rtol=0)


def test_an_interrupted_render_leaves_nothing(song, fitted, tmp_path, monkeypatch, capsys):
    class Interrupted:
        blocks = 0

        def __call__(self, done):
            self.blocks += 1
            if self.blocks == 3:
                raise KeyboardInterrupt

    on_samples = Interrupted()
    monkeypatch.setattr(cli, "_BLOCK", 5000)
    monkeypatch.setattr(cli, "_render_progress", lambda *arguments: contextlib.nullcontext(on_samples))
    output = tmp_path / "mix" / "mix.wav"
    output.parent.mkdir()
    assert main(["render", str(fitted / "settings.json"), str(song / "stems"), "--output", str(output)]) == 130
    assert only_line(capsys) == "dasp: interrupted, nothing written"
    assert on_samples.blocks == 3
    assert list(output.parent.iterdir()) == []


def test_a_stem_that_turns_out_bad_leaves_nothing(song, fitted, tmp_path, monkeypatch, capsys):
    stems = tmp_path / "stems"
    stems.mkdir()
    for path in (song / "stems").iterdir():
        (stems / path.name).write_bytes(path.read_bytes())
    samples, _ = soundfile.read(stems / "1 drums.wav")
    samples[20000] = np.nan
    write(stems / "1 drums.wav", samples, subtype="FLOAT")
    monkeypatch.setattr(cli, "_BLOCK", 5000)
    output = tmp_path / "mix" / "mix.wav"
    output.parent.mkdir()
    assert main(["render", str(fitted / "settings.json"), str(stems), "--output", str(output), "--quiet"]) == 1
    assert "1 drums.wav: sample 20000 (1.250 s) of channel 1 is NaN" in only_line(capsys)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_render_says_how_far_it_is(song, fitted, tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(cli, "_BLOCK", 5000)
    monkeypatch.setattr(cli, "_LONG_S", SECONDS / 2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    output = tmp_path / "again.wav"
    assert main(["render", str(fitted / "settings.json"), str(song / "stems"), "--output", str(output)]) == 0
    said = capsys.readouterr().err
    if terminal:
        assert "mixing" in said
        assert "2/2 s" in said
    else:
        progress = [line for line in said.splitlines() if line.startswith("mixed ")]
        assert (len(progress), progress[-1]) == (7, "mixed 2 of 2 s")


def test_a_render_of_integers_says_what_was_clipped(song, fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_BLOCK", 5000)
    settings = json.loads((fitted / "settings.json").read_text())
    settings["master"]["compressor"]["makeup_gain_db"] = 24.0
    (tmp_path / "loud.json").write_text(json.dumps(settings))
    output = tmp_path / "loud.flac"
    assert main(["render", str(tmp_path / "loud.json"), str(song / "stems"), "--output", str(output)]) == 0
    clipped, *rest = (line for line in capsys.readouterr().err.splitlines() if "clipped" in line)
    assert not rest
    samples, _ = soundfile.read(output)
    assert f" of {samples.size} samples clipped, the peak was +" in clipped


MEMORY = """
import sys
from dasp.cli import main
for folder in sys.argv[2:]:
    assert main(["render", sys.argv[1], folder, "--output", folder + ".wav", "--quiet"]) == 0
    # Not getrusage, whose peak of a child begins with that of its parent.
    print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peaks_of_memory(tmp_path, *seconds):
    """Peak memory in MB after a render of stems of one length, and after one of the next, in one process."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs the peak of memory that Linux tells")
    for length in seconds:
        folder = tmp_path / f"{length} s"
        folder.mkdir()
        for name, rate, channels in (("a", RATE, 1), ("b", RATE, 2), ("c", RATE // 2, 1)):
            second = (100 * np.random.default_rng(channels).standard_normal((rate, channels))).astype(np.int16)
            with soundfile.SoundFile(folder / f"{name}.wav", "w", rate, channels, "PCM_16") as file:
                for _ in range(length):
                    file.write(second)
    console = DifferentiableMixingConsole(RATE)
    values = console.denormalize(console.default_controls(3))
    values["track"]["send"]["reverb_db"].fill_(-20.0)
    (tmp_path / "settings.json").write_text(to_json(console.describe(console.normalize(values), ["a", "b", "c"])))
    command = [sys.executable, "-c", MEMORY, tmp_path / "settings.json", *(tmp_path / f"{s} s" for s in seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(map(str, command), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for length in seconds:
        assert soundfile.info(tmp_path / f"{length} s.wav").frames == length * RATE
    return [float(line) for line in done.stdout.splitlines()]


def test_a_render_ten_times_as_long_takes_no_more_memory(tmp_path):
    # Four blocks and forty.  The stems of the longer one alone are 87 MB of samples, and their strips 130 MB; what the
    # allocator leaves between blocks comes to 10 MB.
    short, long = peaks_of_memory(tmp_path, 34, 340)
    assert long - short < 30


@pytest.mark.slow
def test_a_render_of_an_hour_takes_no_more_memory(tmp_path):
    short, long = peaks_of_memory(tmp_path, 34, 3600)
    assert long - short < 30


def test_render_takes_files_in_any_order(song, fitted, tmp_path):
    stems = [str(path) for path in sorted((song / "stems").iterdir(), reverse=True)]
    assert (
        main(["render", str(fitted / "settings.json"), *stems, "--output", str(tmp_path / "again.flac"), "--quiet"])
        == 0
    )
    assert soundfile.info(tmp_path / "again.flac").subtype == "PCM_24"


def test_render_names_a_missing_stem(song, fitted, tmp_path, capsys):
    stems = [str(song / "stems" / "1 drums.wav")]
    assert main(["render", str(fitted / "settings.json"), *stems, "--output", str(tmp_path / "x.wav")]) == 1
    assert "no stem for track '2 bass'" in only_line(capsys)
    assert not (tmp_path / "x.wav").exists()


def test_render_names_what_is_wrong_with_settings(song, fitted, tmp_path, capsys):
    settings = json.loads((fitted / "settings.json").read_text())
    settings["tracks"]["2 bass"]["gain"]["gain_db"] = "loud"
    (tmp_path / "s.json").write_text(json.dumps(settings))
    assert main(["render", str(tmp_path / "s.json"), str(song / "stems"), "--output", str(tmp_path / "x.wav")]) == 1
    assert "tracks.2 bass.gain.gain_db" in only_line(capsys)


def test_a_reference_of_another_rate_and_length_is_brought_over_and_said(song, tmp_path, capsys):
    mix, _ = soundfile.read(song / "mix.wav")
    other = write(tmp_path / "other.wav", np.repeat(mix, 2, 0)[: RATE * 3], 2 * RATE)
    assert run_fit(song, tmp_path, reference=other) == 0
    said = capsys.readouterr().err
    assert f"resampled from {2 * RATE} to {RATE} Hz" in said
    assert "lasts 1.50 s, the stems 2.00 s" in said
    assert soundfile.info(tmp_path / "out" / "mix.wav").frames == RATE * SECONDS


def test_a_stem_of_another_rate_and_length_is_brought_over_and_said(song, tmp_path, capsys):
    stems = tmp_path / "stems"
    stems.mkdir()
    for path in (song / "stems").iterdir():
        (stems / path.name).write_bytes(path.read_bytes())
    write(stems / "4 short.wav", np.full(RATE // 4, 0.1), RATE // 2)
    assert run_fit(song, tmp_path, stems=stems) == 0
    said = capsys.readouterr().err
    assert f"4 short.wav: resampled from {RATE // 2} to {RATE} Hz" in said
    assert "4 short.wav: padded" in said


def test_a_mono_reference_is_taken_as_both_channels_and_said(song, tmp_path, capsys):
    mono = write(tmp_path / "mono.wav", soundfile.read(song / "mix.wav")[0][:, 0])
    assert run_fit(song, tmp_path, reference=mono) == 0
    assert "is mono" in capsys.readouterr().err


def test_a_silent_stem_is_said(song, tmp_path, capsys):
    stems = tmp_path / "stems"
    stems.mkdir()
    (stems / "1 drums.wav").write_bytes((song / "stems" / "1 drums.wav").read_bytes())
    write(stems / "silence.wav", np.zeros(RATE))
    assert run_fit(song, tmp_path, stems=stems) == 0
    assert "silence: is silent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.wav", "none.wav: does not exist"),
        (lambda folder: write(folder / "nan.wav", np.array([0.1, np.nan]), subtype="FLOAT"), "nan.wav: sample 1"),
        (lambda folder: write(folder / "inf.wav", np.array([np.inf, 0.1]), subtype="FLOAT"), "inf.wav: sample 0"),
        (lambda folder: write(folder / "zero.wav", np.zeros(RATE)), "zero.wav: is silent"),
        (lambda folder: write(folder / "four.wav", np.ones((RATE, 4))), "four.wav: has 4 channels"),
        (
            lambda folder: (folder / "text.wav").write_text("no audio") and folder / "text.wav",
            "text.wav: not a readable",
        ),
    ],
)
def test_an_unusable_reference_is_named_in_one_line(song, tmp_path, capsys, make, message):
    assert run_fit(song, tmp_path, "--quiet", reference=make(tmp_path)) == 1
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_unusable_stems_are_named_in_one_line(song, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run_fit(song, tmp_path, stems=tmp_path / "empty") == 1
    assert "no audio files" in only_line(capsys)
    (tmp_path / "silent").mkdir()
    write(tmp_path / "silent" / "a.wav", np.zeros(RATE))
    assert run_fit(song, tmp_path, "--quiet", stems=tmp_path / "silent") == 1
    assert "every stem is silent" in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_existing_output_is_refused_without_force(song, fitted, capsys):
    arguments = ["fit", str(song / "stems"), "--reference", str(song / "mix.wav"), "--output", str(fitted), *FIT]
    before = (fitted / "mix.wav").read_bytes()
    assert main(arguments) == 1
    assert "exists already, use --force" in only_line(capsys)
    assert (fitted / "mix.wav").read_bytes() == before
    assert main([*arguments, "--force", "--quiet"]) == 0


def test_an_output_that_is_a_file_is_refused(song, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert run_fit(song, tmp_path) == 1
    assert "is a file, expected a folder" in only_line(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mix"],
        ["fit"],
        ["fit", "stems", "--reference", "mix.wav"],
        ["fit", "stems", "--reference", "mix.wav", "--output", "out", "--steps", "-1"],
        ["fit", "stems", "--reference", "mix.wav", "--output", "out", "--steps", "many"],
        ["fit", "stems", "--demo"],
        ["render", "settings.json"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert "--help" in only_line(capsys)


def test_quiet_prints_nothing(song, tmp_path, capsys):
    assert run_fit(song, tmp_path, "--quiet") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_info_names_versions_and_kernels(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    values = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert values == dasp.info()
    assert {"dasp", "python", "threads", "cpu_kernels", "instruction_set"} <= set(values)
    assert values["torch"] == torch.__version__
    assert values["numpy"] == np.__version__


def test_info_has_a_dash_for_a_package_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(dasp, "_PACKAGES", ("numpy", "no-such-package-of-dasp"))
    assert main(["info"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["no-such-package-of-dasp", "-"]


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dasp {dasp.__version__}\n"


def test_demo_prints_true_and_found_settings(tmp_path, capsys):
    assert main(["fit", "--demo", "--output", str(tmp_path / "demo"), "--reverb", "noise", *FIT]) == 0
    printed = capsys.readouterr().out
    assert "true and found settings" in printed
    assert "mean error of fader dB" in printed
    hidden = json.loads((tmp_path / "demo" / "hidden_settings.json").read_text())
    assert set(hidden["tracks"]) == {path.stem for path in (tmp_path / "demo" / "stems").iterdir()}


def test_interrupt_writes_the_best_so_far_and_exits_with_130(song, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "dasp", "fit", song / "stems", "--reference", song / "mix.wav", "--output", output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*map(str, command), "--steps", "100000"], stderr=subprocess.PIPE, text=True, cwd=Path.cwd(), env=environment
    )
    said = process.stderr.readline()
    assert said.startswith("step 1 of 100000"), said
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted after" in said
    assert "Traceback" not in said
    left = {path.name for path in output.iterdir()} - {"reverb.wav"}
    assert left == {"mix.wav", "report.html", "settings.json"}


# ---- mix


def run_mix(song, tmp_path, *extra, stems="stems"):
    stems = song / stems if isinstance(stems, str) else stems
    return main(["mix", str(stems), "--output", str(tmp_path / "out"), *extra])


def test_mix_writes_a_mix_and_its_settings(song, tmp_path):
    assert run_mix(song, tmp_path) == 0
    samples, rate = soundfile.read(tmp_path / "out" / "mix.wav")
    assert (samples.shape, rate) == ((RATE * SECONDS, 2), RATE)
    assert np.abs(samples).max() > 0.01
    assert list(json.loads((tmp_path / "out" / "settings.json").read_text())["tracks"]) == [
        "1 drums",
        "2 bass",
        "3 pad",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mix.wav",
        "report.html",
        "settings.json",
    ]


def test_reports_are_pages_with_every_player_and_can_be_left_out(song, fitted, tmp_path):
    assert (fitted / "report.html").read_text(encoding="utf-8").count('class="audio"') == 3
    assert run_mix(song, tmp_path, "--quiet", "--no-report") == 0
    assert not (tmp_path / "out" / "report.html").exists()
    assert run_mix(song, tmp_path, "--quiet", "--force", "--reference", str(song / "mix.wav")) == 0
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count('class="audio"') == 3


def test_render_reproduces_what_mix_wrote_to_the_bit(song, tmp_path):
    assert run_mix(song, tmp_path, "--quiet") == 0
    output = tmp_path / "again.wav"
    settings = str(tmp_path / "out" / "settings.json")
    assert main(["render", settings, str(song / "stems"), "--output", str(output), "--quiet"]) == 0
    assert output.read_bytes() == (tmp_path / "out" / "mix.wav").read_bytes()


def test_mix_listens_to_a_reference(song, tmp_path):
    assert run_mix(song, tmp_path, "--quiet") == 0
    without = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert run_mix(song, tmp_path, "--quiet", "--force", "--reference", str(song / "mix.wav")) == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["master"] != without["master"]


def test_mix_hears_the_loudest_stretch_of_a_long_track(song, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_BLOCK", 2000)
    monkeypatch.setattr(cli, "_HEARD", 3)
    x = np.zeros(20500)
    x[9000:13000] = 0.1
    stems = tmp_path / "stems"
    stems.mkdir()
    write(stems / "a.wav", x)
    write(stems / "b.wav", x[::-1])
    pairs = io.find_stems(stems)
    with io.TrackReader(pairs) as reader:
        first, second = cli._loudest(lambda: io.TrackReader(pairs), reader)
    assert first.shape == second.shape == (1, 6000)
    assert int((first != 0).sum()) == 4000
    assert int((second != 0).sum()) == 4000


def test_mix_takes_the_model_that_it_is_given(song, tmp_path):
    console = DifferentiableMixingConsole(44100)
    path = tmp_path / "mine.safetensors"
    DeepSetController(console, features=4, hidden=4, encoder_options={"channels": 4}).save(path)
    assert run_mix(song, tmp_path, "--quiet", "--model", str(path)) == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert abs(settings["tracks"]["1 drums"]["gain"]["gain_db"]) < 10


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--model", "none.safetensors"), "none.safetensors"),
        (("--model", "text.safetensors"), "text.safetensors: not a readable safetensors file"),
        (("--reference", "none.wav"), "none.wav: does not exist"),
        (("--reference", "silent.wav"), "silent.wav: is silent"),
    ],
)
def test_what_mix_cannot_use_is_one_line(song, tmp_path, capsys, monkeypatch, extra, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.safetensors").write_text("no tensors")
    write(tmp_path / "silent.wav", np.zeros((RATE, 2)))
    assert run_mix(song, tmp_path, "--quiet", *extra) == 1
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_mix_replaces_nothing_unless_told_so(song, tmp_path, capsys):
    assert run_mix(song, tmp_path, "--quiet") == 0
    before = (tmp_path / "out" / "mix.wav").read_bytes()
    assert run_mix(song, tmp_path, "--quiet") == 1
    assert "--force" in only_line(capsys)
    assert (tmp_path / "out" / "mix.wav").read_bytes() == before


def test_silent_stems_are_refused(tmp_path, capsys):
    write(tmp_path / "a.wav", np.zeros(RATE))
    assert main(["mix", str(tmp_path / "a.wav"), "--output", str(tmp_path / "out"), "--quiet"]) == 1
    assert "every stem is silent" in only_line(capsys)


# ---- train


RECIPE = """
sample_rate = 16000
[training]
steps = 2
batch_size = 1
validate_every = 1
validation_items = 1
[controller.options]
features = 4
hidden = 4
encoder_options = { channels = 4, blocks = 1, bands = 8 }
[data]
fewest = 1
most = 2
seconds = 0.5
[loss]
audio_from_step = 2
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [("[training]\nsteps = 'x'", "recipe.toml: training.steps is 'x'"), ("", "recipe.toml: training is missing")],
)
def test_what_is_wrong_with_a_recipe_is_one_line(text, message, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(text)
    assert main(["train", str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "out")]) == 1
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_train_replaces_nothing_unless_told_so(tmp_path, capsys):
    (tmp_path / "state.ckpt").write_text("precious")
    assert main(["train", "small", "--output", str(tmp_path)]) == 1
    assert "state.ckpt: exists already, use --force" in only_line(capsys)
    assert (tmp_path / "state.ckpt").read_text() == "precious"


@pytest.mark.slow
def test_train_writes_a_controller_that_mix_takes(song, tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("tensorboard")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    # In a process of its own: Lightning meddles with warnings and signals.
    done = run_command("train", recipe, "--output", tmp_path / "trained")
    assert done.returncode == 0, done.stderr
    assert "step 2 of 2: validation loss" in done.stderr
    model = tmp_path / "trained" / "controller.safetensors"
    assert run_mix(song, tmp_path, "--quiet", "--model", str(model)) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_training_that_is_ended_goes_on_to_the_same_controller(tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("tensorboard")
    recipe, output = tmp_path / "recipe.toml", tmp_path / "ended"
    recipe.write_text(RECIPE.replace("steps = 2\n", "steps = 30\n").replace("step = 2", "step = 30"))
    done = run_command("train", recipe, "--output", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    # Lightning's own warnings are not the user's business.
    assert all(re.fullmatch(r"step \d+ of 30: .*|written to .*", line) for line in done.stderr.splitlines())
    command = [sys.executable, "-m", "dasp", "train", str(recipe), "--output", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 3 of"):
            break
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1].splitlines()
    assert process.returncode == 143, said
    assert said[-1] == f"dasp: interrupted, the same command with --resume goes on from {output / 'state.ckpt'}"
    assert not any(path.name.startswith(".") for path in output.iterdir())
    done = run_command("train", recipe, "--output", output, "--resume")
    assert done.returncode == 0, done.stderr
    assert not done.stderr.startswith("step 1 of")
    ended, whole = (Controller.load(folder / "controller.safetensors") for folder in (output, tmp_path / "whole"))
    assert all(torch.equal(u, whole.state_dict()[name]) for name, u in ended.state_dict().items())


def run_command(*arguments):
    command = [sys.executable, "-m", "dasp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)

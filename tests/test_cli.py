"""The `dasp` command, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dasp.cli import main

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


def test_fit_writes_mix_settings_and_picture(fitted):
    samples, rate = soundfile.read(fitted / "mix.wav")
    assert (samples.shape, rate) == ((RATE * SECONDS, 2), RATE)
    assert soundfile.info(fitted / "mix.wav").subtype == "FLOAT"
    settings = json.loads((fitted / "settings.json").read_text())
    assert list(settings["tracks"]) == ["1 drums", "2 bass", "3 pad"]
    assert set(settings["tracks"]["2 bass"]) == {"parametric_eq", "compressor", "gain", "stereo_panner", "send"}
    assert (fitted / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in fitted.iterdir()) == ["fit.png", "mix.wav", "settings.json"]


def test_render_reproduces_the_mix_to_the_bit(song, fitted, tmp_path):
    output = tmp_path / "again.wav"
    assert main(["render", str(fitted / "settings.json"), str(song / "stems"), "--output", str(output)]) == 0
    assert output.read_bytes() == (fitted / "mix.wav").read_bytes()


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
    assert "cpu_kernels" in printed
    assert torch.__version__ in printed


def test_demo_prints_true_and_found_settings(tmp_path, capsys):
    assert main(["fit", "--demo", "--output", str(tmp_path / "demo"), *FIT]) == 0
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
    assert sorted(path.name for path in output.iterdir()) == ["fit.png", "mix.wav", "settings.json"]

"""`dasp export`, run as a user runs it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from dasp.cli import main
from dasp.interchange import equalizer, to_sos
from dasp.mixing import DifferentiableMixingConsole
from dasp.mixing.settings import to_json

RATE = 16000


@pytest.fixture
def song(tmp_path):
    (tmp_path / "stems").mkdir()
    for name in ("kick", "voice", "other"):
        soundfile.write(tmp_path / "stems" / f"{name}.wav", np.zeros((100, 1)), RATE)
    console = DifferentiableMixingConsole(RATE)
    settings = console.describe(console.default_controls(2), ["kick", "voice"])
    (tmp_path / "settings.json").write_text(to_json(settings))
    return tmp_path


def export(song, kind, output, *extra, stems=("stems",)):
    paths = [str(song / name) for name in stems]
    return main(
        ["export", str(song / "settings.json"), *paths, "--format", kind, "--output", str(song / output), *extra]
    )


def test_projects_are_written_with_what_belongs_to_them(song, capsys):
    assert export(song, "reaper", "a/song.rpp", "--effects", "jsfx") == 0
    assert 'FILE "../stems/kick.wav"' in (song / "a" / "song.rpp").read_text()
    assert (song / "a" / "song.rpp-jsfx" / "dasp" / "compressor.jsfx").exists()
    assert export(song, "dawproject", "song.dawproject") == 0
    told = capsys.readouterr().err
    assert "other.wav: has no track" in told
    assert "song.rpp.txt" in told


@pytest.mark.parametrize("kind", ["eqapo", "camilladsp", "ffmpeg", "sox", "sos"])
def test_equalisers_are_written(song, kind, capsys):
    assert export(song, kind, "eq", "--section", "voice", stems=()) == 0
    assert (song / "eq").read_text()
    assert "voice: without compressor, gain, stereo_panner, which are no filters" in capsys.readouterr().err
    assert export(song, kind, "eq", stems=()) == 1
    assert "exists already" in capsys.readouterr().err
    assert export(song, kind, "eq", "--force", "--quiet", stems=()) == 0
    assert capsys.readouterr().err == ""


def test_sections_of_the_command_are_those_of_the_function(song):
    assert export(song, "sos", "eq.json", "--section", "tracks.kick", "--quiet", stems=()) == 0
    settings = json.loads((song / "settings.json").read_text())
    read = json.loads((song / "eq.json").read_text())
    assert (np.array(read["sos"]) == to_sos(equalizer(settings, "kick"))).all()


@pytest.mark.parametrize(
    ("kind", "extra", "stems", "told"),
    [
        ("reaper", (), (), "--format reaper needs STEMS"),
        ("reaper", ("--section", "kick"), ("stems",), "--format reaper takes no --section"),
        ("dawproject", ("--effects", "jsfx"), ("stems",), "--format dawproject takes no --effects"),
        ("sos", (), ("stems",), "--format sos takes no STEMS"),
    ],
)
def test_options_that_do_not_go_with_a_format_are_wrong_usage(song, capsys, kind, extra, stems, told):
    assert export(song, kind, "x.rpp", *extra, stems=stems) == 2
    assert told in capsys.readouterr().err
    assert not (song / "x.rpp").exists()


def test_failures_are_one_line(song, capsys):
    (song / "stems" / "voice.wav").unlink()
    assert export(song, "reaper", "song.rpp") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert export(song, "sos", "eq.json", "--section", "flute", stems=()) == 1
    assert "section 'flute' is unknown, expected one of master, tracks.kick" in capsys.readouterr().err

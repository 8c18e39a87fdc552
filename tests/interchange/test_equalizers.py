"""Equalisers as text of other programs: the same numbers back, and the same audio from the programs themselves."""

from __future__ import annotations

import json
import math
import shutil
import subprocess

import numpy as np
import pytest
import scipy.signal
import torch

import dasp.functional as F
import dasp.modules as M
from dasp.interchange import (
    Band,
    Equalizer,
    equalizer,
    from_eqapo,
    to_camilladsp,
    to_eqapo,
    to_ffmpeg,
    to_sos,
    to_sos_json,
    to_sox,
)
from dasp.kernels import KINDS
from dasp.mixing import DifferentiableMixingConsole
from tests.oracles import cookbook

RATE = 44100
MIXED = Equalizer(
    tuple(
        Band(kind, f, g if kind in ("low_shelf", "peaking", "high_shelf") else 0.0, q)
        for kind, f, g, q in zip(
            (*KINDS, "peaking"),
            (7000.3, 31.7, 4000.0, 1234.5, 900.1, 320.25, 90.0, 9000.0, 2500.0),
            (6.25, -3.1, 11.0, -18.5, 4.0, 2.125, 5.5, -7.75, 1e-7),
            (0.9, 0.31, 0.5, 2.5, 1.7, 6.0, 0.8, 0.62, 1.0),
            strict=True,
        )
    ),
    RATE,
    -4.5,
)


def noise(samples=8000):
    generator = torch.Generator().manual_seed(0)
    return 0.05 * torch.randn(2, samples, generator=generator, dtype=torch.float64)


def by_dasp(eq, x):
    return F.parametric_eq(F.gain(x, RATE, gain_db=eq.gain_db), RATE, **eq.controls()).numpy()


def residual_db(found, wanted):
    return 20 * math.log10(max(np.abs(found - wanted).max() / np.abs(wanted).max(), 1e-30))


def program(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def raw(command, x):
    """What a program makes of stereo audio in float64, given and taken without headers."""
    done = subprocess.run(command, input=x.numpy().T.tobytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout).reshape(-1, 2).T


def by_ffmpeg(graph, x):
    form = ["-f", "f64le", "-ar", str(RATE), "-ac", "2"]
    return raw([program("ffmpeg"), "-v", "error", *form, "-i", "pipe:0", "-af", graph, *form, "pipe:1"], x)


def by_sox(effects, x):
    form = ["-t", "f64", "-r", str(RATE), "-c", "2", "-"]
    return raw([program("sox"), "-V1", "-D", *form, *form, *effects.split()], x)


@pytest.mark.parametrize("kind", KINDS)
def test_ffmpeg_nulls_against_each_filter(kind):
    x, band = noise(), next(band for band in MIXED.bands if band.kind == kind)
    eq = Equalizer((band,), RATE)
    assert residual_db(by_ffmpeg(to_ffmpeg(eq), x), by_dasp(eq, x)) < -240


def test_ffmpeg_nulls_against_all_of_them():
    x = noise()
    assert residual_db(by_ffmpeg(to_ffmpeg(MIXED), x), by_dasp(MIXED, x)) < -240


def test_sox_nulls_down_to_its_samples_of_32_bits():
    # Between effects SoX has integers of 32 bits, whose rounding is at -187 dB of full scale; the audio is at -20 dB.
    x = noise()
    assert residual_db(by_sox(to_sox(MIXED), x), by_dasp(MIXED, x)) < -140


@pytest.mark.parametrize("kind", ["peaking", "low_shelf", "high_shelf"])
def test_filters_of_sox_are_ours(kind):
    x, band = noise(), next(band for band in MIXED.bands if band.kind == kind)
    f, gain, q = f"{band.frequency_hz!r}", f"{band.gain_db!r}", f"{band.q!r}q"
    effect = {"peaking": f"equalizer {f} {q} {gain}", "low_shelf": f"bass {gain} {f} {q}"}
    effects = effect.get(kind, f"treble {gain} {f} {q}")
    assert residual_db(by_sox(effects, x), by_dasp(Equalizer((band,), RATE), x)) < -140


def test_sections_are_those_of_the_cookbook_and_null_in_scipy():
    x, sos = noise(), to_sos(MIXED)
    wanted = np.stack([cookbook(kind, RATE, f, g, q) for kind, f, g, q in MIXED.bands])
    wanted[0, :3] *= 10 ** (MIXED.gain_db / 20)
    np.testing.assert_allclose(sos, wanted, rtol=1e-12, atol=1e-14)
    assert residual_db(scipy.signal.sosfilt(sos, x.numpy()), by_dasp(MIXED, x)) < -240


def test_sections_read_back_from_json_to_the_bit():
    read = json.loads(to_sos_json(MIXED))
    assert read["sample_rate"] == RATE
    assert (np.array(read["sos"]) == to_sos(MIXED)).all()


def test_eqapo_text_reads_back_as_the_same_numbers():
    assert from_eqapo(to_eqapo(MIXED, "a title"), RATE) == MIXED


def test_eqapo_text_of_others_is_read():
    text = (
        "Preamp: -6,5 dB\r\n# by AutoEq\r\n\r\nFilter 1: ON LSC Fc 105 Hz Gain 5.5 dB Q 0.70\r\n"
        "Filter 2: OFF PK Fc 1000 Hz Gain 3.0 dB Q 1.41\r\nFilter: ON PEQ Fc 1000,5 Hz Gain -3.0 dB Q 1.41\r\n"
    )
    bands = (Band("low_shelf", 105.0, 5.5, 0.7), Band("peaking", 1000.5, -3.0, 1.41))
    assert from_eqapo(text, 48000) == Equalizer(bands, 48000, -6.5)


@pytest.mark.parametrize(
    "line",
    [
        "Include: other.txt",
        "Filter 1: ON LS 6dB Fc 100 Hz Gain 3 dB",
        "Filter 1: ON PK Fc 100 Hz Q 1",
        "Filter 1: ON LPQ Fc 100 Hz Gain 3 dB Q 1",
        "Filter 1: ON PK Fc 100 Hz Gain 3 dB BW Oct 1",
        "Filter 1: ON PK Fc nan Hz Gain 3 dB Q 1",
        "Filter 1: ON PK Fc 100 Hz Gain 3 dB Q 1 Q 2",
    ],
)
def test_a_line_that_is_not_understood_is_refused(line):
    with pytest.raises(ValueError, match=r"from_eqapo: line 2 is .*, expected Preamp, or Filter"):
        from_eqapo(f"Preamp: 0 dB\n{line}\n", RATE)


def test_numbers_that_are_infinite_and_text_without_filters_are_refused():
    with pytest.raises(ValueError, match="a number is 1e999, expected a finite one"):
        from_eqapo("Preamp: 1e999 dB", RATE)
    with pytest.raises(ValueError, match="no filter that is ON"):
        from_eqapo("Filter 1: OFF PK Fc 100 Hz Gain 3 dB Q 1", RATE)


def test_camilladsp_text_reads_back_as_the_same_numbers():
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(to_camilladsp(MIXED, 'a "title": {}', channels=(1,)))
    (step,) = read["pipeline"]
    assert (step["type"], step["channels"], list(read["filters"])) == ("Filter", [1], step["names"])
    assert read["filters"].pop("gain") == {"type": "Gain", "parameters": {"gain": -4.5}}
    types = {
        "Lowpass": "lowpass",
        "Highpass": "highpass",
        "Bandpass": "bandpass",
        "Notch": "notch",
        "Allpass": "allpass",
        "Peaking": "peaking",
        "Lowshelf": "low_shelf",
        "Highshelf": "high_shelf",
    }
    bands = []
    for entry in read["filters"].values():
        assert entry.pop("type") == "Biquad"
        own = entry.pop("parameters")
        bands.append(Band(types[own.pop("type")], own.pop("freq"), own.pop("gain", 0.0), own.pop("q")))
        assert not own
        assert not entry
    assert tuple(bands) == MIXED.bands


def test_camilladsp_text_means_the_same_filters_to_its_makers():
    """By the validator and the filters of pycamilladsp-plot, which comes from the makers of CamillaDSP."""
    why = "needs pycamilladsp-plot, PyYAML and jsonschema"
    yaml = pytest.importorskip("yaml")
    validating = pytest.importorskip("camilladsp_plot.validate_config", reason=why)
    filters = pytest.importorskip("camilladsp_plot.filters", reason=why)
    read = yaml.safe_load(to_camilladsp(MIXED))
    device = {"channels": 2, "format": "F64_LE"}
    validator = validating.CamillaValidator()
    validator.validate_config(
        read
        | {
            "devices": {
                "samplerate": RATE,
                "chunksize": 1024,
                "capture": {"type": "Stdin", **device},
                "playback": {"type": "Stdout", **device},
            }
        }
    )
    assert validator.get_errors() == []
    wanted = to_sos(MIXED._replace(gain_db=0.0))
    own = [entry["parameters"] for name, entry in read["filters"].items() if name != "gain"]
    for parameters, (*b, a0, a1, a2) in zip(own, wanted, strict=True):
        found = filters.Biquad(parameters, RATE)
        np.testing.assert_allclose([found.b0, found.b1, found.b2], np.array(b) / a0, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose([found.a1, found.a2], [a1 / a0, a2 / a0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("write", [to_eqapo, to_camilladsp])
def test_a_title_stays_in_its_remark(write):
    text = write(MIXED, "x\nInclude: secret.txt\r\u2028\x00y" + "z" * 1000)
    assert text.splitlines()[1:] == write(MIXED).splitlines()[1:]
    assert text.splitlines()[0].startswith("# x Include: secret.txt yz")
    assert len(text.splitlines()[0]) < 300


def test_values_beyond_the_limits_of_a_filter_are_those_that_act():
    eq = equalizer_of(frequency_hz=[0.1, 1e6], gain_db=[3.0, 0.0], q=[1e-9, 1e9])
    assert eq.bands == (Band("low_shelf", 1.0, 3.0, 1e-3), Band("highpass", 0.499 * RATE, 0.0, 1e3))


def equalizer_of(**values):
    kinds = ["low_shelf", "highpass"]
    console = DifferentiableMixingConsole(RATE, strip=M.Chain(M.ParametricEQ(RATE, kinds=kinds)), buses={})
    settings = console.describe(console.default_controls(1), ["voice"])
    settings["tracks"]["voice"]["parametric_eq"] = values
    return equalizer(settings, "voice")


@pytest.fixture
def settings():
    strip = M.Chain(M.Highpass(RATE), M.Compressor(RATE), M.ParametricEQ(RATE), M.Gain(RATE))
    console = DifferentiableMixingConsole(RATE, strip=strip, buses={"room": M.Chain(M.Gain(RATE))})
    controls = console.random_controls(3, torch.Generator().manual_seed(0))
    switches = console.switches(["a", "b", "room"], bypass={"b": ["parametric_eq"]})
    return console.describe(controls, ["a", "b", "room"], switches)


def test_a_section_gives_all_filters_that_are_not_bypassed(settings):
    whole = equalizer(settings, "a")
    own = settings["tracks"]["a"]
    assert [band.kind for band in whole.bands[:2]] == ["highpass", "low_shelf"]
    assert whole.bands[0].frequency_hz == own["highpass"]["frequency_hz"]
    assert [band.gain_db for band in whole.bands[1:]] == own["parametric_eq"]["gain_db"]
    assert whole.left_out == ("compressor", "gain")
    assert len(equalizer(settings, "tracks.b").bands) == 1
    assert len(equalizer(settings).bands) == 4


def test_a_module_gives_its_own_controls():
    module = M.Chain(M.Highpass(RATE, frequency_hz=77.0), M.Gain(RATE))
    eq = equalizer(module)
    assert (eq.left_out, eq.bands[0].kind) == (("gain",), "highpass")
    assert eq.bands[0].frequency_hz == pytest.approx(77.0, rel=1e-12)


def test_what_has_no_filters_is_refused(settings):
    with pytest.raises(ValueError, match=r"equalizer: buses\.room has no filters"):
        equalizer(settings, "buses.room")
    with pytest.raises(ValueError, match=r"section 'room' is the name of several, expected one of master, tracks\.a"):
        equalizer(settings, "room")
    with pytest.raises(ValueError, match="section 'c' is unknown"):
        equalizer(settings, "c")
    with pytest.raises(TypeError, match="source is a list, expected a description or a module"):
        equalizer([])
    with pytest.raises(TypeError, match="section is 'a', expected None for a module"):
        equalizer(M.Lowpass(RATE), "a")


def test_ffmpegs_compressor_has_the_static_curve_of_ours_and_other_ballistics():
    level = torch.linspace(-50, 0, 11, dtype=torch.float64)
    steps = (10 ** (level / 20)).repeat_interleave(RATE // 5).expand(2, -1).contiguous()
    graph = "acompressor=threshold=0.1:ratio=4:attack=1:release=9:knee=1:makeup=1:detection=peak:link=maximum"
    found = by_ffmpeg(graph, steps)
    ours = F.compressor(steps, RATE, threshold_db=-20.0, ratio=4.0, attack_ms=1.0, release_ms=9.0, knee_db=0.0)
    ends = slice(RATE // 5 - 1, None, RATE // 5)
    np.testing.assert_allclose(found[0, ends], ours[0, ends].numpy(), rtol=1e-4)
    assert residual_db(found, ours.numpy()) > -60


def test_gains_that_no_program_takes_are_refused():
    with pytest.raises(ValueError, match="low_shelf: gain_db is 500, expected a number up to 400"):
        equalizer_of(frequency_hz=[100.0, 100.0], gain_db=[500.0, 0.0], q=[1.0, 1.0])
    module = M.Peaking(RATE)
    torch.nn.init.constant_(module.q_normalized, math.nan)
    with pytest.raises(ValueError, match="peaking: q is nan, expected a number"):
        equalizer(module)
    with pytest.raises(ValueError, match="a level is 401 dB, expected at most 400 dB to be exported"):
        to_sos(MIXED._replace(gain_db=401.0))

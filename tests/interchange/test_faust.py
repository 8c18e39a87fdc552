"""Strips in Faust, compiled and run beside dasp."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

import dasp.modules as M
from dasp.cli import main
from dasp.interchange import to_faust
from dasp.kernels import KINDS
from dasp.mixing import DifferentiableMixingConsole, interpret
from dasp.mixing.settings import to_json

RATE = 44100

# Reads and writes interleaved stereo in double precision.
HOST = """
#include <cstdio>
#include <vector>
struct Meta { void declare(const char*, const char*) {} };
struct UI { void openVerticalBox(const char*) {} void closeBox() {} };
struct dsp { virtual ~dsp() {} };
#include "effect.cpp"
int main() {
  mydsp effect;
  effect.init(44100);
  std::vector<double> x[2], y[2];
  double frame[2];
  while (fread(frame, 8, 2, stdin) == 2) for (int c = 0; c < 2; ++c) x[c].push_back(frame[c]);
  int count = x[0].size();
  for (auto& channel : y) channel.resize(count);
  double *in[] = {x[0].data(), x[1].data()}, *out[] = {y[0].data(), y[1].data()};
  // In blocks, so that what an effect remembers counts.
  for (int n = 0; n < count; n += 100) {
    double *from[] = {in[0] + n, in[1] + n}, *to[] = {out[0] + n, out[1] + n};
    effect.compute(n + 100 < count ? 100 : count - n, from, to);
  }
  for (int n = 0; n < count; ++n) { fwrite(out[0] + n, 8, 1, stdout); fwrite(out[1] + n, 8, 1, stdout); }
}
"""

MODULES = {
    "filters": M.ParametricEQ(
        RATE,
        kinds=KINDS,
        frequency_hz=[30.0, 100.0, 400.0, 1000.0, 3000.0, 5000.0, 8000.0, 15000.0],
        gain_db=[6.0, -9.0, 3.0, -12.0, 20.0, 4.0, -5.0, 6.0],
        q=[0.3, 0.7, 1.0, 2.0, 5.0, 0.5, 0.8, 0.9],
    ),
    "strip": M.Chain(
        M.Highpass(RATE, frequency_hz=40.0),
        M.ParametricEQ(RATE, gain_db=[6.0, -3.0, 2.0, -5.0, 4.0, -6.0]),
        M.Compressor(RATE, threshold_db=-30.0, attack_ms=0.5, release_ms=5.0, makeup_gain_db=6.0),
        M.Gain(RATE, gain_db=-3.0),
        M.StereoPanner(RATE, pan=0.3),
    ),
    "dynamics": M.Chain(
        M.Compressor(RATE, knee_db=0.0, ratio=20.0, attack_ms=0.5, link="none"),
        M.Expander(RATE, threshold_db=-15.0, release_ms=5.0, link="mean"),
        M.Compressor(RATE, attack_ms=0.5, link="mean"),
        M.Expander(RATE, threshold_db=-25.0, link="none", range_db=12.0),
    ),
    "others": M.Chain(
        M.Distortion(RATE, drive_db=6.0),
        M.StereoWidener(RATE, width=1.5),
        M.StereoPanner(RATE, pan=-0.3, law="linear"),
        M.Polarity(RATE, invert=0.8),
        M.Distortion(RATE, drive_db=12.0, curve="soft_cubic"),
        M.StereoPanner(RATE, pan=-1.0, law="-4.5dB"),
        M.Distortion(RATE, drive_db=3.0, curve="hard"),
    ),
}


def run(text, x, folder):
    """Stereo through the program."""
    compiler = next(filter(shutil.which, ("g++", "c++", "clang++")), None)
    if compiler is None or shutil.which("faust") is None:
        pytest.skip("needs faust and a C++ compiler, on Debian and Ubuntu: apt install faust g++")
    (folder / "effect.dsp").write_text(text)
    (folder / "host.cpp").write_text(HOST)
    for command in (
        ["faust", "-double", "effect.dsp", "-o", "effect.cpp"],
        [compiler, "-DFAUSTFLOAT=double", "host.cpp", "-o", "host"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([folder / "host"], input=x.T.tobytes(), capture_output=True, check=True, timeout=60)
    return np.frombuffer(done.stdout).reshape(-1, 2).T


def noise(samples=2000):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, samples, generator=generator, dtype=torch.float64) * torch.linspace(0.01, 0.8, samples)


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_programs_null_to_minus_240_db(module, tmp_path):
    x = noise()
    chain = module if isinstance(module, M.Chain) else M.Chain(module)
    with torch.no_grad():
        wanted = chain.process(
            x, {name: stage.denormalize(stage.exact()) for name, stage in chain.stages().items()}
        ).numpy()
    found = to_faust(module)
    assert found.left_out == ()
    y = run(found.text, x.numpy(), tmp_path)
    assert np.abs(y - wanted).max() < 1e-12 * np.abs(wanted).max()


@pytest.fixture(scope="module")
def described():
    """Names of tracks and the description of a console with a panner before other stages."""
    console = DifferentiableMixingConsole(
        RATE,
        strip=M.Chain(M.ParametricEQ(RATE), M.StereoPanner(RATE), M.Compressor(RATE), M.Gain(RATE)),
        buses={"reverb": M.Chain(M.NoiseShapedReverb(RATE), M.Gain(RATE)), "room": M.Chain(M.NoiseShapedReverb(RATE))},
    )
    controls = console.random_controls(2, torch.Generator().manual_seed(3))
    names = ["kick", 'a "voice" \\ \n*/ 🥁\x07']
    switches = console.switches(names, bypass={"kick": ["compressor"]})
    return names, console.describe(controls, names, switches)


@pytest.mark.parametrize("track", [0, 1])
def test_strips_null_against_the_console(described, track, tmp_path):
    names, settings = described
    console, values, _, switches = interpret(settings)
    x = noise()[:1]
    signals = console.signals(torch.stack([x, x]), console.normalize(values), switches=switches)
    y = run(to_faust(settings, names[track]).text, x.expand(2, -1).numpy(), tmp_path)
    wanted = signals.strips[track].numpy()
    # Controls go through their normalised map and back.
    assert np.abs(y - wanted).max() < 1e-10 * np.abs(wanted).max()


def test_names_are_text_and_stages_without_counterpart_are_said(described):
    names, settings = described
    text, left_out = to_faust(settings, names[1])
    assert left_out == ()
    assert text.splitlines()[0].startswith('// a "voice" \\ */ 🥁, by dasp')
    assert text.count("\ndeclare ") == 1
    assert 'declare name "a _voice_ _ __ _";' in text
    assert text.isprintable() or all(line.isprintable() for line in text.splitlines())
    text, left_out = to_faust(settings, "reverb")
    assert left_out == ("noise_shaped_reverb",)
    assert "// Without noise_shaped_reverb." in text
    assert "section(" not in text
    with pytest.raises(ValueError, match="to_faust: room has no processor that Faust has a counterpart of"):
        to_faust(settings, "room")
    with pytest.raises(ValueError, match=r"to_faust: section 'flute' is unknown, expected one of master, tracks\.kick"):
        to_faust(settings, "flute")
    with pytest.raises(TypeError, match="to_faust: section is 'x', expected None for a module"):
        to_faust(M.Gain(RATE), "x")
    with pytest.raises(TypeError, match="to_faust: source is a str, expected a description or a module"):
        to_faust("x")


def test_numbers_have_a_decimal_point():
    # Faust takes others as integers of 32 bits.
    text = to_faust(M.Chain(M.Compressor(RATE, ratio=20.0), M.Lowpass(RATE))).text
    body = re.sub(r"//[^\n]*", "", text.split("\n\n", 1)[1])
    assert set(re.findall(r"(?<![\w.])\d+(?![\w.])", body)) == set()


def test_the_command_writes_a_program(described, tmp_path, capsys):
    _, settings = described
    (tmp_path / "s.json").write_text(to_json(settings))
    output = tmp_path / "x.dsp"
    arguments = ["export", str(tmp_path / "s.json"), "--format", "faust", "--output", str(output)]
    assert main([*arguments, "--section", "reverb"]) == 0
    assert "reverb: without noise_shaped_reverb, which Faust has no counterpart of here" in capsys.readouterr().err
    assert output.read_text() == to_faust(settings, "reverb").text
    assert main([*arguments, "--force", "--quiet"]) == 0
    assert output.read_text() == to_faust(settings).text
    assert main(["export", str(tmp_path / "s.json"), str(tmp_path), *arguments[2:], "--force"]) == 2

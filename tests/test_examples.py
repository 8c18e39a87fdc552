"""The programs in `examples/` do what they say.

Those of the gallery assert what they claim.  All of them run when the documentation is built (`make docs`, a part of
`.ci/run`), where an error or a warning fails the build.  Running them here as well would cost a minute for nothing: two
of the quickest run in every test run, so that a failure is met early, and the rest are marked slow, for whoever does
not build the documentation.
"""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import dasp
import dasp.io
from benchmarks.gradient_routes import plugin_chain

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "examples" / "fit_plugin_chain.py"
GALLERY = sorted(path for path in PROGRAM.parent.glob("*.py") if path != PROGRAM)
QUICK = ("compressor_recovery", "ducking")
RECORDING = ROOT.parent / "shared" / "multitrack" / "reference_mix.flac"


@pytest.fixture
def _as_before() -> Iterator[None]:
    """Examples draw without a window, and what they register is forgotten."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    registered = dict(dasp.PROCESSORS)
    yield
    matplotlib.pyplot.close("all")
    for name in dasp.PROCESSORS.keys() - registered.keys():
        del dasp.PROCESSORS[name]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow) for path in GALLERY],
)
@pytest.mark.usefixtures("_as_before")
def test_examples_of_the_gallery_keep_their_claims(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_examples_of_the_gallery_are_short_and_public(path):
    text = path.read_text()
    code = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 80
    assert "import dasp._" not in text
    assert "from dasp._" not in text


def run(*arguments):
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def fit_plugin_chain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_plugin_chain", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _pedalboard():
    pytest.importorskip("pedalboard", reason="pedalboard is not installed")


@pytest.mark.peer
@pytest.mark.usefixtures("_pedalboard")
def test_settings_of_plugins_are_found(fit_plugin_chain):
    x = fit_plugin_chain.song(1, seconds=2.0)
    effect = fit_plugin_chain.plugins(44100)
    true = fit_plugin_chain.hidden_settings(effect, 1)[0]
    found, distances = fit_plugin_chain.fit(effect, x, effect(x, true), steps=150)
    assert distances[-1] < 0.4 * distances[0]
    printed = fit_plugin_chain.table(effect, found, true)
    assert len(printed.splitlines()) == 1 + effect.num_controls
    assert "compressor.threshold_db" in printed


@pytest.mark.peer
@pytest.mark.usefixtures("_pedalboard")
def test_files_are_matched_and_written(tmp_path):
    x = 0.1 * torch.randn(1, 22050, generator=torch.Generator().manual_seed(0))
    dasp.io.save(tmp_path / "dry.wav", x, 44100)
    dasp.io.save(tmp_path / "wet.wav", 0.5 * x, 44100)
    files = "--input", tmp_path / "dry.wav", "--target", tmp_path / "wet.wav", "--output", tmp_path / "found.wav"
    done = run(*files, "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert dasp.io.load(tmp_path / "found.wav").samples.shape == x.shape
    dasp.io.save(tmp_path / "short.wav", x[:, 1:], 44100)
    done = run("--input", tmp_path / "short.wav", "--target", tmp_path / "wet.wav")
    assert done.returncode == 1
    assert "wet.wav: has shape (1, 22050), the recording (1, 22049)" in done.stderr


def test_a_missing_file_is_named_in_one_line(tmp_path):
    done = run("--input", tmp_path / "none.wav")
    assert done.returncode == 1
    assert "none.wav" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.usefixtures("_pedalboard")
@pytest.mark.skipif(not RECORDING.exists(), reason=f"there is no {RECORDING.name} beside the repository")
@pytest.mark.parametrize("seed", range(5))
def test_twelve_controls_of_three_plugins_are_recovered(fit_plugin_chain, seed):
    effect = plugin_chain()
    assert effect.num_controls == 12
    x = dasp.io.load(RECORDING).samples[:, : 4 * 44100]
    target = effect(x, fit_plugin_chain.hidden_settings(effect, seed)[0])
    _, distances = fit_plugin_chain.fit(effect, x, target, seed=seed)
    assert distances[-1] < 0.2 * distances[0]

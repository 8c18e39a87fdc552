"""The evaluation of controllers: its metrics, and what it complains of."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import soundfile
import torch

from benchmarks import mixing
from dasp.mixing import Controller, DeepSetController, DifferentiableMixingConsole

SCORE = Path(__file__).resolve().parents[2].parent / "shared" / "tools" / "score_mix.py"
RATE = 22050


def noise(seed, seconds=2):
    x = torch.randn(2, seconds * RATE, generator=torch.Generator().manual_seed(seed))
    return 0.1 * (x + 0.5 * x.flip(0)) * torch.linspace(1, 0.2, seconds * RATE)


def test_a_mix_is_at_no_distance_from_itself_and_its_level_is_one_figure():
    x = noise(0)
    assert max(mixing.metrics(x, x, RATE).values()) < 1e-6
    louder = mixing.metrics(2 * x, x, RATE)
    assert louder.pop("loudness_lu") == pytest.approx(6.0206, abs=1e-3)
    assert max(louder.values()) < 1e-4


def test_what_a_mix_lacks_shows_in_the_figure_for_it():
    x = noise(1)
    narrow = x.mean(0, keepdim=True).expand(2, -1) + 0.1 * x
    assert mixing.metrics(narrow, x, RATE)["width_db"] > 5
    clipped = x.clamp(-0.1, 0.1)
    assert mixing.metrics(clipped, x, RATE)["crest_db"] > 3


@pytest.mark.skipif(not SCORE.exists(), reason="the script that metrics are compared with is not here")
def test_metrics_are_those_of_the_script_that_scores_mixes():
    spec = importlib.util.spec_from_file_location("score_mix", SCORE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    x, y = noise(2), noise(3)
    expected = script.score(x.double().numpy(), y.double().numpy(), RATE)
    found = mixing.metrics(x, y, RATE)
    for ours, theirs in {"mrstft_db": "mrstft"}.items() | {(n, n) for n in expected if n != "mrstft"}:
        # Loudness is measured by two programs.
        assert found[ours] == pytest.approx(expected[theirs], abs=2e-3)


def test_simple_mixes_are_as_loud_as_the_target():
    console = DifferentiableMixingConsole(RATE)
    tracks = torch.stack([noise(seed)[:1] for seed in range(3)])
    target = noise(5)
    mixes = mixing.simple(tracks, target, console, 0)
    assert set(mixes) == {"sum", "equal loudness", "random", "least squares"}
    for mix in mixes.values():
        torch.testing.assert_close(mix.square().mean(), target.square().mean())


def rows(controller, simple, heard, unheard):
    where = {"tracks": 8, "sample_rate": 44100, "song": 0}
    target = [{"task": "target", "system": "controller", "stft_db": controller, "features": controller, **where}]
    target += [{**target[0], "system": name, "stft_db": simple, "features": simple} for name in mixing._SIMPLE]
    reference = [
        {"task": "reference", "system": f"{name} reference", "features": value, **where}
        for name, value in (("with", heard), ("without", unheard))
    ]
    return [*target, *reference]


def test_complaints_name_what_is_missed():
    assert mixing.complaints(mixing.summary(rows(0.6, 1.0, 0.4, 1.0))) == []
    missed = mixing.complaints(mixing.summary(rows(0.8, 1.0, 0.6, 1.0)))
    assert [line.split(":")[1].split()[0] for line in missed] == ["stft_db", "features", "features"]


def test_a_summary_is_the_mean_over_songs():
    two = [{**rows(1.0, 1.0, 1.0, 1.0)[0], "song": song, "features": float(song)} for song in (0, 1)]
    (mean,) = mixing.summary(two)
    assert (mean["songs"], mean["features"]) == (2, 0.5)
    assert "controller" in mixing.table([mean])


@pytest.mark.parametrize("hears_references", [True, False])
def test_a_model_is_evaluated_and_its_mixes_are_written_at_one_loudness(
    tmp_path, monkeypatch, capsys, hears_references
):
    path = tmp_path / "model.safetensors"
    small = {"features": 4, "hidden": 4, "encoder_options": {"channels": 4}, "reference": hears_references}
    DeepSetController(DifferentiableMixingConsole(44100), **small).save(path)
    monkeypatch.setattr(mixing, "QUICK", mixing.Size(1, 1.5, (2,), (44100,), 1))
    monkeypatch.setattr(mixing, "_SHARED", tmp_path / "none")
    monkeypatch.setattr(mixing, "permutation", lambda controller, size: 0.0)
    monkeypatch.setattr(
        mixing, "speed", lambda *_: {"controller_s": 1.0, "mix_s": 1.0, "times_real_time": 1.0, "threads": 1}
    )
    arguments = ["--quick", "--model", str(path), "--json", str(tmp_path / "a.json"), "--stimuli", str(tmp_path / "s")]
    # A network that has learned nothing misses what it is to reach.
    assert mixing.main(arguments) == 1
    assert "best simple mix" in capsys.readouterr().err
    assert (tmp_path / "a.json").exists()
    files = sorted((tmp_path / "s").rglob("*.wav"))
    assert len(files) == 6 + 5 * hears_references
    levels = [mixing.F.integrated_loudness(torch.from_numpy(soundfile.read(f)[0].T.copy()), 44100) for f in files[:6]]
    assert max(levels) - min(levels) < 0.1
    assert isinstance(Controller.load(path), DeepSetController)

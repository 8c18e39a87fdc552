"""The benchmark of fits."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import fitting


def test_the_settings_themselves_have_no_errors():
    desk, tracks, controls = fitting.hidden(0, 2.0, 16000, 3, with_master=True)
    figures = fitting.compare(desk, tracks, controls, controls)
    assert set(figures) >= set(fitting.TARGETS)
    assert all(value == 0 for value in figures.values())


def test_an_envelope_that_is_half_as_loud_in_a_channel_differs_by_that():
    noise = torch.randn(2, 32000, generator=torch.Generator().manual_seed(0))
    assert fitting.envelope_db(0.5 * noise, noise, 16000) == pytest.approx(0, abs=1e-3)
    assert fitting.envelope_db(noise.flip(0), noise, 16000) > 0.3


def test_the_quick_mode_writes_its_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fitting, "run_hidden", lambda *arguments: {"level_db": 1.0, "seconds": 2.0})
    fitting.main(["--quick", "--json", str(tmp_path / "f.json")])
    assert "level_db 1.000" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["rows"]["quick"]["level_db"] == 1.0

"""pedalboard's effects and plug-ins as black boxes."""

from __future__ import annotations

import copy
import pickle
import sys
import types
from itertools import pairwise

import numpy as np
import pytest
import torch

from dasp.gradients import EffectChain, PedalboardEffect, PluginEffect, finite_difference, spsa
from dasp.gradients.plugins import BUILT_IN

RATE = 44100
NAMES = sorted(BUILT_IN)


@pytest.fixture
def pedalboard():
    return pytest.importorskip("pedalboard", reason="pedalboard is not installed")


def audio(channels=2, samples=20000, items=()):
    """Noise that decays by 80 dB: for gates, and long enough for two delays."""
    generator = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(*items, channels, samples, generator=generator) * torch.logspace(0, -4, samples)


def settings(effect, seed=0):
    u = torch.rand(effect.num_controls, generator=torch.Generator().manual_seed(seed))
    return 0.1 + 0.8 * u


@pytest.mark.peer
@pytest.mark.parametrize("name", NAMES)
def test_every_control_of_every_effect_has_an_end_at_each_side_and_moves_the_output(pedalboard, name):
    effect, x = PedalboardEffect(name, RATE), audio()
    for u in (torch.zeros(effect.num_controls), torch.ones(effect.num_controls)):
        plugin = getattr(pedalboard, name)(**effect.denormalize(u))
        for control, value in effect.denormalize(u).items():
            assert getattr(plugin, control) == pytest.approx(value, rel=1e-4)
        assert torch.isfinite(effect(x, u)).all()
    middle = effect(x, settings(effect))
    assert middle.shape == x.shape
    for index in range(effect.num_controls):
        moved = settings(effect)
        moved[index] = (moved[index] + 0.4) % 1
        assert not torch.equal(effect(x, moved), middle), effect.control_names[index]


@pytest.mark.peer
@pytest.mark.parametrize("name", ["Compressor", "Reverb", "Delay", "PeakFilter", "Chorus"])
def test_an_effect_gives_what_pedalboard_does_whatever_came_before(pedalboard, name):
    effect, x, u = PedalboardEffect(name, RATE), audio(), None
    u = settings(effect)
    want = getattr(pedalboard, name)(**effect.denormalize(u)).process(x.numpy(), RATE)
    effect(10 * x, settings(effect, 1))
    assert torch.equal(effect(x, u), torch.from_numpy(want))


@pytest.mark.peer
def test_chosen_controls_and_fixed_values(pedalboard):
    effect = PedalboardEffect("Compressor", RATE, ["threshold_db", "release_ms"], {"ratio": 8.0})
    assert effect.control_names == ["threshold_db", "release_ms"]
    x = audio()
    want = pedalboard.Compressor(threshold_db=-30.0, ratio=8.0, release_ms=100.0).process(x.numpy(), RATE)
    u = effect.normalize({"threshold_db": -30.0, "release_ms": 100.0})
    torch.testing.assert_close(effect(x, u), torch.from_numpy(want))
    assert "ratio" not in PedalboardEffect("Compressor", RATE, fixed={"ratio": 8.0}).controls
    ladder = PedalboardEffect("LadderFilter", RATE, fixed={"mode": pedalboard.LadderFilter.Mode.HPF24})
    assert ladder(x, settings(ladder)).shape == x.shape


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 2), (2, 3), (1, 0), (2, 0)])
def test_short_audio_keeps_its_shape(pedalboard, shape):
    effect = PedalboardEffect("Gain", RATE)
    y = effect(torch.ones(shape), effect.normalize({"gain_db": 20.0}))
    torch.testing.assert_close(y, torch.full(shape, 10.0))


@pytest.mark.peer
def test_a_chain_of_plugins_has_the_gradient_of_finer_differences(pedalboard):
    chain = EffectChain(
        PedalboardEffect("PeakFilter", RATE), PedalboardEffect("Compressor", RATE), PedalboardEffect("Gain", RATE)
    )
    x = audio(items=(2,))
    u = torch.stack([settings(chain, seed) for seed in range(2)]).requires_grad_()
    weights = audio(items=(2,)).flip(-1)

    def gradient(estimate):
        with estimate:
            return torch.autograd.grad((estimate(x, u) * weights).sum(), u)[0]

    want = gradient(finite_difference(chain, epsilon=1e-3, order=4, workers=2))
    got = gradient(spsa(chain, epsilon=1e-3, num_draws=64, draw="hadamard", workers=2))
    assert torch.cosine_similarity(got, want).min() > 0.99


@pytest.mark.peer
def test_wrong_effects_controls_and_arguments_are_refused(pedalboard):
    with pytest.raises(ValueError, match="there is no effect 'Fuzz' with controls, expected one of Bitcrush"):
        PedalboardEffect("Fuzz", RATE)
    with pytest.raises(ValueError, match="Gain has no control 'volume', expected one of gain_db"):
        PedalboardEffect("Gain", RATE, ["volume"])
    with pytest.raises(ValueError, match="Compressor does not take these arguments"):
        PedalboardEffect("Compressor", RATE, fixed={"knee_db": 3.0})
    with pytest.raises(FileNotFoundError, match=r"there is no plug-in '/nowhere/x.vst3'"):
        PluginEffect("/nowhere/x.vst3", RATE)


@pytest.mark.peer
def test_a_file_that_is_no_plugin_is_refused(pedalboard, tmp_path):
    path = tmp_path / "broken.vst3"
    path.write_bytes(b"no plug-in")
    with pytest.raises(ImportError, match=r"broken\.vst3"):
        PluginEffect(path, RATE)


@pytest.mark.peer
def test_effects_of_pedalboard_can_be_copied_and_pickled(pedalboard):
    effect, x = PedalboardEffect("Reverb", RATE), audio()
    u = settings(effect)
    for other in (copy.deepcopy(effect), pickle.loads(pickle.dumps(effect))):
        assert torch.equal(other(x, u), effect(x, u))


@pytest.mark.parametrize("make", [lambda: PedalboardEffect("Gain", RATE), lambda: PluginEffect("x.vst3", RATE)])
def test_without_pedalboard_the_error_says_what_to_install(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "pedalboard", None)
    with pytest.raises(ImportError, match=r"needs pedalboard: pip install 'dasp\[plugins\]'"):
        make()


# A plug-in with the interface that pedalboard gives those it loads, since none is installed everywhere.


class Parameter:
    def __init__(self, name, kind, low, high, label=None, raw_value=0.5):
        self.name, self.type, self.min_value, self.max_value, self.label = name, kind, low, high, label
        self.raw_value = raw_value
        steps = np.linspace(0, 1, 101)
        # The scale of the plug-in is its own: here quadratic.
        self.ranges = {(a, b): low + (high - low) * a * a for a, b in pairwise(steps)}

    def get_raw_value_for(self, value):
        return ((value - self.min_value) / (self.max_value - self.min_value)) ** 0.5


class Plugin:
    """A gain with a memory, as plug-ins have until they are reset."""

    def __init__(self, path, values, plugin_name):
        self.values, self.plugin_name, self.memory, self.resets = values, plugin_name, 0.0, 0
        self.parameters = {
            "gain_db": Parameter("Gain", float, -20.0, 20.0, "dB"),
            "mode": Parameter("Mode", str, 0, 1),
            "bypass": Parameter("Bypass", bool, False, True),
            "mix": Parameter("Mix", float, 0.0, 100.0, "%"),
        }

    def reset(self):
        self.memory = 0.0

    def process(self, x, sample_rate, reset):
        if reset:
            self.reset()
        y = x * np.float32(self.parameters["gain_db"].raw_value) + np.float32(self.memory)
        self.memory = float(np.abs(y).max())
        return y


@pytest.fixture
def host(monkeypatch, tmp_path):
    module = types.ModuleType("pedalboard")
    module.load_plugin = Plugin
    monkeypatch.setitem(sys.modules, "pedalboard", module)
    path = tmp_path / "My Amp.vst3"
    path.mkdir()
    return path


def test_a_plugin_shows_its_continuous_parameters_with_units_and_ranges(host):
    effect = PluginEffect(host, RATE)
    assert effect.control_names == ["gain_db", "mix"]
    gain = effect.controls["gain_db"]
    assert (gain.unit, gain.low, gain.high, gain.meaning) == ("dB", -20, 20, "Gain.")
    assert PluginEffect(host, RATE, fixed={"mix": 100.0}).control_names == ["gain_db"]
    with pytest.raises(ValueError, match="'mode' is no control, expected one of gain_db, mix"):
        PluginEffect(host, RATE, ["mode"])


def test_a_plugin_is_set_on_its_own_scale(host):
    effect = PluginEffect(host, RATE, ["gain_db"])
    values = effect.denormalize(torch.tensor([0.5]))
    assert values["gain_db"] == pytest.approx(-10.0)
    assert effect.normalize(values).tolist() == pytest.approx([0.5])
    assert effect.denormalize(torch.ones(1))["gain_db"] == pytest.approx(20.0, abs=1.0)
    x = audio()
    torch.testing.assert_close(effect(x, torch.tensor([0.25])), 0.25 * x)


def test_a_plugin_is_reset_before_each_call_and_loaded_anew_for_each_worker(host):
    effect, x = PluginEffect(host, RATE, ["gain_db"]), audio(items=(3,))
    u = torch.full((3, 1), 0.5, requires_grad=True)
    for options in ({}, {"workers": 2}):
        with spsa(effect, **options) as estimate:
            y = estimate(x, u)
            assert torch.equal(y, 0.5 * x)
            (got,) = torch.autograd.grad((y * x).sum(), u)
        torch.testing.assert_close(got, x.square().sum((-2, -1))[:, None], rtol=1e-4, atol=0)
    other = copy.deepcopy(effect)
    assert other._plugin is not effect._plugin
    assert other.control_names == effect.control_names

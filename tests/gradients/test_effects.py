"""Black boxes: numpy functions, commands, LV2 plug-ins and chains."""

from __future__ import annotations

import copy
import math
import pickle
import shutil
import sys
import textwrap
import time

import numpy as np
import pytest
import scipy.signal
import torch

import dasp.functional as F
from dasp import Param
from dasp.gradients import (
    CommandEffect,
    Effect,
    EffectChain,
    EffectError,
    NumpyEffect,
    finite_difference,
    lv2_effect,
    spsa,
)
from tests.gradients.black_boxes import GAIN, numpy_gain

RATE = 44100
TONE = {"frequency_hz": Param("Hz", 20, 20000, "log"), "q": Param("", 0.1, 10, "log")}


def randn(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def resonator(x, sample_rate, frequency_hz, q):
    b, a = scipy.signal.iirpeak(frequency_hz, q, sample_rate)
    return scipy.signal.lfilter(b, a, x).astype(x.dtype)


def gain_effect(**options):
    return NumpyEffect(numpy_gain, RATE, GAIN, **options)


# All of them


def test_normalised_controls_follow_range_and_scale():
    effect = NumpyEffect(resonator, RATE, TONE)
    assert effect.num_controls == 2
    assert effect.control_names == ["frequency_hz", "q"]
    values = effect.denormalize(torch.tensor([0.5, 0.0]))
    assert values["frequency_hz"] == pytest.approx(math.sqrt(20 * 20000))
    assert values["q"] == 0.1
    assert effect.normalize(values).tolist() == pytest.approx([0.5, 0.0])
    # At a low sample rate the range ends below its half.
    assert NumpyEffect(resonator, 8000, TONE).denormalize(torch.ones(2))["frequency_hz"] == pytest.approx(0.49 * 8000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_are_processed_one_by_one_in_their_type(dtype):
    x, u = randn(2, 3, 2, 16, dtype=dtype), torch.rand(2, 3, 1, dtype=torch.float64)
    y = gain_effect()(x, u)
    assert y.dtype == dtype
    torch.testing.assert_close(y, F.gain(x, RATE, (40 * u[..., 0] - 20).to(dtype)), rtol=1e-6, atol=0)
    assert gain_effect()(x[:0], u[:0]).shape == (0, 3, 2, 16)


@pytest.mark.parametrize("estimate", [spsa, finite_difference])
def test_a_numpy_function_has_the_gradient_of_its_differentiable_twin(estimate):
    x, weights = randn(2, 1, 32), randn(2, 1, 32).flip(-1)
    u = torch.tensor([[0.3], [1.0]], dtype=torch.float64, requires_grad=True)
    true = torch.autograd.grad((F.gain(x, RATE, 40 * u[..., 0] - 20) * weights).sum(), u)[0]
    got = torch.autograd.grad((estimate(gain_effect(), epsilon=1e-5)(x, u) * weights).sum(), u)[0]
    torch.testing.assert_close(got, true, rtol=1e-4, atol=0)


def test_what_a_function_does_to_its_input_does_not_reach_the_caller():
    def destructive(x, sample_rate, gain_db):
        x *= 0
        return x

    x = torch.ones(1, 8)
    assert NumpyEffect(destructive, RATE, GAIN)(x, torch.zeros(1)).abs().max() == 0
    assert (x == 1).all()


@pytest.mark.parametrize(
    ("controls", "sample_rate", "kind", "text"),
    [
        ({}, RATE, ValueError, "controls is empty"),
        ({"gain_db": (0, 1)}, RATE, TypeError, "expected a dasp.Param"),
        ({"gain_db": Param("dB", 0, 1, size=3)}, RATE, TypeError, "a single value"),
        (GAIN, 0, ValueError, "sample_rate is 0"),
        (TONE, 30, ValueError, "leaves nothing of the range"),
    ],
)
def test_wrong_declarations_are_refused(controls, sample_rate, kind, text):
    with pytest.raises(kind, match=text):
        NumpyEffect(numpy_gain, sample_rate, controls)


class Unchanged(Effect):
    """What it is given, without a look at its controls."""

    def process(self, x, u):
        return x


def test_wrong_calls_are_refused():
    effect, x = gain_effect(), torch.zeros(2, 1, 8)
    for u in (torch.zeros(2, 2), torch.zeros(3, 1)):
        with pytest.raises(ValueError, match=r"numpy_gain: u has shape .*, expected \(2, 1\)"):
            effect(x, u)
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"numpy_gain: u\[0, 0\] is .*, expected values in \[0, 1\]"):
            effect(x, torch.full((2, 1), value))
        with pytest.raises(ValueError, match=r"unchanged: u\[0, 0\] is .*, expected values in \[0, 1\]"):
            Unchanged(RATE, GAIN)(x, torch.full((1,), value))
    with pytest.raises(ValueError, match="got values of volume, expected gain_db"):
        effect.normalize({"volume": 1.0})
    with pytest.raises(ValueError, match=r"gain_db is 30.0, expected -20 to 20 dB"):
        effect.normalize({"gain_db": 30.0})
    with pytest.raises(TypeError, match="function is a int"):
        NumpyEffect(3, RATE, GAIN)
    with pytest.raises(ValueError, match=r"^spsa: u has shape \(2, 2\), expected \(2, 1\)"):
        spsa(effect)(x, torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x, sample_rate, gain_db: x.astype(np.float64), "returned torch.float64, expected torch.float32"),
        (lambda x, sample_rate, gain_db: x[:, 1:], r"returned shape \(1, 7\), expected \(channels, 8\)"),
        (lambda x, sample_rate, gain_db: x * np.nan, "returned NaN"),
        (lambda x, sample_rate, gain_db: x.tolist(), "raised TypeError: .*process returned a list"),
        (lambda x, sample_rate: x, "raised TypeError: .*gain_db"),
    ],
)
def test_functions_that_break_the_contract_are_named_with_their_controls(function, text):
    effect = NumpyEffect(function, RATE, GAIN, name="broken")
    with pytest.raises(EffectError, match=f"{text}.*; at the forward call, item .0,., with controls gain_db=0.25"):
        spsa(effect)(torch.ones(2, 1, 8), torch.full((2, 1), 0.25))


# Chains


class Memory(Effect):
    """Adds what it was given last, until it is reset."""

    def __init__(self):
        super().__init__(RATE, {"level": Param("", 0, 1)})
        self.last = 0.0

    def reset(self):
        self.last = 0.0

    def process(self, x, u):
        y = x * float(u[0]) + self.last
        self.last = x.max()
        return y


def test_a_chain_is_one_effect_with_the_controls_of_all():
    chain = EffectChain(gain_effect(), NumpyEffect(resonator, RATE, TONE), gain_effect())
    assert chain.control_names == [
        "numpy_gain.gain_db",
        "resonator.frequency_hz",
        "resonator.q",
        "numpy_gain_2.gain_db",
    ]
    assert chain.controls["resonator.q"].scale == "log"
    values = dict(zip(chain.control_names, (6.0, 1000.0, 2.0, -3.0), strict=True))
    u = chain.normalize(values)
    assert chain.denormalize(u) == pytest.approx(values)
    x = randn(1, 64)
    want = numpy_gain(resonator(numpy_gain(x.numpy(), RATE, 6.0), RATE, 1000.0, 2.0), RATE, -3.0)
    torch.testing.assert_close(chain(x, u), torch.from_numpy(want), rtol=1e-9, atol=1e-12)


def test_a_chain_keeps_all_effects_whatever_their_names():
    chain = EffectChain(*(NumpyEffect(numpy_gain, 44100, GAIN, name) for name in ("gain", "gain_2", "gain", "gain")))
    assert list(chain.effects) == ["gain", "gain_2", "gain_3", "gain_4"]


def test_a_chain_resets_what_has_state_and_is_copied_for_workers():
    chain = EffectChain(gain_effect(), Memory())
    x, u = randn(3, 1, 16), torch.full((3, 2), 0.5, dtype=torch.float64, requires_grad=True)
    results = []
    for options in ({}, {"workers": 2}):
        with spsa(chain, num_draws=3, **options) as estimate:
            y = estimate(x, u)
            results.append((y.detach(), torch.autograd.grad((y * x).sum(), u)[0]))
    assert torch.equal(results[0][0], torch.stack([chain_of_one(item) for item in x]))
    assert all(map(torch.equal, *results))


def chain_of_one(x):
    return EffectChain(gain_effect(), Memory())(x, torch.full((2,), 0.5))


def test_chains_of_the_wrong_parts_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        EffectChain()
    with pytest.raises(TypeError, match="got a function, expected an Effect"):
        EffectChain(numpy_gain)
    with pytest.raises(ValueError, match="44100 and 48000 Hz"):
        EffectChain(gain_effect(), NumpyEffect(numpy_gain, 48000, GAIN))
    with pytest.raises(ValueError, match=r"got values of nothing, expected numpy_gain.gain_db"):
        EffectChain(gain_effect()).normalize({})


def test_effects_can_be_copied_and_pickled():
    chain, x, u = EffectChain(gain_effect(), NumpyEffect(resonator, RATE, TONE)), randn(1, 16), torch.full((3,), 0.5)
    for other in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        assert torch.equal(other(x, u), chain(x, u))


# Commands


def program(tmp_path, body):
    """A program that multiplies by its gain in dB, or does what the body says before it writes."""
    path = tmp_path / "a program.py"
    path.write_text(
        "import sys, time, os, subprocess\nimport numpy as np, soundfile\n"
        "source, target, *params = sys.argv[1:]\n"
        "x, sample_rate = soundfile.read(source, always_2d=True, dtype=os.environ.get('TYPE', 'float32'))\n"
        "subtype = soundfile.info(source).subtype\n"
        "y = x * 10 ** (float(params[0]) / 20)\n" + textwrap.dedent(body) + "\n"
        "soundfile.write(target, y, sample_rate, subtype=subtype)\n"
    )
    return [sys.executable, str(path), "{in}", "{out}", "{params}"]


def command(tmp_path, body="", **options):
    return CommandEffect(program(tmp_path, body), RATE, GAIN, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_command_processes_files_without_loss(tmp_path, monkeypatch, dtype):
    monkeypatch.setenv("TYPE", "float64")
    x, u = 3 * randn(2, 100, dtype=dtype), torch.tensor([0.75])
    y = command(tmp_path)(x, u)
    assert y.dtype == dtype
    torch.testing.assert_close(y, F.gain(x, RATE, 10.0), rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0)


def test_a_command_has_a_gradient_and_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    x, u = randn(1, 1, 50), torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    monkeypatch.setenv("TYPE", "float64")
    effect = command(tmp_path)
    before = sorted(tmp_path.iterdir())
    spsa(effect, workers=2)(x, u).sum().backward()
    assert u.grad.item() == pytest.approx(40 * math.log(10) / 20 * x.sum().item(), rel=1e-5)
    assert sorted(tmp_path.iterdir()) == before


def test_values_and_files_fill_their_places_and_nothing_else(tmp_path):
    controls = {"a": Param("", 0, 1), "b": Param("", 0, 1)}
    effect = CommandEffect([sys.executable, "--a={a}", "{in}", "x{b}{out}", "$(touch {in})"], RATE, controls)
    assert effect.arguments({"a": 0.1, "b": 1e-7}, "i n.wav", "{a}")[1:] == [
        "--a=0.1",
        "i n.wav",
        "x1e-07{a}",
        "$(touch i n.wav)",
    ]
    effect = CommandEffect([sys.executable, "{in}", "{params}", "{out}"], RATE, controls)
    assert effect.arguments({"b": 2.0, "a": 1.0}, "in", "out")[1:] == ["in", "1.0", "2.0", "out"]


def test_no_shell_sees_the_command(tmp_path):
    marker = tmp_path / "marker"
    arguments = [*program(tmp_path, ""), f"; touch {marker}", f"$(touch {marker})", f"`touch {marker}`"]
    CommandEffect(arguments, RATE, GAIN)(torch.zeros(1, 8), torch.zeros(1))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("sys.stderr.write('no such preset'); sys.exit(3)", "failed with exit code 3: no such preset"),
        ("sys.exit(1)", "failed with exit code 1: it printed nothing"),
        ("os.kill(os.getpid(), 9)", "failed with exit code -9"),
        ("sys.exit(0)", "wrote no file where {out} is"),
        ("open(target, 'w').write('no audio'); sys.exit(0)", "wrote no audio file"),
        ("sample_rate = 48000", "changed the sample rate to 48000 Hz"),
    ],
)
def test_a_command_that_fails_says_how(tmp_path, body, text):
    with pytest.raises(RuntimeError, match=f"^python[0-9.]*: the command {text}"):
        command(tmp_path, body)(torch.zeros(1, 8), torch.zeros(1))


def test_a_command_that_changes_the_length_is_named_with_draw_and_controls(tmp_path):
    effect = command(tmp_path, "y = y[1:] if float(params[0]) > 0 else y")
    u = torch.tensor([[0.5]], requires_grad=True)
    y = spsa(effect)(torch.zeros(1, 1, 8), u)
    with pytest.raises(EffectError, match=r"returned shape \(1, 7\), .*at draw 1 of 1, .* with controls gain_db=0.501"):
        y.sum().backward()


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    body = f"child = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"the command did not end within 3 s"):
        command(tmp_path, body, timeout_s=3)(torch.zeros(1, 8), torch.zeros(1))
    assert time.monotonic() - start < 30
    for _ in range(100):
        if not is_running(int(pid.read_text())):
            break
        time.sleep(0.05)
    assert not is_running(int(pid.read_text()))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            # A zombie has ended; nobody may have asked for its exit code.
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ("sox {in} {out}", TypeError, "expected a list of strings: split it by shlex.split"),
        ([], TypeError, "expected a list"),
        (["no-such-program", "{in}", "{out}", "{params}"], FileNotFoundError, "there is no program 'no-such-program'"),
        ([sys.executable, "{in}", "{params}"], ValueError, r"\{out\} does not occur"),
        ([sys.executable, "{out}", "{params}"], ValueError, r"\{in\} does not occur"),
        ([sys.executable, "{in}", "{out}"], ValueError, r"\{gain_db\} does not occur"),
        ([sys.executable, "{in}", "{out}", "{gain_db}", "{volume}"], ValueError, r"\{volume\} is no control"),
        ([sys.executable, "{in}", "{out}", "x{params}"], ValueError, r"\{gain_db\} does not occur"),
    ],
)
def test_wrong_commands_are_refused(arguments, kind, text):
    with pytest.raises(kind, match=f"^CommandEffect: .*{text}"):
        CommandEffect(arguments, RATE, GAIN)


def test_wrong_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="timeout_s is 0"):
        command(tmp_path, timeout_s=0)
    with pytest.raises(ValueError, match=r"sample_rate is 44100.5"):
        CommandEffect(program(tmp_path, ""), 44100.5, GAIN)


# LV2


def need_lv2(uri):
    if shutil.which("lv2apply") is None:
        pytest.skip("lv2apply of lilv-utils is not installed")
    try:
        return lv2_effect(uri, RATE)
    except FileNotFoundError:
        pytest.skip(f"the plug-in {uri} is not installed")


@pytest.mark.peer
def test_an_lv2_plugin_is_an_effect():
    effect = need_lv2("http://lv2plug.in/plugins/eg-amp")
    assert effect.name == "eg-amp"
    assert effect.controls == {"gain": Param("", -90, 24, meaning="Gain.")}
    x, u = randn(1, 1, 64, dtype=torch.float32), torch.tensor([[0.8]], requires_grad=True)
    gain_db = -90 + 114 * u[..., 0]
    y = spsa(effect, epsilon=1e-2)(x, u)
    torch.testing.assert_close(y, F.gain(x, RATE, gain_db.detach()), rtol=1e-5, atol=1e-7)
    (got,) = torch.autograd.grad(y.square().sum(), u)
    (true,) = torch.autograd.grad(F.gain(x, RATE, gain_db).square().sum(), u)
    torch.testing.assert_close(got, true, rtol=0.01, atol=0)


@pytest.mark.peer
def test_lv2_plugins_and_controls_that_are_not_there_are_named():
    need_lv2("http://lv2plug.in/plugins/eg-amp")
    with pytest.raises(FileNotFoundError, match="there is no plug-in 'urn:nothing'"):
        lv2_effect("urn:nothing", RATE)
    with pytest.raises(ValueError, match="volume is no control with a range, expected one of gain"):
        lv2_effect("http://lv2plug.in/plugins/eg-amp", RATE, ["volume"])


def test_without_its_programs_lv2_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="install lilv-utils"):
        lv2_effect("urn:nothing", RATE)

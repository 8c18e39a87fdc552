"""Scripts for dasp-pytorch run after one import is changed: its names, orders and ranges, and right results."""

from __future__ import annotations

import importlib.metadata
import inspect
import math
import re
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import dasp.compat.dasp_pytorch as compat

LIST = Path(__file__).with_name("dasp_pytorch.txt")
RATE = 44100
PROCESSORS = {
    "Gain": lambda module: module.Gain(RATE),
    "Distortion": lambda module: module.Distortion(),
    "ParametricEQ": lambda module: module.ParametricEQ(RATE),
    "Compressor": lambda module: module.Compressor(RATE),
    "NoiseShapedReverb": lambda module: module.NoiseShapedReverb(RATE),
}
each_processor = pytest.mark.parametrize("name", PROCESSORS)
# They raise NotImplementedError, or are no part of any effect and print what they compute.
LEFT_OUT = {"advanced_distortion", "expander", "graphic_eq"} | {
    "octave_band_filterbank",
    "one_pole_butter_lowpass",
    "one_pole_filter",
}


@pytest.fixture
def peer() -> ModuleType:
    pytest.importorskip("dasp_pytorch", reason="dasp-pytorch is not installed")
    import dasp_pytorch

    return dasp_pytorch


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative_db(y: Tensor, want: Tensor) -> float:
    return 10 * math.log10((y - want).detach().square().sum() / want.detach().square().sum() + 1e-30)


# ---- names, orders, ranges


def interface(library: ModuleType) -> str:
    """What scripts rely on, one line for each function, class and range of a parameter."""
    lines = []
    for part in ("functional", "modules", "signal"):
        module = getattr(library, part)
        for name, thing in sorted(vars(module).items()):
            own = getattr(thing, "__module__", None) == module.__name__
            if own and not name.startswith("_") and name not in LEFT_OUT and callable(thing):
                lines.append(f"{part}.{name}{arguments(thing)}")
    for name, make in PROCESSORS.items():
        made = make(library)
        lines.append(f"{name}: {made.num_params} parameters")
        lines += [f"{name}: {p} from {low:g} to {high:g}" for p, (low, high) in made.param_ranges.items()]
    members = [
        n
        for n in vars(library.modules.Processor)
        if not n.startswith("_") and callable(vars(library.modules.Processor)[n])
    ]
    lines += [f"Processor.{n}{arguments(getattr(library.modules.Processor, n))}" for n in sorted(members)]
    return "\n".join(lines) + "\n"


def arguments(thing: Callable[..., object]) -> str:
    """The names of arguments and their defaults, without types."""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(thing).parameters.values()]
    return str(inspect.Signature(parameters))


def test_names_arguments_and_ranges_are_those_of_the_list() -> None:
    got = interface(compat)
    # Without it, the second argument is the drive.
    got = got.replace("distortion(x, sample_rate, drive_db=None)", "distortion(x, sample_rate, drive_db)")
    assert got == LIST.read_text()


@pytest.mark.peer
def test_the_list_is_that_of_dasp_pytorch(peer: ModuleType) -> None:
    assert interface(peer) == LIST.read_text()


@pytest.mark.peer
def test_the_package_has_its_names(peer: ModuleType) -> None:
    theirs = {name for name in vars(peer) if not name.startswith("_")}
    assert theirs <= set(compat.__all__)


@pytest.mark.parametrize("rate", [2000, 8000, 16000, 22050, 26000, 26002, 32000, 44100, 96000])
def test_ranges_of_frequencies_rise_and_stay_below_half_the_rate(rate: int) -> None:
    for name, (low, high) in compat.ParametricEQ(rate).param_ranges.items():
        assert low < high, name
        if "cutoff" in name:
            assert 0 < low < high < rate / 2


@pytest.mark.peer
@pytest.mark.parametrize("rate", [26002, 32000, 48000, 96000])
def test_ranges_of_frequencies_are_the_same_where_its_own_rise(peer: ModuleType, rate: int) -> None:
    assert compat.ParametricEQ(rate).param_ranges == peer.ParametricEQ(rate).param_ranges


# ---- the same results where dasp-pytorch is right


def draw(items: int, low: float, high: float, seed: int) -> Tensor:
    u = torch.rand(items, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * u


@pytest.mark.peer
def test_level_stereo_and_distortion_agree(peer: ModuleType) -> None:
    """To the rounding of float64 and one fused operation."""
    x = noise(3, 2, 500, dtype=torch.float64)
    tracks, sends = noise(2, 2, 5, 300, dtype=torch.float64), draw(10, -30, 6, 1).reshape(2, 5, 1)
    mono, drives = x[:, :1], draw(3, 0, 24, 2)
    pairs = [
        ("gain", x, (draw(3, -24, 24, 3),)),
        ("stereo_bus", tracks, (sends,)),
        ("distortion", mono, (drives,)),
        ("distortion", x, (draw(6, 0, 24, 4).reshape(3, 2),)),
        ("stereo_panner", x, (draw(6, 0.01, 0.99, 5).reshape(3, 2),)),
        ("stereo_widener", x, (draw(3, 0, 1, 6).reshape(3, 1),)),
    ]
    for name, audio, parameters in pairs:
        want = getattr(peer.functional, name)(audio.clone(), RATE, *parameters)
        got = getattr(compat.functional, name)(audio, RATE, *parameters)
        assert got.shape == want.shape, name
        assert got.is_contiguous(), name
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.peer
def test_equalizers_agree_where_responses_are_short(peer: ModuleType) -> None:
    """The lowest corner rings for 20 ms, of which after 0.37 s, half the grid of its FFT, nothing is left."""
    x = noise(4, 2, 16384, dtype=torch.float64)
    u = torch.rand(4, 18, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = compat.ParametricEQ(RATE, max_q_factor=2.0), peer.ParametricEQ(RATE, max_q_factor=2.0)
    for equalizer in (ours, theirs):
        equalizer.param_ranges["low_shelf_cutoff_freq"] = (200, 2000)
        for band in ("low_shelf", "band0", "band1", "band2", "band3", "high_shelf"):
            equalizer.param_ranges[f"{band}_q_factor"] = (0.5, 2.0)
    assert relative_db(ours.process_normalized(x, u), theirs.process_normalized(x, u)) < -200


@pytest.mark.peer
@pytest.mark.parametrize(("lookahead", "eps"), [(0, 1e-8), (37, 1e-8), (0, 1e-2), (5000, 1e-8)])
def test_compressors_agree_on_one_channel_with_equal_times(peer: ModuleType, lookahead: int, eps: float) -> None:
    """There the release is the attack; a time constant of 2 ms leaves nothing to wrap around."""
    x = noise(3, 1, 4096, dtype=torch.float64) * torch.linspace(0, 1, 4096, dtype=torch.float64)
    time = draw(3, 2, 5, 1)
    parameters = draw(3, -50, -10, 2), draw(3, 1, 20, 3), time, time, draw(3, 1, 12, 4), draw(3, 0, 12, 5)
    want = peer.functional.compressor(x, RATE, *parameters, eps, lookahead)
    got = compat.functional.compressor(x, RATE, *parameters, eps, lookahead)
    # Times 1e4 what float64 rounds: levels reach -160 dB, and gains are exponentials of sums.
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.peer
@pytest.mark.parametrize("band", [5, 7, 9])
def test_reverberations_have_the_same_level_and_decay_in_a_band(peer: ModuleType, band: int) -> None:
    """Both are noise: 4096 samples of it in an octave leave about 0.5 dB, the slopes of the bands 1.3 dB."""
    x = torch.zeros(1, 1, 4096)
    x[..., 0] = 1
    gains, decays = torch.zeros(12, 1), torch.full((12, 1), 0.3)
    gains[band] = 0.8
    energies = []
    for library in (compat, peer):
        parameters = *gains, *decays, torch.ones(1)
        h = library.functional.noise_shaped_reverberation(x, RATE, *parameters, num_samples=4096)
        assert h.shape == (1, 2, 4096)
        halves = h.double().square().unflatten(-1, (2, 2048)).sum((0, 1, 3))
        energies.append(10 * torch.log10(halves))
    torch.testing.assert_close(*energies, rtol=0, atol=2.5)


@pytest.mark.peer
def test_signal_helpers_agree(peer: ModuleType) -> None:
    x = noise(2, 1, 4096, dtype=torch.float64)
    settings = draw(2, -12, 12, 1), draw(2, 500, 5000, 2), draw(2, 0.5, 2, 3)
    ours, theirs = compat.signal, peer.signal
    for kind in ("peaking", "low_shelf", "high_shelf", "low_pass", "high_pass"):
        b, a = ours.biquad(*settings, RATE, kind)
        want_b, want_a = theirs.biquad(*settings, RATE, kind)
        torch.testing.assert_close(b, want_b, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(a, want_a, rtol=1e-9, atol=1e-12)
        assert relative_db(ours.lfilter_via_fsm(x, b, a), theirs.lfilter_via_fsm(x, b, a)) < -200
        sos = torch.cat([b, a], -1)[:, None].expand(2, 3, 6).contiguous()
        assert relative_db(ours.sosfilt_via_fsm(sos, x), theirs.sosfilt_via_fsm(sos, x)) < -200
        torch.testing.assert_close(ours.fft_sosfreqz(sos, 256), theirs.fft_sosfreqz(sos, 256))
        torch.testing.assert_close(ours.fft_freqz(b, a, 64), theirs.fft_freqz(b, a, 64))
    taps = noise(2, 40, dtype=torch.float64)
    torch.testing.assert_close(ours.lfilter_via_fsm(x, taps), theirs.lfilter_via_fsm(x, taps), rtol=1e-9, atol=1e-12)
    H = torch.fft.rfft(taps, 8192)[:, None]
    torch.testing.assert_close(ours.freqdomain_fir(x, H, 8192), theirs.freqdomain_fir(x, H, 8192))


@pytest.mark.peer
def test_the_first_example_of_its_readme_runs_with_one_import_changed(
    peer: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (
        importlib.metadata.metadata("dasp-pytorch").get_payload()
        or importlib.metadata.metadata("dasp-pytorch")["Description"]
    )
    script = re.findall(r"^```python\n(.*?)^```", str(readme), flags=re.MULTILINE | re.DOTALL)[0]
    assert script.count("import dasp_pytorch\n") == 1
    changed = script.replace("import dasp_pytorch\n", "import dasp.compat.dasp_pytorch as dasp_pytorch\n")
    audio = types.SimpleNamespace(load=lambda path: (noise(1, 2000), RATE))
    monkeypatch.setitem(sys.modules, "torchaudio", audio)
    names: dict[str, object] = {}
    exec(changed.replace("n_iters = 2500", "n_iters = 50"), names)
    found = names["drive_hat"]
    assert isinstance(found, Tensor)
    # Steps of Adam have the size of its rate, 0.01.
    assert 0.4 < found.item() < 0.6
    assert "step: 50/50" in capsys.readouterr().out


# ---- right results where dasp-pytorch is wrong, which is shown beside


def parameters(name: str, items: int = 2, seed: int = 0) -> Tensor:
    """Parameters on [0, 1], both ends among them."""
    u = torch.rand(items, PROCESSORS[name](compat).num_params, generator=torch.Generator().manual_seed(seed))
    u[0, ::2], u[-1, 1::2] = 0, 1
    return u


@each_processor
@pytest.mark.parametrize("channels", [1, 2])
def test_every_parameter_has_a_finite_gradient_ends_included(name: str, channels: int) -> None:
    x = noise(2, channels, 3000)
    for u in (parameters(name), torch.zeros(2, parameters(name).shape[1]), torch.ones(2, parameters(name).shape[1])):
        leaf = u.clone().requires_grad_()
        y = PROCESSORS[name](compat).process_normalized(x, leaf)
        y.square().sum().backward()
        assert y.isfinite().all()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    moved = parameters(name).clamp(0.1, 0.9).requires_grad_()
    PROCESSORS[name](compat).process_normalized(x, moved).square().sum().backward()
    assert moved.grad is not None
    # No sample of an item needs to be within a narrow knee.
    assert (moved.grad != 0).any(0).all()


@pytest.mark.peer
def test_the_processor_of_distortion_runs(peer: ModuleType) -> None:
    x, u = noise(2, 1, 100), torch.tensor([[0.25], [0.75]])
    with pytest.raises(AttributeError, match="sample_rate"):
        peer.Distortion().process_normalized(x, u)
    want = torch.tanh(x * 10 ** (torch.tensor([6.0, 18.0]) / 20)[:, None, None])
    torch.testing.assert_close(compat.Distortion().process_normalized(x, u), want)


@pytest.mark.peer
def test_stereo_audio_takes_a_drive_for_each_item(peer: ModuleType) -> None:
    x, drive = noise(2, 2, 100), torch.tensor([6.0, 18.0])
    with pytest.raises(RuntimeError):
        peer.functional.distortion(x, RATE, drive)
    want = torch.tanh(x * 10 ** (drive / 20)[:, None, None])
    torch.testing.assert_close(compat.functional.distortion(x, RATE, drive), want)


@pytest.mark.peer
def test_a_batch_takes_a_width_for_each_item(peer: ModuleType) -> None:
    x, width = noise(3, 2, 100), torch.tensor([0.0, 0.5, 1.0])
    with pytest.raises(RuntimeError):
        peer.functional.stereo_widener(x, RATE, width)
    y = compat.functional.stereo_widener(x, RATE, width)
    torch.testing.assert_close(y[0], x[0].sum(0, keepdim=True).expand(2, -1))
    torch.testing.assert_close(y[1], x[1])
    torch.testing.assert_close(y[2, 0], -y[2, 1])


@pytest.mark.peer
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_ends_of_pan_have_finite_gradients(peer: ModuleType, end: float) -> None:
    for library, finite in ((peer, False), (compat, True)):
        pan = torch.full((1, 1), end, requires_grad=True)
        library.functional.stereo_panner(torch.ones(1, 1, 8), RATE, pan).sum().backward()
        assert bool(pan.grad.isfinite().all()) == finite


def test_pan_places_tracks_from_left_to_right() -> None:
    y = compat.functional.stereo_panner(torch.ones(1, 3, 4), RATE, torch.tensor([[0.0, 0.5, 1.0]]))
    assert y.shape == (1, 2, 3, 4)
    want = torch.tensor([[1.0, 2**-0.75, 0.0], [0.0, 2**-0.75, 1.0]])
    torch.testing.assert_close(y[0, :, :, 0], want, rtol=1e-6, atol=1e-7)
    bus = compat.functional.stereo_bus(y, RATE, torch.zeros(1, 3, 1))
    torch.testing.assert_close(bus[0, :, 0], want.sum(1))


STATIC = {
    "threshold_db": -20.0,
    "ratio": 4.0,
    "attack_ms": 10.0,
    "release_ms": 80.0,
    "knee_db": 6.0,
    "makeup_gain_db": 0.0,
}


def leaves(**changed: float) -> dict[str, Tensor]:
    return {name: torch.tensor([value], requires_grad=True) for name, value in {**STATIC, **changed}.items()}


@pytest.mark.peer
def test_release_acts_and_has_a_gradient(peer: ModuleType) -> None:
    x = torch.cat([torch.ones(1, 1, 4000), torch.full((1, 1, 4000), 0.01)], -1)
    for library, acts in ((peer, False), (compat, True)):
        values = leaves()
        library.functional.compressor(x, RATE, *values.values()).sum().backward()
        assert (values["release_ms"].grad is not None) == acts


@pytest.mark.parametrize("release_ms", [20.0, 80.0])
def test_times_are_from_10_to_90_percent(release_ms: float) -> None:
    """The gain in dB of a burst: it falls in the attack, and rises in the release."""
    x = torch.cat([torch.full((1, 1, 8820), 1e-3), torch.ones(1, 1, 22050), torch.full((1, 1, 22050), 1e-3)], -1)
    x = x.double()
    y = compat.functional.compressor(x, RATE, *{**STATIC, "attack_ms": 30.0, "release_ms": release_ms}.values())
    gain_db = 20 * torch.log10(y / x)[0, 0].numpy()
    assert gain_db[30869] == pytest.approx(-15.0, abs=1e-6)

    def crossing(part: np.ndarray, share: float) -> float:
        """Where a share of the way is done, between samples."""
        way = (part - part[0]) / (part[-1] - part[0])
        at = int(np.argmax(way > share))
        return float(at - (way[at] - share) / (way[at] - way[at - 1]))

    for part, time_ms in ((gain_db[8819:30870], 30.0), (gain_db[30869:], release_ms)):
        rise = crossing(part, 0.9) - crossing(part, 0.1)
        # A chord instead of the exponential between two samples.
        assert rise == pytest.approx(time_ms / 1000 * RATE, abs=0.1)


@pytest.mark.peer
def test_a_knee_of_zero_has_finite_gradients(peer: ModuleType) -> None:
    # A level at the threshold itself, which the knee's formula divides by its width.
    x = torch.full((1, 1, 64), 0.1)
    for library, finite in ((peer, False), (compat, True)):
        values = leaves(knee_db=0.0)
        library.functional.compressor(x, RATE, *values.values()).sum().backward()
        got = [values[name].grad for name in ("threshold_db", "ratio", "knee_db")]
        assert all(bool(grad.isfinite().all()) for grad in got if grad is not None) == finite


@pytest.mark.peer
def test_opposite_channels_are_compressed_and_equal_ones_no_more_than_one(peer: ModuleType) -> None:
    mono = noise(1, 1, 3000)
    alone = compat.functional.compressor(mono, RATE, *leaves().values())
    for second in (mono, -mono):
        pair = torch.cat([mono, second], 1)
        y = compat.functional.compressor(pair, RATE, *leaves().values())
        torch.testing.assert_close(y[:, :1], alone)
        theirs = peer.functional.compressor(pair, RATE, *leaves().values())
        assert relative_db(theirs[:, :1], alone) > -40
    # Of opposite channels it hears nothing.
    torch.testing.assert_close(theirs, pair)


@pytest.mark.peer
def test_reverberation_is_the_same_in_every_call_and_at_every_rate(peer: ModuleType) -> None:
    x, u = noise(1, 2, 1000), torch.rand(1, 25)
    calls = {}
    for library in (peer, compat):
        calls[library] = [library.NoiseShapedReverb(RATE).process_normalized(x, u) for _ in range(2)]
    assert not torch.equal(*calls[peer])
    assert torch.equal(*calls[compat])
    with pytest.raises(ValueError, match="cutoff"):
        peer.NoiseShapedReverb(16000).process_normalized(x, u)
    assert compat.NoiseShapedReverb(16000).process_normalized(x, u).isfinite().all()


def test_reverberation_of_no_mix_is_the_input_and_its_response_has_the_given_length() -> None:
    impulse = torch.zeros(1, 1, 1500)
    impulse[..., 0] = 1
    bands = [torch.ones(1)] * 12, [torch.zeros(1)] * 12
    reverberate = compat.functional.noise_shaped_reverberation
    dry = reverberate(impulse, RATE, *bands[0], *bands[1], torch.zeros(1))
    assert torch.equal(dry, impulse.expand(1, 2, -1))
    wet = reverberate(impulse, RATE, *bands[0], *bands[1], torch.ones(1), num_samples=1000)
    loudest = wet.abs().amax()
    assert wet[..., 900:1000].abs().amax() > 0.01 * loudest
    # The rounding of an FFT in float32.
    assert wet[..., 1000:].abs().amax() < 1e-6 * loudest


def test_a_decay_is_an_exponential_of_the_length() -> None:
    """White noise of all bands: 1 + 10 decay nepers over the length, here by the energy of its quarters."""
    impulse = torch.zeros(1, 1, 32768, dtype=torch.float64)
    impulse[..., 0] = 1
    decay = 0.35
    bands = *[torch.ones(1)] * 12, *[torch.full((1,), decay)] * 12
    h = compat.functional.noise_shaped_reverberation(impulse, RATE, *bands, torch.ones(1), num_samples=32768)
    quarters = 10 * torch.log10(h.square().unflatten(-1, (4, 8192)).sum((0, 1, 3)))
    fall = 20 * math.log10(math.e) * (1 + 10 * decay) / 4
    # 16384 values of noise, most of whose energy is in fewer.
    torch.testing.assert_close(-quarters.diff(), torch.full((3,), fall, dtype=torch.float64), rtol=0, atol=0.5)
    # The mean of twelve bands that together are white noise of unit variance.
    energy = 2 * 8192 / 12**2 * (1 - math.exp(-2 * 4.5 / 4)) / (2 * 4.5 / 4)
    assert quarters[0].item() == pytest.approx(10 * math.log10(energy), abs=0.5)


@pytest.mark.peer
def test_ranges_of_an_equalizer_at_16_khz_rise(peer: ModuleType) -> None:
    low, high = peer.ParametricEQ(16000).param_ranges["band3_cutoff_freq"]
    assert low > high
    x, u = noise(1, 1, 1000), torch.rand(1, 18)
    assert compat.ParametricEQ(16000).process_normalized(x, u).isfinite().all()


@pytest.mark.peer
def test_process_takes_parameters_with_and_without_the_sample_rate(peer: ModuleType) -> None:
    x, values = noise(1, 1, 500), [value.detach() for value in leaves().values()]
    with pytest.raises(TypeError):
        peer.Compressor(RATE).process(x, *values)
    want = compat.functional.compressor(x, RATE, *values)
    assert torch.equal(compat.Compressor(RATE).process(x, *values), want)
    assert torch.equal(compat.Compressor(RATE).process(x, RATE, *values), want)
    late = compat.functional.compressor(x, RATE, *values, 1e-8, 3)
    assert torch.equal(compat.Compressor(RATE).process(x, RATE, *values, 1e-8, 3), late)


# ---- the rest


def test_an_expander_turns_quiet_audio_down() -> None:
    x = torch.full((1, 1, RATE), 1e-3)
    y = compat.expander(x, RATE, -40.0, 2.0, torch.tensor([5.0]), 10.0, 6.0, 30.0)
    assert 20 * math.log10(y[0, 0, -1]) == pytest.approx(-80, abs=1e-3)


def test_a_peak_has_its_gain_at_its_frequency() -> None:
    impulse = torch.zeros(2, 1, RATE, dtype=torch.float64)
    impulse[..., 0] = 1
    flat = [0.0, 1000.0, 1.0]
    gain_db = torch.tensor([6.0, -9.0])
    bands = [*flat, *flat, gain_db, torch.tensor(3000.0), 2.0, *flat, *flat, *flat]
    y = compat.parametric_eq(impulse, RATE, *bands)
    response = torch.fft.rfft(y)[:, 0, 3000].abs()
    torch.testing.assert_close(20 * response.log10(), gain_db.double(), rtol=1e-9, atol=1e-6)


FUNCTIONS = {
    "gain": [3.0],
    "distortion": [6.0],
    "parametric_eq": [6.0, 50.0, 2.0] * 6,
    "compressor": list(STATIC.values()),
    "noise_shaped_reverberation": [0.5] * 25,
    "stereo_widener": [0.3],
    "stereo_panner": [0.4],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("dtype", "bound_db"), [(torch.float32, -120), (torch.float16, -60), (torch.bfloat16, -40)], ids=str
)
def test_parameters_keep_their_precision_beside_audio_of_a_small_type(
    name: str, dtype: torch.dtype, bound_db: float
) -> None:
    """The result has the type of the audio, and little more than its rounding of 2^-24, 2^-11 or 2^-8 of a sample."""
    x = noise(2, 2, 500).to(dtype)
    function = getattr(compat.functional, name)
    exact = function(x.double(), RATE, *(torch.full((2,), p, dtype=torch.float64).repeat(n) for p, n in sized(name)))
    for kind in (torch.float32, torch.float64, None):
        values = [p if kind is None else torch.full((2 * n,), p, dtype=kind) for p, n in sized(name)]
        y = function(x, RATE, *values)
        assert y.dtype == dtype
        assert relative_db(y.double(), exact) < bound_db


def sized(name: str) -> list[tuple[float, int]]:
    """Each parameter of a function, and for how many tracks of an item it has values."""
    return [(value, 2 if name == "stereo_panner" else 1) for value in FUNCTIONS[name]]


@each_processor
def test_vmap_and_compile_give_the_same(name: str) -> None:
    x, u = noise(2, 2, 400), parameters(name).clamp(0.05, 0.95)
    processor = PROCESSORS[name](compat)
    want = processor.process_normalized(x, u)
    mapped = torch.vmap(lambda item, v: processor.process_normalized(item[None], v[None])[0])(x, u)
    torch.testing.assert_close(mapped, want, rtol=1e-4, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(processor.process_normalized, backend="eager", fullgraph=True)(x, u)
    torch.testing.assert_close(compiled, want, rtol=1e-4, atol=1e-6)


def test_a_user_s_own_processor_runs() -> None:
    class Louder(compat.modules.Processor):
        def __init__(self) -> None:
            super().__init__()
            self.sample_rate = RATE
            self.process_fn = lambda x, sample_rate, factor: x * factor[:, None, None]
            self.param_ranges = {"factor": (1.0, 3.0)}
            self.num_params = 1

    x = noise(2, 1, 10)
    assert torch.equal(Louder().process_normalized(x, torch.tensor([[0.5], [0.5]])), 2 * x)


x3, x1 = torch.zeros(2, 1, 8), torch.zeros(8)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: compat.gain(x1, RATE, 0.0), ValueError, "gain: x has shape"),
        (lambda: compat.gain(x3[0], RATE, 0.0), ValueError, r"gain: x has shape \(1, 8\), expected \(batch, channels"),
        (
            lambda: compat.gain(x3, RATE, torch.zeros(3)),
            ValueError,
            r"gain_db has shape \(3,\), expected one value or 2",
        ),
        (lambda: compat.gain(x3, RATE, [0.0]), TypeError, "gain: gain_db is a list, expected a number or a tensor"),
        (lambda: compat.distortion(x3, RATE, torch.zeros(7)), ValueError, r"distortion: drive_db has shape \(7,\)"),
        (lambda: compat.distortion(x3, torch.zeros(1), 0.0), TypeError, "distortion: sample_rate is a Tensor"),
        (lambda: compat.stereo_bus(x3, RATE, 0.0), ValueError, r"expected \(batch, 2, tracks, samples\)"),
        (lambda: compat.stereo_widener(x3, RATE, 0.5), ValueError, r"expected 2 channel\(s\)"),
        (lambda: compat.stereo_panner(x3, RATE, torch.zeros(3)), ValueError, r"pan has shape \(3,\)"),
        (lambda: compat.compressor(x3, RATE, *STATIC.values(), 1e-8, -1), ValueError, "lookahead_samples is -1"),
        (lambda: compat.compressor(x3, RATE, *[*STATIC.values()][:5], "6"), TypeError, "makeup_gain_db is a str"),
        (lambda: compat.expander(x3, RATE, None, 2, 5, 50, 6), TypeError, "expander: threshold_db is a NoneType"),
        (
            lambda: compat.noise_shaped_reverberation(x3, RATE, *[0.5] * 25, num_samples=0),
            ValueError,
            "num_samples is 0, expected 1 or more",
        ),
        (
            lambda: compat.noise_shaped_reverberation(x3, RATE, *[0.5] * 3, torch.zeros(5), *[0.5] * 21),
            ValueError,
            r"band3_gain has shape \(5,\)",
        ),
        (
            lambda: compat.Gain(RATE).process_normalized(x3, torch.zeros(2, 2)),
            ValueError,
            r"Gain: param_tensor has shape \(2, 2\), expected \(batch, 1\)",
        ),
        (
            lambda: compat.Compressor(RATE).process_normalized(x3, torch.full((2, 6), 1.1)),
            ValueError,
            r"Compressor: threshold_db has values outside \[0, 1\] or NaN",
        ),
        (
            lambda: compat.Gain(RATE).process_normalized(x3, torch.full((2, 1), torch.nan)),
            ValueError,
            r"Gain: gain_db has values outside \[0, 1\] or NaN",
        ),
        (
            lambda: compat.signal.biquad(torch.zeros(2), torch.ones(1), torch.ones(2), RATE),
            ValueError,
            r"biquad: cutoff_freq has shape \(1,\), expected 2 values",
        ),
        (
            lambda: compat.signal.biquad(torch.zeros(2), torch.ones(2), torch.ones(2), RATE, "notch"),
            ValueError,
            "biquad: filter_type is 'notch', expected one of 'high_shelf'",
        ),
        (lambda: compat.signal.lfilter_via_fsm(x3[0], x3, x3), ValueError, r"expected \(batch, 1, samples\)"),
        (
            lambda: compat.signal.lfilter_via_fsm(x3, torch.ones(2, 4), torch.ones(2, 3)),
            ValueError,
            "expected up to three coefficients each",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


if __name__ == "__main__":
    import dasp_pytorch

    LIST.write_text(interface(dasp_pytorch))

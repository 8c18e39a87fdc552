"""The losses on features and dynamics: their definitions, the traps of stereo, silence, and what they react to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

import dasp.functional as F
from dasp.mixing import (
    AudioFeatureLoss,
    DynamicsLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    bark_spectrum_db,
    crest_factor_db,
    rms_db,
    stereo_imbalance,
    stereo_width,
)

RATE = 8000
LOSSES = [AudioFeatureLoss, DynamicsLoss]
NAMES = ("rms", "crest_factor", "width", "imbalance", "bark")


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(0.1).to(dtype)


def beats(*shape, seed=0, dtype=torch.float64):
    """Noise in bursts, four a second, that decay."""
    decay = torch.exp(-12 * ((torch.arange(shape[-1], dtype=torch.float64) * 4 / RATE) % 1) / 4)
    return (noise(*shape, seed=seed) * decay).to(dtype)


def only(name, **options):
    """The loss of one feature, with weight 1."""
    return AudioFeatureLoss(RATE, **{other: float(other == name) for other in NAMES}, **options)


def test_default_weights_are_the_published_ones():
    expected = {"rms": 0.1, "crest_factor": 0.001, "width": 1.0, "imbalance": 1.0, "bark": 0.1}
    assert AudioFeatureLoss(RATE).weights == expected


def test_audio_feature_loss_is_the_weighted_sum_of_squared_distances():
    x, y = noise(3, 2, 9000, seed=1) * torch.tensor([[1.0], [0.7]]), noise(3, 2, 9000)
    expected = np.zeros(3)
    for weight, feature in ((0.1, lambda a: 10 ** (rms_db(a, RATE) / 20)), (0.001, lambda a: crest_factor_db(a, RATE))):
        expected += weight * ((feature(x) - feature(y)) ** 2).mean(-1).numpy()
    for feature in (stereo_width, stereo_imbalance):
        expected += ((feature(x, RATE) - feature(y, RATE)) ** 2).numpy()
    level = bark_spectrum_db(x, RATE).numpy(), bark_spectrum_db(y, RATE).numpy()
    floor = level[1].max((-2, -1), keepdims=True) - 70
    have, want = (np.log(10 ** (db / 10) + 10 ** (floor / 10)) / 2 for db in level)
    expected += 0.1 * ((have - want) ** 2).mean((-2, -1))
    np.testing.assert_allclose(AudioFeatureLoss(RATE, reduction="none")(x, y).numpy(), expected, rtol=1e-9)
    assert AudioFeatureLoss(RATE)(x, y).item() == pytest.approx(expected.mean(), rel=1e-9)


def test_mixes_need_not_be_of_one_length():
    x, y = noise(2, 2, 9000), noise(2, 12000, seed=1)
    loss = AudioFeatureLoss(RATE, reduction="none")
    assert loss(x, y).shape == (2,)
    torch.testing.assert_close(loss(x, y)[1], loss(x[1], y))


def test_each_term_tells_of_its_own_effect():
    y = noise(2, 20000)
    changes = {
        "rms": F.gain(y, RATE, -6.0),
        "crest_factor": y.clamp(-0.1, 0.1) * (y.square().mean() / y.clamp(-0.1, 0.1).square().mean()).sqrt(),
        "width": F.stereo_widener(y, RATE, 0.3),
        "imbalance": y.flip(0) * torch.tensor([[0.5], [1.5]]),
        "bark": F.highpass(y, RATE, 1500.0),
    }
    loss = AudioFeatureLoss(RATE)
    terms = {effect: loss.terms(x, y) for effect, x in changes.items()}
    for name in NAMES:
        assert terms[name][name].item() > 1e-3
    assert terms["rms"]["crest_factor"] < 1e-20
    for name in ("width", "imbalance"):
        assert terms["rms"][name] < 1e-20
    assert terms["crest_factor"]["rms"] < 1e-4
    # Limiting, filtering and narrowing alike leave the sides of noise in balance, to the chance of their levels.
    for effect in ("crest_factor", "width", "bark"):
        assert terms[effect]["imbalance"] < 1e-3 < terms["imbalance"]["imbalance"]


def pan_slope(loss, wanted, pan=0.0):
    """Slope of a loss with respect to the pan of one source, whose reference is at `wanted`."""
    source = noise(1, 9000)
    control = torch.tensor(pan, dtype=torch.float64, requires_grad=True)
    value = loss(F.stereo_panner(source, RATE, control), F.stereo_panner(source, RATE, wanted))
    return torch.autograd.grad(value, control)[0].item()


def test_imbalance_leads_from_the_centre_to_the_side():
    # With constant power the imbalance is sin(pan pi / 2): of (sin(pan pi / 2) - 1)^2 the slope at the centre is -pi.
    assert pan_slope(only("imbalance"), 1.0) == pytest.approx(-math.pi, rel=1e-9)
    assert pan_slope(only("imbalance"), -1.0) == pytest.approx(math.pi, rel=1e-9)
    # Width alone is even in the pan: as with sum and difference, nothing leads away from the centre.
    assert pan_slope(only("width"), 1.0) == pytest.approx(0, abs=1e-9)
    assert pan_slope(SumAndDifferenceSTFTLoss(), 1.0) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("make", [lambda: StereoSTFTLoss(), lambda: AudioFeatureLoss(RATE)])
def test_default_losses_lead_from_the_centre_to_the_side(make):
    assert pan_slope(make(), 1.0) < -1
    assert pan_slope(make(), -1.0) > 1


def test_tracks_that_all_start_at_the_centre_find_their_sides():
    sources, wanted = noise(4, 1, 9000), torch.tensor([-1.0, 1.0, -0.6, 0.6], dtype=torch.float64)
    y = F.stereo_panner(sources, RATE, wanted).sum(0)
    slopes = {}
    for loss in (StereoSTFTLoss(), SumAndDifferenceSTFTLoss()):
        pan = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        (slopes[type(loss)],) = torch.autograd.grad(loss(F.stereo_panner(sources, RATE, pan).sum(0), y), pan)
    assert torch.equal(slopes[StereoSTFTLoss].sign(), -wanted.sign())
    assert slopes[StereoSTFTLoss].abs().amin() > 0.1
    assert slopes[SumAndDifferenceSTFTLoss].abs().amax() < 1e-6


@pytest.mark.parametrize("side", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("make", LOSSES)
def test_nearly_mono_mixes_stay_bounded(make, side):
    source, width = noise(20000), noise(20000, seed=3)
    mono = torch.stack([source + side * width, source - side * width])
    stereo = torch.stack([source + 0.1 * width, source - 0.1 * width])
    for x, y in ((mono, stereo), (stereo, mono)):
        x = x.clone().requires_grad_()
        value = make(RATE)(x, y)
        value.backward()
        # The side differs by 70 dB at most, 8.1 nepers, and weighs half: 0.1 x 8.1^2 / 2.
        assert 0 <= value.item() < 4
        # What a change of the side by the floor, 70 dB below the mid, may cost: d(8.1^2) = 2 x 8.1 x 3162.
        assert x.grad.norm() * source.norm() < 0.1 * 2 * 8.1 * 3162


def test_without_the_floor_a_nearly_mono_mix_blows_up():
    source, width = noise(20000), noise(20000, seed=3)
    y = torch.stack([source + 0.1 * width, source - 0.1 * width])
    slopes = []
    for floor_db in (-70.0, -200.0):
        x = torch.stack([source + 1e-8 * width, source - 1e-8 * width]).requires_grad_()
        only("bark", floor_db=floor_db)(x, y).backward()
        slopes.append(x.grad.norm())
    assert slopes[1] > 100 * slopes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", LOSSES)
def test_silence_has_finite_gradients(make, dtype):
    silence, sound = torch.zeros(2, 9000, dtype=dtype), beats(2, 9000, dtype=dtype)
    antiphase = sound * torch.tensor([[1.0], [-1.0]], dtype=dtype)
    for x, y in ((silence, silence), (silence, sound), (sound, silence), (antiphase, sound), (sound, antiphase)):
        x = x.clone().requires_grad_()
        value = make(RATE)(x, y)
        value.backward()
        assert value.isfinite()
        assert x.grad.isfinite().all()
    assert make(RATE)(silence, silence) == 0


@pytest.mark.parametrize("make", LOSSES)
def test_items_of_a_batch_are_independent(make):
    x, y = beats(2, 3, 2, 9000, seed=1), beats(2, 3, 2, 9000)
    loss = make(RATE, reduction="none")
    whole = loss(x, y)
    assert whole.shape == (2, 3)
    assert whole[1, 2].item() == pytest.approx(loss(x[1, 2], y[1, 2]).item(), rel=1e-9)
    torch.testing.assert_close(make(RATE)(x, y), whole.mean())
    x[0, 0, 0, 5] = math.nan
    assert torch.equal(loss(x, y).isnan(), torch.tensor([[True, False, False], [False, False, False]]))


@pytest.mark.parametrize("make", LOSSES)
def test_gradcheck(make):
    x, y = beats(2, 2, 1000, seed=1).requires_grad_(), beats(2, 2, 1000)
    assert torch.autograd.gradcheck(lambda x: make(RATE, reduction="none")(x, y), x, fast_mode=True)


@pytest.mark.parametrize("make", LOSSES)
def test_transforms_of_torch_func(make):
    x, y, direction = beats(2, 9000, seed=1), beats(2, 9000), noise(2, 9000, seed=2)
    loss = make(RATE)
    _, tangent = torch.func.jvp(lambda x: loss(x, y), (x,), (direction,))
    gradient = torch.func.grad(lambda x: loss(x, y))(x)
    torch.testing.assert_close(tangent, (gradient * direction).sum(), rtol=1e-9, atol=1e-12)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, y), loss(x, y), rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", LOSSES)
def test_half_precision_is_computed_in_float32(make):
    x, y = beats(2, 9000, seed=1, dtype=torch.bfloat16), beats(2, 9000, dtype=torch.bfloat16)
    assert make(RATE)(x, y) == make(RATE)(x.float(), y.float())


@pytest.mark.parametrize("samples", [9000, 9040])
def test_dynamics_match_scipy(samples):
    x, y = beats(2, samples, seed=1).numpy(), beats(2, samples).numpy()

    def ranges(audio):
        signals = np.stack([audio[0], audio[1], (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2])
        padded = np.pad(signals**2, ((0, 0), (0, -samples % 80)))
        power = padded.reshape(4, -1, 80).mean(-1)
        floor = power.mean() * 1e-5 + 1e-12

        def level(seconds):
            pole = math.exp(-0.01 / seconds)
            return 10 * np.log10(scipy.signal.lfilter([1 - pole], [1, -pole], power, axis=-1) + floor)

        return np.stack([level(0.05) - level(1.0), level(0.1) - level(2.0)], 1)

    distance = np.abs(ranges(x) - ranges(y)).mean((1, 2))
    expected = (distance @ [1, 1, 0.5, 0.5]) / 3
    have = DynamicsLoss(RATE)(torch.from_numpy(x), torch.from_numpy(y))
    assert have.item() == pytest.approx(expected, rel=1e-9)
    mono = DynamicsLoss(RATE)(torch.from_numpy(x[:1]), torch.from_numpy(y[:1])).item()
    # The floor is that of one signal, and in the oracle that of four of which one is silent: 3/4 of it.
    assert mono == pytest.approx(np.abs(ranges(x[[0, 0]]) - ranges(y[[0, 0]]))[0].mean(), rel=1e-4)


def test_dynamics_ignore_gain_and_hear_compression():
    y = beats(2, 4 * RATE)
    loss = DynamicsLoss(RATE)
    # Only the absolute part of the floor, -120 dB, knows the gain.
    assert loss(0.3 * y, y) < 1e-3
    costs = [loss(F.compressor(y, RATE, -50.0, ratio, 1.0, 50.0), y).item() for ratio in (1.5, 3.0, 8.0)]
    assert 0.2 < costs[0] < costs[1] < costs[2]


def test_dynamics_lead_to_the_ratio():
    y = beats(2, 4 * RATE)
    wanted = F.compressor(y, RATE, -50.0, 3.0, 1.0, 50.0)
    for ratio, sign in ((2.0, -1), (5.0, 1)):
        control = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
        DynamicsLoss(RATE)(F.compressor(y, RATE, -50.0, control, 1.0, 50.0), wanted).backward()
        assert control.grad.item() * sign > 0


def test_steady_sound_has_no_range():
    tone = torch.sin(torch.arange(16 * RATE, dtype=torch.float64))[None]
    ranges = DynamicsLoss(RATE).ranges_db(tone)
    assert ranges.shape == (1, 2, 1600)
    # After 14 s a time constant of 2 s is within e^-7 = 0.1 % of the power, 0.004 dB; 10 ms are not whole periods.
    assert ranges[..., 1400:].abs().amax() < 0.02


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda y: AudioFeatureLoss(RATE, rms=-1.0), ValueError, "the weights are"),
        (lambda y: AudioFeatureLoss(RATE, 0, 0, 0, 0, 0), ValueError, "not all 0"),
        (lambda y: AudioFeatureLoss(RATE, floor_db=1.0), ValueError, "floor_db is 1.0"),
        (lambda y: AudioFeatureLoss(RATE, reduction="sum"), ValueError, "reduction"),
        (lambda y: AudioFeatureLoss("8000"), TypeError, "sample_rate is a str"),
        (lambda y: AudioFeatureLoss(RATE)(y[:1], y), ValueError, "expected 2 channel"),
        (lambda y: AudioFeatureLoss(RATE)(y, y[:, :0]), ValueError, "y has shape .* at least one sample"),
        (lambda y: AudioFeatureLoss(RATE)(y.expand(3, 2, -1), y.expand(2, 2, -1)), ValueError, r"expands to \(3,\)"),
        (lambda y: AudioFeatureLoss(RATE)(y, y.expand(2, 2, -1)), ValueError, r"expands to \(\)"),
        (lambda y: AudioFeatureLoss(RATE)(y, y.long()), TypeError, "y has type"),
        (lambda y: DynamicsLoss(50), ValueError, "sample_rate is 50, expected at least 100"),
        (lambda y: DynamicsLoss(RATE, (0.1,), (0.05,)), ValueError, "a longer one"),
        (lambda y: DynamicsLoss(RATE, (0.1, 0.2), (1.0,)), ValueError, "expected pairs"),
        (lambda y: DynamicsLoss(RATE, mid_side=-1.0), ValueError, "mid_side is -1.0"),
        (lambda y: DynamicsLoss(RATE, floor_db=0.0), ValueError, "floor_db is 0.0"),
        (lambda y: DynamicsLoss(RATE, reduction="sum"), ValueError, "reduction"),
        (lambda y: DynamicsLoss(RATE)(y, y[:, 1:]), ValueError, r"y has shape \(2, 99\), expected \(2, 100\)"),
        (lambda y: DynamicsLoss(RATE)(y.expand(3, 2, -1).mT, y), ValueError, "expected 1 or 2 channel"),
        (lambda y: DynamicsLoss(RATE)(y[:, :0], y[:, :0]), ValueError, "at least one sample"),
    ],
)
def test_errors_name_the_argument(call, error, text):
    with pytest.raises(error, match=text):
        call(noise(2, 100))

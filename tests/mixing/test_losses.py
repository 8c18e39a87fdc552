"""The STFT losses against an independent numpy computation, and the properties a fit relies on."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor

from dasp.mixing.losses import (
    BandLevelLoss,
    MultiResolutionSTFTLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)

SIZES = (64, 256)
LOSSES = [MultiResolutionSTFTLoss, SumAndDifferenceSTFTLoss, StereoSTFTLoss]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(0.1).to(dtype)


def panned(source: Tensor, pan: Tensor | float) -> Tensor:
    """Constant-power panning, pan in [-1, 1]."""
    angle = (torch.as_tensor(pan, dtype=source.dtype) + 1) * math.pi / 4
    return torch.stack([angle.cos() * source, angle.sin() * source])


def numpy_loss(x: np.ndarray, y: np.ndarray, rows: np.ndarray, weights: np.ndarray, floor_db: float) -> float:
    """The definition in the docstring, frame by frame and signal by signal."""
    total = 0.0
    for size in SIZES:
        hop = size // 4
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)

        def spectra(signals, size=size, hop=hop, window=window):
            end = -(-signals.shape[1] // hop) * hop
            z = np.pad(rows @ signals, ((0, 0), (size - hop, end - signals.shape[1] + size - hop)))
            starts = range(0, z.shape[1] - size + 1, hop)
            return np.array([[np.fft.rfft(s[i : i + size] * window) for i in starts] for s in z]) * 2 / window.sum()

        x_power, y_power = np.abs(spectra(x)) ** 2, np.abs(spectra(y)) ** 2
        floor = np.sqrt(y_power.max()) * 10 ** (floor_db / 20)
        m, wanted = np.sqrt(x_power + floor**2), np.sqrt(y_power + floor**2)

        def pooled(v):
            return float((v.mean((1, 2)) * weights).sum())

        log = pooled(np.abs(20 * np.log10(m / wanted))) / max(pooled(y_power > floor**2), 0.05 * weights.sum())
        linear = 20 / np.log(10) * pooled(np.abs(m - wanted)) / pooled(wanted)
        total += (log + linear) / 2 / len(SIZES)
    return total


@pytest.mark.parametrize("samples", [2000, 1024, 50])
def test_matches_numpy(samples):
    x, y = noise(2, samples, seed=1), noise(2, samples, seed=2)
    identity = np.eye(2)
    stereo = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, -0.5]])
    pairs = [
        (MultiResolutionSTFTLoss(SIZES, floor_db=-30), identity, np.ones(2)),
        (SumAndDifferenceSTFTLoss(SIZES, floor_db=-30), stereo[2:], np.ones(2)),
        (StereoSTFTLoss(0.5, 1.0, 2.0, SIZES, floor_db=-30), stereo, np.array([0.5, 0.5, 1.0, 2.0])),
    ]
    for loss, rows, weights in pairs:
        expected = numpy_loss(x.numpy(), y.numpy(), rows, weights, -30)
        # Double precision over some 10^4 bins.
        assert loss(x, y).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("make", LOSSES)
def test_is_zero_for_identical_signals_and_positive_otherwise(make):
    y = noise(3, 2, 3000)
    loss = make(resolutions=SIZES)
    assert loss(y, y).item() == 0
    assert loss(y + 0.1 * noise(3, 2, 3000, seed=1), y).item() > 0.1


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("gain_db", [-0.5, 0.5])
def test_reads_a_gain_error_in_db(make, gain_db):
    # 8.686 (10^(g/20) - 1) = g (1 + g/17): 3 % at half a dB; the floor takes a little away.
    y = noise(2, 20000)
    assert make()(y * 10 ** (gain_db / 20), y).item() == pytest.approx(abs(gain_db), rel=0.05)


def test_mono_reference_reads_a_gain_error_in_db_too():
    y = noise(1, 20000).expand(2, -1)
    assert StereoSTFTLoss()(y * 10 ** (0.5 / 20), y).item() == pytest.approx(0.5, rel=0.05)


def test_functions_equal_modules():
    x, y = noise(2, 2, 9000, seed=1), noise(2, 2, 9000)
    assert torch.equal(multi_resolution_stft(x, y), MultiResolutionSTFTLoss()(x, y))
    assert torch.equal(sum_and_difference(x, y), SumAndDifferenceSTFTLoss()(x, y))
    assert multi_resolution_stft(x, y, reduction="none").shape == (2,)


def test_float32_agrees_with_float64():
    x, y = noise(2, 20000, seed=1), noise(2, 20000)
    # Each bin's dB is good to float32 eps times its distance from the loudest bin, 70 dB: 1e-7 * 3e3 * 8.7.
    assert StereoSTFTLoss()(x.float(), y.float()).item() == pytest.approx(StereoSTFTLoss()(x, y).item(), abs=3e-3)


def test_half_precision_is_computed_in_float32():
    x, y = noise(2, 9000, seed=1, dtype=torch.bfloat16), noise(2, 9000, dtype=torch.bfloat16)
    assert multi_resolution_stft(x, y) == multi_resolution_stft(x.float(), y.float())


def test_items_of_a_batch_are_independent():
    x, y = noise(2, 3, 2, 9000, seed=1), noise(2, 3, 2, 9000)
    loss = StereoSTFTLoss(reduction="none")
    whole = loss(x, y)
    assert whole.shape == (2, 3)
    assert whole[1, 2].item() == pytest.approx(loss(x[1, 2], y[1, 2]).item(), rel=1e-10)
    x[0, 0, 0, 5] = math.nan
    assert torch.equal(loss(x, y).isnan(), torch.tensor([[True, False, False], [False, False, False]]))


@pytest.mark.parametrize("make", LOSSES)
def test_gradcheck(make):
    # One item louder and one softer than the reference, so that finite differences meet no kink of the absolute values.
    y = noise(2, 2, 100)
    x = (y * torch.tensor([0.5, 2.0]).reshape(2, 1, 1)).requires_grad_()
    loss = make(resolutions=(16, 64), floor_db=-30.0, reduction="none")
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x, fast_mode=True)


def test_gradcheck_of_an_excerpt():
    y = noise(2, 200)
    loss = StereoSTFTLoss(resolutions=(16, 64), floor_db=-30.0)
    reference = loss.reference(y)
    for start, stop in ((0, 80), (16, 96), (112, 200)):
        x = (2 * y[:, start:stop]).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, start=start: loss(x, reference, start), x, fast_mode=True)


def test_gradient_is_what_torch_stft_gives():
    x, y = noise(2, 4096, seed=1).requires_grad_(), noise(2, 4096)
    window = torch.hann_window(256, dtype=torch.float64)

    def magnitude(s, floor):
        padded = torch.nn.functional.pad(s, (192, 192))
        z = torch.stft(padded, 256, 64, window=window, center=False, return_complex=True) * 2 / window.sum()
        return (z.real**2 + z.imag**2 + floor**2).sqrt()

    floor = magnitude(y, 0.0).max() * 10 ** (-70 / 20)
    (20 * torch.log10(magnitude(x, floor) / magnitude(y, floor))).abs().mean().backward()
    expected, x.grad = x.grad, None
    loss = MultiResolutionSTFTLoss((256,), linear_weight=0.0)
    loss(x, y).backward()
    audible = (magnitude(y, 0.0) > floor).double().mean()
    torch.testing.assert_close(x.grad * audible, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_has_finite_gradients(make, dtype):
    silence, sound = torch.zeros(2, 9000, dtype=dtype), noise(2, 9000, dtype=dtype)
    for x, y in ((silence, silence), (silence, sound), (sound, silence)):
        x = x.clone().requires_grad_()
        value = make()(x, y)
        value.backward()
        # Silence is -120 dBFS and a bin no more than 0 dBFS.
        assert 0 <= value.item() <= 120
        assert torch.isfinite(x.grad).all()
    assert make()(silence, silence) == 0


@pytest.mark.parametrize("side", [0.0, 1e-6, 1e-3])
def test_nearly_mono_reference_stays_bounded(side):
    # Spectral convergence on the side signal reads 48 here for a side of 1e-3 of the mid signal.
    source, width = noise(20000), noise(20000, seed=3)
    y = torch.stack([source + side * width, source - side * width])
    for make in (StereoSTFTLoss, SumAndDifferenceSTFTLoss):
        x = torch.stack([source + 1e-2 * width, source - 1e-2 * width]).requires_grad_()
        value = make()(x, y)
        value.backward()
        # Of the signals, the side alone is wrong, by at most the 30 dB that it lies above the floor.
        assert 0 < value.item() < 30
        assert x.grad.isfinite().all()
        # As steep as a gain error is: a change of x by 1 % of its rms makes 0.1 dB of a signal, and the side 100 times.
        assert x.grad.norm() * source.norm() < 8.7 * 100


def test_sum_and_difference_do_not_know_left_from_right_and_stereo_does():
    y = panned(noise(9000), -0.5) + panned(noise(9000, seed=1), 0.9)
    swapped = y.flip(0)
    assert sum_and_difference(swapped, y).item() < 1e-9
    assert StereoSTFTLoss()(swapped, y).item() > 1


def loss_and_slope(loss, source, wanted, pan):
    control = torch.tensor(float(pan), dtype=torch.float64, requires_grad=True)
    value = loss(panned(source, control), panned(source, wanted))
    (slope,) = torch.autograd.grad(value, control)
    return value.item(), slope.item()


def test_centre_pan_is_a_trap_for_sum_and_difference():
    source = noise(9000)
    loss = SumAndDifferenceSTFTLoss()
    values = {pan: loss_and_slope(loss, source, 1.0, pan)[0] for pan in (-1, -0.5, 0, 0.5, 1)}
    assert values[0] == max(values.values())
    assert values[-1] == pytest.approx(0, abs=1e-6)
    assert values[1] == pytest.approx(0, abs=1e-6)
    assert loss_and_slope(loss, source, 1.0, 0.0)[1] == pytest.approx(0, abs=1e-6)


def test_left_and_right_terms_lead_out_of_the_centre():
    source = noise(9000)
    loss = StereoSTFTLoss()
    assert loss_and_slope(loss, source, 1.0, 0.0)[1] < -1
    assert loss_and_slope(loss, source, -1.0, 0.0)[1] > 1


def test_polarity_is_invisible():
    y = noise(2, 9000)
    assert StereoSTFTLoss()(-y, y) == 0


@pytest.mark.parametrize("cache", [True, False])
def test_prepared_reference_equals_the_reference(cache):
    x, y = noise(3, 2, 30000, seed=1), noise(3, 2, 30000)
    loss = StereoSTFTLoss(reduction="none")
    torch.testing.assert_close(loss(x, loss.reference(y, cache)), loss(x, y), rtol=1e-12, atol=0)


@pytest.mark.parametrize("cache", [True, False])
def test_excerpt_is_compared_with_the_same_stretch(cache):
    y = noise(2, 50000)
    loss = StereoSTFTLoss()
    reference = loss.reference(y, cache)
    assert loss.grid == 2048
    for start, stop in ((0, 20000), (4096, 20000), (40960, 50000), (0, 50000)):
        assert loss(y[:, start:stop], reference, start) == 0
        # Twice as loud is 6.02 dB, and 8.69 dB linearly; frames half in the padding count for less in the whole.
        assert loss(2 * y[:, start:stop], reference, start).item() == pytest.approx(7.35, rel=0.1)


def test_excerpts_do_not_depend_on_caching():
    x, y = noise(2, 20000, seed=1), noise(2, 50000)
    loss = StereoSTFTLoss()
    cached, uncached = (loss(x, loss.reference(y, cache), 6144).item() for cache in (True, False))
    assert cached == pytest.approx(uncached, rel=1e-12)


def test_one_reference_serves_a_batch():
    x, y = noise(4, 2, 9000, seed=1), noise(2, 9000)
    loss = StereoSTFTLoss(reduction="none")
    torch.testing.assert_close(loss(x, loss.reference(y)), loss(x, y.expand(4, -1, -1)), rtol=1e-12, atol=0)


def test_inaudible_bins_do_not_count():
    source = noise(20000)
    tone = torch.sin(2 * math.pi * 0.01 * torch.arange(20000, dtype=torch.float64))[None]
    # Bins of this hiss lie 75 to 95 dB below the tone, depending on the resolution.
    hiss = 0.01 * source[None]
    assert multi_resolution_stft(tone + hiss, tone, floor_db=-60.0).item() < 0.5
    assert multi_resolution_stft(tone + hiss, tone, floor_db=-120.0).item() > 2


def test_input_is_unmodified_and_need_not_be_contiguous():
    x, y = noise(9000, 2, seed=1).T, noise(1, 9000).expand(2, -1)
    before = x.clone()
    assert multi_resolution_stft(x, y) == multi_resolution_stft(x.contiguous(), y.contiguous())
    assert torch.equal(x, before)


def test_functional_gradient_equals_backward():
    x, y = noise(2, 9000, seed=1), noise(2, 9000)
    loss = StereoSTFTLoss()
    expected = torch.autograd.grad(loss(x.requires_grad_(), y), x)[0]
    assert torch.equal(torch.func.grad(lambda x: loss(x, y))(x.detach()), expected)


def test_derivatives_that_do_not_exist_are_refused():
    x, y = noise(2, 9000, seed=1).requires_grad_(), noise(2, 9000)
    (slope,) = torch.autograd.grad(multi_resolution_stft(x, y), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="once"):
        slope.sum().backward()
    with pytest.raises(RuntimeError, match=r"jvp|forward mode"), fwAD.dual_level():
        multi_resolution_stft(fwAD.make_dual(x.detach(), y), y)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda y: multi_resolution_stft(y, y[:, :-1]), r"y has shape \(2, 8999\), expected \(2, 9000\)"),
        (lambda y: multi_resolution_stft(y, y.clone().requires_grad_()), "detach"),
        (lambda y: multi_resolution_stft(y[:, :0], y[:, :0]), "at least one sample"),
        (lambda y: sum_and_difference(y[:1], y[:1]), "expected 2 channel"),
        (lambda y: multi_resolution_stft(y, y, resolutions=(510,)), "multiples of 4"),
        (lambda y: multi_resolution_stft(y, y, floor_db=3.0), "below 0"),
        (lambda y: multi_resolution_stft(y, y, log_weight=0.0, linear_weight=0.0), "not both 0"),
        (lambda y: multi_resolution_stft(y, y, reduction="sum"), "reduction"),
        (lambda y: StereoSTFTLoss(left_right=-1.0), "not all 0"),
        (lambda y: StereoSTFTLoss()(y, StereoSTFTLoss().reference(y), 100), "multiple of 2048"),
        (lambda y: StereoSTFTLoss()(y, StereoSTFTLoss().reference(y), 2048), "within the 9000 samples"),
        (lambda y: StereoSTFTLoss()(y[:, :8000], StereoSTFTLoss().reference(y)), "at least 8192"),
        (lambda y: StereoSTFTLoss()(y.float(), StereoSTFTLoss().reference(y)), "float32"),
    ],
)
def test_mistakes_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(noise(2, 9000))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        multi_resolution_stft(torch.ones(1, 9, dtype=torch.int16), torch.ones(1, 9))


RATE = 16000


class TestBandLevelLoss:
    def test_a_gain_costs_its_level(self):
        y = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
        loss = BandLevelLoss(y, RATE)
        assert loss(y).item() == 0
        assert loss(2 * y).item() == pytest.approx(20 * math.log10(2), abs=0.05)

    def test_it_equals_an_independent_computation(self):
        generator = np.random.default_rng(0)
        y, x = (torch.from_numpy(generator.standard_normal((2, RATE))) for _ in range(2))
        loss = BandLevelLoss(y, RATE, floor_db=-60.0)
        frequency = np.fft.rfftfreq(loss.size, 1 / RATE)
        bands = [1000 * 2 ** (k / 3) for k in range(-14, 14)]
        masks = [(frequency >= c * 2 ** (-1 / 6)) & (frequency < c * 2 ** (1 / 6)) for c in bands]
        window = scipy.signal.get_window("hann", loss.size)

        def levels(audio):
            signals = np.stack([audio[0], audio[1], (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2])
            starts = range(0, RATE - loss.size + 1, loss.size // 2)
            spectra = [np.fft.rfft(signals[:, s : s + loss.size] * window) * 2 / window.sum() for s in starts]
            power = np.abs(np.stack(spectra, 1)) ** 2
            return np.stack([power[..., mask].sum(-1) for mask in masks if mask.any()], 1)

        a, b = levels(x.numpy()), levels(y.numpy())
        floor = b.max() * 1e-6
        expected = np.abs(10 * np.log10((a + floor) / (b + floor)))[b > floor].mean()
        assert loss(x).item() == pytest.approx(expected, rel=1e-9)

    def test_noise_of_the_same_level_is_nearer_than_bin_by_bin(self):
        generator = torch.Generator().manual_seed(1)
        x, y = (torch.randn(2, 3 * RATE, generator=generator) for _ in range(2))
        assert BandLevelLoss(y, RATE)(x).item() < 0.5 * StereoSTFTLoss()(x, y).item()

    def test_an_excerpt_is_compared_with_its_stretch(self):
        y = torch.randn(2, RATE, generator=torch.Generator().manual_seed(2))
        loss = BandLevelLoss(y, RATE)
        start = 3 * loss.grid
        assert loss(y[:, start : start + 4 * loss.grid], start).item() < 1e-4
        with pytest.raises(ValueError, match="from a multiple of"):
            loss(y[:, :RATE], 1)

    def test_silence_has_finite_gradients(self):
        x = torch.zeros(2, RATE, requires_grad=True)
        for reference in (torch.zeros(2, RATE), torch.ones(2, RATE)):
            (gradient,) = torch.autograd.grad(BandLevelLoss(reference, RATE)(x), x)
            assert torch.isfinite(gradient).all()

    def test_gradient_is_that_of_finite_differences(self):
        generator = torch.Generator().manual_seed(3)
        y, x = (torch.randn(2, 400, dtype=torch.float64, generator=generator) for _ in range(2))
        loss = BandLevelLoss(y, 1000)
        assert torch.autograd.gradcheck(loss, x.requires_grad_())

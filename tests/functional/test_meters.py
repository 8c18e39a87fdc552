"""The meters against the test signals of EBU Tech 3341 and 3342, tables of BS.1770-5, scipy and pyloudnorm."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyloudnorm
import pytest
import scipy.signal
import torch

import dasp.functional as F
from dasp.functional import meters

RATE = 48000
TYPES = [torch.float64, torch.float32]
METERS = [F.integrated_loudness, F.momentary_loudness, F.short_term_loudness, F.loudness_range, F.true_peak_db]

# BS.1770-5, Annex 1, Tables 1 and 2: the two filters at 48 kHz.
SHELF = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
HIGHPASS = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
# Annex 2: the interpolator's phases 0 and 1.
PHASE_0 = [
    0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
    0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500,
]  # fmt: skip
PHASE_1 = [
    -0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
    0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375,
]  # fmt: skip


def tone(*segments, rate=RATE, dtype=torch.float64, channels=2):
    """A sine of 1 kHz in all channels, from segments of (seconds, peak level in dB) with continuous phase."""
    levels = np.concatenate([np.full(round(seconds * rate), 10 ** (level / 20)) for seconds, level in segments])
    sine = levels * np.sin(2 * np.pi * 1000 / rate * np.arange(levels.size))
    return torch.from_numpy(sine).to(dtype).expand(channels, -1)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(0.1).to(dtype)


def music(*shape, rate, seed=0):
    """Noise with a spectrum that falls by 3 dB per octave, whose level moves by 40 dB several times a second."""
    spectrum = torch.fft.rfft(noise(*shape, seed=seed))
    pink = torch.fft.irfft(spectrum / torch.arange(1, spectrum.shape[-1] + 1).sqrt(), n=shape[-1])
    beats = torch.arange(shape[-1]) * (5 / rate)
    level_db = -40 * (beats - beats.floor()) - 12 * (torch.sin(beats / 9) > 0.5)
    return pink / pink.abs().amax() * 10 ** (level_db / 20)


SILENCE = -math.inf


# EBU Tech 3341. Cases 7 and 8 are programmes, 20 to 23 come as files: they cannot be synthesised.
INTEGRATED = {
    "1": [(20, -23)],
    "2": [(20, -33)],
    "3": [(10, -36), (60, -23), (10, -36)],
    "4": [(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)],
    "5": [(20, -26), (20.1, -20), (20, -26)],
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", INTEGRATED)
def test_integrated_loudness_of_tech_3341(case, dtype):
    expected = -33.0 if case == "2" else -23.0
    assert F.integrated_loudness(tone(*INTEGRATED[case], dtype=dtype), RATE).item() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("dtype", TYPES)
def test_surround_of_tech_3341_case_6(dtype):
    levels = torch.tensor([-28, -28, -24, -30, -30])
    x = tone((20, 0), dtype=dtype, channels=5) * (10 ** (levels / 20)).to(dtype)[:, None]
    assert F.integrated_loudness(x, RATE).item() == pytest.approx(-23, abs=0.1)
    lfe = torch.cat([x[:3], tone((20, 0), dtype=dtype, channels=1), x[3:]])
    torch.testing.assert_close(F.integrated_loudness(lfe, RATE), F.integrated_loudness(x, RATE))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("case", "level"), [("1", -23), ("2", -33)])
def test_momentary_and_short_term_loudness_of_tech_3341_are_constant(case, level, dtype):
    x = tone(*INTEGRATED[case], dtype=dtype)
    for loudness in (F.momentary_loudness(x, RATE)[10:], F.short_term_loudness(x, RATE)):
        assert (loudness - level).abs().amax() <= 0.1


@pytest.mark.parametrize("dtype", TYPES)
def test_short_term_loudness_of_tech_3341_case_9(dtype):
    x = tone(*[(1.34, -20), (1.66, -30)] * 5, dtype=dtype)
    assert (F.short_term_loudness(x, RATE) + 23).abs().amax() <= 0.1


@pytest.mark.parametrize("dtype", TYPES)
def test_momentary_loudness_of_tech_3341_case_12(dtype):
    x = tone(*[(0.18, -20), (0.22, -30)] * 25, dtype=dtype)
    assert (F.momentary_loudness(x, RATE)[6:] + 23).abs().amax() <= 0.1


@pytest.mark.parametrize("dtype", TYPES)
def test_highest_short_term_loudness_of_tech_3341_cases_10_and_11(dtype):
    for i in range(20):
        x = tone((i * 0.15, SILENCE), (3, -23), (1, SILENCE), dtype=dtype)
        assert F.short_term_loudness(x, RATE).amax().item() == pytest.approx(-23, abs=0.1)
    segments = [[(i * 0.15, SILENCE), (3, -38 + i), (3 - i * 0.15, SILENCE)] for i in range(20)]
    loudness = F.short_term_loudness(tone(*itertools.chain(*segments), dtype=dtype), RATE)
    for i in range(20):
        # The windows up to those that end with the i-th stretch of 6 s.
        assert loudness[: 60 * i + 31].amax().item() == pytest.approx(-38 + i, abs=0.1)


@pytest.mark.parametrize("dtype", TYPES)
def test_highest_momentary_loudness_of_tech_3341_cases_13_and_14(dtype):
    # 400 ms every 100 ms do not meet a tone of 400 ms that begins in between: windows follow each other by 10 ms.
    for i in range(20):
        x = tone((i * 0.02, SILENCE), (0.4, -23), (1, SILENCE), dtype=dtype)
        assert F.momentary_loudness(x, RATE, hop_s=0.01).amax().item() == pytest.approx(-23, abs=0.1)
    segments = [[(i * 0.02, SILENCE), (0.4, -38 + i), (0.4 - i * 0.02, SILENCE)] for i in range(20)]
    loudness = F.momentary_loudness(tone(*itertools.chain(*segments), dtype=dtype), RATE, hop_s=0.01)
    for i in range(20):
        assert loudness[: 80 * i + 41].amax().item() == pytest.approx(-38 + i, abs=0.1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("divisor", "degrees", "amplitude", "expected"),
    [(4, 0, 0.5, -6), (4, 45, 0.5, -6), (6, 60, 0.5, -6), (8, 67.5, 0.5, -6), (4, 45, 1.41, 3)],
)
def test_true_peak_of_tech_3341_cases_15_to_19(divisor, degrees, amplitude, expected, dtype):
    n = np.arange(RATE)
    fade = np.minimum(1, np.minimum(n, n[::-1]) / (0.01 * RATE))
    x = amplitude * fade * np.sin(2 * np.pi * n / divisor + np.radians(degrees))
    peak = F.true_peak_db(torch.from_numpy(x).to(dtype).expand(2, -1), RATE).item()
    assert expected - 0.4 <= peak <= expected + 0.2


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("levels", "expected"), [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20), ((-50, -35, -20, -35, -50), 15)]
)
def test_loudness_range_of_tech_3342(levels, expected, dtype):
    x = tone(*((20, level) for level in levels), dtype=dtype)
    assert F.loudness_range(x, RATE).item() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("rate", "expected"), [(44100, -17.991), (96000, -18.011), (22050, -17.964), (48000, -18.0)])
def test_loudness_of_a_tone_at_other_rates(rate, expected):
    # Figures of pyloudnorm with the filters of the standard; that at 48 kHz is its calibration, to 0.1.
    x = tone((5, -18), rate=rate)
    assert F.integrated_loudness(x, rate).item() == pytest.approx(expected, abs=0.1 if rate == RATE else 1e-3)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 32000, 88200, 176400, 192000])
def test_any_sample_rate_reads_a_tone_alike(rate):
    # The bilinear transform bends the filters' upper end: 0.2 dB at 8 kHz, a tenth of that at usual rates.
    expected = -18 if rate > 20000 else -17.9
    assert F.integrated_loudness(tone((1, -18), rate=rate), rate).item() == pytest.approx(expected, abs=0.15)


def test_k_weighting_is_that_of_the_standard_at_48_khz():
    expected = np.array([[*b, *a] for b, a in (SHELF, HIGHPASS)])
    # The tables have 14 decimals.
    np.testing.assert_allclose(F.k_weighting(48000).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize(("section", "corner_hz"), [(0, 1681.974450955533), (1, 38.13547087602444)])
def test_k_weighting_at_other_rates_is_the_same_analogue_filter(section, corner_hz, rate):
    # Bilinear transforms that meet at the corner have one response where tan(w / 2) is the same multiple of that there.
    multiple = torch.tensor([0.01, 0.1, 0.5, 1.0, 2.0, 10.0], dtype=torch.float64)

    def response(r):
        hertz = torch.atan(multiple * math.tan(math.pi * corner_hz / r)) * r / math.pi
        return F.sosfreqz(F.k_weighting(r)[section : section + 1], hertz, r).abs()

    ratio = response(rate) / response(RATE)
    # The high-pass keeps its numerator, as the standard has it, which leaves a constant factor. 1e-6: its zero at 0 Hz
    # cancels all but w^2 = 1.6e-10 of 1 at the lowest frequency, in float64.
    torch.testing.assert_close(ratio, ratio[:1].expand(6), rtol=1e-6, atol=0)
    assert abs(20 * math.log10(ratio[0])) < (0.25 if section else 1e-9)


def meter(x):
    """BS.1770-5 written out in numpy, for audio at 48 kHz: integrated loudness and that of all blocks."""
    for b, a in (SHELF, HIGHPASS):
        x = scipy.signal.lfilter(b, a, x, axis=-1)
    starts = range(0, x.shape[-1] - 19200 + 1, 4800)
    z = np.array([sum(weight * np.mean(c[s : s + 19200] ** 2) for weight, c in zip(WEIGHTS, x)) for s in starts])  # noqa: B905
    blocks = -0.691 + 10 * np.log10(z)
    kept = z[blocks > -70]
    kept = kept[-0.691 + 10 * np.log10(kept) > -0.691 + 10 * np.log10(kept.mean()) - 10]
    return -0.691 + 10 * np.log10(kept.mean()), blocks


WEIGHTS = (1, 1, 1, 1.41, 1.41)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_matches_a_meter_written_in_numpy(channels):
    x = music(channels, 5 * RATE + 777, rate=RATE)
    loudness, blocks = meter(x.numpy())
    # 1e-10 in the coefficients of the standard's table.
    assert F.integrated_loudness(x, RATE).item() == pytest.approx(loudness, abs=1e-7)
    np.testing.assert_allclose(F.momentary_loudness(x, RATE).numpy(), blocks, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rate", [22050, 44100, 96000])
def test_agrees_with_pyloudnorm(rate):
    x = music(2, 6 * rate, rate=rate)
    ours = F.integrated_loudness(x, rate).item()
    standard = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(x.numpy().T)
    assert ours == pytest.approx(standard, abs=1e-3)
    # Its default is another pair of filters, 0.04 dB below those of the standard over most of the spectrum.
    default = pyloudnorm.Meter(rate).integrated_loudness(x.numpy().T)
    assert ours == pytest.approx(default, abs=0.1)
    assert abs(ours - default) > 0.01


def test_loudness_range_agrees_with_pyloudnorm():
    x = music(2, 20 * RATE, rate=RATE) * torch.linspace(0.02, 1, 20 * RATE)
    # It follows 3 s windows every 90 ms, adds 1.5 s of silence, and interpolates percentiles.
    expected = pyloudnorm.Meter(RATE, filter_class="DeMan").loudness_range(x.numpy().T)
    assert F.loudness_range(x, RATE).item() == pytest.approx(expected, abs=0.5)


def test_loudness_range_takes_the_nearest_ranks():
    x = music(2, 9 * RATE, rate=RATE) * torch.linspace(0.1, 1, 9 * RATE)
    levels = np.sort(F.short_term_loudness(x, RATE).numpy())
    gate = 10 * np.log10(np.mean(10 ** (levels / 10))) - 20
    levels = levels[levels > gate]
    low, high = (levels[math.floor((len(levels) - 1) * p / 100 + 0.5)] for p in (10, 95))
    assert F.loudness_range(x, RATE).item() == pytest.approx(high - low, abs=1e-9)


def interpolated(x, rate):
    """The signal between the samples, by scipy: the phases interleaved are one filter."""
    if rate < 96000:
        taps = np.stack([PHASE_0, PHASE_1, PHASE_1[::-1], PHASE_0[::-1]], -1).ravel()
        return scipy.signal.upfirdn(taps, x, up=4)
    return scipy.signal.upfirdn(np.stack([PHASE_0, PHASE_1[::-1]], -1).ravel(), x, up=2)


@pytest.mark.parametrize("rate", [44100, 96000, 192000])
@pytest.mark.parametrize("samples", [1, 5, 20, 21, 22, 53, 1000, 300001])
def test_true_peak_is_that_of_the_interpolated_signal(samples, rate):
    for seed in range(1 if samples > 1000 else 5):
        x = noise(3, 2, samples, seed=seed)
        expected = 20 * np.log10(np.abs(interpolated(x.numpy(), rate)).max((-2, -1)))
        np.testing.assert_allclose(F.true_peak_db(x, rate).numpy(), expected, rtol=0, atol=1e-9)


def test_true_peak_of_sines_between_samples():
    phase = torch.linspace(0, math.pi, 50, dtype=torch.float64)[:, None, None]
    n = torch.arange(2000, dtype=torch.float64)
    fade = (torch.minimum(n, n.flip(0)) / 500).clamp_max(1)
    for rate, highest in ((48000, 16000), (96000, 20000), (192000, 20000)):
        for frequency_hz in (1000, 5000, highest):
            x = fade * torch.sin(2 * math.pi * frequency_hz / rate * n + phase)
            # Points at most 1/8 of a sample from the peak read cos(pi / 12) at a third of the rate, -0.30 dB, and those
            # 1/4 from it as much less at 20 kHz of 96 kHz, -0.47 dB; the filter's ripple is 0.24 dB.
            assert F.true_peak_db(x, rate).amin() > -0.55
            assert F.true_peak_db(x, rate).amax() < 0.2


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("measure", METERS)
def test_items_are_independent(measure, dtype):
    x = music(2, 3, 2, 8000 * 4, rate=8000).to(dtype)
    whole = measure(x, 8000)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(measure(x[i, j], 8000), whole[i, j], rtol=1e-5, atol=1e-5)
    x[0, 1, 0, 9000] = math.nan
    after = measure(x, 8000)
    touched = torch.zeros(2, 3, dtype=torch.bool)
    touched[0, 1] = True
    assert torch.equal(after[~touched], whole[~touched])
    assert after[touched].isnan().any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("measure", METERS)
def test_nan_stays_in_the_gradient_of_its_item(measure, dtype):
    x = music(3, 2, 8000 * 4, rate=8000).to(dtype)
    x[1, 0, 9000] = math.nan
    x.requires_grad_()
    measure(x, 8000).sum().backward()
    assert x.grad[[0, 2]].isfinite().all()
    assert x.grad[[0, 2]].abs().amax((-2, -1)).gt(0).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("measure", METERS)
@pytest.mark.parametrize("level", [0.0, 1e-25, 1e-18, 1e-16, 1e-12])
def test_silence_has_finite_gradients(measure, level, dtype):
    x = torch.full((2, 2, 8000 * 4), level, dtype=dtype)
    x[1] = music(2, 8000 * 4, rate=8000)
    x.requires_grad_()
    value = measure(x, 8000)
    assert not value.isnan().any()
    if level == 0:
        assert (value[0] == (0 if measure is F.loudness_range else -math.inf)).all()
    torch.where(value.isfinite(), value, 0.0).sum().backward()
    assert x.grad.isfinite().all()
    if level == 0:
        assert not x.grad[0].any()
    assert x.grad[1].any()


@pytest.mark.parametrize("samples", [0, 1, 799, 3199])
def test_shorter_than_a_window(samples):
    x = noise(2, 2, samples).requires_grad_()
    loudness = F.integrated_loudness(x, 8000)
    assert loudness.tolist() == [-math.inf] * 2
    assert F.momentary_loudness(x, 8000).shape == F.short_term_loudness(x, 8000).shape == (2, 0)
    spread = F.loudness_range(x, 8000)
    assert spread.tolist() == [0, 0]
    (loudness + spread).sum().backward()
    assert not x.grad.any()
    if samples == 0:
        assert F.true_peak_db(x, 8000).tolist() == [-math.inf] * 2


def test_no_items():
    x = torch.zeros(0, 2, 32000)
    assert F.integrated_loudness(x, 8000).shape == F.loudness_range(x, 8000).shape == (0,)
    assert F.momentary_loudness(x, 8000).shape == (0, 37)
    assert F.true_peak_db(x, 8000).shape == (0,)


def test_ungated_loudness_is_that_of_all_samples():
    for samples in (1, 799, 8000, 8123):
        x = noise(2, samples)
        y = scipy.signal.sosfilt(F.k_weighting(8000).numpy(), x.numpy(), axis=-1)
        expected = -0.691 + 10 * np.log10(np.mean(y**2, -1).sum())
        assert F.integrated_loudness(x, 8000, gated=False).item() == pytest.approx(expected, abs=1e-9)


def test_long_audio_is_filtered_in_parts(monkeypatch):
    x = noise(2, 2, 8000 * 4 + 123)
    whole = F.integrated_loudness(x, 8000), F.integrated_loudness(x, 8000, gated=False)
    monkeypatch.setattr(meters, "_FILTERED", 9000)
    torch.testing.assert_close(F.integrated_loudness(x, 8000), whole[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(F.integrated_loudness(x, 8000, gated=False), whole[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("measure", METERS)
def test_gradcheck(measure):
    x = (music(2, 2, 8000 * 4, rate=8000) * torch.linspace(0.2, 1, 8000 * 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: measure(x, 8000), x, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("measure", METERS)
def test_transforms_of_torch_func(measure):
    x, direction = music(3, 2, 8000 * 4, rate=8000), noise(3, 2, 8000 * 4, seed=1)

    def meter(x):
        return measure(x, 8000)

    torch.testing.assert_close(torch.func.vmap(meter)(x), meter(x), rtol=1e-12, atol=1e-12)
    _, tangent = torch.func.jvp(meter, (x,), (direction,))
    gradient = torch.func.grad(lambda x: meter(x).sum())(x)
    torch.testing.assert_close(tangent.sum(), (gradient * direction).sum(), rtol=1e-9, atol=1e-12)
    compiled = torch.compile(meter, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), meter(x))


@pytest.mark.parametrize("measure", [F.integrated_loudness, F.true_peak_db])
def test_gradient_along_the_signal_is_that_of_a_gain(measure):
    # Both are levels: measure(g x) = measure(x) + 20 log10(g), of which the slope at g = 1 is 20 / ln 10.
    x = music(2, 2, 8000 * 2, rate=8000).requires_grad_()
    measure(x, 8000).sum().backward()
    slope = (x * x.grad).sum((-2, -1))
    torch.testing.assert_close(slope, torch.full_like(slope, 20 / math.log(10)), rtol=1e-9, atol=0)


def test_gradient_flows_through_the_kept_blocks_alone():
    # The quiet second half is dropped by the relative gate; the filters' memory of the first half is no part of it.
    x = torch.cat([noise(1, 16000), 1e-3 * noise(1, 16000, seed=1)], -1).requires_grad_()
    F.integrated_loudness(x, 8000).backward()
    assert x.grad[:, :16000].abs().amin() >= 0
    assert x.grad[:, :16000].any()
    assert not x.grad[:, 16000 + 3200 :].any()


def test_gradient_of_a_true_peak_is_at_the_peak():
    x = (0.1 * noise(2, 1000)).detach()
    x[1, 500] = 1.0
    x.requires_grad_()
    F.true_peak_db(x, 44100).backward()
    assert x.grad[1, 489:512].any()
    assert x.grad[0].count_nonzero() + x.grad[1].count_nonzero() <= 12


@pytest.mark.parametrize("measure", METERS)
def test_half_precision_is_computed_in_float32(measure):
    x = noise(2, 8000 * 4, dtype=torch.bfloat16)
    assert torch.equal(measure(x, 8000), measure(x.float(), 8000))


@pytest.mark.parametrize("measure", METERS)
def test_input_is_unmodified_and_need_not_be_contiguous(measure):
    x = noise(8000 * 4, 2).T
    before = x.clone()
    assert torch.equal(measure(x, 8000), measure(x.contiguous(), 8000))
    assert torch.equal(x, before)


def test_weights_of_channels():
    x = noise(4, 8000)
    first = F.integrated_loudness(x[:1], 8000)
    assert torch.equal(F.integrated_loudness(x, 8000, channel_weights=[1, 0, 0, 0]), first)
    torch.testing.assert_close(F.integrated_loudness(x[:1], 8000, (10.0,)), first + 10)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: F.integrated_loudness(x[0], 8000), ValueError, r"x has shape \(8000,\)"),
        (lambda x: F.integrated_loudness(x.long(), 8000), TypeError, "floating-point"),
        (lambda x: F.integrated_loudness(x, 7999), ValueError, "sample_rate is 7999, expected at least 8000"),
        (lambda x: F.k_weighting("44100"), TypeError, "k_weighting: sample_rate is a str"),
        (lambda x: F.loudness_range(x.repeat(2, 1), 8000), ValueError, "weights of 4 channels are not known"),
        (lambda x: F.integrated_loudness(x, 8000, [1.0]), ValueError, r"channel_weights is \(1.0,\), expected 2"),
        (lambda x: F.integrated_loudness(x, 8000, [1.0, -1.0]), ValueError, "numbers >= 0"),
        (
            lambda x: F.momentary_loudness(x, 8000, hop_s=0.15),
            ValueError,
            "hop_s is 0.15, expected a time of which 0.4",
        ),
        (lambda x: F.short_term_loudness(x, 8000, hop_s=0.0), ValueError, "hop_s is 0.0"),
        (lambda x: F.short_term_loudness(x, 8000, hop_s=0.0001), ValueError, "hop_s is 0.0001"),
        (lambda x: F.true_peak_db(x[0], 8000), ValueError, r"x has shape \(8000,\)"),
        (lambda x: F.true_peak_db(x, 0), ValueError, "sample_rate is 0"),
    ],
)
def test_errors_name_the_argument(call, error, text):
    with pytest.raises(error, match=text):
        call(torch.zeros(2, 8000))

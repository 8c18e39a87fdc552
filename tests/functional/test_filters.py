"""Filter design against the Audio EQ Cookbook, filtering against scipy.signal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

import dasp.functional as F
from dasp.functional.filters import KINDS
from tests.oracles import ROUNDING_32, ROUNDING_64, array, cookbook, decibels, noise, relative_error, tone

SAMPLE_RATES = (8000, 22050, 44100, 48000, 96000, 192000)
WITH_GAIN = ("peaking", "low_shelf", "high_shelf")
# The hardest rows known: low frequencies, high Q, short audio.
WORST = [(1000, 1, 6, 44100), (100, 4, 12, 44100), (30, 10, 12, 4410), (20, 10, 12, 44100), (20, 0.7, 12, 44100)]


def draws(count: int, lowest_hz: float = 10.0, highest_q: float = 40.0) -> list[tuple[str, int, float, float, float]]:
    """Kind, sample rate, frequency, gain and Q over everything that a filter is used for."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        sample_rate = SAMPLE_RATES[index % len(SAMPLE_RATES)]
        frequency_hz = math.exp(rng.uniform(math.log(lowest_hz), math.log(0.49 * sample_rate)))
        q = math.exp(rng.uniform(math.log(0.1), math.log(highest_q)))
        rows.append((str(rng.choice(KINDS)), sample_rate, frequency_hz, rng.uniform(-24, 24), q))
    return rows


def single(kind: str, x: torch.Tensor, sample_rate: float, frequency_hz, gain_db, q) -> torch.Tensor:
    """The processor of a kind, with a gain if it has one."""
    controls = {"frequency_hz": frequency_hz, "q": q}
    if kind in WITH_GAIN:
        controls["gain_db"] = gain_db
    return getattr(F, kind)(x, sample_rate, **controls)


def random_sos(*lead: int, seed: int = 0) -> torch.Tensor:
    """Stable sections."""
    rng = np.random.default_rng(seed)
    shape = torch.Size(lead)
    columns = (rng.uniform(200, 8000, shape), rng.uniform(-12, 12, shape), rng.uniform(0.5, 4, shape))
    return F.biquad("peaking", 44100, *map(torch.from_numpy, columns))


def noise_amplification(sos: torch.Tensor) -> float:
    """How much louder white noise becomes through 1 / A(z): the norm of its impulse response."""
    a1, a2 = sos[4:].tolist()
    return math.sqrt((1 + a2) / ((1 - a2) * (1 + a2 - a1) * (1 + a2 + a1)))


def response_db(kind: str, sample_rate: float, gain_db: float, frequency_hz: float, q: float, at_hz: float) -> float:
    sos = F.biquad(kind, sample_rate, frequency_hz, gain_db, q)
    at = torch.tensor([at_hz], dtype=torch.float64)
    return float(decibels(F.sosfreqz(sos[None], at, sample_rate).abs().item()))


# Design


def test_coefficients_are_the_cookbooks():
    worst = 0.0
    for kind, sample_rate, frequency_hz, gain_db, q in draws(300):
        got = array(F.biquad(kind, sample_rate, frequency_hz, gain_db, q))
        want = np.array(cookbook(kind, sample_rate, frequency_hz, gain_db, q))
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    assert worst <= 1e-12


def test_lowpass_numerator_does_not_cancel_at_low_frequencies():
    # 1 - cos(w) from a rounded cosine would be wrong from the seventh digit on.
    got = array(F.biquad("lowpass", 192000, 10.0, q=1.0))
    want = np.array(cookbook("lowpass", 192000, 10.0, 0, 1.0))
    assert (np.abs(got[:3] / want[:3] - 1) <= 16 * ROUNDING_64).all()


# Two rounded numbers near 2 stand for a frequency, so that responses near it carry an error of about q / w^2 roundings.
# From 100 Hz at 44.1 kHz that is 2e-12, or 2e-11 dB, at the q of 4 drawn here.
IDENTITIES = draws(60, lowest_hz=400, highest_q=4)


@pytest.mark.parametrize("kind", WITH_GAIN)
def test_gain_at_the_centre_of_a_peak_and_half_of_it_at_the_corner_of_a_shelf(kind):
    for _, sample_rate, frequency_hz, gain_db, q in IDENTITIES:
        want = gain_db if kind == "peaking" else gain_db / 2
        assert response_db(kind, sample_rate, gain_db, frequency_hz, q, frequency_hz) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "at_0", "at_nyquist"),
    [("peaking", 0, 0), ("low_shelf", 1, 0), ("high_shelf", 0, 1)],
)
def test_gain_at_0_hz_and_at_nyquist(kind, at_0, at_nyquist):
    for _, sample_rate, frequency_hz, gain_db, q in IDENTITIES:
        arguments = (kind, sample_rate, gain_db, frequency_hz, q)
        assert response_db(*arguments, 0.0) == pytest.approx(at_0 * gain_db, abs=1e-9)
        assert response_db(*arguments, sample_rate / 2) == pytest.approx(at_nyquist * gain_db, abs=1e-9)


@pytest.mark.parametrize("kind", ["lowpass", "highpass"])
def test_gain_at_the_cutoff_is_q(kind):
    for _, sample_rate, frequency_hz, _, q in IDENTITIES:
        got = response_db(kind, sample_rate, 0, frequency_hz, q, frequency_hz)
        assert got == pytest.approx(float(decibels(q)), abs=1e-9)


def test_gain_at_the_default_cutoff_is_minus_3_db():
    assert response_db("lowpass", 44100, 0, 1000, math.sqrt(0.5), 1000) == pytest.approx(-10 * math.log10(2), abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "at_0", "at_centre", "at_nyquist"),
    [
        ("lowpass", 1, None, 0),
        ("highpass", 0, None, 1),
        ("bandpass", 0, 1, 0),
        ("notch", 1, 0, 1),
        ("allpass", 1, 1, 1),
    ],
)
def test_passes_and_stops(kind, at_0, at_centre, at_nyquist):
    for _, sample_rate, frequency_hz, _, q in IDENTITIES:
        sos = F.biquad(kind, sample_rate, frequency_hz, q=q)[None]
        points = torch.tensor([0.0, frequency_hz, sample_rate / 2], dtype=torch.float64)
        got = array(F.sosfreqz(sos, points, sample_rate).abs())
        for value, want in zip(got, (at_0, at_centre, at_nyquist), strict=True):
            assert want is None or value == pytest.approx(want, abs=1e-10)


def test_allpass_has_gain_1_everywhere_and_turns_by_half_a_cycle_at_its_centre():
    points = torch.linspace(0, 22050, 500, dtype=torch.float64)
    sos = F.biquad("allpass", 44100, 3000.0, q=0.8)[None]
    assert np.abs(array(F.sosfreqz(sos, points, 44100).abs()) - 1).max() <= 1e-13
    centre = F.sosfreqz(sos, torch.tensor([3000.0], dtype=torch.float64), 44100)
    assert centre.item() == pytest.approx(-1, abs=1e-12)


def test_low_and_high_shelf_of_one_setting_give_a_constant_gain():
    points = torch.linspace(0, 22050, 500, dtype=torch.float64)
    sos = torch.stack([F.biquad(kind, 44100, 3000.0, 7.0, 0.9) for kind in ("low_shelf", "high_shelf")])
    assert np.abs(decibels(array(F.sosfreqz(sos, points, 44100).abs())) - 7).max() <= 1e-11


def test_response_is_scipys():
    sos = random_sos(3, 4)
    points = torch.linspace(0, 22050, 333, dtype=torch.float64)
    got = F.sosfreqz(sos, points, 44100).numpy()
    for item in range(3):
        _, want = scipy.signal.sosfreqz(sos[item].numpy(), worN=points.numpy(), fs=44100)
        assert np.abs(got[item] - want).max() <= 1e-12 * np.abs(want).max()


def test_biquad_broadcasts_its_controls():
    frequency_hz, q = torch.tensor([[500.0], [900.0]]), torch.tensor([0.5, 1.0, 2.0])
    got = F.biquad("peaking", 44100, frequency_hz, 3.0, q)
    assert got.shape == (2, 3, 6)
    assert got.dtype == torch.float64
    assert torch.equal(got[1, 2], F.biquad("peaking", 44100, 900.0, 3.0, 2.0))


def test_biquad_outside_its_domain_acts_as_clamped_with_gradient_0():
    for given, acts_as in [(0.0, 1.0), (-5.0, 1.0), (30000.0, 0.499 * 44100)]:
        frequency_hz = torch.tensor(given, dtype=torch.float64, requires_grad=True)
        sos = F.biquad("peaking", 44100, frequency_hz, 6.0, 1.0)
        assert torch.equal(sos, F.biquad("peaking", 44100, acts_as, 6.0, 1.0))
        assert torch.autograd.grad(sos.sum(), frequency_hz)[0].item() == 0
    for given, acts_as in [(0.0, 1e-3), (1e6, 1e3)]:
        q = torch.tensor(given, dtype=torch.float64, requires_grad=True)
        sos = F.biquad("peaking", 44100, 1000.0, 6.0, q)
        assert torch.equal(sos, F.biquad("peaking", 44100, 1000.0, 6.0, acts_as))
        assert torch.autograd.grad(sos.sum(), q)[0].item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_poles_are_inside_the_unit_circle_at_every_extreme(kind):
    frequency_hz = torch.tensor([0.0, 1e-6, 1.0, 10.0, 22049.0, 22050.0, 1e9], dtype=torch.float64)
    q = torch.tensor([0.0, 1e-3, 0.1, 1e3, math.inf], dtype=torch.float64)[:, None]
    for gain_db in (-60.0, 0.0, 60.0):
        _, a1, a2 = F.biquad(kind, 44100, frequency_hz, gain_db, q)[..., 3:].unbind(-1)
        assert bool(((a2.abs() < 1) & (a1.abs() < 1 + a2)).all())


def test_design_errors_name_argument_and_choices():
    with pytest.raises(ValueError, match=r"biquad: kind is 'bell', expected one of 'lowpass', .*'high_shelf'"):
        F.biquad("bell", 44100, 100.0)
    with pytest.raises(ValueError, match=r"biquad: sample_rate is 0, expected a finite number above 0"):
        F.biquad("peaking", 0, 100.0)
    with pytest.raises(TypeError, match=r"biquad: sample_rate is a str, expected a number in Hz"):
        F.biquad("peaking", "44100", 100.0)
    with pytest.raises(ValueError, match=r"sosfreqz: sos has shape \(6,\), expected \(\*batch, sections, 6\)"):
        F.sosfreqz(torch.ones(6), torch.ones(1), 44100)
    with pytest.raises(TypeError, match=r"sosfreqz: sos is a torch.int64"):
        F.sosfreqz(torch.ones(1, 6, dtype=torch.int64), torch.ones(1), 44100)


# Filtering


def test_float32_audio_is_filtered_to_minus_140_db():
    # One rounding of the output is -144.5 dB of its peak; the recursion itself is in float64.
    worst = -math.inf
    for index, (kind, sample_rate, frequency_hz, gain_db, q) in enumerate(draws(300)):
        x = torch.from_numpy(noise(index, 1, 48000)).float()
        y = single(kind, x, sample_rate, frequency_hz, gain_db, q)
        sos = np.array([cookbook(kind, sample_rate, frequency_hz, gain_db, q)])
        worst = max(worst, float(decibels(relative_error(y, scipy.signal.sosfilt(sos, array(x))))))
    assert worst <= -140


@pytest.mark.parametrize(("frequency_hz", "q", "gain_db", "samples"), WORST)
def test_float32_audio_is_filtered_to_minus_140_db_in_the_worst_rows(frequency_hz, q, gain_db, samples):
    x = torch.from_numpy(noise(0, 1, samples)).float()
    y = F.peaking(x, 44100, frequency_hz, gain_db, q)
    sos = np.array([cookbook("peaking", 44100, frequency_hz, gain_db, q)])
    assert decibels(relative_error(y, scipy.signal.sosfilt(sos, array(x)))) <= -140


def test_float64_audio_is_filtered_as_scipy_does():
    # 1e-12, or what the recursion makes of the rounding of its state where that is more: both implementations add noise
    # of one rounding per sample, which 1 / A(z) amplifies by the norm of its impulse response.
    for index, (kind, sample_rate, frequency_hz, gain_db, q) in enumerate(draws(300)):
        sos = F.biquad(kind, sample_rate, frequency_hz, gain_db, q)[None]
        x = noise(index, 1, 48000)
        error = relative_error(F.sosfilt(torch.from_numpy(x), sos), scipy.signal.sosfilt(sos.numpy(), x))
        assert error <= max(1e-12, 8 * ROUNDING_64 * noise_amplification(sos[0]))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no more than double here")
def test_float64_audio_is_filtered_as_exactly_as_by_scipy():
    rows = draws(300)
    sos = torch.stack([F.biquad(kind, fs, f, gain, q) for kind, fs, f, gain, q in rows])
    x = noise(0, len(rows), 12000)
    b0, b1, b2, _, a1, a2 = sos.numpy().astype(np.longdouble).T
    s1, s2 = np.zeros_like(b0), np.zeros_like(b0)
    exact = np.empty(x.shape, np.longdouble)
    for n, u in enumerate(x.astype(np.longdouble).T):
        v = b0 * u + s1
        s1, s2 = b1 * u - a1 * v + s2, b2 * u - a2 * v
        exact[:, n] = v
    ours = array(F.sosfilt(torch.from_numpy(x)[:, None], sos[:, None])[:, 0])
    theirs = np.stack([scipy.signal.sosfilt(s[None], row) for s, row in zip(sos.numpy(), x, strict=True)])
    our_error, their_error = (np.abs(y - exact).max(-1) for y in (ours, theirs))
    # Two rounding errors of the same size differ by chance; on the whole ours must not be the larger.
    assert (our_error <= 4 * their_error + 1e-15).all()
    assert np.median(our_error) <= 1.1 * np.median(their_error)


@pytest.mark.parametrize("kind", WITH_GAIN)
def test_gain_of_0_db_leaves_audio_alone(kind):
    for _, sample_rate, frequency_hz, _, q in draws(60):
        sos = F.biquad(kind, sample_rate, frequency_hz, 0.0, q)
        assert torch.equal(sos[:3], sos[3:])
        x = torch.from_numpy(noise(0, 2, 4800))
        assert torch.equal(single(kind, x.float(), sample_rate, frequency_hz, 0.0, q), x.float())
        # A fused multiply-add leaves one rounding of b1 x - a1 y per sample, which 1 / A(z) amplifies.
        y = single(kind, x, sample_rate, frequency_hz, 0.0, q)
        assert relative_error(y, array(x)) <= 8 * ROUNDING_64 * noise_amplification(sos)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tone_comes_out_with_the_gain_and_phase_of_the_response(kind):
    sample_rate, period, at_hz = 48000, 48, 1000.0
    x = tone(at_hz, sample_rate, 400 * period)
    y = array(single(kind, torch.from_numpy(x)[None], sample_rate, 1500.0, 9.0, 1.3))[0]
    h = F.sosfreqz(F.biquad(kind, sample_rate, 1500.0, 9.0, 1.3)[None], torch.tensor([at_hz]), sample_rate).item()
    time = np.arange(len(x))[-period:]
    want = np.imag(h * np.exp(2j * math.pi * at_hz / sample_rate * time))
    # After 0.4 s the transient, of time constant q / (pi f), is gone; 19200 samples of phase carry a rounding each.
    assert np.abs(y[-period:] - want).max() <= 1e-10


def test_sosfilt_broadcasts_sections_over_items_and_channels():
    x = torch.from_numpy(noise(0, 3, 2, 500))
    for lead in [(), (3,), (1,), (3, 2), (3, 1), (1, 2)]:
        sos = random_sos(*lead, 4)
        y = array(F.sosfilt(x, sos))
        full = sos.reshape(*lead, *[1] * (2 - len(lead)), 4, 6).expand(3, 2, 4, 6).numpy()
        for item in range(3):
            for channel in range(2):
                want = scipy.signal.sosfilt(full[item, channel], array(x)[item, channel])
                assert relative_error(y[item, channel], want) <= 1e-13


def test_sections_are_divided_by_a0():
    x, sos = torch.from_numpy(noise(0, 1, 500)), random_sos(4)
    scaled = sos * torch.tensor([[0.5], [2.0], [-3.0], [1.0]])
    assert relative_error(F.sosfilt(x, scaled), array(F.sosfilt(x, sos))) <= 1e-13
    points = torch.linspace(0, 22050, 50)
    assert relative_error(F.sosfreqz(scaled, points, 44100).abs(), array(F.sosfreqz(sos, points, 44100).abs())) <= 1e-13


def test_sosfilt_takes_any_number_of_batch_dimensions():
    x, sos = torch.from_numpy(noise(0, 2, 3, 2, 100)), random_sos(2, 3, 5)
    y = F.sosfilt(x, sos)
    assert torch.equal(y[1, 2], F.sosfilt(x[1, 2], sos[1, 2]))
    assert torch.equal(F.sosfilt(x[0, 0], random_sos(0)), x[0, 0])


def test_half_types_are_filtered_in_float32():
    x, sos = torch.from_numpy(noise(0, 1, 500)).to(torch.bfloat16), random_sos(2)
    y = F.sosfilt(x, sos)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.sosfilt(x.float(), sos).to(torch.bfloat16))


# State


def test_state_is_scipys():
    x, sos = noise(0, 2, 700), random_sos(5)
    zi = scipy.signal.sosfilt_zi(sos.numpy())[:, None] * x[None, :, :1]
    want, want_zf = scipy.signal.sosfilt(sos.numpy(), x, zi=zi)
    y, zf = F.sosfilt(torch.from_numpy(x), sos, torch.from_numpy(zi.transpose(1, 0, 2)))
    assert relative_error(y, want) <= 1e-13
    assert relative_error(zf, want_zf.transpose(1, 0, 2)) <= 1e-12
    assert zf.dtype == torch.float64


def test_steady_state_of_scipy_keeps_a_constant():
    sos = random_sos(5)
    zi = torch.from_numpy(scipy.signal.sosfilt_zi(sos.numpy()))
    y, _ = F.sosfilt(torch.ones(1, 300, dtype=torch.float64), sos, zi[None])
    assert np.abs(array(y) - 1).max() <= 1e-12


def test_without_a_state_the_filter_starts_at_rest():
    x, sos = torch.from_numpy(noise(0, 2, 2, 200)), random_sos(3)
    assert torch.equal(F.sosfilt(x, sos), F.sosfilt(x, sos, torch.zeros(2, 2, 3, 2))[0])


CUTS = [(1, 1, 198), (64, 64, 72), (7, 101, 92), (0, 199, 1)]


@pytest.mark.parametrize("lengths", CUTS)
def test_blocks_give_what_one_call_gives_with_gradients_across_them(lengths):
    def run(in_blocks: bool):
        x, sos = (torch.from_numpy(v).requires_grad_() for v in (noise(0, 2, 200), random_sos(4, seed=1).numpy()))
        zi = torch.from_numpy(noise(2, 2, 4, 2)).requires_grad_()
        if in_blocks:
            blocks, state = [], zi
            for block in x.split(lengths, -1):
                y, state = F.sosfilt(block, sos, state)
                blocks.append(y)
            y = torch.cat(blocks, -1)
        else:
            y, state = F.sosfilt(x, sos, zi)
        weight = torch.from_numpy(noise(3, 2, 200))
        loss = (y * weight).sum() + state.square().sum()
        return [y, state, *torch.autograd.grad(loss, (x, sos, zi))]

    for got, want in zip(run(True), run(False), strict=True):
        assert relative_error(got, array(want)) <= 1e-12


def test_float32_blocks_are_as_exact_as_one_call():
    # The state travels in float64, so that cutting into blocks costs nothing.
    x, sos = torch.from_numpy(noise(0, 1, 4000)).float(), F.biquad("lowpass", 44100, 30.0)[None]
    y, state = [], torch.zeros(1, 1, 2)
    for block in x.split(13, -1):
        out, state = F.sosfilt(block, sos, state)
        y.append(out)
    want = scipy.signal.sosfilt(sos.numpy(), array(x))
    assert decibels(relative_error(torch.cat(y, -1), want)) <= -140


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_gradients_of_sosfilt_are_exact(lead):
    inputs = [torch.from_numpy(noise(0, 2, 3, 12)), random_sos(*lead, 2), torch.from_numpy(noise(1, 2, 3, 2, 2))]
    inputs = [value.requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(F.sosfilt, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(F.sosfilt, inputs)


def test_future_samples_change_nothing_and_nan_stays_behind():
    x, sos = torch.from_numpy(noise(0, 1, 300)), random_sos(4)
    broken = x.clone()
    broken[:, 200:] = math.nan
    y, after = F.sosfilt(x, sos), F.sosfilt(broken, sos)
    assert torch.equal(y[:, :200], after[:, :200])
    assert bool(after[:, 200:].isnan().all())


def test_sosfilt_errors_name_both_shapes():
    x = torch.zeros(2, 3, 50)
    with pytest.raises(ValueError, match=r"sosfilt: sos has shape \(4, 1, 6\), expected .* x of shape \(2, 3, 50\)"):
        F.sosfilt(x, random_sos(4, 1))
    with pytest.raises(ValueError, match=r"sosfilt: sos has shape \(1, 1, 1, 1, 1, 6\)"):
        F.sosfilt(x, random_sos(1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"sosfilt: sos has shape \(2, 3, 7, 1, 6\), expected .* or \(2, 3, 50\)"):
        F.sosfilt(x, random_sos(2, 3, 7, 1))
    with pytest.raises(ValueError, match=r"sosfilt: sos has shape \(2, 5\), expected \(\*batch, sections, 6\)"):
        F.sosfilt(x, torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"sosfilt: zi has shape \(2, 3, 2\), expected \(2, 3, 1, 2\)"):
        F.sosfilt(x, random_sos(1), torch.zeros(2, 3, 2))
    with pytest.raises(TypeError, match=r"sosfilt: x is a list, expected a torch.Tensor"):
        F.sosfilt([0.0], random_sos(1))
    with pytest.raises(TypeError, match=r"sosfilt: sos is a list, expected a floating-point tensor"):
        F.sosfilt(x, [[1, 0, 0, 1, 0, 0]])


def test_one_setting_per_channel_is_filtered_per_channel():
    x = torch.from_numpy(noise(0, 2, 3, 100))
    frequency_hz = torch.tensor([[100.0, 1000.0, 5000.0]])
    y = F.lowpass(x, 44100, frequency_hz)
    for channel in range(3):
        want = F.lowpass(x[:, channel : channel + 1], 44100, frequency_hz[0, channel].item())
        assert relative_error(y[:, channel : channel + 1], array(want)) <= ROUNDING_32


def test_frames_must_cut_the_samples_evenly():
    with pytest.raises(ValueError, match=r"peaking: gain_db has shape \(1, 99\), expected .* or \(1, 100\) "):
        F.peaking(torch.zeros(1, 100), 44100, gain_db=torch.zeros(1, 99))

"""Reverberation: decay times by Schroeder's backward integration, levels, and convolution by scipy.signal."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given

import dasp.functional as F
from dasp.functional.reverb import OCTAVES_HZ
from tests.oracles import ROUNDING_64, array, noise, relative_error, tone

BANDS = len(OCTAVES_HZ)
# An FFT of 2^18 values adds about log2(2^18) roundings, of values no larger than the sum of all.
FFT_64 = 1e-13


def impulse(samples: int, *lead: int) -> torch.Tensor:
    x = torch.zeros(*lead, 1, samples, dtype=torch.float64)
    x[..., 0] = 1
    return x


def response(sample_rate: float, seconds: float, **controls: object) -> np.ndarray:
    """Impulse response `(2, samples)` of the reverberation alone."""
    samples = math.ceil(seconds * sample_rate)
    return array(F.noise_shaped_reverb(impulse(samples), sample_rate, mix=1.0, **controls))


def alone() -> torch.Tensor:
    """Levels `(bands, bands)`: band i alone in row i."""
    return torch.full((BANDS, BANDS), -400.0, dtype=torch.float64).fill_diagonal_(0.0)


def single_bands(sample_rate: float, decay_s: float, seed: int) -> np.ndarray:
    """Impulse responses `(bands, 2, samples)` of each band alone."""
    x = impulse(math.ceil(1.05 * decay_s * sample_rate), BANDS)
    return array(F.noise_shaped_reverb(x, sample_rate, alone(), decay_s, 1.0, seed=seed))


def t60(energy: np.ndarray, sample_rate: float) -> float:
    """T60 of an energy envelope, from the slope of its backward integral between -5 and -35 dB (ISO 3382)."""
    left = np.cumsum(energy[::-1])[::-1]
    left = left[left > 0]  # A response that has ended is silent.
    level = 10 * np.log10(left / left[0])
    part = np.flatnonzero((level <= -5) & (level >= -35))
    return -60 / np.polyfit(part / sample_rate, level[part], 1)[0]


# Decay


@pytest.mark.parametrize(
    ("sample_rate", "decay_s", "lowest_band", "seeds"),
    [
        (8000, 1.0, 1, 16),
        (8000, 3.0, 0, 16),
        (16000, 0.3, 4, 8),
        (44100, 0.3, 4, 8),
        (44100, 1.0, 2, 4),
        (96000, 0.5, 4, 2),
    ],
)
def test_each_band_decays_by_60_db_in_its_t60(sample_rate, decay_s, lowest_band, seeds):
    # A noise band of width B gives T60 with a spread of about 0.55 sqrt(2 / (responses B T60)): 2 % at most here.
    energy = sum((single_bands(sample_rate, decay_s, seed) ** 2).sum(1) for seed in range(seeds))
    for band in range(lowest_band, BANDS):
        if OCTAVES_HZ[band] < sample_rate / 2:
            assert t60(energy[band], sample_rate) == pytest.approx(decay_s, rel=0.05)


def test_bands_keep_their_own_decays():
    # Long and short in turn; only the band under test sounds, the others set the length.
    sample_rate, decays = 44100, [2.0, 0.5] * (BANDS // 2)
    for band in (3, 4, 5, 6, 7, 8):
        levels = [0.0 if other == band else -400.0 for other in range(BANDS)]
        setting = {"decay_s": decays, "band_gain_db": levels}
        energy = sum((response(sample_rate, 2.0, **setting, seed=seed) ** 2).sum(0) for seed in range(4))
        assert t60(energy, sample_rate) == pytest.approx(decays[band], rel=0.05)


def test_response_is_the_sum_of_its_bands():
    rng = np.random.default_rng(0)
    decay_s, level_db = rng.uniform(0.1, 0.5, BANDS), rng.uniform(-20, 10, BANDS)
    x = impulse(22050, BANDS)
    parts = F.noise_shaped_reverb(x, 44100, alone() + torch.from_numpy(level_db), torch.from_numpy(decay_s), 1.0)
    whole = response(44100, 0.5, decay_s=decay_s.tolist(), band_gain_db=level_db.tolist())
    # Every part ends with the longest decay, and the other bands' -400 dB are 1e-20.
    assert relative_error(parts.sum(0), whole) <= FFT_64


def test_response_is_as_long_as_the_longest_decay():
    decay_s = [0.05] * BANDS
    decay_s[5] = 0.3
    h = response(10000, 1.0, decay_s=decay_s)
    assert np.abs(h[:, 3001:]).max() <= FFT_64
    assert np.abs(h[:, 2991:3001]).max() > 1e-6


def test_items_end_with_their_own_longest_decay():
    decay_s = torch.tensor([0.1, 0.4], dtype=torch.float64)[:, None].expand(2, BANDS)
    both = F.noise_shaped_reverb(impulse(8000, 2), 16000, 0.0, decay_s, 1.0)
    for item, own in enumerate((0.1, 0.4)):
        assert relative_error(both[item], response(16000, 0.5, decay_s=own)) <= FFT_64


# Level


@pytest.mark.parametrize("sample_rate", [16000, 44100])
@pytest.mark.parametrize("decay_s", [0.05, 0.2, 1.0, 3.0])
def test_white_noise_keeps_its_power_at_0_db_whatever_the_decay(sample_rate, decay_s):
    energy = np.mean([(response(sample_rate, decay_s, decay_s=decay_s, seed=seed) ** 2).sum(-1) for seed in range(4)])
    # The energy of noise under exp(-r n) has a relative spread of sqrt(2 r); eight responses here, four deviations.
    rate = math.log(1000) / (decay_s * sample_rate)
    assert energy == pytest.approx(1, abs=4 * math.sqrt(2 * rate / 8))


def test_white_noise_comes_out_as_loud_as_it_went_in():
    # A reverberation ten times shorter than the noise; its energy has a spread of 1.8 % (see above).
    x = torch.from_numpy(noise(0, 1, 100000))
    y = array(F.noise_shaped_reverb(x, 44100, decay_s=0.2, mix=1.0))[:, 10000:]
    assert (y**2).mean() == pytest.approx(1, abs=4 * 0.04)


def test_band_gain_is_the_level_of_its_band():
    reference = single_bands(16000, 0.2, 0)
    x = impulse(reference.shape[-1], BANDS)
    for level_db in (-48.0, -6.0, 12.0):
        y = F.noise_shaped_reverb(x, 16000, alone() + level_db, 0.2, 1.0)
        assert relative_error(y[:8], 10 ** (level_db / 20) * reference[:8]) <= FFT_64


def test_each_band_lies_in_its_two_octaves():
    h = single_bands(44100, 1.0, 0)
    power = (np.abs(np.fft.rfft(h)) ** 2).sum(1)
    frequency_hz = np.fft.rfftfreq(h.shape[-1], 1 / 44100)
    for band in range(1, BANDS - 1):
        inside = (frequency_hz >= OCTAVES_HZ[band] / 2 - 10) & (frequency_hz <= OCTAVES_HZ[band] * 2 + 10)
        # The noise filter resolves 4 Hz, and the decay adds a Lorentzian line of 1.1 Hz half width with wide skirts.
        assert power[band, inside].sum() / power[band].sum() >= 0.97


def test_bands_above_half_the_sample_rate_are_silent():
    levels = torch.full((BANDS,), -400.0)
    levels[8:] = 0.0  # 8 and 16 kHz
    assert np.abs(response(8000, 0.1, band_gain_db=levels, decay_s=0.1)).max() <= FFT_64


# Seed and channels


def test_same_seed_gives_the_same_and_another_seed_another():
    first, again, other = (response(44100, 0.3, decay_s=0.3, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    correlation = (first * other).sum() / math.sqrt((first**2).sum() * (other**2).sum())
    assert abs(correlation) <= 0.05


def test_global_random_state_is_neither_read_nor_changed():
    state = torch.get_rng_state()
    first = response(11025, 0.1, seed=123)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert np.array_equal(first, response(11025, 0.1, seed=123))


def test_channels_have_their_own_noise():
    # The correlation of two independent noises under exp(-r n) has a spread of sqrt(r).
    left, right = response(44100, 1.0, decay_s=1.0)
    correlation = (left * right).sum() / math.sqrt((left**2).sum() * (right**2).sum())
    assert abs(correlation) <= 4 * math.sqrt(math.log(1000) / 44100)


def test_mono_and_stereo_inputs_meet_the_same_response():
    x = torch.from_numpy(noise(0, 1, 3000))
    mono = F.noise_shaped_reverb(x, 44100, mix=0.5)
    assert relative_error(F.noise_shaped_reverb(x.expand(2, -1), 44100, mix=0.5), array(mono)) <= FFT_64
    stereo = torch.from_numpy(noise(1, 2, 3000))
    y = F.noise_shaped_reverb(stereo, 44100, mix=1.0)
    left = F.noise_shaped_reverb(stereo[:1], 44100, mix=1.0)
    assert relative_error(y[:1], array(left[:1])) <= FFT_64


# Mix and delay


def test_mix_0_is_dry_to_the_bit_and_mix_1_is_wet():
    x = torch.from_numpy(noise(0, 2, 2000)).float()
    assert torch.equal(F.noise_shaped_reverb(x, 44100, mix=0.0), x)
    assert torch.equal(F.convolution_reverb(x, 44100, torch.ones(1, 10), mix=0.0), x)
    wet = array(F.noise_shaped_reverb(x.double(), 44100, mix=1.0))
    half = F.noise_shaped_reverb(x.double(), 44100, mix=0.25)
    assert relative_error(half, 0.75 * array(x) + 0.25 * wet) <= FFT_64


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, FFT_64)])
@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7, 480, 4799, 4800])
def test_pre_delay_by_whole_samples_shifts(samples, dtype, bound):
    x = torch.from_numpy(noise(0, 2, 6001)).to(dtype)
    undelayed = array(F.noise_shaped_reverb(x, 48000, decay_s=0.1, mix=1.0))
    delay = torch.tensor(samples / 48, dtype=dtype)
    y = F.noise_shaped_reverb(x, 48000, decay_s=0.1, mix=1.0, pre_delay_ms=delay)
    want = np.pad(undelayed, ((0, 0), (samples, 0)))[:, :6001]
    # A float32 number of milliseconds names a sample no better than to its own rounding.
    jitter = 0 if dtype == torch.float64 else 2.0**-24 * samples * np.abs(np.diff(undelayed)).max() / np.abs(want).max()
    assert relative_error(y, want) <= bound + 4 * jitter + 8 * ROUNDING_64 * samples


def test_pre_delay_between_samples_turns_the_phase_in_proportion():
    # Third-order interpolation is off by at most 0.024 w^4 between its middle nodes: 2.3e-4 at a twentieth of the rate.
    whole, part = (np.fft.rfft(response(48000, 0.2, decay_s=0.05, pre_delay_ms=delay / 48))[0] for delay in (5.0, 5.37))
    count = len(whole) // 10
    w = math.pi * np.arange(count) / (len(whole) - 1)
    error = np.abs(part[:count] / whole[:count] - np.exp(-0.37j * w))
    assert error.max() <= 2.5e-4


def test_pre_delay_is_continuous_with_a_gradient_everywhere():
    x = torch.from_numpy(noise(0, 1, 500))
    for delay in (0.0, 1e-3, 0.5, 1.0, 2.0, 2.5, 7.0, 99.999):
        value = torch.tensor(delay / 48, dtype=torch.float64, requires_grad=True)
        y = F.noise_shaped_reverb(x, 48000, decay_s=0.05, mix=1.0, pre_delay_ms=value)
        (slope,) = torch.autograd.grad(y.square().sum() + y[0, 120:].sum(), value)
        assert bool(slope.isfinite())
        assert slope.item() != 0
        near = F.noise_shaped_reverb(x, 48000, decay_s=0.05, mix=1.0, pre_delay_ms=delay / 48 + 1e-9)
        assert relative_error(near, array(y)) <= 1e-6


def test_pre_delay_beyond_the_audio_leaves_silence():
    y = F.noise_shaped_reverb(torch.ones(1, 100, dtype=torch.float64), 44100, mix=1.0, pre_delay_ms=50.0)
    assert np.abs(array(y)).max() <= 1e-12


def test_dry_sound_is_not_delayed():
    y = array(F.noise_shaped_reverb(impulse(1000), 44100, mix=0.5, pre_delay_ms=10.0))
    assert y[:, 0] == pytest.approx([0.5, 0.5], abs=1e-12)
    assert np.abs(y[:, 1:441]).max() <= FFT_64


# Length and rate


@pytest.mark.parametrize("samples", [1, 2, 100, 4999, 5000, 5003])
def test_output_ends_with_the_audio_as_if_it_went_on(samples):
    x = torch.from_numpy(noise(0, 1, samples))
    longer = torch.nn.functional.pad(x, (0, 4000))
    want = array(F.noise_shaped_reverb(longer, 22050, decay_s=1.0))[:, :samples]
    assert relative_error(F.noise_shaped_reverb(x, 22050, decay_s=1.0), want) <= FFT_64


@pytest.mark.parametrize("samples", [499, 500, 1009, 12289])
def test_reverberation_is_convolution_with_its_response(samples):
    x = noise(0, 1, samples)
    h = response(16000, samples / 16000, decay_s=0.3)
    want = scipy.signal.fftconvolve(np.broadcast_to(x, h.shape), h, axes=-1)[:, :samples]
    assert relative_error(F.noise_shaped_reverb(torch.from_numpy(x), 16000, decay_s=0.3, mix=1.0), want) <= FFT_64


@pytest.mark.parametrize("sample_rate", [4000, 8000, 11025, 16000, 32000, 192000])
def test_any_sample_rate_works(sample_rate):
    x = torch.from_numpy(tone(300, sample_rate, sample_rate // 5)).float()[None]
    decay_s = torch.full((BANDS,), 0.1, requires_grad=True)
    y = F.noise_shaped_reverb(x, sample_rate, decay_s=decay_s, mix=1.0)
    assert y.shape == (2, sample_rate // 5)
    assert bool(y.isfinite().all())
    (slope,) = torch.autograd.grad(y.square().sum(), decay_s)
    assert bool(slope.isfinite().all())
    assert y.abs().max() > 0.05


def test_any_number_of_bands():
    x = impulse(8000)
    y = F.noise_shaped_reverb(x, 16000, [0.0, -6.0, 3.0], [0.3, 0.2, 0.1], 1.0, bands_hz=(200.0, 1000.0, 5000.0))
    assert bool(y.isfinite().all())
    one = F.noise_shaped_reverb(x, 16000, 0.0, 0.2, 1.0, bands_hz=(1000.0,))
    energy = array(one.square().sum(-1))
    # One band is all of white noise (see above).
    assert energy == pytest.approx([1, 1], abs=4 * math.sqrt(2 * math.log(1000) / 3200))


def test_very_short_decays_are_an_impulse_with_gradient_0():
    decay_s = torch.zeros(BANDS, dtype=torch.float64, requires_grad=True)
    y = F.noise_shaped_reverb(impulse(1000), 44100, decay_s=decay_s, mix=1.0)
    assert bool(y.isfinite().all())
    assert torch.autograd.grad(y.square().sum(), decay_s)[0].abs().max() == 0


# Convolution


LENGTHS = [(1, 1), (1, 5), (2, 3), (7, 2), (64, 64), (64, 65), (997, 499), (1000, 128), (1000, 1), (251, 1009)]


@pytest.mark.parametrize(("samples", "taps"), LENGTHS)
def test_convolution_is_the_direct_sum(samples, taps):
    x, h = noise(0, 2, samples), noise(1, 2, taps)
    want = np.stack([np.convolve(a, b)[:samples] for a, b in zip(x, h, strict=True)])
    got = F.convolution_reverb(torch.from_numpy(x), 44100, torch.from_numpy(h))
    assert relative_error(got, want) <= FFT_64
    rounded = F.convolution_reverb(torch.from_numpy(x).float(), 44100, torch.from_numpy(h).float())
    # log2(4096) roundings of float32, of values up to the sum of all taps.
    assert np.abs(array(rounded) - want).max() <= 12 * 2.0**-24 * np.abs(h).sum(-1).max() * np.abs(x).max()


def test_convolution_is_scipys_for_long_audio():
    x, h = noise(0, 1, 100003), noise(1, 1, 44100)
    want = scipy.signal.fftconvolve(x, h, axes=-1)[:, :100003]
    assert relative_error(F.convolution_reverb(torch.from_numpy(x), 44100, torch.from_numpy(h)), want) <= FFT_64


def test_convolution_broadcasts_items_and_channels():
    x, h = torch.from_numpy(noise(0, 3, 1, 50)), torch.from_numpy(noise(1, 3, 2, 20))
    y = F.convolution_reverb(x, 44100, h)
    assert y.shape == (3, 2, 50)
    for item in range(3):
        for channel in range(2):
            want = np.convolve(array(x)[item, 0], array(h)[item, channel])[:50]
            assert relative_error(y[item, channel], want) <= FFT_64
    shared = F.convolution_reverb(x.expand(-1, 2, -1), 44100, h[0, :1])
    assert relative_error(shared[2, 1], np.convolve(array(x)[2, 0], array(h)[0, 0])[:50]) <= FFT_64


def test_gradient_of_the_response_is_the_correlation():
    x, weight = noise(0, 1, 40), noise(1, 1, 40)
    h = torch.from_numpy(noise(2, 1, 15)).requires_grad_()
    y = F.convolution_reverb(torch.from_numpy(x), 44100, h)
    (slope,) = torch.autograd.grad((y * torch.from_numpy(weight)).sum(), h)
    want = [[(weight[0, k:] * x[0, : 40 - k]).sum() for k in range(15)]]
    assert relative_error(slope, np.array(want)) <= FFT_64


def test_an_impulse_passes_audio_and_a_delayed_one_delays_it():
    x = torch.from_numpy(noise(0, 2, 101))
    h = torch.zeros(1, 8, dtype=torch.float64)
    h[0, 5] = 0.5
    want = 0.5 * np.pad(array(x), ((0, 0), (5, 0)))[:, :101]
    assert relative_error(F.convolution_reverb(x, 44100, h), want) <= FFT_64


# Blocks


def in_blocks(process, x, lengths):
    """Output of a stateful processor block by block, gradients and all, and the last state."""
    state, blocks, start = {}, [], 0
    for length in lengths:
        y, state = process(x[..., start : start + length], state)
        blocks.append(y)
        start += length
    return torch.cat(blocks, -1), state


def cuts(samples):
    """Lengths of blocks of audio, some of them 0."""
    edges = st.lists(st.integers(0, samples), max_size=6).map(lambda drawn: [0, *sorted(drawn), samples])
    return edges.map(lambda e: [b - a for a, b in itertools.pairwise(e)])


@given(lengths=cuts(600), taps=st.integers(1, 700), channels=st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1)]))
def test_convolution_in_blocks_equals_the_whole(lengths, taps, channels):
    own, of_response = channels
    x, h = (torch.from_numpy(noise(seed, *shape)) for seed, shape in ((0, (2, own, 600)), (1, (of_response, taps))))
    mix = torch.tensor([0.3, 0.8], dtype=torch.float64)
    results = []
    for whole in (True, False):
        points = [value.clone().requires_grad_() for value in (x, h, mix)]
        if whole:
            y = F.convolution_reverb(points[0], 44100, *points[1:])
        else:
            y, state = in_blocks(
                lambda block, state, points=points: F.convolution_reverb(block, 44100, *points[1:], state=state),
                points[0],
                lengths,
            )
            want = torch.nn.functional.pad(x, (taps, 0))[..., 600 + 1 :]
            assert torch.equal(state["input"], want)
        weights = torch.from_numpy(noise(2, *y.shape))
        results.append([y, *torch.autograd.grad(y, points, weights)])
    for got, want in zip(*results[::-1], strict=True):
        assert relative_error(got, array(want)) <= 1e-12


@given(lengths=cuts(700), delay_ms=st.sampled_from([0.0, 0.3, 5.0]))
def test_noise_in_blocks_equals_the_whole(lengths, delay_ms):
    bands_hz = (200.0, 1000.0)
    controls = {
        "band_gain_db": torch.tensor([-3.0, 2.0], dtype=torch.float64),
        "decay_s": torch.tensor([[0.05, 0.2], [0.06, 0.01]], dtype=torch.float64),
        "mix": torch.tensor([0.4, 0.9], dtype=torch.float64),
        "pre_delay_ms": torch.tensor([delay_ms, 0.7], dtype=torch.float64),
    }
    x = torch.from_numpy(noise(3, 2, 1, 700))
    results = []
    for whole in (True, False):
        points = [value.clone().requires_grad_() for value in (x, *controls.values())]
        setting = {**dict(zip(controls, points[1:], strict=True)), "bands_hz": bands_hz}
        if whole:
            y = F.noise_shaped_reverb(points[0], 4000, **setting)
        else:
            y, state = in_blocks(
                lambda block, state, setting=setting: F.noise_shaped_reverb(block, 4000, **setting, state=state),
                points[0],
                lengths,
            )
            # 0.2 s and what the longest pre-delay adds, whatever the blocks.
            longest = math.ceil(max(delay_ms, 0.7) * 4) + 3
            assert state["input"].shape == (2, 1, 800 + longest)
        weights = torch.from_numpy(noise(4, *y.shape))
        results.append([y, *torch.autograd.grad(y, points, weights)])
    for got, want in zip(*results[::-1], strict=True):
        assert relative_error(got, array(want)) <= 1e-12


def test_gradients_reach_the_state():
    x, h = torch.from_numpy(noise(0, 1, 20)), torch.from_numpy(noise(1, 1, 30))

    def block(past, x, h):
        y, state = F.convolution_reverb(x, 44100, h, 0.7, state={"input": past})
        return y, state["input"]

    past = torch.from_numpy(noise(2, 1, 29))
    points = [value.clone().requires_grad_() for value in (past, x, h)]
    assert torch.autograd.gradcheck(block, points, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(block, points)
    vectorized = torch.func.vmap(block, in_dims=(0, 0, None))(past.expand(3, 1, 29), x.expand(3, 1, 20), h)
    assert relative_error(vectorized[0][1], array(block(past, x, h)[0])) <= FFT_64


def test_blocks_compile_whole():
    x, h = torch.from_numpy(noise(0, 2, 300)), torch.from_numpy(noise(1, 2, 50))
    torch._dynamo.reset()
    process = torch.compile(F.convolution_reverb, backend="aot_eager", fullgraph=True, dynamic=True)
    y, _ = in_blocks(lambda block, state: process(block, 44100, h, state=state), x, [100, 120, 80])
    assert relative_error(y, array(F.convolution_reverb(x, 44100, h))) <= FFT_64


def test_a_state_of_another_processor_or_shape_is_refused():
    x, h = torch.zeros(2, 100), torch.ones(1, 10)
    with pytest.raises(ValueError, match=r"convolution_reverb: state has 'zi', expected 'input'"):
        F.convolution_reverb(x, 44100, h, state={"zi": x})
    with pytest.raises(ValueError, match=r"state 'input' has shape \(1, 9\), expected \(2,\) \+ \(taps - 1,\)"):
        F.convolution_reverb(x, 44100, h, state={"input": x[:1, :9]})
    with pytest.raises(ValueError, match=r"noise_shaped_reverb: state 'input' has shape"):
        F.noise_shaped_reverb(x, 44100, state={"input": x[:1, :9]})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_states_are_in_the_type_of_the_computation(dtype):
    x, h = torch.from_numpy(noise(0, 1, 40)).to(dtype), torch.from_numpy(noise(1, 1, 9)).to(dtype)
    y, state = in_blocks(lambda block, state: F.convolution_reverb(block, 44100, h, state=state), x, [15, 25])
    assert (y.dtype, state["input"].dtype) == (dtype, torch.float32)
    # One rounding to the type of the output, and those of float32 transforms of sums of 9 products.
    want = F.convolution_reverb(x, 44100, h)
    assert float((y.double() - want.double()).abs().max()) <= 4 * torch.finfo(dtype).eps * float(want.abs().max())


def test_errors_name_the_argument_and_its_shapes():
    x = torch.zeros(4, 2, 100)
    with pytest.raises(ValueError, match=r"impulse_response has shape \(3, 10\), expected \(2, taps\) or \(4, 2\)"):
        F.convolution_reverb(x, 44100, torch.zeros(3, 10))
    with pytest.raises(ValueError, match=r"impulse_response has shape \(1, 0\)"):
        F.convolution_reverb(x, 44100, torch.zeros(1, 0))
    with pytest.raises(ValueError, match=r"impulse_response has shape \(3, 1, 10\)"):
        F.convolution_reverb(x, 44100, torch.zeros(3, 1, 10))
    with pytest.raises(TypeError, match=r"convolution_reverb: impulse_response is a list, expected a torch.Tensor"):
        F.convolution_reverb(x, 44100, [1.0])
    with pytest.raises(ValueError, match=r"noise_shaped_reverb: x has shape \(3, 100\), expected 1 or 2 channel\(s\)"):
        F.noise_shaped_reverb(torch.zeros(3, 100), 44100)
    with pytest.raises(ValueError, match=r"noise_shaped_reverb: decay_s has shape \(4,\), expected \(10,\)"):
        F.noise_shaped_reverb(x, 44100, decay_s=torch.ones(4))
    with pytest.raises(ValueError, match=r"noise_shaped_reverb: decay_s differs between channels"):
        F.noise_shaped_reverb(x, 44100, decay_s=torch.ones(4, 2, 10))


def test_level_of_the_default_reverberation_is_moderate():
    # White noise through the default: 0.7 dry and 0.3 wet of the same power, uncorrelated but for the first samples.
    x = torch.from_numpy(noise(0, 2, 44100))
    y = array(F.noise_shaped_reverb(x, 44100))
    level_db = 10 * math.log10((y[:, 22050:] ** 2).mean())
    assert level_db == pytest.approx(10 * math.log10(0.7**2 + 0.3**2), abs=0.3)


@pytest.mark.parametrize("bands_hz", [(0.0, 100.0), (-1.0,), (100.0, 100.0), (200.0, 100.0), (math.nan,), (math.inf,)])
def test_bands_that_do_not_rise_above_0_hz_are_refused(bands_hz):
    with pytest.raises(ValueError, match=r"noise_shaped_reverb: bands_hz is .*, expected rising frequencies above 0"):
        F.noise_shaped_reverb(torch.zeros(1, 8), 44100, bands_hz=bands_hz)

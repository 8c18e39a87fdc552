"""Deconvolution: impulse responses found again, against convolution by scipy and the normal equations by numpy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch

import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole
from dasp.mixing.deconvolution import bus_response, deconvolve, noise_reverbs, with_impulse_responses

RATE = 16000


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def decaying(generator, taps, t60):
    return generator.standard_normal((2, taps)) * 10 ** (-3 * np.arange(taps) / t60)


def convolved(source, h):
    return np.stack([scipy.signal.fftconvolve(source[0], channel)[: source.shape[-1]] for channel in h])


@pytest.mark.parametrize("past", [0, 700])
def test_a_response_is_found_exactly_without_noise(generator, past):
    source, h = generator.standard_normal((1, 6000)), decaying(generator, 500, 300)
    target = torch.from_numpy(convolved(source, h)[:, past:])
    found = deconvolve(torch.from_numpy(source), target, 500, iterations=200)
    torch.testing.assert_close(found, torch.from_numpy(h), atol=1e-8, rtol=0)


def test_a_gain_behind_the_room_is_undone(generator):
    source, h = generator.standard_normal((1, 6000)), decaying(generator, 300, 300)
    gain = 0.5 + 0.4 * np.sin(np.arange(6000) / 500)[None]
    target = torch.from_numpy(gain * convolved(source, h))
    found = deconvolve(torch.from_numpy(source), target, 300, gain=torch.from_numpy(gain), iterations=300)
    torch.testing.assert_close(found, torch.from_numpy(h), atol=1e-8, rtol=0)


def test_it_solves_the_regularised_normal_equations(generator):
    samples, taps, decay = 400, 60, 40.0
    source, target = generator.standard_normal((1, samples)), generator.standard_normal((2, samples))
    found = deconvolve(
        torch.from_numpy(source), torch.from_numpy(target), taps, decay, regularisation=0.1, iterations=400
    )
    matrix = scipy.linalg.toeplitz(source[0], np.zeros(taps))
    weight = 10 ** (-3 * np.arange(taps) / decay)
    penalty = 0.1 * (source**2).mean() * samples * np.diag(weight**-2)
    expected = np.linalg.solve(matrix.T @ matrix + penalty, matrix.T @ target.T).T
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_with_noise_the_regularised_response_is_closer(generator):
    # A dull source, which tells little of the treble of the room.
    source = scipy.signal.lfilter([1], [1, -0.98], generator.standard_normal((1, 8000)))
    h = decaying(generator, 1000, 800)
    target = torch.from_numpy(convolved(source, h) + 3 * generator.standard_normal((2, 8000)))
    plain = deconvolve(torch.from_numpy(source), target, 1000, iterations=200)
    # The variance of the noise, relative to the energy of the source, where that of the response is 1 at its beginning.
    calm = deconvolve(torch.from_numpy(source), target, 1000, 800.0, 9 / (source**2).sum(), iterations=200)
    errors = [float((found - torch.from_numpy(h)).norm()) for found in (plain, calm)]
    assert errors[1] < 0.6 * errors[0]


def test_silence_gives_no_response():
    found = deconvolve(torch.zeros(1, 100), torch.ones(2, 100), 10, 5.0, 0.01)
    assert torch.equal(found, torch.zeros(2, 10))
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": torch.ones(2, 100)}, r"source has shape \(2, 100\), expected 1 channel"),
        ({"source": torch.ones(1, 99)}, "source has 99 samples, expected at least 100"),
        ({"target": torch.ones(3, 2, 100)}, r"target has shape \(3, 2, 100\), expected \(channels, samples\)"),
        ({"taps": 0}, "taps is 0, expected at least 1"),
        ({"decay": 0.0}, "decay is 0.0, expected more than 0"),
        ({"regularisation": -1.0}, "regularisation is -1.0, expected"),
        ({"gain": torch.ones(1, 99)}, r"gain has shape \(1, 99\), expected \(2, 100\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"source": torch.ones(1, 100), "target": torch.ones(2, 100), "taps": 8} | change
    with pytest.raises(ValueError, match=message):
        deconvolve(**arguments)


def test_audio_of_integers_is_refused():
    with pytest.raises(TypeError, match=r"deconvolve: target has type torch.int64"):
        deconvolve(torch.ones(1, 8), torch.ones(2, 8, dtype=torch.int64), 2)


def test_the_room_of_a_mix_is_found_through_equaliser_and_compressor():
    draw = torch.Generator().manual_seed(0)
    tracks = [torch.randn(1, 2 * RATE, generator=draw) * scale for scale in (0.2, 0.1)]
    h = torch.from_numpy(decaying(np.random.default_rng(1), 2000, 1500)).float()
    console = DifferentiableMixingConsole(RATE)
    assert noise_reverbs(console) == ["reverb"]
    console = with_impulse_responses(console, {"reverb": h})
    assert noise_reverbs(console) == []
    values = console.denormalize(console.default_controls(2))
    values["track"]["send"]["reverb_db"] = torch.tensor([-10.0, -14.0])
    values["master"]["parametric_eq"]["gain_db"] = torch.tensor([3.0, -2.0, 1.0, 4.0])
    values["master"]["compressor"] |= {"threshold_db": torch.tensor(-20.0), "ratio": torch.tensor(2.0)}
    controls = console.normalize(values)
    reference = console(tracks, controls)
    other = with_impulse_responses(console, {"reverb": h.roll(1, -1)})
    found = bus_response(other, controls, tracks, reference, "reverb", decay_s=0.5)
    assert found.shape[-1] == RATE // 2
    # What the master does is taken from the present room, so that the first solution is near and not exact.
    assert (found[:, :2000] - h).norm() < 0.1 * h.norm()


def test_locks_of_other_sections_stay():
    console = DifferentiableMixingConsole(RATE)
    other = with_impulse_responses(console, {"reverb": torch.ones(2, 4)})
    for section in ("track", "master"):
        assert torch.equal(other.free(section), console.free(section))
    assert not other.free("reverb").any()
    assert isinstance(other.sections()["reverb"].stages()["convolution_reverb"], M.ConvolutionReverb)

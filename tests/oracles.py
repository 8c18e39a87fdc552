"""What tests of several families compare with: measures of error, and the Audio EQ Cookbook written a second time."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float64]

# Half the distance from 1 to the next number: the relative error of one rounding.
ROUNDING_32 = 2.0**-24
ROUNDING_64 = 2.0**-53


def array(x: Tensor) -> Array:
    """Any tensor as a float64 array."""
    return x.detach().double().numpy()


def relative_error(got: Tensor | Array, want: Array) -> float:
    """Largest error over largest value."""
    got = array(got) if isinstance(got, Tensor) else got
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


def decibels(ratio: float | Array) -> float | Array:
    """A ratio of amplitudes in dB; -400 dB for 0."""
    return 20 * np.log10(np.maximum(np.abs(ratio), 1e-20))


def cookbook(kind: str, sample_rate: float, frequency_hz: float, gain_db: float, q: float) -> list[float]:
    """b0 b1 b2 a0 a1 a2 over a0 as printed in the Audio EQ Cookbook, computed with 40 digits and rounded once."""
    with mpmath.workdps(40):
        w0 = 2 * mpmath.pi * mpmath.mpf(frequency_hz) / mpmath.mpf(sample_rate)
        cos, alpha = mpmath.cos(w0), mpmath.sin(w0) / (2 * mpmath.mpf(q))
        A = mpmath.mpf(10) ** (mpmath.mpf(gain_db) / 40)
        beta = 2 * mpmath.sqrt(A) * alpha
        rows = {
            "lowpass": ((1 - cos) / 2, 1 - cos, (1 - cos) / 2, 1 + alpha, -2 * cos, 1 - alpha),
            "highpass": ((1 + cos) / 2, -(1 + cos), (1 + cos) / 2, 1 + alpha, -2 * cos, 1 - alpha),
            "bandpass": (alpha, 0, -alpha, 1 + alpha, -2 * cos, 1 - alpha),
            "notch": (1, -2 * cos, 1, 1 + alpha, -2 * cos, 1 - alpha),
            "allpass": (1 - alpha, -2 * cos, 1 + alpha, 1 + alpha, -2 * cos, 1 - alpha),
            "peaking": (1 + alpha * A, -2 * cos, 1 - alpha * A, 1 + alpha / A, -2 * cos, 1 - alpha / A),
            "low_shelf": (
                A * ((A + 1) - (A - 1) * cos + beta),
                2 * A * ((A - 1) - (A + 1) * cos),
                A * ((A + 1) - (A - 1) * cos - beta),
                (A + 1) + (A - 1) * cos + beta,
                -2 * ((A - 1) + (A + 1) * cos),
                (A + 1) + (A - 1) * cos - beta,
            ),
            "high_shelf": (
                A * ((A + 1) + (A - 1) * cos + beta),
                -2 * A * ((A - 1) + (A + 1) * cos),
                A * ((A + 1) + (A - 1) * cos - beta),
                (A + 1) - (A - 1) * cos + beta,
                2 * ((A - 1) - (A + 1) * cos),
                (A + 1) - (A - 1) * cos - beta,
            ),
        }
        return [float(value / rows[kind][3]) for value in rows[kind]]


def noise(seed: int, *shape: int) -> Array:
    """Gaussian noise, the same on every machine."""
    return np.random.default_rng(seed).standard_normal(shape)


def tone(frequency_hz: float, sample_rate: float, samples: int, amplitude: float = 1.0) -> Array:
    """A sine that starts at 0."""
    return amplitude * np.sin(2 * math.pi * frequency_hz / sample_rate * np.arange(samples))

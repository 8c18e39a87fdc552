"""The filters of dasp-pytorch, which sample responses on an FFT grid there and run their recursion here."""

from __future__ import annotations

import torch
from torch import Tensor

import dasp.functional as F
from dasp._checks import check_choice, shape_text

__all__ = ["biquad", "fft_freqz", "fft_sosfreqz", "freqdomain_fir", "lfilter_via_fsm", "sosfilt_via_fsm"]

_KINDS = {
    "high_shelf": "high_shelf",
    "low_shelf": "low_shelf",
    "peaking": "peaking",
    "low_pass": "lowpass",
    "high_pass": "highpass",
}


def biquad(
    gain_db: Tensor, cutoff_freq: Tensor, q_factor: Tensor, sample_rate: float, filter_type: str = "peaking"
) -> tuple[Tensor, Tensor]:
    """Designs a filter, as :func:`dasp.functional.biquad`.

    Args:
        gain_db: Gain in dB, one for each item, of whatever shape.
        cutoff_freq: Frequency in Hz, likewise.
        q_factor: Quality factor, likewise.
        sample_rate: Sample rate in Hz.
        filter_type: "peaking", "low_shelf", "high_shelf", "low_pass" or "high_pass".

    Returns:
        b and a, `(batch, 3)` each in the type of gain_db, with a[:, 0] = 1.

    Raises:
        ValueError: If filter_type is unknown, or the number of values differs.
    """
    check_choice("biquad", "filter_type", filter_type, tuple(_KINDS))
    items = gain_db.numel()
    for name, value in (("cutoff_freq", cutoff_freq), ("q_factor", q_factor)):
        if value.numel() != items:
            raise ValueError(f"biquad: {name} has shape {shape_text(value.shape)}, expected {items} values as gain_db")
    sos = F.biquad(
        _KINDS[filter_type], sample_rate, cutoff_freq.reshape(-1), gain_db.reshape(-1), q_factor.reshape(-1)
    ).to(gain_db.dtype)
    return sos[:, :3], sos[:, 3:]


def sosfilt_via_fsm(sos: Tensor, x: Tensor) -> Tensor:
    """Filters by a cascade of second-order sections, as :func:`dasp.functional.sosfilt`.

    Args:
        sos: `(batch, sections, 6)`.
        x: Audio `(batch, ..., samples)`.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x or sos is not a floating-point tensor.
        ValueError: If sos does not match x.
    """
    y: Tensor = F.sosfilt(x.reshape(x.shape[0], -1, x.shape[-1]), sos)  # type: ignore[assignment]  # no zi, no pair
    return y.reshape(x.shape)


def lfilter_via_fsm(x: Tensor, b: Tensor, a: Tensor | None = None) -> Tensor:
    """Filters by the quotient of two polynomials.

    Args:
        x: Audio `(batch, 1, samples)`.
        b: Numerator `(batch, taps)`.
        a: Denominator `(batch, up to 3)`; 1 if None.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x, b or a is not a floating-point tensor.
        ValueError: If x does not have one channel, b or a does not match x, or b or a has more than three
            coefficients while there is a denominator: factor such a filter into sections, for `sosfilt_via_fsm`.
    """
    if x.ndim != 3 or x.shape[1] != 1:
        raise ValueError(f"lfilter_via_fsm: x has shape {shape_text(x.shape)}, expected (batch, 1, samples)")
    if a is None:
        return F.convolution_reverb(x, 1.0, b.unsqueeze(1), 1.0)
    if max(b.shape[-1], a.shape[-1]) > 3:
        raise ValueError(
            f"lfilter_via_fsm: b and a have shapes {shape_text(b.shape)} and {shape_text(a.shape)}, expected up to "
            f"three coefficients each: factor the filter into sections for sosfilt_via_fsm"
        )
    halves = [torch.nn.functional.pad(half.double(), (0, 3 - half.shape[-1])) for half in (b, a)]
    return sosfilt_via_fsm(torch.cat(halves, -1).unsqueeze(1), x)


def fft_freqz(b: Tensor, a: Tensor, n_fft: int = 512) -> Tensor:
    """Frequency response `(..., n_fft // 2 + 1)` of a filter `(..., coefficients)` at even spacing."""
    response: Tensor = torch.fft.rfft(b, n_fft) / torch.fft.rfft(a, n_fft)
    return response


def fft_sosfreqz(sos: Tensor, n_fft: int = 512) -> Tensor:
    """Frequency response of a cascade, as :func:`dasp.functional.sosfreqz`.

    Args:
        sos: `(batch, sections, 6)`.
        n_fft: Points on the whole circle.

    Returns:
        `(batch, n_fft // 2 + 1)`, complex in the precision of sos.

    Raises:
        TypeError: If sos is not a floating-point tensor.
        ValueError: If sos does not have six coefficients per section.
    """
    points = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=sos.device) / n_fft
    return F.sosfreqz(sos, points, 1.0).to(torch.promote_types(sos.dtype, torch.complex64))


def freqdomain_fir(x: Tensor, H: Tensor, n_fft: int) -> Tensor:  # noqa: N803  # dasp-pytorch's name
    """The product of a spectrum and a response, back in time: `(..., n_fft)`, which wraps around where it is longer."""
    spectrum: Tensor = torch.fft.rfft(x, n_fft)
    y: Tensor = torch.fft.irfft(spectrum * H.to(spectrum.dtype), n_fft)
    return y

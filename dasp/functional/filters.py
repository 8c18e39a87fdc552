"""Second-order filters: design, response, and exact recursive filtering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import (
    broadcasts,
    check_audio,
    check_call,
    check_choice,
    check_sample_rate,
    control,
    recalled,
    shape_text,
    working,
)
from dasp._spec import Control, Param, State, processor
from dasp.kernels import KINDS, biquads, numbers
from dasp.kernels import sosfilt as sosfilt_rows

Frequency = Annotated[Control, Param("Hz", 20, 20000, "log", "Cutoff or centre frequency.", domain=(0, math.inf))]
Gain = Annotated[Control, Param("dB", -24, 24, meaning="Gain of the peak or shelf.")]
Quality = Annotated[Control, Param("", 0.1, 10, "log", "Quality factor.", domain=(0, math.inf))]


def biquad(
    kind: str,
    sample_rate: float,
    frequency_hz: Control,
    gain_db: Control = 0.0,
    q: Control = math.sqrt(0.5),
) -> Tensor:
    """Designs one filter of the Audio EQ Cookbook (Bristow-Johnson); shelves in their Q form.

    Args:
        kind: One of `KINDS`.
        sample_rate: Sample rate in Hz.
        frequency_hz: Cutoff or centre in Hz, any shape.
        gain_db: Gain of a peaking or shelving filter in dB, to broadcast with frequency_hz; others ignore it.
        q: Quality factor, to broadcast with frequency_hz.

    Returns:
        `(*shape, 6)` in float64, as b0 b1 b2 a0 a1 a2 with a0 = 1.

    Raises:
        TypeError: If sample_rate is not a number.
        ValueError: If kind is unknown or sample_rate is not above 0.

    Domain:
        Frequencies act as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.biquad("peaking", 48000, 1000.0, gain_db=0.0, q=1.0)[:3]
        tensor([ 1.0000, -1.8614,  0.8775], dtype=torch.float64)
    """
    check_choice("biquad", "kind", kind, KINDS)
    check_sample_rate("biquad", sample_rate)
    given = next((v for v in (frequency_hz, gain_db, q) if isinstance(v, Tensor)), None)
    f, g, quality = (
        v.to(torch.float64) if isinstance(v, Tensor) else numbers(v, given) for v in (frequency_hz, gain_db, q)
    )
    f, g, quality = torch.broadcast_tensors(f, g, quality)
    five = design((kind,), sample_rate, f.unsqueeze(-1), g.unsqueeze(-1), quality.unsqueeze(-1)).squeeze(-2)
    return torch.cat([five[..., :3], torch.ones_like(five[..., :1]), five[..., 3:]], -1)


def design(kinds: Sequence[str], sample_rate: float, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Tensor:
    """Designs a cascade: `(*shape, bands)` in float64 each to `(*shape, bands, 5)` as b0 b1 b2 a1 a2."""
    f, g, quality = torch.broadcast_tensors(frequency_hz, gain_db, q)
    flat = [value.reshape(math.prod(f.shape[:-1]), len(kinds)) for value in (f, g, quality)]
    return biquads(flat[0], flat[1], flat[2], kinds, sample_rate).reshape(*f.shape, 5)


def sosfreqz(sos: Tensor, frequency_hz: Tensor, sample_rate: float) -> Tensor:
    """Frequency response of a cascade of second-order sections.

    Args:
        sos: `(*batch, sections, 6)` as b0 b1 b2 a0 a1 a2.
        frequency_hz: Frequencies `(points,)` in Hz.
        sample_rate: Sample rate in Hz.

    Returns:
        `(*batch, points)`, complex128.

    Raises:
        TypeError: If sos is not a floating-point tensor.
        ValueError: If sos does not have six coefficients per section, or sample_rate is not above 0.

    Example:
        >>> sos = F.biquad("peaking", 48000, 1000.0, gain_db=6.0, q=1.0)
        >>> 20 * F.sosfreqz(sos[None], torch.tensor([1000.0]), 48000).abs().log10()
        tensor([6.0000], dtype=torch.float64)
    """
    _check_sos("sosfreqz", sos)
    check_sample_rate("sosfreqz", sample_rate)
    delay = torch.exp(-2j * math.pi / sample_rate * frequency_hz.to(torch.float64))
    powers = torch.stack([torch.ones_like(delay), delay, delay * delay], -1)
    polynomials = torch.einsum("...sc,pc->...sp", sos.to(torch.complex128).unflatten(-1, (2, 3)), powers)
    return (polynomials[..., 0, :] / polynomials[..., 1, :]).prod(-2)


def _check_sos(name: str, sos: Tensor) -> None:
    if not isinstance(sos, Tensor) or not sos.is_floating_point():
        kind = sos.dtype if isinstance(sos, Tensor) else type(sos).__name__
        raise TypeError(f"{name}: sos is a {kind}, expected a floating-point tensor")
    if sos.ndim < 2 or sos.shape[-1] != 6:
        raise ValueError(f"{name}: sos has shape {shape_text(sos.shape)}, expected (*batch, sections, 6)")


def sosfilt(x: Tensor, sos: Tensor, zi: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """Filters by a cascade of second-order sections: the exact recursion, with coefficients and state in float64.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sos: `(sections, 6)`, `(*batch, sections, 6)` or `(*batch, channels, sections, 6)` as b0 b1 b2 a0 a1 a2.
        zi: State of each section in transposed direct form II before the first sample,
            `(*batch, channels, sections, 2)`; at rest if None.

    Returns:
        Audio as x; with zi the pair of that and the state after the last sample, in float64.  With it as the next
        zi, blocks give what one call on the whole gives.

    Raises:
        TypeError: If x or sos is not a floating-point tensor.
        ValueError: If sos or zi does not match x.

    Domain:
        a0 must not be 0; the filter is as stable as its coefficients are.

    Example:
        >>> sos = F.biquad("lowpass", 44100, 1000.0)[None]
        >>> y, zf = F.sosfilt(torch.zeros(2, 64), sos, torch.zeros(2, 1, 2))
        >>> y.shape, zf.shape
        (torch.Size([2, 64]), torch.Size([2, 1, 2]))
    """
    check_audio("sosfilt", x)
    _check_sos("sosfilt", sos)
    batch, channels = x.shape[:-2], x.shape[-2]
    lead, sections = tuple(sos.shape[:-2]), sos.shape[-2]
    if len(lead) <= len(batch):
        lead = (*lead, 1)
    targets = (*batch, channels)[len(batch) + 1 - len(lead) :]
    if len(lead) > len(batch) + 1 or not broadcasts(lead, targets):
        raise ValueError(
            f"sosfilt: sos has shape {shape_text(sos.shape)}, expected (sections, 6) after (), {shape_text(batch)} "
            f"or {shape_text((*batch, channels))} to match x of shape {shape_text(x.shape)}"
        )
    state_shape = (*batch, channels, sections, 2)
    if zi is not None and tuple(zi.shape) != state_shape:
        raise ValueError(f"sosfilt: zi has shape {shape_text(zi.shape)}, expected {shape_text(state_shape)}")
    exact = sos.to(torch.float64).reshape(*lead, sections, 6)
    five = torch.cat([exact[..., :3], exact[..., 4:]], -1) / exact[..., 3:4]
    y, zf = filter_cascade(working(x), five, zi)
    return y.to(x.dtype) if zi is None else (y.to(x.dtype), zf)


def filter_cascade(x: Tensor, five: Tensor, zi: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Runs the kernel: `five` is `(*batch, channels, sections, 5)` in float64, with 1 where it does not vary."""
    *batch, channels, samples = x.shape
    sections = five.shape[-2]
    # Not numel(), which torch 2.13 makes a constant of where a shape is traced.
    if math.prod(five.shape[:-2]) == 1:
        coefficients = five.reshape(1, sections, 5)
    else:
        coefficients = five.expand(*batch, five.shape[-3], sections, 5).reshape(-1, sections, 5)
    rows = x.reshape(-1, samples) if samples else x.reshape(math.prod(batch) * channels, 0)
    if zi is None:
        state = torch.zeros(rows.shape[0], sections, 2, dtype=torch.float64, device=x.device)
    else:
        state = zi.to(torch.float64).reshape(-1, sections, 2)
    y, zf = sosfilt_rows(rows, coefficients, state)
    return y.reshape(x.shape), zf.reshape(*batch, channels, sections, 2)


def filtered(name: str, x: Tensor, audio: Tensor, five: Tensor, state: State | None) -> Tensor | tuple[Tensor, State]:
    """What a processor returns that runs a cascade over `audio`, which is x in its working type."""
    shape = (*audio.shape[:-1], five.shape[-2], 2)
    zi = None if state is None else recalled(name, state, "zi", shape, audio)
    y, zf = filter_cascade(audio, five, zi)
    return y.to(x.dtype) if state is None else (y.to(x.dtype), {"zi": zf})


def _single(
    kind: str, x: Tensor, sample_rate: float, state: State | None, **controls: Control
) -> Tensor | tuple[Tensor, State]:
    audio = check_call(kind, x, sample_rate)
    values = {name: control(kind, name, value, audio, dtype=torch.float64) for name, value in controls.items()}
    f, quality = values["frequency_hz"], values["q"]
    five = design((kind,), sample_rate, f, values.get("gain_db", f.new_zeros(())), quality)
    return filtered(kind, x, audio, five, state)


@processor(linear=True)
def lowpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 10000.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """Low-pass filter of second order (Audio EQ Cookbook), exact and recursive.

    H(s) = 1 / (s^2 + s / q + 1), so that the gain at frequency_hz is q.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.lowpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("lowpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(linear=True)
def highpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 100.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """High-pass filter of second order (Audio EQ Cookbook), exact and recursive.

    H(s) = s^2 / (s^2 + s / q + 1), so that the gain at frequency_hz is q.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.highpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("highpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(linear=True)
def bandpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """Band-pass filter of second order with a peak of 0 dB (Audio EQ Cookbook), exact and recursive.

    H(s) = (s / q) / (s^2 + s / q + 1).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.bandpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("bandpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(linear=True)
def notch(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """Notch filter of second order (Audio EQ Cookbook), exact and recursive.

    H(s) = (s^2 + 1) / (s^2 + s / q + 1).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.notch(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("notch", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(linear=True)
def allpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """All-pass filter of second order (Audio EQ Cookbook), exact and recursive.

    H(s) = (s^2 - s / q + 1) / (s^2 + s / q + 1).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.allpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("allpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(linear=True)
def peaking(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    gain_db: Gain = 0.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """Peaking filter (Audio EQ Cookbook), exact and recursive.

    H(s) = (s^2 + s A / q + 1) / (s^2 + s / (A q) + 1), A = 10^(gain_db / 40).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.peaking(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("peaking", x, sample_rate, state, frequency_hz=frequency_hz, gain_db=gain_db, q=q)


@processor(linear=True)
def low_shelf(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 100.0,
    gain_db: Gain = 0.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """Low shelf (Audio EQ Cookbook), exact and recursive.

    H(s) = A (s^2 + s sqrt(A) / q + A) / (A s^2 + s sqrt(A) / q + 1), A = 10^(gain_db / 40).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.low_shelf(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("low_shelf", x, sample_rate, state, frequency_hz=frequency_hz, gain_db=gain_db, q=q)


@processor(linear=True)
def high_shelf(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 8000.0,
    gain_db: Gain = 0.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """High shelf (Audio EQ Cookbook), exact and recursive.

    H(s) = A (A s^2 + s sqrt(A) / q + 1) / (s^2 + s sqrt(A) / q + A), A = 10^(gain_db / 40).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x, or a control changes with time.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.high_shelf(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("high_shelf", x, sample_rate, state, frequency_hz=frequency_hz, gain_db=gain_db, q=q)

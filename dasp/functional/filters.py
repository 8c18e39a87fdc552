"""Second-order filters: design, response, and exact recursive filtering."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import (
    as_tensors,
    broadcasts,
    check_audio,
    check_call,
    check_choice,
    check_sample_rate,
    control,
    in_common_frames,
    is_automation,
    is_cut_into,
    recalled,
    settings,
    shape_text,
    working,
)
from dasp._spec import Control, Param, State, processor
from dasp.kernels import KINDS, biquads, numbers, prototypes, svf
from dasp.kernels import sosfilt as sosfilt_rows

Frequency = Annotated[Control, Param("Hz", 20, 20000, "log", "Cutoff or centre frequency.", domain=(0, math.inf))]
Gain = Annotated[Control, Param("dB", -24, 24, meaning="Gain of the peak or shelf.")]
# The entry of a state in state-variable form; in transposed direct form II it is "zi", as scipy has it.
_VARYING = "integrators"

Quality = Annotated[Control, Param("", 0.1, 10, "log", "Quality factor.", domain=(0, math.inf))]


def biquad(
    kind: str,
    sample_rate: float,
    frequency_hz: Control,
    gain_db: Control = 0.0,
    q: Control = math.sqrt(0.5),
) -> Tensor:
    r"""Designs one filter of the Audio EQ Cookbook (Bristow-Johnson); shelves in their Q form.

    The response H(s) of each kind stands with the processor of its name; this is its bilinear transform,

    $$s = \frac{1}{\tan(\pi\, \mathrm{frequency\_hz} / \mathrm{sample\_rate})}\, \frac{1 - z^{-1}}{1 + z^{-1}}$$

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
    shape = f.shape
    f, g, quality = (value.reshape(-1, 1) for value in (f, g, quality))
    five = biquads(f, g, quality, (kind,), sample_rate).reshape(*shape, 5)
    return torch.cat([five[..., :3], torch.ones_like(five[..., :1]), five[..., 3:]], -1)


def sosfreqz(sos: Tensor, frequency_hz: Tensor, sample_rate: float) -> Tensor:
    r"""Frequency response of a cascade of second-order sections.

    $$H(f) = \prod_{\mathrm{sections}} \frac{b_0 + b_1 z^{-1} + b_2 z^{-2}}{a_0 + a_1 z^{-1} + a_2 z^{-2}}, \quad
    z = e^{2 \pi i f / \mathrm{sample\_rate}}$$

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
    r"""Filters by a cascade of second-order sections: the exact recursion, with coefficients and state in float64.

    Each section gives, of what the one before it gave,

    $$a_0\, y[n] = b_0\, x[n] + b_1\, x[n - 1] + b_2\, x[n - 2] - a_1\, y[n - 1] - a_2\, y[n - 2]$$

    Sections that change with time run in state-variable form, two trapezoidal integrators in a loop, of which no change
    of coefficients, however fast, can raise the energy; states of direct forms have no such bound.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sos: `(sections, 6)`, `(*batch, sections, 6)` or `(*batch, channels, sections, 6)` as b0 b1 b2 a0 a1 a2; or
            `(*batch, channels, frames, sections, 6)` for sections that change with time, channels maybe 1, each frame
            for `samples / frames` samples.
        zi: State of each section before the first sample, `(*batch, channels, sections, 2)`; at rest if None.  That of
            transposed direct form II, as scipy has it, or of sections that change the states of both integrators.

    Returns:
        Audio as x; with zi the pair of that and the state after the last sample, in float64.  With it as the next
        zi, blocks give what one call on the whole gives.

    Raises:
        TypeError: If x or sos is not a floating-point tensor.
        ValueError: If sos or zi does not match x.

    Domain:
        a0 must not be 0; the filter is as stable as its coefficients are.  Sections that change with time must be
        stable at each, else the result is NaN.

    Example:
        >>> sos = F.biquad("lowpass", 44100, 1000.0)[None]
        >>> y, zf = F.sosfilt(torch.zeros(2, 64), sos, torch.zeros(2, 1, 2))
        >>> y.shape, zf.shape
        (torch.Size([2, 64]), torch.Size([2, 1, 2]))
        >>> sweep = F.biquad("lowpass", 44100, torch.linspace(200.0, 2000.0, 64))  # a filter for every sample
        >>> F.sosfilt(torch.zeros(2, 64), sweep[None, :, None]).shape
        torch.Size([2, 64])
    """
    check_audio("sosfilt", x)
    _check_sos("sosfilt", sos)
    *batch, channels, samples = x.shape
    lead, sections = tuple(sos.shape[:-2]), sos.shape[-2]
    varying = len(lead) == len(batch) + 2
    if len(lead) <= len(batch):
        lead = (*lead, 1)
    frames = lead[-1] if varying else 1
    filters = lead[:-1] if varying else lead
    targets = (*batch, channels)[len(batch) + 1 - len(filters) :]
    fits = len(filters) <= len(batch) + 1 and broadcasts(filters, targets)
    if not fits or not is_cut_into(samples, frames):
        raise ValueError(
            f"sosfilt: sos has shape {shape_text(sos.shape)}, expected (sections, 6) after (), {shape_text(batch)}, "
            f"{shape_text((*batch, channels))} or {shape_text(x.shape)}, or frames that divide {samples}, "
            f"to match x of shape {shape_text(x.shape)}"
        )
    state_shape = (*batch, channels, sections, 2)
    if zi is not None and tuple(zi.shape) != state_shape:
        raise ValueError(f"sosfilt: zi has shape {shape_text(zi.shape)}, expected {shape_text(state_shape)}")
    exact = sos.to(torch.float64).reshape(*lead, sections, 6)
    five = torch.cat([exact[..., :3], exact[..., 4:]], -1) / exact[..., 3:4]
    coefficients = _state_variable_form(five) if varying else five
    y, zf = filter_cascade(working(x), as_filters(coefficients, x, 3 if varying else 2), zi, varying)
    return y.to(x.dtype) if zi is None else (y.to(x.dtype), zf)


def _state_variable_form(five: Tensor) -> Tensor:
    """b0 b1 b2 a1 a2 to g d m0 m1 m2: from values at 0 Hz and Nyquist, and what is left between."""
    b0, b1, b2, a1, a2 = five.unbind(-1)
    dc, nyquist = 1 + a1 + a2, 1 - a1 + a2
    g, d = torch.sqrt(dc / nyquist), nyquist / 4
    at_dc, at_nyquist = (b0 + b1 + b2) / dc, (b0 - b1 + b2) / nyquist
    between = ((b0 - b2) - (1 - a2) * at_nyquist) / (2 * g * d)
    return torch.stack([g, d, at_nyquist, between, at_dc - at_nyquist], -1)


def filter_cascade(
    x: Tensor, filters: Tensor, zi: Tensor | None = None, varying: bool = False
) -> tuple[Tensor, Tensor]:
    """Runs a kernel over audio in its working type.

    Args:
        x: `(*batch, channels, samples)`.
        filters: `(filters, sections, 5)` in float64 as `kernels.sosfilt` takes them, or
            `(filters, frames, sections, 5)` as `kernels.svf` does.
        zi: `(*batch, channels, sections, 2)`, or None at rest.
        varying: Whether there are frames.
    """
    *batch, channels, samples = x.shape
    rows, sections = math.prod(batch) * channels, filters.shape[-2]
    if zi is None:
        state = torch.zeros(rows, sections, 2, dtype=torch.float64, device=x.device)
    else:
        state = zi.to(torch.float64).reshape(rows, sections, 2)
    y, zf = (svf if varying else sosfilt_rows)(x.reshape(rows, samples), filters, state)
    return y.reshape(x.shape), zf if zi is None else zf.reshape(zi.shape)


def as_filters(coefficients: Tensor, x: Tensor, dims: int) -> Tensor:
    """`(*batch, channels, ...)`, with 1 where they do not vary, to one filter, one for each item or for each channel.

    `dims` is how many dimensions a filter has; channels of x that share one are rows that follow each other.
    """
    filter_shape = coefficients.shape[coefficients.ndim - dims :]
    lead = coefficients.shape[: coefficients.ndim - dims]
    # Not numel(), which torch 2.13 makes a constant of where a shape is traced.
    if math.prod(lead) == 1:
        return coefficients.reshape(1, *filter_shape)
    target = (*x.shape[:-2], lead[-1])
    return coefficients.expand(*target, *filter_shape).reshape(math.prod(target), *filter_shape)


def equalized(
    name: str,
    x: Tensor,
    sample_rate: float,
    kinds: Sequence[str],
    controls: Mapping[str, Control],
    state: State | None,
    bands: bool = True,
) -> Tensor | tuple[Tensor, State]:
    """What a processor returns that runs a cascade of filters of the cookbook.

    Where a control changes with time, or did in the block before, the filters run in state-variable form.

    Args:
        name: The processor.
        x: Its audio.
        sample_rate: Sample rate in Hz.
        kinds: The kind of each band.
        controls: frequency_hz, q and maybe gain_db as they came.
        state: The state as it came.
        bands: Whether controls have a dimension of bands.
    """
    audio = check_call(name, x, sample_rate)
    size = len(kinds) if bands else None
    controls = as_tensors(name, controls, audio)
    goes_on = isinstance(state, dict) and _VARYING in state
    if goes_on or any(is_automation(v, x, bands) for v in controls.values()):
        if isinstance(state, dict) and "zi" in state:
            raise ValueError(
                f"{name}: state has 'zi', that of controls that stay, and now a control changes with time: give those "
                f"of the first block a dimension of time too, of which one frame is enough"
            )
        entry, filters = _VARYING, _varying_filters(name, audio, sample_rate, kinds, controls, size)
    else:
        brought = dict(zip(controls, settings(name, controls, audio, size), strict=True))
        f, q = brought["frequency_hz"], brought["q"]
        entry, filters = "zi", biquads(f, brought.get("gain_db", torch.zeros_like(q)), q, kinds, sample_rate)
    zi = None if state is None else recalled(name, state, entry, (*audio.shape[:-1], len(kinds), 2), audio)
    y, zf = filter_cascade(audio, filters, zi, entry == _VARYING)
    return y.to(x.dtype) if state is None else (y.to(x.dtype), {entry: zf})


def _varying_filters(
    name: str, x: Tensor, sample_rate: float, kinds: Sequence[str], controls: Mapping[str, Control], size: int | None
) -> Tensor:
    """`(filters, frames, bands, 5)` for `kernels.svf`."""
    # Numbers in float64; tensors in their own type, which the kernel converts.
    types = {
        n: v.dtype if isinstance(v, Tensor) and v.is_floating_point() else torch.float64 for n, v in controls.items()
    }
    brought = {n: control(name, n, v, x, size, types[n], frames=True) for n, v in controls.items()}
    if size is None:
        brought = {n: v.unsqueeze(-1) for n, v in brought.items()}
    f, q = brought["frequency_hz"], brought["q"]
    wide = in_common_frames((f, brought.get("gain_db", torch.zeros_like(q)), q), x.shape[-1], -2)
    f, gain, q = (as_filters(value, x, 2) for value in torch.broadcast_tensors(*wide))
    rows = [value.reshape(math.prod(f.shape[:2]), len(kinds)) for value in (f, gain, q)]
    return prototypes(rows[0], rows[1], rows[2], kinds, sample_rate).reshape(*f.shape, 5)


def _single(
    kind: str, x: Tensor, sample_rate: float, state: State | None, **controls: Control
) -> Tensor | tuple[Tensor, State]:
    return equalized(kind, x, sample_rate, (kind,), controls, state, bands=False)


@processor(automation=True, linear=True)
def lowpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 10000.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Low-pass filter of second order (Audio EQ Cookbook), exact and recursive.

    $$H(s) = \frac{1}{s^2 + s / q + 1}$$

    The gain at frequency_hz is q.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.lowpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("lowpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(automation=True, linear=True)
def highpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 100.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""High-pass filter of second order (Audio EQ Cookbook), exact and recursive.

    $$H(s) = \frac{s^2}{s^2 + s / q + 1}$$

    The gain at frequency_hz is q.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.highpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("highpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(automation=True, linear=True)
def bandpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Band-pass filter of second order with a peak of 0 dB (Audio EQ Cookbook), exact and recursive.

    $$H(s) = \frac{s / q}{s^2 + s / q + 1}$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.bandpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("bandpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(automation=True, linear=True)
def notch(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Notch filter of second order (Audio EQ Cookbook), exact and recursive.

    $$H(s) = \frac{s^2 + 1}{s^2 + s / q + 1}$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.notch(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("notch", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(automation=True, linear=True)
def allpass(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""All-pass filter of second order (Audio EQ Cookbook), exact and recursive.

    $$H(s) = \frac{s^2 - s / q + 1}{s^2 + s / q + 1}$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.allpass(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("allpass", x, sample_rate, state, frequency_hz=frequency_hz, q=q)


@processor(automation=True, linear=True)
def peaking(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 1000.0,
    gain_db: Gain = 0.0,
    q: Quality = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Peaking filter (Audio EQ Cookbook), exact and recursive.

    $$H(s) = \frac{s^2 + s A / q + 1}{s^2 + s / (A q) + 1}, \quad A = 10^{\mathrm{gain\_db} / 40}$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.peaking(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("peaking", x, sample_rate, state, frequency_hz=frequency_hz, gain_db=gain_db, q=q)


@processor(automation=True, linear=True)
def low_shelf(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 100.0,
    gain_db: Gain = 0.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Low shelf (Audio EQ Cookbook), exact and recursive.

    $$H(s) = A\, \frac{s^2 + s \sqrt{A} / q + A}{A s^2 + s \sqrt{A} / q + 1}, \quad A = 10^{\mathrm{gain\_db} / 40}$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.low_shelf(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("low_shelf", x, sample_rate, state, frequency_hz=frequency_hz, gain_db=gain_db, q=q)


@processor(automation=True, linear=True)
def high_shelf(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Frequency = 8000.0,
    gain_db: Gain = 0.0,
    q: Quality = math.sqrt(0.5),
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""High shelf (Audio EQ Cookbook), exact and recursive.

    $$H(s) = A\, \frac{A s^2 + s \sqrt{A} / q + 1}{s^2 + s \sqrt{A} / q + A}, \quad A = 10^{\mathrm{gain\_db} / 40}$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, 1, 2)}`, or under
        automation `{"integrators": (*batch, channels, 1, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a control or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.high_shelf(torch.zeros(2, 64), 44100, frequency_hz=500.0).shape
        torch.Size([2, 64])
    """
    return _single("high_shelf", x, sample_rate, state, frequency_hz=frequency_hz, gain_db=gain_db, q=q)

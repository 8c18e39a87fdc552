"""Reverberation: decaying noise in octave bands, and convolution with any impulse response."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import broadcasts, check_audio, check_call, check_state, control, shape_text
from dasp._spec import PROCESSORS, Control, Param, Signal, State, processor
from dasp.functional.convolution import fft_convolve, last_samples
from dasp.functional.level import amplitude
from dasp.kernels import decaying_noise, delay, readable

OCTAVES_HZ = (31.25, 62.5, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
"""Centres of the default bands."""

# Shorter decays are impulses at any sample rate in use.
_SHORTEST_DECAY_S = 1e-3
# Decay over T60 in natural-logarithm units of amplitude.
_SIXTY_DB = math.log(1000)


def _longest(argument: str, given: Control, value: Tensor) -> float:
    """The largest value of a control, or the top of its usual range where values cannot be read."""
    top = PROCESSORS["noise_shaped_reverb"].controls[argument].high
    if torch.compiler.is_compiling() or value.numel() == 0:
        return top
    if not readable(value):
        values: Sequence[object] = given if isinstance(given, (list, tuple)) else (given,)
        known = [float(v) if math.isfinite(v) else top for v in values if isinstance(v, (int, float))]
        return max(known) if len(known) == len(values) else top
    try:
        largest = float(value.detach().amax())
    except RuntimeError:  # Under vmap a value has no number.
        return top
    # One bad item must not decide the length for the others: NaN and infinity count as the top of the range.
    if not math.isfinite(largest):
        finite = value.detach()[torch.isfinite(value.detach())]
        largest = max(top, float(finite.amax())) if finite.numel() else top
    return largest


def _impulse_response(
    decay: Tensor,
    band_gain: Tensor,
    sample_rate: float,
    seed: int,
    bands_hz: tuple[float, ...],
    length: int,
) -> Tensor:
    """`(*batch, 2, length)` from controls `(*batch, bands)`."""
    rate = _SIXTY_DB / (decay * sample_rate)
    # The sum of exp(-2 rate n) over all n is 1 / (1 - exp(-2 rate)): at 0 dB white noise keeps its power.
    level = amplitude(band_gain) * torch.sqrt(-torch.expm1(-2 * rate))
    # Each item ends where its own longest decay has reached -60 dB, however long the noise is.
    end = decay.detach().amax(-1) * sample_rate
    *batch, bands = decay.shape
    rows = math.prod(batch)
    response = decaying_noise(
        level.reshape(rows, bands), rate.reshape(rows, bands), end.reshape(rows), seed, sample_rate, bands_hz, length
    )
    return response.reshape(*batch, 2, length)


def _at_most(taps: int, limit: int | None) -> int:
    """A length of at least 1 and no more than a limit, which `min` and `max` of a traced one do not branch on."""
    return taps if limit is None else max(1, min(taps, limit))


def _delayed(response: Tensor, samples: Tensor, length: int) -> Tensor:
    """Responses `(*batch, 2, taps)` later by `(*batch)` samples, cut or filled to a length."""
    batch = torch.broadcast_shapes(response.shape[:-2], samples.shape)
    rows = math.prod(batch)
    responses = response.expand(*batch, *response.shape[-2:]).reshape(rows, *response.shape[-2:])
    return delay(responses, samples.expand(batch).reshape(rows), length).reshape(*batch, 2, length)


def _past(name: str, state: State, x: Tensor) -> Tensor:
    """What a state says of the audio before x."""
    check_state(name, state, "input")
    past = state.get("input", x[..., :0])
    if past.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"{name}: state 'input' has shape {shape_text(past.shape)}, "
            f"expected {shape_text(x.shape[:-1])} + (taps - 1,) to match x of shape {shape_text(x.shape)}"
        )
    return past.to(x.dtype)


def _reverberate(
    x: Tensor, audio: Tensor, response: Tensor, amount: Tensor, past: Tensor | None
) -> Tensor | tuple[Tensor, State]:
    """Dry and convolved audio in the type of x, and with a past what the next block needs."""
    wet = fft_convolve(audio, response, past)
    y = torch.lerp(audio, wet, amount).to(x.dtype)
    if past is None:
        return y
    return y, {"input": last_samples(audio, past, response.shape[-1] - 1)}


@processor(channels=(1, 2), channels_out=2, linear=True, fft=True)
def noise_shaped_reverb(
    x: Tensor,
    sample_rate: float,
    band_gain_db: Annotated[Control, Param("dB", -48, 12, meaning="Level of each band.", size="bands_hz")] = 0.0,
    decay_s: Annotated[
        Control,
        Param("s", 0.05, 5, "log", "T60 of each band, the time to decay by 60 dB.", size="bands_hz", domain=(0, 60)),
    ] = 1.0,
    mix: Annotated[Control, Param("", 0, 1, meaning="Share of the reverberation.", domain=(0, 1))] = 0.3,
    pre_delay_ms: Annotated[Control, Param("ms", 0, 100, meaning="Delay of the reverberation.", domain=(0, 500))] = 0.0,
    seed: int = 0,
    bands_hz: tuple[float, ...] = OCTAVES_HZ,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Reverberation by noise that decays in each band with its own T60.

    $$h(t) = \sum_{\mathrm{bands}} 10^{\mathrm{band\_gain\_db} / 20}\, c\, 10^{-3 t / \mathrm{decay\_s}}\, n(t)$$

    with band-filtered noise $n$ that depends on `seed` alone, other noise in each channel, and $c$ such that white
    noise keeps its power at 0 dB, whatever the decay.  With $h$ later by pre_delay_ms,

    $$y = (1 - \mathrm{mix})\, x + \mathrm{mix}\, (h * x)$$

    Args:
        x: Audio `(*batch, 1 or 2, samples)`.
        sample_rate: Sample rate in Hz.
        seed: Seed of the noise.
        bands_hz: Centres of the bands, rising; they cross over on a logarithmic scale, and the outer ones reach to 0 Hz
            and to half the sample rate.  Bands centred above that are silent.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio `(*batch, 2, samples)`; the tail beyond the last sample is cut.  The impulse response ends where the
        longest decay of an item has reached -60 dB.  With a state, the pair of that and the next state:
        `{"input": (*batch, channels of x, taps - 1)}`, the end of the input, where taps is the length of the impulse
        response with the longest decay and pre-delay of all items.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If x has more than two channels, bands_hz are not rising frequencies above 0, or a control does not
            have one value per band, does not match x, differs between channels or changes with time, or a state is not
            one of this processor for x.

    Domain:
        decay_s acts as clamped to at least 1 ms.  Under torch.compile and vmap, and for tensors on a GPU, values are
        not read: an impulse response ends at the top of the usual range, 5 s, and a pre-delay must stay within its
        usual range.  Controls that differ from block to block act from the beginning of a block, on the reverberation
        of what came before it too; what a longer impulse response asks for beyond the state it is given is silence.

    Example:
        >>> F.noise_shaped_reverb(torch.zeros(1, 4410), 44100, decay_s=0.5).shape
        torch.Size([2, 4410])
    """
    name = "noise_shaped_reverb"
    audio = check_call(name, x, sample_rate)
    if not all(low < high < math.inf for low, high in zip((0.0, *bands_hz), bands_hz, strict=False)):
        raise ValueError(f"{name}: bands_hz is {bands_hz}, expected rising frequencies above 0")
    gains, decays = (
        _one_setting(name, argument, control(name, argument, value, audio, size=len(bands_hz))).squeeze(-2)
        for argument, value in (("band_gain_db", band_gain_db), ("decay_s", decay_s))
    )
    amount, delay_ms = (
        _one_setting(name, argument, control(name, argument, value, audio).unsqueeze(-1)).squeeze(-1)
        for argument, value in (("mix", mix), ("pre_delay_ms", pre_delay_ms))
    )
    gains, decays = torch.broadcast_tensors(gains, decays)
    past = None if state is None else _past(name, state, audio)
    # Without a state no more of the impulse response is heard than there is audio; with one its length must not depend
    # on that of a block.
    limit = audio.shape[-1] if past is None else None
    decays = decays.squeeze(-2).clamp_min(_SHORTEST_DECAY_S)
    taps = math.ceil(max(_longest("decay_s", decay_s, decays), _SHORTEST_DECAY_S) * sample_rate) + 1
    settings = sample_rate, seed, tuple(bands_hz), _at_most(taps, limit)
    response = _impulse_response(decays, gains.squeeze(-2), *settings)
    if not (isinstance(pre_delay_ms, (int, float)) and pre_delay_ms == 0):
        taps += math.ceil(_longest("pre_delay_ms", pre_delay_ms, delay_ms) * sample_rate / 1000) + 3
        response = _delayed(response, delay_ms.squeeze((-1, -2)) * (sample_rate / 1000), _at_most(taps, limit))
    return _reverberate(x, audio, response, amount, past)


def _one_setting(name: str, argument: str, value: Tensor) -> Tensor:
    if value.shape[-3] != 1:
        raise ValueError(f"{name}: {argument} differs between channels, expected one value for both")
    return value


@processor(linear=True, fft=True)
def convolution_reverb(
    x: Tensor,
    sample_rate: float,
    impulse_response: Annotated[
        Tensor, Signal("Impulse response `(*batch, channels, taps)`; either channels or x may be mono.")
    ],
    mix: Annotated[Control, Param("", 0, 1, meaning="Share of the reverberation.", domain=(0, 1))] = 1.0,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Reverberation by convolution with an impulse response h.

    $$y = (1 - \mathrm{mix})\, x + \mathrm{mix}\, (h * x)$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio `(*batch, channels, samples)`, with as many channels as the wider of the two; the tail beyond the last
        sample is cut.  With a state, the pair of that and the next state:
        `{"input": (*batch, channels of x, taps - 1)}`, the end of the input.  Float32 audio is transformed in float32,
        with an error of about -130 dB of the largest sample.

    Raises:
        TypeError: If x or impulse_response is not floating-point audio.
        ValueError: If impulse_response has no taps, it or mix does not match x, or a state is not one of this processor
            for x.

    Domain:
        Any real mix.

    Example:
        >>> h = torch.tensor([[0.0, 1.0]])
        >>> F.convolution_reverb(torch.tensor([[1.0, 2.0, 3.0]]), 44100, h).round()
        tensor([[0., 1., 2.]])
    """
    name = "convolution_reverb"
    audio = check_call(name, x, sample_rate)
    check_audio(name, impulse_response, argument="impulse_response")
    shape, channels = impulse_response.shape, audio.shape[-2]
    lead = shape[:-2]
    targets = audio.shape[: audio.ndim - 2][audio.ndim - 2 - len(lead) :] if len(lead) <= audio.ndim - 2 else None
    fits = targets is not None and broadcasts(lead, targets)
    if not fits or shape[-1] == 0 or (shape[-2] != channels and 1 not in (shape[-2], channels)):
        raise ValueError(
            f"{name}: impulse_response has shape {tuple(shape)}, expected ({channels}, taps) or "
            f"{(*audio.shape[:-1],)} + (taps,) to match x of shape {tuple(x.shape)}"
        )
    amount = control(name, "mix", mix, audio)
    past = None if state is None else _past(name, state, audio)
    return _reverberate(x, audio, impulse_response.to(audio.dtype), amount, past)

"""Meters: loudness, loudness range and true peak as ITU-R BS.1770-5 and EBU Tech 3341 and 3342 define them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dasp._checks import check_audio, check_sample_rate, shape_text, working
from dasp.functional.filters import sosfilt
from dasp.kernels import numbers

# BS.1770-5, Annex 1: a sine of 997 Hz and amplitude 1 in one channel then reads -3.01 LUFS.
_OFFSET_DB = -0.691
_MOMENTARY_S, _SHORT_TERM_S, _HOP_S = 0.4, 3.0, 0.1
_ABSOLUTE_GATE_LUFS = -70.0
# A power below this one, -300 LUFS, is silence: from there on the slope of its logarithm leaves the range of float32.
_SILENCE = 1e-30
# The lowest rate that is metered: below it little is left of the spectrum that the K-weighting is made for.
_LOWEST_RATE_HZ = 8000.0
# L, R, C, LFE, Ls, Rs in the order of WAVE files; BS.1770-5 leaves the LFE channel out.
_SURROUND = 1.41
_WEIGHTS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (1.0, 1.0),
    3: (1.0, 1.0, 1.0),
    5: (1.0, 1.0, 1.0, _SURROUND, _SURROUND),
    6: (1.0, 1.0, 1.0, 0.0, _SURROUND, _SURROUND),
}
# Samples that are filtered at once, 0.25 GB in float32: beyond that, what is kept beside the audio does not grow.
_FILTERED = 2**26

# Frequency, quality and gain of the two filters, from which their coefficients in the standard, which gives them for
# 48 kHz alone, follow to 1e-12 and so those for other rates; the shelf's middle is not at half its gain.
_SHELF_HZ, _SHELF_Q, _SHELF_DB = 1681.974450955533, 0.7071752369554196, 3.999843853973347
_SHELF_MIDDLE = 0.4996667741545416
_HIGHPASS_HZ, _HIGHPASS_Q = 38.13547087602444, 0.5003270373238773

# BS.1770-5, Annex 2: the interpolator's phases 0 and 1, tap by tap; its phases 2 and 3 are those of 1 and 0 reversed.
_INTERPOLATOR = (
    (0.001708984375, -0.0291748046875),
    (0.010986328125, 0.029296875),
    (-0.0196533203125, -0.0517578125),
    (0.033203125, 0.089111328125),
    (-0.0594482421875, -0.16650390625),
    (0.1373291015625, 0.465087890625),
    (0.97216796875, 0.77978515625),
    (-0.102294921875, -0.2003173828125),
    (0.047607421875, 0.1015625),
    (-0.026611328125, -0.0582275390625),
    (0.014892578125, 0.0330810546875),
    (-0.00830078125, -0.0189208984375),
)
_TAPS = len(_INTERPOLATOR)
# Samples whose interpolation is one product of matrices, and samples at once: on one core a third of the time of conv1d
# of torch 2.13, for 32 rows of 10 s.
_INTERPOLATED, _SEARCHED = 16, 2**18


def _k_weighting(sample_rate: float) -> list[float]:
    k = math.tan(math.pi * _SHELF_HZ / sample_rate)
    high = 10 ** (_SHELF_DB / 20)
    middle, damping = high**_SHELF_MIDDLE, k / _SHELF_Q
    a0 = 1 + damping + k * k
    shelf = [high + middle * damping + k * k, 2 * (k * k - high), high - middle * damping + k * k]
    shelf = [value / a0 for value in (*shelf, a0, 2 * (k * k - 1), 1 - damping + k * k)]
    k = math.tan(math.pi * _HIGHPASS_HZ / sample_rate)
    damping = k / _HIGHPASS_Q
    a0 = 1 + damping + k * k
    # The standard leaves this filter's numerator as it is: its gain at high frequencies is 1.005 at 48 kHz.
    return [*shelf, 1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - damping + k * k) / a0]


def _check_rate(name: str, sample_rate: float) -> None:
    check_sample_rate(name, sample_rate)
    if sample_rate < _LOWEST_RATE_HZ:
        raise ValueError(f"{name}: sample_rate is {sample_rate}, expected at least {_LOWEST_RATE_HZ:g}")


def k_weighting(sample_rate: float) -> Tensor:
    """Designs the K-weighting of ITU-R BS.1770-5, Annex 1: a shelf that stands for the head, and a high-pass.

    The standard gives coefficients for 48 kHz; those for other rates are the bilinear transforms of the same filters.

    Args:
        sample_rate: Sample rate in Hz, at least 8000.

    Returns:
        Second-order sections `(2, 6)` in float64, for `sosfilt`.

    Raises:
        TypeError: If sample_rate is not a number.
        ValueError: If it is below 8000 Hz.

    Example:
        >>> F.k_weighting(48000)[0, :3]
        tensor([ 1.5351, -2.6917,  1.1984], dtype=torch.float64)
    """
    _check_rate("k_weighting", sample_rate)
    return numbers(_k_weighting(sample_rate), None).reshape(2, 6)


def integrated_loudness(
    x: Tensor, sample_rate: float, channel_weights: Sequence[float] | None = None, gated: bool = True
) -> Tensor:
    r"""Loudness of a whole programme in LUFS (ITU-R BS.1770-5, Annex 1).

    $$-0.691 + 10 \log_{10} \sum_{\mathrm{channels}} \mathrm{weight} \cdot \overline{x_K^2}$$

    $x_K$ is the K-weighted audio, and the mean is over those blocks of 400 ms, 100 ms apart, that are louder than
    -70 LUFS and than 10 LU below the mean of those.  Which blocks these are is a decision without gradient; the
    gradient is that of the mean over them.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz, at least 8000.
        channel_weights: A weight for each channel.  If None, they are 1 for up to three channels, 1.41 for the
            surrounds of five, L R C Ls Rs, and 0 for the LFE of six, L R C LFE Ls Rs.
        gated: If False, the loudness of all samples alike, however few.

    Returns:
        Loudness `(*batch,)`, in float32 at least.  Minus infinity, with gradient 0, where there is no block over the
        gates: for silence, and for gated audio of less than 400 ms.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If sample_rate is below 8000 Hz, or channel_weights does not match x, or is missing for another
            number of channels.

    Example:
        >>> t = torch.arange(48000) / 48000
        >>> F.integrated_loudness(torch.sin(2 * math.pi * 997 * t)[None], 48000)
        tensor(-3.01...)
    """
    name = "integrated_loudness"
    energies, hop = _energies(name, x, sample_rate, _HOP_S, channel_weights)
    if not gated:
        return _loudness(energies.sum(-1) / max(x.shape[-1], 1))
    return _loudness(_gated(_blocks(energies, x.shape[-1], hop, 4), 0.1)[0])


def momentary_loudness(
    x: Tensor, sample_rate: float, channel_weights: Sequence[float] | None = None, hop_s: float = _HOP_S
) -> Tensor:
    """Loudness over windows of 400 ms in LUFS, not gated (EBU Tech 3341).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz, at least 8000.
        channel_weights: As in `integrated_loudness`.
        hop_s: Seconds from one window to the next, of which 400 ms are a multiple; rounded to samples.

    Returns:
        Loudness `(*batch, windows)` of the windows that lie in x whole, the first from the first sample; none if x is
        shorter.  Silence is minus infinity, with gradient 0.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: As in `integrated_loudness`, or if hop_s does not divide 400 ms.

    Example:
        >>> F.momentary_loudness(torch.zeros(2, 48000), 48000)
        tensor([-inf, -inf, -inf, -inf, -inf, -inf, -inf])
    """
    return _windowed("momentary_loudness", x, sample_rate, channel_weights, _MOMENTARY_S, hop_s)


def short_term_loudness(
    x: Tensor, sample_rate: float, channel_weights: Sequence[float] | None = None, hop_s: float = _HOP_S
) -> Tensor:
    """Loudness over windows of 3 s in LUFS, not gated (EBU Tech 3341).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz, at least 8000.
        channel_weights: As in `integrated_loudness`.
        hop_s: Seconds from one window to the next, of which 3 s are a multiple; rounded to samples.

    Returns:
        Loudness `(*batch, windows)` of the windows that lie in x whole, the first from the first sample; none if x is
        shorter.  Silence is minus infinity, with gradient 0.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: As in `integrated_loudness`, or if hop_s does not divide 3 s.

    Example:
        >>> F.short_term_loudness(torch.zeros(4, 2, 8000 * 5), 8000).shape
        torch.Size([4, 21])
    """
    return _windowed("short_term_loudness", x, sample_rate, channel_weights, _SHORT_TERM_S, hop_s)


def loudness_range(x: Tensor, sample_rate: float, channel_weights: Sequence[float] | None = None) -> Tensor:
    """Loudness range LRA in LU: how far the loudness of a programme varies (EBU Tech 3342).

    The 95th less the 10th percentile of the short-term loudness, taken every 100 ms, of the windows louder than
    -70 LUFS and than 20 LU below the mean of those.  A percentile is the window of the nearest rank, as in the
    document's own program, and which window that is has no gradient.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz, at least 8000.
        channel_weights: As in `integrated_loudness`.

    Returns:
        Loudness range `(*batch,)`, in float32 at least; 0, with gradient 0, where no window is over the gates.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: As in `integrated_loudness`.

    Example:
        >>> level_db = torch.tensor([-30.0, -20.0]).repeat_interleave(8000 * 20)
        >>> F.loudness_range(F.gain(torch.sin(torch.arange(8000 * 40))[None], 8000, level_db[None]), 8000)
        tensor(10.00...)
    """
    energies, hop = _energies("loudness_range", x, sample_rate, _HOP_S, channel_weights)
    powers = _blocks(energies, x.shape[-1], hop, round(_SHORT_TERM_S / _HOP_S))
    if powers.shape[-1] == 0:
        return powers.sum(-1)
    mean, kept = _gated(powers, 0.01)
    ranked = torch.where(kept, powers, math.inf).sort(-1).values
    last = kept.sum(-1, keepdim=True) - 1
    empty = last < 0
    low, high = (ranked.gather(-1, ((last * p + 50) // 100).clamp_min(0)) for p in (10, 95))
    ratio = torch.where(empty, 1.0, high) / torch.where(empty, 1.0, low)
    return torch.where(mean.isnan(), mean, 10 * torch.log10(ratio.squeeze(-1)))


def true_peak_db(x: Tensor, sample_rate: float) -> Tensor:
    """True peak in dBTP: the highest level between samples, over all channels (ITU-R BS.1770-5, Annex 2).

    The audio is interpolated by the standard's filter, four phases of 12 taps: at four times the rate below 96 kHz, and
    from there on at twice the rate, by two of them, half a sample apart.  None of the phases is the identity: a
    single sample of 0 dB reads -0.25 dBTP.  The gradient is that of the one point where the peak is.

    Args:
        x: Audio `(*batch, channels, samples)`, silent before and after.  `x.unsqueeze(-2)` gives the peak of each
            channel.
        sample_rate: Sample rate in Hz.

    Returns:
        Level `(*batch,)` in dB relative to amplitude 1, in float32 at least; minus infinity, with gradient 0, for
        silence.

    Raises:
        TypeError: If x is not floating-point audio, or sample_rate not a number.
        ValueError: If x has no channels.

    Example:
        >>> x = torch.sin(math.pi * (torch.arange(480) / 2 + 0.25))[None]  # no sample is above -3.01 dB
        >>> F.true_peak_db(0.5 * x, 48000)
        tensor(-5.93...)
    """
    check_audio("true_peak_db", x)
    check_sample_rate("true_peak_db", sample_rate)
    audio = working(x)
    first, second = zip(*_INTERPOLATOR, strict=True)
    phases = (first, second, second[::-1], first[::-1]) if sample_rate < 96000 else (first, second[::-1])
    # The filter is a convolution: the taps, last one first, meet the samples in their order.
    taps = torch.stack([numbers(phase[::-1], audio) for phase in phases]).to(audio.dtype)
    filled = -(audio.shape[-1] + _TAPS - 1) % _INTERPOLATED
    rows = audio.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    padded = torch.nn.functional.pad(rows, (_TAPS - 1, _TAPS - 1 + filled))
    with torch.no_grad():
        position, phase, found = _peak(padded, taps)
    reach = torch.arange(_TAPS, device=x.device)
    peak = (padded.gather(-1, position + reach) * taps[phase]).sum(-1).abs()
    # In a product of matrices a NaN is found in all points of its frame, of which the first may be without it.
    peak = torch.where(found.isnan(), found, peak).reshape(audio.shape[:-1]).amax(-1)
    silent = peak <= math.sqrt(_SILENCE)
    return torch.where(silent, -math.inf, 20 * torch.log10(torch.where(silent, 1.0, peak)))


def _peak(padded: Tensor, taps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the interpolation of each row is highest: its first sample `(rows, 1)`, phase and magnitude `(rows,)`."""
    rows, phases = padded.shape[0], taps.shape[0]
    matrix = taps.new_zeros(_INTERPOLATED + _TAPS - 1, phases, _INTERPOLATED)
    for i in range(_INTERPOLATED):
        matrix[i : i + _TAPS, :, i] = taps.T
    frames = padded.unfold(-1, matrix.shape[0], _INTERPOLATED)
    size = max(1, _SEARCHED // max(rows, 1) // _INTERPOLATED)

    def interpolated(some: Tensor) -> Tensor:
        points = math.prod(some.shape[:2])
        values = some.reshape(points, matrix.shape[0]) @ matrix.flatten(1)
        return values.view(rows, some.shape[1] * matrix[0].numel())

    peaks = []
    for part in frames.split(size, 1):
        values = interpolated(part)
        peaks.append(torch.maximum(values.amax(-1), -values.amin(-1)))
    first = torch.stack(peaks, -1).argmax(-1) * size
    # The part where the peak is, once more; the last part may reach back into the one before.
    first = first.clamp_max(max(frames.shape[1] - size, 0))
    index = first[:, None] + torch.arange(min(size, frames.shape[1]), device=padded.device)
    part = frames[torch.arange(rows, device=padded.device)[:, None], index]
    found, place = interpolated(part).abs().max(-1)
    block, rest = place // (phases * _INTERPOLATED), place % (phases * _INTERPOLATED)
    position = (first + block) * _INTERPOLATED + rest % _INTERPOLATED
    return position[:, None], rest // _INTERPOLATED, found


def _weights(name: str, x: Tensor, channel_weights: Sequence[float] | None) -> Tensor:
    channels = x.shape[-2]
    if channel_weights is None and channels not in _WEIGHTS:
        raise ValueError(
            f"{name}: x has shape {shape_text(x.shape)}; the weights of {channels} channels are not known, "
            f"give channel_weights"
        )
    given = _WEIGHTS[channels] if channel_weights is None else tuple(channel_weights)
    if len(given) != channels or not all(0 <= weight < math.inf for weight in given):
        raise ValueError(
            f"{name}: channel_weights is {given}, expected {channels} numbers >= 0 to match x of shape "
            f"{shape_text(x.shape)}"
        )
    return numbers(given, x)


def _energies(
    name: str, x: Tensor, sample_rate: float, hop_s: float, channel_weights: Sequence[float] | None
) -> tuple[Tensor, int]:
    """Energy of the K-weighted, weighted channels in each hop, the last one perhaps short, and a hop's samples."""
    check_audio(name, x)
    _check_rate(name, sample_rate)
    weights = _weights(name, x, channel_weights)
    audio = working(x)
    hop = round(hop_s * sample_rate)
    squares = torch.cat(_filtered_squares(audio, sample_rate, hop), -1)
    return (squares * weights.to(audio.dtype).unsqueeze(-1)).sum(-2), hop


def _filtered_squares(audio: Tensor, sample_rate: float, hop: int) -> list[Tensor]:
    """Sums of squares of the K-weighted audio, `(*batch, channels, hops)`, in the parts in which it is filtered."""
    lead = audio.shape[:-1]
    sos = numbers(_k_weighting(sample_rate), audio).reshape(2, 6)
    state = torch.zeros(*lead, 2, 2, dtype=torch.float64, device=audio.device)
    size = hop * max(1, _FILTERED // max(1, hop * math.prod(lead)))
    sums = []
    for part in audio.split(size, -1):
        y, state = sosfilt(part, sos, state)
        rest = y.shape[-1] % hop
        whole, tail = y.split((y.shape[-1] - rest, rest), -1) if rest else (y, None)
        # The norm reads each sample once, and keeps nothing; its gradient at silence is 0.
        sums.append(torch.linalg.vector_norm(whole.unflatten(-1, (-1, hop)), dim=-1).square())
        if tail is not None:
            sums.append(torch.linalg.vector_norm(tail, dim=-1, keepdim=True).square())
    return sums


def _blocks(energies: Tensor, samples: int, hop: int, hops: int) -> Tensor:
    """Power of each window of so many whole hops, `(*batch, windows)`."""
    whole = energies[..., : samples // hop]
    if whole.shape[-1] < hops:
        return whole[..., :0]
    return whole.unfold(-1, hops, 1).sum(-1) / (hop * hops)


def _gated(powers: Tensor, relative: float) -> tuple[Tensor, Tensor]:
    """Mean of the powers over both gates, 0 if there are none, and which these are; a NaN is over every gate."""
    absolute = 10 ** ((_ABSOLUTE_GATE_LUFS - _OFFSET_DB) / 10)
    kept = ~(powers <= absolute)
    kept = kept & ~(powers <= relative * _mean(powers.detach(), kept).unsqueeze(-1))
    return _mean(powers, kept), kept


def _mean(powers: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept, powers, 0.0).sum(-1) / kept.sum(-1).clamp_min(1)


def _loudness(power: Tensor) -> Tensor:
    silent = power <= _SILENCE
    return torch.where(silent, -math.inf, _OFFSET_DB + 10 * torch.log10(torch.where(silent, 1.0, power)))


def _windowed(
    name: str, x: Tensor, sample_rate: float, channel_weights: Sequence[float] | None, window_s: float, hop_s: float
) -> Tensor:
    hops = round(window_s / hop_s) if hop_s > 0 else 0
    if hops < 1 or abs(hops * hop_s - window_s) > 1e-9 or hop_s * sample_rate < 1:
        raise ValueError(f"{name}: hop_s is {hop_s}, expected a time of which {window_s} s are a multiple")
    energies, hop = _energies(name, x, sample_rate, hop_s, channel_weights)
    return _loudness(_blocks(energies, x.shape[-1], hop, hops))

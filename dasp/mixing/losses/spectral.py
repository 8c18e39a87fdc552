"""Multi-resolution STFT losses between signals, readable in dB."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dasp._checks import check_audio, check_choice, shape_text, working

__all__ = [
    "BandLevelLoss",
    "MultiResolutionSTFTLoss",
    "STFTReference",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "multi_resolution_stft",
    "sum_and_difference",
]

_RESOLUTIONS = (512, 2048, 8192)
_NEPER_DB = 20 / math.log(10)
# A bin below -120 dBFS is silence: the floor of a silent reference.
_SILENCE = 1e-6
# A reference with few audible bins amid silence is averaged as if this share of its bins were audible.
_LEAST_AUDIBLE = 0.05
# Elements transformed at once: temporaries of about 1 MB stay in the cache. On 8 s of stereo on two cores the loss and
# its gradient take 60 ms so, and 2 s when each resolution is transformed as a whole.
_CHUNK = 2**18
# Left, right, mid and side, each as weights of the two channels: exact in floating point.
_STEREO = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.5, -0.5))


@dataclass(frozen=True)
class _Resolution:
    """What one STFT size knows of the reference: tensors of shape (items, 1, 1, 1), and the magnitudes if cached."""

    size: int
    floor: Tensor
    log_scale: Tensor
    linear_scale: Tensor
    magnitude: Tensor | None  # (items, signals, frames, bins)


@dataclass(frozen=True)
class STFTReference:
    """A reference prepared by the `reference` method of a loss, to be compared with any number of signals."""

    audio: Tensor
    resolutions: tuple[_Resolution, ...]


@dataclass(frozen=True)
class _Target:
    """The stretch of a reference that a signal is compared with; `matrix` makes the compared signals from channels."""

    reference: STFTReference
    start: int
    matrix: Tensor | None
    weights: Tensor


def _window(size: int, like: Tensor) -> Tensor:
    """Periodic Hann window scaled so that a sine of amplitude 1 has magnitude 1."""
    window = torch.hann_window(size, dtype=torch.float64, device=like.device)
    return (window * (2 / window.sum())).to(like.dtype)


def _pad(x: Tensor, size: int, first: bool, last: bool) -> Tensor:
    """Zeros where the recording begins or ends, so that its first and last samples lie in as many frames as others."""
    hop = size // 4
    after = -x.shape[-1] % hop + size - hop
    return nn.functional.pad(x, (size - hop if first else 0, after if last else 0))


def _spans(x: Tensor, size: int) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of each chunk of padded x."""
    frames = x.shape[-1] // (size // 4) - 3
    step = max(1, _CHUNK // max(1, size * x.shape[0] * x.shape[1]))
    for first in range(0, frames, step):
        yield first, min(step, frames - first)


def _spectra(x: Tensor, size: int, span: tuple[int, int], matrix: Tensor | None) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts (items, signals, frames, bins) of a span of padded x (items, channels, samples)."""
    hop = size // 4
    first, count = span
    frames = x[..., first * hop : (first + count + 3) * hop].unfold(-1, size, hop)
    z = torch.fft.rfft(frames * _window(size, x))
    return _mix(z.real, matrix), _mix(z.imag, matrix)


def _mix(z: Tensor, matrix: Tensor | None) -> Tensor:
    """Signals made of channels: `matrix` applied to dimension 1 of z; None is the identity."""
    return z if matrix is None else (matrix @ z.flatten(2)).view(z.shape[0], -1, *z.shape[2:])


def _magnitude(real: Tensor, imag: Tensor, floor: Tensor) -> Tensor:
    """sqrt(real^2 + imag^2 + floor^2): never zero, so that its logarithm and its gradient are finite."""
    return torch.addcmul(floor * floor, real, real).addcmul_(imag, imag).sqrt_()


def _add_adjoint(gradient: Tensor, real: Tensor, imag: Tensor, size: int, first: int) -> None:
    """Adds to `gradient` (items, channels, samples) what the gradients of the spectra from frame `first` on give.

    The inverse transform counts each bin but the first and the last twice and the adjoint counts each once: those two
    are doubled, and the whole is halved in the window.
    """
    hop = size // 4
    z = torch.complex(real, imag)
    z[..., 0].mul_(2)
    z[..., -1].mul_(2)
    frames = torch.fft.irfft(z, n=size, norm="forward").mul_(_window(size, gradient) / 2)
    samples = frames.shape[-2] * hop
    for i in range(4):
        begin = (first + i) * hop
        gradient[..., begin : begin + samples] += frames[..., i * hop : (i + 1) * hop].flatten(-2)


class _Distance(torch.autograd.Function):
    """Loss of each item and its gradient with respect to x, computed together and a chunk of frames at a time.

    Only the gradient of the audio is kept for the backward pass. (The backward pass of torch.stft in torch 2.13 alone
    takes five times as long as its forward pass.)
    """

    @staticmethod
    def forward(x: Tensor, target: _Target, with_gradient: bool) -> tuple[Tensor, Tensor]:
        loss = x.new_zeros(x.shape[0])
        gradient = torch.zeros_like(x, memory_format=torch.contiguous_format)
        for resolution in target.reference.resolutions:
            _accumulate(loss, gradient if with_gradient else None, x, target, resolution)
        return loss, gradient

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, _Target, bool], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: torch.autograd.function.NestedIOFunction, loss: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, gradient = ctx.saved_tensors
        return cast(Tensor, _Slope.apply(x, gradient, loss)), None, None  # type: ignore[no-untyped-call]


class _Slope(torch.autograd.Function):
    """The gradient of the losses: it stands in the graph so that a second derivative is an error and not zero."""

    @staticmethod
    def forward(x: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        return gradient * loss[:, None, None]

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("STFT losses can be differentiated once, not twice")


def _accumulate(loss: Tensor, gradient: Tensor | None, x: Tensor, target: _Target, resolution: _Resolution) -> None:
    """Adds one resolution's share to the loss (items,) and, if given, to its gradient (items, channels, samples)."""
    size, matrix, weights = resolution.size, target.matrix, target.weights
    audio = target.reference.audio
    samples = x.shape[-1]
    first, last = target.start == 0, target.start + samples == audio.shape[-1]
    padded = _pad(x, size, first, last)
    excerpt = None
    if resolution.magnitude is None:
        excerpt = _pad(audio[..., target.start : target.start + samples], size, first, last)
    offset = 0 if first else target.start // (size // 4) + 3
    bins = (padded.shape[-1] // (size // 4) - 3) * (size // 2 + 1)
    log_scale, linear_scale = resolution.log_scale / bins, resolution.linear_scale / bins
    slope = torch.zeros_like(padded)
    for span in _spans(padded, size):
        real, imag = _spectra(padded, size, span, matrix)
        magnitude = _magnitude(real, imag, resolution.floor)
        if excerpt is None:
            wanted = cast(Tensor, resolution.magnitude)[:, :, offset + span[0] : offset + sum(span)]
        else:
            wanted = _magnitude(*_spectra(excerpt, size, span, matrix), resolution.floor)
        difference = magnitude - wanted
        log_sum = (magnitude / wanted).log_().abs_().sum((2, 3), keepdim=True)
        linear_sum = difference.abs().sum((2, 3), keepdim=True)
        loss += ((log_sum * log_scale + linear_sum * linear_scale) * weights).sum((1, 2, 3))
        if gradient is not None:
            # d|log m| and d|m - wanted| have one sign, and dm/dz = z / m.
            factor = (log_scale / magnitude).add_(linear_scale).div_(magnitude).mul_(difference.sign_()).mul_(weights)
            back = None if matrix is None else matrix.T
            _add_adjoint(slope, _mix(real * factor, back), _mix(imag * factor, back), size, span[0])
    if gradient is not None:
        begin = size - size // 4 if first else 0
        gradient += slope[..., begin : begin + samples]


def _prepare(
    audio: Tensor,
    size: int,
    matrix: Tensor | None,
    weights: Tensor,
    relative_floor: float,
    scales: tuple[float, float],
    cache: bool,
) -> _Resolution:
    """Floor and scales of one STFT size, from two passes over the reference (items, channels, samples)."""
    padded = _pad(audio, size, True, True)
    peak, audible, total = (audio.new_zeros(audio.shape[0], 1, 1, 1) for _ in range(3))
    for span in _spans(padded, size):
        magnitude = _magnitude(*_spectra(padded, size, span, matrix), torch.zeros_like(peak))
        peak = torch.maximum(peak, magnitude.amax((1, 2, 3), keepdim=True))
    floor = (peak * relative_floor).clamp_min(_SILENCE)
    kept, bins = [], 0
    for span in _spans(padded, size):
        magnitude = _magnitude(*_spectra(padded, size, span, matrix), floor)
        audible += ((magnitude > math.sqrt(2) * floor).sum((2, 3), keepdim=True) * weights).sum(1, keepdim=True)
        total += (magnitude.sum((2, 3), keepdim=True) * weights).sum(1, keepdim=True)
        bins += magnitude.shape[2] * magnitude.shape[3]
        kept += [magnitude] if cache else []
    # In a silent reference every bin counts, and the linear term has nothing to relate to.
    silent = peak <= floor
    share = torch.where(silent, weights.sum(), torch.maximum(audible / bins, _LEAST_AUDIBLE * weights.sum()))
    linear_scale = torch.where(silent, 0.0, scales[1] * bins / total)
    return _Resolution(size, floor, scales[0] / share, linear_scale, torch.cat(kept, 2) if cache else None)


class MultiResolutionSTFTLoss(nn.Module):
    r"""Distance of magnitude spectra at several STFT sizes, in dB (Yamamoto et al. 2020, without spectral convergence).

    With $m = \sqrt{|X|^2 + f^2}$ of x, $\hat m$ of y, and means over the bins, channels and resolutions:

    $$\frac{\mathrm{log\_weight} \cdot \mathrm{mean}|20 \log_{10}(m / \hat m)|
    + \mathrm{linear\_weight} \cdot 8.686\, \mathrm{mean}|m - \hat m| / \mathrm{mean}(\hat m)}
    {\mathrm{log\_weight} + \mathrm{linear\_weight}}$$

    A small gain of g dB between x and y costs about g, whatever the weights. The floor f lies `floor_db` below the
    loudest bin of the reference, of all its channels together: bins under it can not dominate, a silent channel has a
    finite gradient, and digital silence in x and y is no distance. The first mean is a sum over all bins divided by the
    number of bins that are audible in the reference, that is above f (at least 5 % of all), so silent stretches do not
    dilute it. The frames are a quarter of their length apart, Hann windowed; the recording is padded with zeros.

    There is no spectral convergence term: it divides by the energy of each signal by itself, and so explodes on the
    side signal of a mix that is nearly mono (48 for a side of 1e-3). Magnitudes do not see polarity: x and -x are equal
    to this loss.

    Args:
        resolutions: STFT sizes in samples, multiples of 4.
        floor_db: Level of the floor relative to the loudest bin of the reference, below 0.
        log_weight: Weight of the log-magnitude term, at least 0.
        linear_weight: Weight of the linear-magnitude term, at least 0.
        reduction: "mean" over the items of the batch, or "none" for one loss per item.

    Raises:
        ValueError: If a size is not a positive multiple of 4, the floor is not below 0, a weight is negative or all are
            zero, or the reduction is another.

    Example:
        >>> loss = MultiResolutionSTFTLoss()
        >>> y = torch.randn(2, 2, 44100, generator=torch.Generator().manual_seed(0))
        >>> round(loss(10 ** (1 / 20) * y, y).item(), 1)
        1.0
    """

    def __init__(
        self,
        resolutions: Sequence[int] = _RESOLUTIONS,
        floor_db: float = -70.0,
        log_weight: float = 1.0,
        linear_weight: float = 1.0,
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_choice(name, "reduction", reduction, ("mean", "none"))
        if not resolutions or any(size < 4 or size % 4 for size in resolutions):
            raise ValueError(f"{name}: resolutions is {tuple(resolutions)}, expected positive multiples of 4")
        if not floor_db < 0:
            raise ValueError(f"{name}: floor_db is {floor_db}, expected a level below 0")
        if min(log_weight, linear_weight) < 0 or log_weight + linear_weight <= 0:
            weights = f"log_weight and linear_weight are {log_weight} and {linear_weight}"
            raise ValueError(f"{name}: {weights}, expected two numbers >= 0 that are not both 0")
        self.resolutions = tuple(resolutions)
        self.floor_db = floor_db
        self.log_weight = log_weight
        self.linear_weight = linear_weight
        self.reduction = reduction

    @property
    def grid(self) -> int:
        """Excerpts start at multiples of this number of samples: a quarter of the longest STFT size."""
        return math.lcm(*(size // 4 for size in self.resolutions))

    def reference(self, y: Tensor, cache: bool = True) -> STFTReference:
        """Prepares a reference, so that comparing many signals with it, or with excerpts of it, costs half.

        Args:
            y: Reference (*batch, channels, samples), a constant: no gradient flows to it.
            cache: Keep the spectra. They take 24 bytes per sample and compared signal; without, only the levels of the
                whole reference are kept, and the spectra of each excerpt are computed anew.

        Returns:
            What the loss accepts in place of y.

        Raises:
            TypeError: If y is not floating-point audio.
            ValueError: If its shape is none of audio, it has no samples, or it requires a gradient.
        """
        name = type(self).__name__
        check_audio(name, y, self._channels, argument="y")
        if y.shape[-1] == 0:
            raise ValueError(f"{name}: y has shape {shape_text(y.shape)}, expected at least one sample")
        if y.requires_grad:
            raise ValueError(f"{name}: y requires a gradient, but the reference is a constant: pass y.detach()")
        audio = working(y).reshape(-1, *y.shape[-2:])
        scale = _NEPER_DB / (self.log_weight + self.linear_weight) / len(self.resolutions)
        scales = scale * self.log_weight, scale * self.linear_weight
        with torch.no_grad():
            levels = [
                _prepare(audio, size, *self._signals(audio), 10 ** (self.floor_db / 20), scales, cache)
                for size in self.resolutions
            ]
        return STFTReference(audio, tuple(levels))

    # Numbers of channels that are accepted; any if empty.
    _channels: tuple[int, ...] = ()

    def _signals(self, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """What is compared: the matrix that makes it from the channels (None: the channels), and weights."""
        return None, like.new_ones(like.shape[-2], 1, 1)

    def _check_excerpt(self, x: Tensor, audio: Tensor, reference: STFTReference, start: int) -> None:
        name, whole, longest = type(self).__name__, reference.audio, max(self.resolutions)
        if audio.shape[1] != whole.shape[1] or whole.shape[0] not in (1, audio.shape[0]) or audio.dtype != whole.dtype:
            raise ValueError(
                f"{name}: x has shape {shape_text(x.shape)} and type {audio.dtype}, "
                f"the reference {shape_text(whole.shape)} and {whole.dtype}"
            )
        end = start + x.shape[-1]
        if start < 0 or start % self.grid or end > whole.shape[-1]:
            raise ValueError(
                f"{name}: x covers samples {start} to {end}, expected a start that is a multiple of {self.grid} "
                f"and an end within the {whole.shape[-1]} samples of the reference"
            )
        if x.shape[-1] < min(longest, whole.shape[-1]):
            raise ValueError(f"{name}: x has {x.shape[-1]} samples, expected at least {longest}, the longest STFT size")

    def forward(self, x: Tensor, y: Tensor | STFTReference, start: int = 0) -> Tensor:
        """Distance of x from the reference.

        Args:
            x: Signal (*batch, channels, samples).
            y: Reference of that shape, or a prepared one whose batch is that of x or a single item.
            start: Sample of the prepared reference at which x begins, a multiple of `grid`. An excerpt is compared in
                those frames that lie in it whole.

        Returns:
            Scalar, or (*batch,) with reduction "none", in dB. Once differentiable.

        Raises:
            TypeError: If x is not floating-point audio.
            ValueError: If the shapes or types do not match, y requires a gradient, or the excerpt lies off the grid,
                outside the reference, or is shorter than the longest STFT size.
        """
        name = type(self).__name__
        check_audio(name, x, self._channels)
        if isinstance(y, Tensor) and y.shape != x.shape:
            raise ValueError(f"{name}: y has shape {shape_text(y.shape)}, expected {shape_text(x.shape)} like x")
        reference = self.reference(y) if isinstance(y, Tensor) else y
        audio = working(x).reshape(-1, *x.shape[-2:])
        self._check_excerpt(x, audio, reference, start)
        target = _Target(reference, start, *self._signals(audio))
        needed = torch.is_grad_enabled() and audio.requires_grad
        loss, _ = cast(tuple[Tensor, Tensor], _Distance.apply(audio, target, needed))  # type: ignore[no-untyped-call]
        return loss.mean() if self.reduction == "mean" else loss.reshape(x.shape[:-2])


class StereoSTFTLoss(MultiResolutionSTFTLoss):
    r"""`MultiResolutionSTFTLoss` over the left, right, mid (L + R) / 2 and side (L - R) / 2 signals of stereo audio.

    All four share one floor, relative to the loudest bin among them, and one normalisation. A nearly silent side can
    therefore not blow up: what it differs by below the floor of the mid signal does not count.

    Why left and right belong here: sum and difference alone (Steinmetz 2021) do not know left from right. Exchanging
    the channels of x costs nothing there, and for a source that is panned hard in the reference, centre is the *worst*
    position and has no gradient, so that a fit that starts there stays there. With left and right terms the exchange
    costs and the gradient at the centre points to the right side. Left and right alone would not determine the balance
    of mid and side, which depends on their phases.

    Args:
        left_right: Weight of each of the left and right signals.
        mid: Weight of the mid signal.
        side: Weight of the side signal.
        **options: As in `MultiResolutionSTFTLoss`.

    Raises:
        ValueError: If a weight is negative or all are zero, or as in `MultiResolutionSTFTLoss`.

    Example:
        >>> x = torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
        >>> loss = dasp.mixing.StereoSTFTLoss()
        >>> loss(x, x).item(), bool(loss(x.flip(0), x) > 1)
        (0.0, True)
    """

    _channels = (2,)

    def __init__(
        self,
        left_right: float = 1.0,
        mid: float = 1.0,
        side: float = 1.0,
        resolutions: Sequence[int] = _RESOLUTIONS,
        floor_db: float = -70.0,
        log_weight: float = 1.0,
        linear_weight: float = 1.0,
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__(resolutions, floor_db, log_weight, linear_weight, reduction)
        weights = (left_right, left_right, mid, side)
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"{type(self).__name__}: left_right, mid and side are {left_right}, {mid} and {side}, "
                "expected numbers >= 0 that are not all 0"
            )
        self._rows = tuple((*row, weight) for row, weight in zip(_STEREO, weights, strict=True) if weight > 0)

    def _signals(self, like: Tensor) -> tuple[Tensor, Tensor]:
        rows = like.new_tensor(self._rows)
        return rows[:, :2], rows[:, 2, None, None]


class SumAndDifferenceSTFTLoss(StereoSTFTLoss):
    """`StereoSTFTLoss` of the mid and side signals alone (Steinmetz 2021): blind to an exchange of left and right.

    Start a fit with it from pans off the centre, or with `StereoSTFTLoss`, whose docstring tells why.

    Example:
        >>> x = torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
        >>> bool(dasp.mixing.SumAndDifferenceSTFTLoss()(x.flip(0), x) < 1e-3)
        True
    """

    def __init__(
        self,
        resolutions: Sequence[int] = _RESOLUTIONS,
        floor_db: float = -70.0,
        log_weight: float = 1.0,
        linear_weight: float = 1.0,
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__(0.0, 1.0, 1.0, resolutions, floor_db, log_weight, linear_weight, reduction)


def multi_resolution_stft(
    x: Tensor,
    y: Tensor,
    resolutions: Sequence[int] = _RESOLUTIONS,
    floor_db: float = -70.0,
    log_weight: float = 1.0,
    linear_weight: float = 1.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Distance of the magnitude spectra of x (*batch, channels, samples) from those of the constant y, in dB.

    The functional form of `MultiResolutionSTFTLoss`, which tells the rest. To compare many signals with one, prepare it
    with the module's `reference`: that saves more than half of the time.

    Returns:
        Scalar, or (*batch,) with reduction "none".

    Example:
        >>> x = torch.randn(1, 8192, generator=torch.Generator().manual_seed(0))
        >>> round(dasp.mixing.multi_resolution_stft(F.gain(x, 44100, -0.5), x).item(), 1)
        0.5
    """
    return cast(Tensor, MultiResolutionSTFTLoss(resolutions, floor_db, log_weight, linear_weight, reduction)(x, y))


def sum_and_difference(
    x: Tensor,
    y: Tensor,
    resolutions: Sequence[int] = _RESOLUTIONS,
    floor_db: float = -70.0,
    log_weight: float = 1.0,
    linear_weight: float = 1.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Distance of the mid and side spectra of stereo x (*batch, 2, samples) from those of the constant y, in dB.

    The functional form of `SumAndDifferenceSTFTLoss`.

    Returns:
        Scalar, or (*batch,) with reduction "none".

    Example:
        >>> x = torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
        >>> round(dasp.mixing.sum_and_difference(F.gain(x, 44100, -0.5), x).item(), 1)
        0.5
    """
    return cast(Tensor, SumAndDifferenceSTFTLoss(resolutions, floor_db, log_weight, linear_weight, reduction)(x, y))


class BandLevelLoss(nn.Module):
    r"""Distance of third-octave levels over time, in dB: what is left of a spectrum when its fine structure is ignored.

    Of left, right, mid and side, frames of about 0.1 s are gathered into third-octave bands; with the power P of a band
    and frame and $\hat P$ that of the reference, the loss is the mean of $|10 \log_{10}((P + f) / (\hat P + f))|$
    over those louder than f in the reference.  Two reverberations of the same decay and colour but of different noise
    agree here, and nowhere bin by bin: there a fit makes the reverberation too quiet, since the logarithm of a random
    magnitude is on the average below that of its mean power.

    Args:
        reference: Stereo audio `(2, samples)`, a constant.
        sample_rate: Sample rate in Hz.
        floor_db: Level of f relative to the loudest band and frame, below 0.

    Raises:
        TypeError: If reference is not floating-point audio.
        ValueError: If it is not stereo, or the floor is not below 0.

    Example:
        >>> y = torch.randn(2, 44100, generator=torch.Generator().manual_seed(0))
        >>> loss = BandLevelLoss(y, 44100)
        >>> round(loss(2 * y).item(), 1)
        6.0
    """

    def __init__(self, reference: Tensor, sample_rate: float, floor_db: float = -55.0) -> None:
        super().__init__()
        name = type(self).__name__
        check_audio(name, reference, (2,), "reference")
        if not floor_db < 0:
            raise ValueError(f"{name}: floor_db is {floor_db}, expected a level below 0")
        self.size = 1 << max(6, round(math.log2(0.093 * sample_rate)))
        self.register_buffer("bank", _third_octaves(self.size, sample_rate).to(reference))
        self.register_buffer("wanted", self._levels(reference.detach()))
        peak = self.wanted.amax() if self.wanted.numel() else self.wanted.sum()
        self.floor = max(float(peak) * 10 ** (floor_db / 10), _SILENCE**2)

    bank: Tensor
    wanted: Tensor

    @property
    def grid(self) -> int:
        """Excerpts start at multiples of this number of samples."""
        return self.size // 2

    def _levels(self, x: Tensor) -> Tensor:
        """Power of each band and frame, `(4, bands, frames)`; frames lie in x whole."""
        if x.shape[-1] < self.size:
            return x.new_zeros(4, len(self.bank), 0)
        window = _window(self.size, x)
        left, right = torch.fft.rfft(x.unfold(-1, self.size, self.size // 2) * window)
        spectra = torch.stack([left, right, (left + right) / 2, (left - right) / 2])
        power = spectra.real.square() + spectra.imag.square()
        levels: Tensor = self.bank @ power.transpose(-1, -2)
        return levels

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Distance of x `(2, samples)` from the stretch of the reference that begins at `start`, in dB.

        Raises:
            ValueError: If x is shorter than a frame, or the stretch lies off the grid or outside the reference.
        """
        first, count = start // self.grid, x.shape[-1] // self.grid - 1
        if start % self.grid or count < 1 or first + count > self.wanted.shape[-1]:
            raise ValueError(
                f"{type(self).__name__}: x has {x.shape[-1]} samples from {start}, expected at least {self.size} "
                f"within the reference, from a multiple of {self.grid}"
            )
        wanted = self.wanted[..., first : first + count]
        heard = (wanted > self.floor).to(x.dtype)
        distance = (torch.log((self._levels(x) + self.floor) / (wanted + self.floor))).abs() * (10 / math.log(10))
        total: Tensor = (distance * heard).sum()
        return total / heard.sum().clamp_min(1.0)


def _third_octaves(size: int, sample_rate: float) -> Tensor:
    """Which bins of a transform lie in which third of an octave, `(bands, bins)`; bands without a bin are left out."""
    frequency = torch.fft.rfftfreq(size, 1 / sample_rate, dtype=torch.float64)
    centres = 1000 * 2.0 ** (torch.arange(-14, 14, dtype=torch.float64) / 3)
    edge = 2 ** (1 / 6)
    bank: Tensor = (frequency >= centres[:, None] / edge) & (frequency < centres[:, None] * edge)
    return bank[bank.any(-1)].double()

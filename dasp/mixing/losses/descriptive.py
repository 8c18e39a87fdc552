"""Distances of what describes a mix, of its features and its dynamics, and not of the signal itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dasp._checks import check_audio, check_choice, check_sample_rate, shape_text, working
from dasp.functional.filters import sosfilt
from dasp.functional.level import amplitude
from dasp.mixing.features import bark_magnitudes, crest_factor_db, rms_db, stereo_imbalance, stereo_width

# -120 dB: the floor of a silent reference.
_SILENCE = 1e-6


class AudioFeatureLoss(nn.Module):
    r"""Weighted squared distances of five features of stereo mixes (Vanka et al. 2024, Diff-MST).

    Level (root mean square, as an amplitude) and crest factor in dB of both channels, stereo width, stereo imbalance,
    and the natural logarithm of the Bark spectrum of mid and side, each as in `dasp.mixing.features`. The default
    weights are the published ones. The mixes need not be of the same tracks, nor of one length.

    The published logarithm blows up on the side of a mix that is nearly mono. Here a band's magnitude b counts as
    $\sqrt{b^2 + f^2}$, with f `floor_db` below the loudest band of the reference, so that neither the distance of a
    silent side nor its gradient is without bound.

    The sum and the difference of L and R do not tell left from right, and for a source that is to go to one side have
    their worst value and no gradient at the centre; the imbalance leads away from there.

    Args:
        sample_rate: Sample rate in Hz.
        rms: Weight of the level.
        crest_factor: Weight of the crest factor.
        width: Weight of the stereo width.
        imbalance: Weight of the stereo imbalance.
        bark: Weight of the Bark spectrum.
        floor_db: Level of f relative to the loudest band of the reference, below 0.
        reduction: "mean" over the items of the batch, or "none" for one loss per item.

    Raises:
        TypeError: If sample_rate is not a number.
        ValueError: If a weight is negative or all are zero, the floor is not below 0, or the reduction is another.

    Example:
        >>> loss = dasp.mixing.AudioFeatureLoss(44100)
        >>> y = torch.randn(2, 44100, generator=torch.Generator().manual_seed(0))
        >>> loss(y, y)
        tensor(0.)
        >>> sorted(loss.terms(0.5 * y, y))
        ['bark', 'crest_factor', 'imbalance', 'rms', 'width']
    """

    def __init__(
        self,
        sample_rate: float,
        rms: float = 0.1,
        crest_factor: float = 0.001,
        width: float = 1.0,
        imbalance: float = 1.0,
        bark: float = 0.1,
        floor_db: float = -70.0,
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sample_rate(name, sample_rate)
        check_choice(name, "reduction", reduction, ("mean", "none"))
        self.weights = {"rms": rms, "crest_factor": crest_factor, "width": width, "imbalance": imbalance, "bark": bark}
        _check_weights(name, self.weights)
        if not floor_db < 0:
            raise ValueError(f"{name}: floor_db is {floor_db}, expected a level below 0")
        self.sample_rate = sample_rate
        self.floor_db = floor_db
        self.reduction = reduction

    def terms(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The squared distance of each feature, without its weight.

        Args:
            x: Mix `(*batch, 2, samples)`.
            y: Reference `(*batch, 2, samples)`, whose batch is that of x or can be expanded to it.

        Returns:
            `(*batch,)` by name of the feature, of those whose weight is not 0.

        Raises:
            TypeError: If x or y is not floating-point audio.
            ValueError: If x or y is not stereo, has no samples, or their batches do not match.
        """
        name, rate = type(self).__name__, self.sample_rate
        _check_pair(name, x, y)
        features: dict[str, Callable[[Tensor], Tensor]] = {
            "rms": lambda a: amplitude(rms_db(a, rate)),
            "crest_factor": lambda a: crest_factor_db(a, rate),
            "width": lambda a: stereo_width(a, rate),
            "imbalance": lambda a: stereo_imbalance(a, rate),
        }
        wanted = [feature for feature, weight in self.weights.items() if weight > 0]
        found = {f: (features[f](x) - features[f](y)).square() for f in wanted if f != "bark"}
        if "bark" in wanted:
            found["bark"] = self._bark(x, y)
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return {
            f: value.flatten(len(batch)).mean(-1) if value.ndim > len(batch) else value for f, value in found.items()
        }

    def _bark(self, x: Tensor, y: Tensor) -> Tensor:
        name = type(self).__name__
        have, want = (bark_magnitudes(name, audio, self.sample_rate).square() for audio in (x, y))
        # Levels of power, of which the logarithm of the magnitude is half.
        floor = (want.detach().amax((-2, -1), keepdim=True) * 10 ** (self.floor_db / 10)).clamp_min(_SILENCE**2)
        return (torch.log((have + floor) / (want + floor)) / 2).square()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of a mix from a reference.

        Args:
            x: Mix `(*batch, 2, samples)`.
            y: Reference `(*batch, 2, samples)`, of any length, whose batch is that of x or can be expanded to it.

        Returns:
            Scalar, or `(*batch,)` with reduction "none".

        Raises:
            TypeError: If x or y is not floating-point audio.
            ValueError: If x or y is not stereo, has no samples, or their batches do not match.
        """
        terms = self.terms(x, y)
        loss = torch.stack([self.weights[feature] * value for feature, value in terms.items()]).sum(0)
        return loss.mean() if self.reduction == "mean" else loss


class DynamicsLoss(nn.Module):
    r"""Distance of loudness dynamic ranges over time, in dB: how far short events stand out of their surroundings.

    The dynamic range at a time is the level over a short time less that over a long one (Skovenborg 2014; the idea of
    the MLDR loss of DiffVox, Yu et al. 2025). A level is the power of frames of 10 ms smoothed with a time constant,
    and both are floored `floor_db` below the mean power of the whole, so that silence has no range; the loss is the
    mean of the absolute differences over time, pairs of time constants and signals. A gain of x changes nothing; a
    compressor does.

    Of stereo audio left and right count once and mid and side with the weight `mid_side`. All share one floor: a side
    that is nearly silent has no range either.

    Args:
        sample_rate: Sample rate in Hz, at least 100.
        short_s: Short time constants in seconds.
        long_s: The long time constant of each short one.
        mid_side: Weight of each of mid and side beside that of left and right, 1; the published 0.5.
        floor_db: Level of the floor relative to the mean power, below 0.
        reduction: "mean" over the items of the batch, or "none" for one loss per item.

    Raises:
        TypeError: If sample_rate is not a number.
        ValueError: If it is below 100 Hz, the times are not as many pairs of a short and a longer one, the weight is
            negative, the floor is not below 0, or the reduction is another.

    Example:
        >>> loss = dasp.mixing.DynamicsLoss(8000)
        >>> y = torch.randn(2, 8000 * 4, generator=torch.Generator().manual_seed(0))
        >>> loss(0.1 * y, y) < 1e-4
        tensor(True)
    """

    def __init__(
        self,
        sample_rate: float,
        short_s: Sequence[float] = (0.05, 0.1),
        long_s: Sequence[float] = (1.0, 2.0),
        mid_side: float = 0.5,
        floor_db: float = -50.0,
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sample_rate(name, sample_rate)
        check_choice(name, "reduction", reduction, ("mean", "none"))
        if sample_rate < 100:
            raise ValueError(f"{name}: sample_rate is {sample_rate}, expected at least 100")
        if (
            not short_s
            or len(short_s) != len(long_s)
            or any(not 0 < a < b for a, b in zip(short_s, long_s, strict=True))
        ):
            raise ValueError(
                f"{name}: short_s is {tuple(short_s)} and long_s {tuple(long_s)}, expected pairs of a time above 0 and "
                f"a longer one"
            )
        if not mid_side >= 0:
            raise ValueError(f"{name}: mid_side is {mid_side}, expected a number >= 0")
        if not floor_db < 0:
            raise ValueError(f"{name}: floor_db is {floor_db}, expected a level below 0")
        self.hop = round(0.01 * sample_rate)
        times = torch.tensor([*short_s, *long_s], dtype=torch.float64)
        pole = torch.exp(-self.hop / (times * sample_rate))
        zero = torch.zeros_like(pole)
        # y[n] = (1 - pole) x[n] + pole y[n - 1], one filter for each time.
        sos = torch.stack([1 - pole, zero, zero, zero + 1, -pole, zero], -1).unsqueeze(-2)
        self.register_buffer("smoothers", sos, persistent=False)
        self.mid_side = mid_side
        self.floor_db = floor_db
        self.reduction = reduction

    smoothers: Tensor

    def ranges_db(self, x: Tensor) -> Tensor:
        """The dynamic range over time, one for each pair of time constants.

        Args:
            x: Audio `(*batch, channels, samples)`, one or two channels.

        Returns:
            `(*batch, signals, pairs, frames)` in dB, a frame for each 10 ms begun: one signal, or left, right, mid and
            side.

        Raises:
            TypeError: If x is not floating-point audio.
            ValueError: If it has another number of channels, or no samples.
        """
        name = type(self).__name__
        check_audio(name, x, (1, 2))
        if x.shape[-1] == 0:
            raise ValueError(f"{name}: x has shape {shape_text(x.shape)}, expected at least one sample")
        signals = working(x)
        if x.shape[-2] == 2:
            left, right = signals.unbind(-2)
            signals = torch.stack([left, right, (left + right) / 2, (left - right) / 2], -2)
        padded = nn.functional.pad(signals.square(), (0, -x.shape[-1] % self.hop))
        power = padded.unflatten(-1, (-1, self.hop)).mean(-1)
        floor = power.mean((-2, -1), keepdim=True) * 10 ** (self.floor_db / 10) + _SILENCE**2
        filters = self.smoothers.shape[0]
        copies = power.unsqueeze(-2).expand(*power.shape[:-1], filters, power.shape[-1])
        levels = cast(Tensor, sosfilt(copies, self.smoothers.expand(*power.shape[:-1], *self.smoothers.shape)))
        # Rounding may leave the tail of a smoothed power a little below 0.
        levels_db = 10 * torch.log10(levels.clamp_min(0) + floor.unsqueeze(-2))
        short, long = levels_db.chunk(2, -2)
        return short - long

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of the dynamics of x from those of the reference.

        Args:
            x: Audio `(*batch, channels, samples)`, one or two channels.
            y: Reference of that shape.

        Returns:
            Scalar, or `(*batch,)` with reduction "none", in dB.

        Raises:
            TypeError: If x or y is not floating-point audio.
            ValueError: If their shapes differ, or they have another number of channels or no samples.
        """
        name = type(self).__name__
        check_audio(name, x, (1, 2))
        check_audio(name, y, (1, 2), "y")
        if y.shape != x.shape:
            raise ValueError(f"{name}: y has shape {shape_text(y.shape)}, expected {shape_text(x.shape)} like x")
        distance = (self.ranges_db(x) - self.ranges_db(y)).abs().mean((-2, -1))
        if x.shape[-2] == 2:
            left_right, mid_side = distance.unflatten(-1, (2, 2)).sum(-1).unbind(-1)
            distance = (left_right + self.mid_side * mid_side) / (2 + 2 * self.mid_side)
        else:
            distance = distance.squeeze(-1)
        return distance.mean() if self.reduction == "mean" else distance


def _check_weights(name: str, weights: dict[str, float]) -> None:
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        raise ValueError(f"{name}: the weights are {weights}, expected numbers >= 0 that are not all 0")


def _check_pair(name: str, x: Tensor, y: Tensor) -> None:
    for argument, audio in (("x", x), ("y", y)):
        check_audio(name, audio, (2,), argument)
        if audio.shape[-1] == 0:
            shape = shape_text(audio.shape)
            raise ValueError(f"{name}: {argument} has shape {shape}, expected at least one sample")
    batch, other = x.shape[:-2], y.shape[:-2]
    lead = batch[len(batch) - len(other) :]
    if len(other) > len(batch) or any(o not in (1, b) for b, o in zip(lead, other, strict=True)):
        raise ValueError(
            f"{name}: y has shape {shape_text(y.shape)}, expected a batch that expands to {shape_text(batch)}"
        )

"""The processors of dasp-pytorch: ranges of parameters, and a flat tensor on [0, 1] that is linear in every unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from dasp._checks import shape_text
from dasp.compat.dasp_pytorch import functional

__all__ = ["Compressor", "Distortion", "Gain", "NoiseShapedReverb", "ParametricEQ", "Processor"]

_Value = TypeVar("_Value", float, Tensor)


def denormalize(norm_val: _Value, max_val: float, min_val: float) -> _Value:
    """[0, 1] to a range; the upper end comes first."""
    return norm_val * (max_val - min_val) + min_val


def normalize(val: _Value, min_val: float, max_val: float) -> _Value:
    """A range to [0, 1]; the lower end comes first."""
    return (val - min_val) / (max_val - min_val)


class Processor:
    """What the processors share, and the base of a user's own: set the attributes below in `__init__`.

    Attributes:
        sample_rate: Sample rate in Hz.
        process_fn: The function `(x, sample_rate, *parameters)`.
        param_ranges: Lower and upper end of each parameter, in the order of the flat tensor.
        num_params: Length of the flat tensor.
    """

    sample_rate: float = 44100
    process_fn: Callable[..., Tensor]
    param_ranges: dict[str, tuple[float, float]]
    num_params: int

    def process_normalized(self, x: Tensor, param_tensor: Tensor) -> Tensor:
        """Processes audio with parameters from a network.

        Args:
            x: Audio `(batch, channels, samples)`.
            param_tensor: Parameters on [0, 1], `(batch, num_params)`.

        Returns:
            Audio as the function gives it.

        Raises:
            ValueError: If there is another number of parameters, or, where values can be read, one is outside [0, 1]
                or NaN.
        """
        parameters = self.denormalize_param_dict(self.extract_param_dict(param_tensor))
        return self.process_fn(x, self.sample_rate, **parameters)

    def process(self, x: Tensor, *args: float | Tensor) -> Tensor:
        """Processes audio with parameters in physical units, with the sample rate before them or without."""
        given = args if len(args) > len(self.param_ranges) else (self.sample_rate, *args)
        return self.process_fn(x, *given)

    def extract_param_dict(self, param_tensor: Tensor) -> dict[str, Tensor]:
        """The columns of a flat tensor by name.

        Raises:
            ValueError: If there is another number of them.
        """
        if param_tensor.ndim != 2 or param_tensor.shape[1] != len(self.param_ranges):
            raise ValueError(
                f"{type(self).__name__}: param_tensor has shape {shape_text(param_tensor.shape)}, "
                f"expected (batch, {len(self.param_ranges)})"
            )
        return dict(zip(self.param_ranges, param_tensor.unbind(1), strict=True))

    def denormalize_param_dict(self, param_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters on [0, 1] to physical units.

        Raises:
            ValueError: If, where values can be read, one is outside [0, 1] or NaN.
        """
        self._check_range(param_dict)
        return {name: denormalize(value, *reversed(self.param_ranges[name])) for name, value in param_dict.items()}

    def _check_range(self, param_dict: Mapping[str, Tensor]) -> None:
        """With one look at all values, since each look makes a GPU wait."""
        if torch.compiler.is_compiling() or not param_dict:
            return
        good = [((value >= 0) & (value <= 1)).all() for value in param_dict.values()]
        try:
            inside = torch.stack(good).tolist()
        except RuntimeError:  # Under vmap a value has no number.
            return
        for name, is_inside in zip(param_dict, inside, strict=True):
            if not is_inside:
                raise ValueError(f"{type(self).__name__}: {name} has values outside [0, 1] or NaN")


class Gain(Processor):
    """Module form of `gain`.

    Args:
        sample_rate: Sample rate in Hz.
        min_gain_db: Lower end of a range; all others likewise.
    """

    def __init__(self, sample_rate: float, min_gain_db: float = -24.0, max_gain_db: float = 24.0) -> None:
        self.sample_rate = sample_rate
        self.process_fn = functional.gain
        self.param_ranges = {"gain_db": (min_gain_db, max_gain_db)}
        self.num_params = len(self.param_ranges)


class Distortion(Processor):
    """Module form of `distortion`, whose drive is called gain_db here.

    Args:
        min_gain_db: Lower end of a range; the other likewise.
    """

    def __init__(self, min_gain_db: float = 0.0, max_gain_db: float = 24.0) -> None:
        self.process_fn = _distort
        self.param_ranges = {"gain_db": (min_gain_db, max_gain_db)}
        self.num_params = len(self.param_ranges)


def _distort(x: Tensor, sample_rate: float, gain_db: float | Tensor) -> Tensor:
    return functional.distortion(x, sample_rate, gain_db)


class ParametricEQ(Processor):
    """Module form of `parametric_eq`.

    Frequencies end 1 kHz below half the sample rate.  Where that leaves nothing of a range, below 26 kHz, the range is
    the octave below that end.

    Args:
        sample_rate: Sample rate in Hz.
        min_gain_db: Lower end of a range; all others likewise.
    """

    def __init__(
        self,
        sample_rate: float,
        min_gain_db: float = -20.0,
        max_gain_db: float = 20.0,
        min_q_factor: float = 0.1,
        max_q_factor: float = 6.0,
    ) -> None:
        self.sample_rate = sample_rate
        self.process_fn = functional.parametric_eq
        # Below 4 kHz, half of what there is.
        top = max(sample_rate // 2 - 1000, sample_rate / 4)
        frequencies: dict[str, tuple[float, float]] = {
            "low_shelf": (20, 2000),
            "band0": (80, 2000),
            "band1": (2000, 8000),
            "band2": (8000, 12000),
            "band3": (12000, top),
            "high_shelf": (4000, top),
        }
        self.param_ranges = {}
        for band, (low, high) in frequencies.items():
            high = min(high, top)
            self.param_ranges[f"{band}_gain_db"] = (min_gain_db, max_gain_db)
            self.param_ranges[f"{band}_cutoff_freq"] = (low if low < high else high / 2, high)
            self.param_ranges[f"{band}_q_factor"] = (min_q_factor, max_q_factor)
        self.num_params = len(self.param_ranges)


class Compressor(Processor):
    """Module form of `compressor`.

    Args:
        sample_rate: Sample rate in Hz.
        min_threshold_db: Lower end of a range; all others likewise.
    """

    def __init__(
        self,
        sample_rate: float,
        min_threshold_db: float = -60.0,
        max_threshold_db: float = 0.0,
        min_ratio: float = 1.0,
        max_ratio: float = 20.0,
        min_attack_ms: float = 5.0,
        max_attack_ms: float = 100.0,
        min_release_ms: float = 5.0,
        max_release_ms: float = 100.0,
        min_knee_db: float = 0.0,
        max_knee_db: float = 12.0,
        min_makeup_gain_db: float = 0.0,
        max_makeup_gain_db: float = 12.0,
    ) -> None:
        self.sample_rate = sample_rate
        self.process_fn = functional.compressor
        self.param_ranges = {
            "threshold_db": (min_threshold_db, max_threshold_db),
            "ratio": (min_ratio, max_ratio),
            "attack_ms": (min_attack_ms, max_attack_ms),
            "release_ms": (min_release_ms, max_release_ms),
            "knee_db": (min_knee_db, max_knee_db),
            "makeup_gain_db": (min_makeup_gain_db, max_makeup_gain_db),
        }
        self.num_params = len(self.param_ranges)


class NoiseShapedReverb(Processor):
    """Module form of `noise_shaped_reverberation`.

    Args:
        sample_rate: Sample rate in Hz.
        min_band_gain: Lower end of a range; all others likewise.
    """

    def __init__(
        self,
        sample_rate: float,
        min_band_gain: float = 0.0,
        max_band_gain: float = 1.0,
        min_band_decay: float = 0.0,
        max_band_decay: float = 1.0,
        min_mix: float = 0.0,
        max_mix: float = 1.0,
    ) -> None:
        self.sample_rate = sample_rate
        self.process_fn = functional.noise_shaped_reverberation
        self.param_ranges = {
            **{f"band{band}_gain": (min_band_gain, max_band_gain) for band in range(12)},
            **{f"band{band}_decay": (min_band_decay, max_band_decay) for band in range(12)},
            "mix": (min_mix, max_mix),
        }
        self.num_params = len(self.param_ranges)

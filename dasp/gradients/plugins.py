"""Effects of pedalboard and plug-ins that it loads, as black boxes with named controls.

pedalboard is under the GNU General Public License: it is no part of dasp, and is imported when one of these is made.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dasp._checks import check_sample_rate
from dasp._spec import Param
from dasp.gradients.effects import Effect

_ATTACK = Param("ms", 0.1, 200, "log", "Time constant of falling gain.")
_RELEASE = Param("ms", 5, 2000, "log", "Time constant of rising gain.")
_THRESHOLD = Param("dB", -60, 0, meaning="Level at which it begins to act.")
_RATIO = Param("", 1, 20, "log", "Decibels in for one out.")
_FREQUENCY = Param("Hz", 20, 20000, "log", "Corner or centre frequency.")
_GAIN = Param("dB", -24, 24, meaning="Gain.")
_Q = Param("", 0.1, 10, "log", "Quality factor.")
_SHARE = Param("", 0, 1)
_MIX = Param("", 0, 1, meaning="Share of the processed signal.")
_FEEDBACK = Param("", 0, 0.95, meaning="Share of the output that is fed back.")
_RATE = Param("Hz", 0.1, 10, "log", "Rate of modulation.")

_FILTER = {"cutoff_frequency_hz": _FREQUENCY, "gain_db": _GAIN, "q": _Q}
_DYNAMICS = {"threshold_db": _THRESHOLD, "ratio": _RATIO, "attack_ms": _ATTACK, "release_ms": _RELEASE}

# Continuous parameters of pedalboard's effects; the ranges are those of music, within what pedalboard takes.
BUILT_IN: dict[str, dict[str, Param]] = {
    "Bitcrush": {"bit_depth": Param("", 2, 16, meaning="Bits of a sample.")},
    "BrickwallLimiter": {
        "ceiling_db": Param("dB", -24, 0, meaning="Largest level."),
        "release_ms": _RELEASE,
        "lookahead_ms": Param("ms", 0.1, 20, "log", "Time it looks ahead."),
    },
    "Chorus": {
        "rate_hz": _RATE,
        "depth": _SHARE,
        "centre_delay_ms": Param("ms", 1, 50, "log", "Delay about which it varies."),
        "feedback": _FEEDBACK,
        "mix": _MIX,
    },
    "Clipping": {"threshold_db": Param("dB", -40, 0, meaning="Level at which it clips.")},
    "Compressor": _DYNAMICS,
    "Delay": {
        "delay_seconds": Param("s", 0.01, 2, "log", "Delay."),
        "feedback": _FEEDBACK,
        "mix": _MIX,
    },
    "Distortion": {"drive_db": Param("dB", 0, 48, meaning="Gain before the curve.")},
    "Gain": {"gain_db": _GAIN},
    "HighShelfFilter": _FILTER,
    "HighpassFilter": {"cutoff_frequency_hz": _FREQUENCY},
    "LadderFilter": {
        "cutoff_hz": _FREQUENCY,
        "resonance": Param("", 0, 0.95, meaning="Resonance at the corner."),
        "drive": Param("", 1, 10, "log", "Gain before the filter."),
    },
    "Limiter": {"threshold_db": Param("dB", -40, 0, meaning="Level that it holds."), "release_ms": _RELEASE},
    "LowShelfFilter": _FILTER,
    "LowpassFilter": {"cutoff_frequency_hz": _FREQUENCY},
    "NoiseGate": {**_DYNAMICS, "threshold_db": Param("dB", -80, 0, meaning="Level below which it closes.")},
    "PeakFilter": _FILTER,
    "Phaser": {
        "rate_hz": _RATE,
        "depth": _SHARE,
        "centre_frequency_hz": Param("Hz", 100, 10000, "log", "Frequency about which it varies."),
        "feedback": _FEEDBACK,
        "mix": _MIX,
    },
    "PitchShift": {"semitones": Param("semitones", -12, 12, meaning="Interval.")},
    "Reverb": {
        "room_size": Param("", 0, 1, meaning="Length of the decay."),
        "damping": Param("", 0, 1, meaning="Decay of high frequencies."),
        "wet_level": Param("", 0, 1, meaning="Level of the reverberation."),
        "dry_level": Param("", 0, 1, meaning="Level of the direct sound."),
        "width": Param("", 0, 1, meaning="Stereo width."),
    },
}


def _pedalboard(name: str) -> ModuleType:
    try:
        return importlib.import_module("pedalboard")
    except ImportError as error:
        raise ImportError(f"{name}: needs pedalboard: pip install 'dasp[plugins]' (its licence is the GPL)") from error


def _rendered(plugin: Any, x: np.ndarray, sample_rate: float) -> np.ndarray:
    """Audio of a plug-in from rest, in the type of x; pedalboard computes in float32."""
    channels, samples = x.shape
    if samples == 0:
        return x
    # pedalboard takes the longer dimension for that of samples.
    padded = np.pad(x.astype(np.float32), ((0, 0), (0, max(0, channels + 1 - samples))))
    y: np.ndarray = plugin.process(padded, sample_rate, reset=True)
    return y[:, :samples].astype(x.dtype)


class PedalboardEffect(Effect):
    """One of pedalboard's own effects.

    It is made anew for each call, and so begins from rest; it computes in float32.

    Args:
        plugin: Name of the class in pedalboard: "Compressor", "PeakFilter", "Reverb" and so on.
        sample_rate: Sample rate in Hz.
        controls: Names of the controls, or a `dasp.Param` for each; None for all that there are here.
        fixed: Values of other arguments of the class, in its units.
        name: What the effect is called in a chain; by default the class's name in small letters.

    Raises:
        ImportError: If pedalboard is not installed.
        ValueError: If there is no such effect, control or argument.

    Example:
        >>> effect = dasp.gradients.PedalboardEffect(
        ...     "Compressor", 44100, ["threshold_db"], {"ratio": 4}
        ... )  # doctest: +SKIP
        >>> effect.controls["threshold_db"].unit  # doctest: +SKIP
        'dB'
    """

    def __init__(
        self,
        plugin: str,
        sample_rate: float,
        controls: Mapping[str, Param] | Sequence[str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        module = _pedalboard("PedalboardEffect")
        if plugin not in BUILT_IN or not hasattr(module, plugin):
            raise ValueError(
                f"PedalboardEffect: there is no effect {plugin!r} with controls, expected one of {', '.join(BUILT_IN)}"
            )
        known = BUILT_IN[plugin]
        if not isinstance(controls, Mapping):
            for control in controls or ():
                if control not in known:
                    raise ValueError(
                        f"PedalboardEffect: {plugin} has no control {control!r}, expected one of {', '.join(known)}"
                    )
            names = [control for control in known if control not in (fixed or {})] if controls is None else controls
            controls = {control: known[control] for control in names}
        super().__init__(sample_rate, controls, name or _snake(plugin))
        self.plugin = plugin
        self.fixed = dict(fixed or {})
        try:
            self._made(torch.full((self.num_controls,), 0.5))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"PedalboardEffect: {plugin} does not take these arguments: {error}") from error

    def _made(self, u: Tensor) -> Any:
        return getattr(_pedalboard("PedalboardEffect"), self.plugin)(**self.fixed, **self.denormalize(u))

    def process(self, x: np.ndarray, u: Tensor) -> np.ndarray:
        """What the effect gives."""
        return _rendered(self._made(u), x, self.sample_rate)


class PluginEffect(Effect):
    """A VST3 plug-in, or on macOS an Audio Unit, loaded by pedalboard.

    Its controls are the plug-in's continuous parameters on the plug-in's own scale from 0 to 1, so that values in
    physical units follow its scale, whatever that is.  It is reset before each call; one that glides to new settings
    may need silence in front.  It computes in float32.

    Args:
        path: The plug-in's file or folder.
        sample_rate: Sample rate in Hz.
        controls: Names of parameters, as pedalboard writes them; None for all continuous ones that are not fixed.
        fixed: Values of other parameters, in the plug-in's units.
        plugin_name: Which of several plug-ins in the file.

    Raises:
        ImportError: If pedalboard is not installed, or cannot load the plug-in.
        FileNotFoundError: If there is no such file.
        ValueError: If a control is no continuous parameter of the plug-in.

    Example:
        >>> effect = dasp.gradients.PluginEffect("Reverb.vst3", 44100, ["size", "mix"])  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: float,
        controls: Sequence[str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        plugin_name: str | None = None,
    ) -> None:
        check_sample_rate("PluginEffect", sample_rate)
        module = _pedalboard("PluginEffect")
        if not Path(path).exists():
            raise FileNotFoundError(f"PluginEffect: there is no plug-in {os.fspath(path)!r}")
        self._arguments = (path, sample_rate, controls, fixed, plugin_name)
        self._plugin: Any = module.load_plugin(os.fspath(path), dict(fixed or {}), plugin_name)
        known = {
            key: Param(parameter.label or "", parameter.min_value, parameter.max_value, meaning=f"{parameter.name}.")
            for key, parameter in self._plugin.parameters.items()
            if parameter.type is float and parameter.min_value < parameter.max_value
        }
        for control in controls or ():
            if control not in known:
                raise ValueError(f"PluginEffect: {control!r} is no control, expected one of {', '.join(known)}")
        names = [key for key in known if key not in (fixed or {})] if controls is None else controls
        super().__init__(sample_rate, {key: known[key] for key in names}, _snake(Path(path).stem))

    # A loaded plug-in can be neither pickled nor copied: another is loaded.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def reset(self) -> None:
        """Forgets what it has been given; `process` does so itself."""
        self._plugin.reset()

    def process(self, x: np.ndarray, u: Tensor) -> np.ndarray:
        """What the plug-in gives."""
        for name, value in zip(self.controls, u.tolist(), strict=True):
            self._plugin.parameters[name].raw_value = value
        return _rendered(self._plugin, x, self.sample_rate)

    def normalize(self, values: Mapping[str, float]) -> Tensor:
        """Physical values of all controls to a normalised vector `(P,)`, by the plug-in's own scale.

        Raises:
            ValueError: If a control is missing or unknown, or the plug-in has no such value.
        """
        self._check_names(values)
        raw = [self._plugin.parameters[name].get_raw_value_for(values[name]) for name in self.controls]
        return torch.tensor(raw, dtype=torch.float64)

    def denormalize(self, u: Tensor) -> dict[str, float]:
        """A normalised vector `(P,)` to physical values of all controls, as the plug-in prints them.

        Raises:
            ValueError: If u has another shape, or values outside [0, 1].
        """
        self._check_normalized(u)
        return {
            name: next(
                printed
                for (low, high), printed in self._plugin.parameters[name].ranges.items()
                if low <= value < high or value == high == 1
            )
            for name, value in zip(self.controls, u.tolist(), strict=True)
        }


def _snake(text: str) -> str:
    """A name in small letters: PeakFilter becomes peak_filter."""
    words = "".join(f"_{c.lower()}" if c.isupper() else c if c.isalnum() else "_" for c in text)
    return words.strip("_")

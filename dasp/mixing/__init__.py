"""Mixing: the console, losses, fitting a console to a reference mix, and synthetic multitracks."""

from __future__ import annotations

from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.fitting import FitResult, Progress, fit
from dasp.mixing.losses import (
    BandLevelLoss,
    MultiResolutionSTFTLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)
from dasp.mixing.settings import SettingsError, describe, interpret
from dasp.mixing.synth import Multitrack, multitrack

__all__ = [
    "BandLevelLoss",
    "DifferentiableMixingConsole",
    "FitResult",
    "MultiResolutionSTFTLoss",
    "Multitrack",
    "Progress",
    "SettingsError",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "describe",
    "fit",
    "interpret",
    "multi_resolution_stft",
    "multitrack",
    "sum_and_difference",
]

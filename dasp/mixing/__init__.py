"""Mixing: the console, losses, features, fitting a console to a reference mix, and synthetic multitracks."""

from __future__ import annotations

from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.features import bark_spectrum_db, crest_factor_db, rms_db, stereo_imbalance, stereo_width
from dasp.mixing.fitting import FitResult, Progress, fit
from dasp.mixing.losses import (
    AudioFeatureLoss,
    BandLevelLoss,
    DynamicsLoss,
    MultiResolutionSTFTLoss,
    ParameterLoss,
    StereoSTFTLoss,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)
from dasp.mixing.settings import SettingsError, describe, interpret
from dasp.mixing.synth import Multitrack, multitrack

__all__ = [
    "AudioFeatureLoss",
    "BandLevelLoss",
    "DifferentiableMixingConsole",
    "DynamicsLoss",
    "FitResult",
    "MultiResolutionSTFTLoss",
    "Multitrack",
    "ParameterLoss",
    "Progress",
    "SettingsError",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "bark_spectrum_db",
    "crest_factor_db",
    "describe",
    "fit",
    "interpret",
    "multi_resolution_stft",
    "multitrack",
    "rms_db",
    "stereo_imbalance",
    "stereo_width",
    "sum_and_difference",
]

"""Losses: distances of spectra, of features and dynamics of a mix, and of controls."""

from __future__ import annotations

from dasp.mixing.losses.controls import ParameterLoss
from dasp.mixing.losses.descriptive import AudioFeatureLoss, DynamicsLoss
from dasp.mixing.losses.spectral import (
    BandLevelLoss,
    MultiResolutionSTFTLoss,
    StereoSTFTLoss,
    STFTReference,
    SumAndDifferenceSTFTLoss,
    multi_resolution_stft,
    sum_and_difference,
)

__all__ = [
    "AudioFeatureLoss",
    "BandLevelLoss",
    "DynamicsLoss",
    "MultiResolutionSTFTLoss",
    "ParameterLoss",
    "STFTReference",
    "StereoSTFTLoss",
    "SumAndDifferenceSTFTLoss",
    "multi_resolution_stft",
    "sum_and_difference",
]

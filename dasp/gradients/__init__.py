"""Gradients through effects that have none: neural proxies and hybrids."""

from __future__ import annotations

from dasp.gradients.hybrid import Hybrid, hybrid
from dasp.gradients.proxy import NeuralProxy
from dasp.gradients.training import TrainingProgress, TrainingResult, spectral_distance, train_proxy

__all__ = [
    "Hybrid",
    "NeuralProxy",
    "TrainingProgress",
    "TrainingResult",
    "hybrid",
    "spectral_distance",
    "train_proxy",
]

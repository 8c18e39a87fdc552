"""A proxy of the compressor, trained as `python -m benchmarks.proxy` trains it, for fewer steps."""

from __future__ import annotations

import pytest

from benchmarks.proxy import SAMPLE_RATE, TRAINING_SONGS, excerpts, measure, songs
from dasp.gradients import NeuralProxy, train_proxy
from dasp.modules import Compressor


@pytest.mark.slow
def test_a_proxy_comes_to_less_than_half_of_the_distance_of_the_input():
    effect = Compressor(SAMPLE_RATE).process_normalized
    proxy = NeuralProxy(6)
    train_proxy(effect, proxy, excerpts(songs(TRAINING_SONGS), 8, 32768), steps=300, samples=32768)
    report = measure(effect, proxy)
    assert report["proxy_over_identity"] < 0.5

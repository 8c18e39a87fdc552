"""Trains a proxy of dasp's compressor on synthetic songs and measures it on others: `python -m benchmarks.proxy`.

The distance is the multi-resolution STFT distance in dB of `dasp.mixing`, which is not what the proxy is trained on.
Beside the proxy stand the input itself, and the input with the constant gain that is best for each item, which takes
knowing the result: what comes closer has learned dynamics.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dasp.gradients import NeuralProxy, TrainingProgress, train_proxy
from dasp.mixing import MultiResolutionSTFTLoss, multitrack
from dasp.modules import Compressor

SAMPLE_RATE = 44100
TRAINING_SONGS, TEST_SONGS = range(20), range(100, 106)
TEST_ITEMS, TEST_SAMPLES = 64, 3 * SAMPLE_RATE
# The level of an item is lowered by up to so many dB.
LEVELS_DB = 24.0


def songs(seeds: range, seconds: float = 8.0) -> Tensor:
    """Stems and mixes `(items, 1, samples)`, each peaking near full scale."""
    items = []
    for seed in seeds:
        stems = multitrack(seed, seconds, SAMPLE_RATE, num_tracks=8).tracks
        mix = stems.sum(0, keepdim=True)
        items += [stems, mix / mix.abs().amax()]
    return torch.cat(items)


def excerpts(audio: Tensor, items: int, samples: int) -> Callable[[torch.Generator], Tensor]:
    """Draws stretches that are not silent, at random levels."""

    def draw(generator: torch.Generator) -> Tensor:
        batch: list[Tensor] = []
        while len(batch) < items:
            item = int(torch.randint(len(audio), (), generator=generator))
            begin = int(torch.randint(audio.shape[-1] - samples, (), generator=generator))
            x = audio[item, :, begin : begin + samples]
            gain_db = -LEVELS_DB * torch.rand((), generator=generator)
            if x.abs().amax() > 1e-3:
                batch.append(x * 10 ** (gain_db / 20))
        return torch.stack(batch)

    return draw


@torch.no_grad()
def measure(
    effect: Callable[[Tensor, Tensor], Tensor], proxy: NeuralProxy, items: int = TEST_ITEMS
) -> dict[str, float]:
    """Mean distances in dB on audio and controls that training has not seen."""
    generator = torch.Generator().manual_seed(1)
    x = excerpts(songs(TEST_SONGS), items, TEST_SAMPLES)(generator)
    u = torch.rand(items, proxy.num_controls, generator=generator)
    y = effect(x, u)
    gain = (x * y).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True)
    imitation = torch.cat([proxy(*pair) for pair in zip(x.split(8), u.split(8), strict=True)])
    loss = MultiResolutionSTFTLoss(reduction="none")
    identity, constant, found = loss(x, y), loss(gain * x, y), loss(imitation, y)
    return {
        "identity_db": identity.mean().item(),
        "best_constant_gain_db": constant.mean().item(),
        "proxy_db": found.mean().item(),
        "proxy_over_identity": (found.mean() / identity.mean()).item(),
        "items_closer_than_constant_gain": (found < constant).float().mean().item(),
    }


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=32768)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--level-blocks", type=int, default=5)
    parser.add_argument("--published", action="store_true", help="the published size instead of the default one")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    compressor = Compressor(SAMPLE_RATE)
    count = compressor.num_controls
    if arguments.published:
        proxy = NeuralProxy.published(count)
    else:
        proxy = NeuralProxy(count, level_blocks=arguments.level_blocks)
    start, cpu_start = time.perf_counter(), time.process_time()

    def show(progress: TrainingProgress) -> None:
        if progress.validation_loss is not None:
            seconds = time.perf_counter() - start
            print(
                f"{seconds:6.0f} s  step {progress.step:5d}  loss {progress.loss:.3f}  "
                f"validation {progress.validation_loss:.4f}  rate {progress.learning_rate:.1e}",
                flush=True,
            )

    result = train_proxy(
        compressor.process_normalized,
        proxy,
        excerpts(songs(TRAINING_SONGS), arguments.batch_size, arguments.samples),
        steps=arguments.steps,
        samples=arguments.samples,
        on_step=show,
        checkpoint=arguments.checkpoint,
        resume=arguments.resume,
    )
    report = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "threads": torch.get_num_threads(),
        "steps": result.steps,
        "best_step": result.best_step,
        "parameters": sum(parameter.numel() for parameter in proxy.parameters()),
        "receptive_field_ms": 1000 * proxy.receptive_field / SAMPLE_RATE,
        **measure(compressor.process_normalized, proxy),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""
Estimate a reverberation from wet audio alone
=============================================

Decay time and mix of a reverberation are estimated without the dry recording, by a linear regression that is trained
on what :func:`dasp.functional.noise_shaped_reverb` makes of other recordings.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import torch

import dasp.functional as F
import dasp.mixing

# %%
# Reverberation fills gaps and makes ends of sounds fall more slowly.  Both show in how levels are distributed: in seven
# bands, deciles of the level, and of its change over times from 16 to 256 ms.

sample_rate = 16000


def drums(seeds: range, names: tuple[str, ...] = ("kick", "snare", "hihat")) -> torch.Tensor:
    songs = [dasp.mixing.multitrack(seed, 5.0, sample_rate, names=names).tracks.sum(0) for seed in seeds]
    return torch.stack([song / song.abs().amax() for song in songs])


def reverberate(dry: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.rand(2, len(dry), generator=torch.Generator().manual_seed(seed))
    decay_s, mix = 0.2 * 15 ** draw[0], 0.05 + 0.55 * draw[1]  # 0.2 to 3 s, the same in all bands of the reverb
    wet = F.noise_shaped_reverb(dry, sample_rate, decay_s=decay_s[:, None].expand(-1, 10), mix=mix, seed=seed)
    return wet[:, 0], torch.stack([decay_s.log(), mix], -1)


def features(x: torch.Tensor) -> torch.Tensor:
    power = torch.fft.rfft(x.unfold(-1, 512, 256) * torch.hann_window(512)).abs().square()
    edges = (2, 5, 10, 20, 40, 80, 160, 256)
    power = torch.stack([power[..., a:b].sum(-1) for a, b in pairwise(edges)], -1)
    level_db = 10 * (power / power.mean(1, keepdim=True) + 1e-7).log10()
    changes = [(level_db[:, n:] - level_db[:, :-n]) / n**0.5 for n in (1, 2, 4, 8, 16)]
    deciles = [torch.quantile(values, torch.linspace(0.05, 0.95, 10), dim=1) for values in (level_db, *changes)]
    return torch.cat(deciles).transpose(0, 1).flatten(1)


# %%
# 48 songs, each with twelve settings and another noise for each round, are enough for a ridge regression.

dry = drums(range(48))
rounds = [reverberate(dry, seed) for seed in range(1, 13)]
x, y = torch.cat([features(wet) for wet, _ in rounds]), torch.cat([truth for _, truth in rounds])
mean, scale = x.mean(0), x.std(0) + 1e-3
x = (x - mean) / scale
weight = torch.linalg.solve(x.T @ x + 100 * torch.eye(x.shape[-1]), x.T @ (y - y.mean(0)))


def estimate(wet: torch.Tensor) -> torch.Tensor:
    return (features(wet) - mean) / scale @ weight + y.mean(0)


# %%
# It is tested on songs, settings and noise that it has not seen: first drums, then instruments that it has not seen
# either.

wet, true = reverberate(drums(range(1000, 1040)), seed=99)
found = estimate(wet)
other_wet, other_true = reverberate(drums(range(1000, 1020), names=("keys", "voice")), seed=98)
print(f"{'mean error':<34}{'decay':>7}{'mix':>8}")
for name, guess, truth in (
    ("always the mean of the training", y.mean(0).expand_as(true), true),
    ("drums", found, true),
    ("keys and voice", estimate(other_wet), other_true),
):
    error = (guess - truth).abs().mean(0)
    print(f"{name:<34}{100 * error[0].expm1():5.0f} %{error[1]:8.3f}")
assert (found - true).abs().mean(0)[0].expm1() < 0.2

# %%
# What is estimated is one T60 for all bands, and the share of the reverberation; of a room whose decay differs between
# bands this regression knows nothing, and of other instruments than drums little.

fig, axes = plt.subplots(2, figsize=(5, 7), layout="constrained")
for ax, truth, guess, name in zip(axes, true.T, found.T, ("decay (s)", "mix"), strict=True):
    values = (truth.exp(), guess.exp()) if name != "mix" else (truth, guess)
    ax.plot(*values, "o")
    ax.plot(*2 * [[values[0].min(), values[0].max()]], "k", linewidth=0.8)
    ax.set(xlabel=f"true {name}", ylabel=f"found {name}", title=f"Found and true {name}, 40 wet recordings")
axes[0].set(xscale="log", yscale="log")
for axis in (axes[0].xaxis, axes[0].yaxis):
    axis.set_ticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    axis.minorticks_off()
plt.show()

# %%
sounds = {f"Wet drums: {t[0].exp():.1f} s, mix {t[1]:.2f}": w[None] for w, t in zip(wet[:3], true, strict=False)}

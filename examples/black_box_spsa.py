"""
Fit an effect that has no gradient
==================================

The controls of a gated, clipping, 8-bit sampler in numpy are found by SPSA and by finite differences, which do
nothing but call it.  Its gate is open or shut and its samples are rounded, so that its own derivatives would be 0 or
missing.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.signal
import torch

import dasp
import dasp.mixing
import dasp.modules
from dasp.gradients import EstimatedGradient, NumpyEffect, finite_difference, spsa

# %%
# Any function of an array and named controls will do.  :class:`dasp.gradients.CommandEffect` takes a command in its
# place, and ``examples/fit_plugin_chain.py`` plug-ins.


def sampler(
    x: np.ndarray, sample_rate: float, gate_db: float, drive_db: float, cutoff_hz: float, mix: float
) -> np.ndarray:
    blocks = x.reshape(len(x), -1, 245)
    loud = np.square(blocks).mean(-1, keepdims=True) > 10 ** (gate_db / 10)
    y = (blocks * loud).reshape(x.shape) * 10 ** (drive_db / 20)
    y = np.round(127 * np.clip(y, -1, 1)) / 127
    y = scipy.signal.lfilter(*scipy.signal.butter(2, cutoff_hz, fs=sample_rate), y)
    return ((1 - mix) * x + mix * y).astype(x.dtype)


sample_rate = 22050
ranges = {"gate_db": dasp.Param("dB", -60, -10), "drive_db": dasp.Param("dB", 0, 30)}
ranges |= {"cutoff_hz": dasp.Param("Hz", 200, 10000, "log"), "mix": dasp.Param("", 0, 1)}
effect = NumpyEffect(sampler, sample_rate, ranges)
song = dasp.mixing.multitrack(seed=1, seconds=2.0, sample_rate=sample_rate, names=["bass", "keys", "snare"])
x = 0.3 * song.tracks.sum(0)
hidden = effect.normalize({"gate_db": -24.0, "drive_db": 14.0, "cutoff_hz": 2500.0, "mix": 0.7}).float()
target = effect(x, hidden)

# %%
# `spsa` and `finite_difference` are called as the effect is.  Probes are 5 % of a range to either side: less would
# often lie within one step of the gate, and see nothing of it.  The gate starts at -25 dB, where it acts: below all
# that sounds there is nothing to see either.

loss = dasp.mixing.MultiResolutionSTFTLoss()


def fit(trainable: EstimatedGradient, steps: int) -> tuple[torch.Tensor, list[int], list[float]]:
    u = torch.tensor([[0.7, 0.5, 0.5, 0.5]], requires_grad=True)
    optimizer = torch.optim.Adam([u], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    calls, distances = [], []
    for _ in range(steps):
        distance = loss(trainable(x[None], dasp.modules.project(u)), target[None])
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        schedule.step()
        calls.append(trainable.num_calls)
        distances.append(distance.item())
    return u.detach().clamp(0, 1)[0], calls, distances


by_spsa, *spsa_curve = fit(spsa(effect, epsilon=0.05, num_draws=2, generator=1), steps=200)
by_differences, *differences_curve = fit(finite_difference(effect, epsilon=0.05), steps=110)

# %%
# Two draws of SPSA cost five calls a step, however many controls there are; finite differences cost nine for these
# four. SPSA is noisy: with `generator` from 0 to 5 no control ends more than 8 % of its range off.

columns = {"hidden": hidden, "SPSA": by_spsa, "differences": by_differences}
print(f"{'':<12}" + "".join(f"{name:>13}" for name in columns))
for name in effect.controls:
    print(f"{name:<12}" + "".join(f"{effect.denormalize(u)[name]:13.2f}" for u in columns.values()))
assert max((by_spsa - hidden).abs().max(), (by_differences - hidden).abs().max()) < 0.1

# %%
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.plot(*spsa_curve, label="SPSA, two draws")
ax.plot(*differences_curve, label="finite differences")
ax.set(
    xlabel="calls of the effect",
    ylabel="spectral distance (dB)",
    ylim=(0, None),
    title="Distance to the target over calls",
)
ax.legend()
plt.show()

# %%
sounds = {"Input": x, "Target": target, "Found by SPSA": effect(x, by_spsa)}

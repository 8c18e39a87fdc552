"""
Learn the curve of a filter sweep
=================================

The cut-off frequency of a resonant low-pass moves all the time.  Its curve, and the resonance, are found from what
went in and what came out: the frequency has a gradient at every sample.
"""

import math

import matplotlib.pyplot as plt
import torch

import dasp.functional as F
import dasp.mixing

# %%
# The hidden curve moves between 270 Hz and 4.9 kHz.  A control with a value for every sample has the shape `(channels
# or 1, samples)` here.

sample_rate = 22050
song = dasp.mixing.multitrack(seed=6, seconds=5.0, sample_rate=sample_rate, names=["pad", "organ", "strings", "hihat"])
x = 0.4 * song.tracks.sum(0)
time_s = torch.arange(x.shape[-1]) / sample_rate
octaves = 1.8 * torch.sin(2 * math.pi * 0.35 * time_s) + 0.5 * torch.sin(2 * math.pi * 1.1 * time_s)
hidden_hz, hidden_q = 1200 * 2**octaves, 2.5
target = F.lowpass(x, sample_rate, hidden_hz[None], hidden_q)

# %%
# What is learned are 50 points of the curve and the resonance, all as logarithms, as they are heard.  Between the
# points the curve is a line.  It starts flat, at 1 kHz.

points = torch.full((1, 1, 50), math.log(1000.0), requires_grad=True)
log_q = torch.tensor(0.0, requires_grad=True)
loss = dasp.mixing.MultiResolutionSTFTLoss(resolutions=(512, 1024, 2048))
optimizer = torch.optim.Adam([points, log_q], lr=0.05)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 90)
curves_hz = []
for _ in range(90):
    frequency_hz = torch.nn.functional.interpolate(points, size=x.shape[-1], mode="linear", align_corners=True)[0].exp()
    curves_hz.append(frequency_hz[0].detach())
    distance = loss(F.lowpass(x, sample_rate, frequency_hz, log_q.exp()), target)
    optimizer.zero_grad()
    distance.backward()
    optimizer.step()
    schedule.step()

# %%
found_hz = curves_hz[-1]
off = 12 * (found_hz / hidden_hz).log2().abs()
print("time (s)     " + "".join(f"{t:8.1f}" for t in time_s[:: sample_rate // 2].tolist()))
for name, curve_hz in (("hidden (Hz)", hidden_hz), ("found (Hz)", found_hz)):
    print(f"{name:<13}" + "".join(f"{hz:8.0f}" for hz in curve_hz[:: sample_rate // 2].tolist()))
print(f"\nthe curve is off by {off.mean():.2f} semitones on average, by {off.max():.2f} at most")
print(f"resonance: hidden {hidden_q:.2f}, found {log_q.exp():.2f}")
assert off.mean() < 0.2

# %%
fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for step, color in ((0, "0.85"), (5, "0.7"), (15, "0.5")):
    ax.semilogy(time_s, curves_hz[step], color=color, label=f"after {step} steps")
ax.semilogy(time_s, hidden_hz, "k", label="hidden")
ax.semilogy(time_s, found_hz, "C1--", label="found")
ax.set(
    xlabel="time (s)",
    ylabel="cut-off frequency (Hz)",
    ylim=(200, 20000),
    title="Cut-off of the low-pass, hidden and found",
)
ax.legend(ncols=2)
plt.show()

# %%
found = F.lowpass(x, sample_rate, found_hz[None], log_q.exp().item())
sounds = {"Input": x, "Target": target, "Through the found sweep": found}

"""
Write a processor of one's own
==============================

A function whose signature declares its controls is a processor, with a module form and normalised control.  This one
is made of others; it is checked and trained at once.
"""

from typing import Annotated

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import dasp
import dasp.functional as F
import dasp.mixing
import dasp.modules

# %%
# An exciter adds harmonics of the upper part of the spectrum.  :func:`dasp.processor` reads its controls from the
# annotations: unit, usual range, scale and meaning; defaults are Python's own.  Since it is made of processors, it
# takes what they take: controls for each item, channel or sample.  :doc:`/add_a_processor` adds one to dasp itself,
# with its tests.


@dasp.processor(automation=True)
def exciter(
    x: Tensor,
    sample_rate: float,
    cutoff_hz: Annotated[float | Tensor, dasp.Param("Hz", 500, 10000, "log", "Where the upper part begins.")] = 3000.0,
    drive_db: Annotated[float | Tensor, dasp.Param("dB", 0, 40, meaning="Gain before saturation.")] = 12.0,
    level_db: Annotated[float | Tensor, dasp.Param("dB", -40, 0, meaning="Level of what is added.")] = -20.0,
) -> Tensor:
    """Adds saturated highs: y = x + level tanh(drive highpass(x))."""
    bright = torch.tanh(F.gain(F.highpass(x, sample_rate, cutoff_hz), sample_rate, drive_db))
    return x + F.gain(bright, sample_rate, level_db)


class Exciter(dasp.modules.Processor, function=exciter):
    """Module form of `exciter`."""


print(dasp.PROCESSORS["exciter"].names())
print(Exciter(44100))

# %%
# Gradients against finite differences, in float64: one setting for each of two items, and another one for every sample.

generator = torch.Generator().manual_seed(0)
x = torch.randn(2, 1, 50, dtype=torch.float64, generator=generator).requires_grad_()
for shape in ((2,), (2, 1, 50)):
    draws = torch.rand(3, *shape, dtype=torch.float64, generator=generator)
    controls = [c.requires_grad_() for c in (1000 + 5000 * draws[0], 20 * draws[1], -20 * draws[2])]
    agrees = torch.autograd.gradcheck(lambda x, *controls: exciter(x, 44100, *controls), (x, *controls), rtol=1e-3)
    print(f"controls {shape}: gradients agree: {agrees}")

# %%
# It is trained, in a chain with a gain, on what hidden settings make of a song.

sample_rate = 44100
song = dasp.mixing.multitrack(seed=3, seconds=4.0, sample_rate=sample_rate, names=["bass", "keys", "snare"])
x = 0.5 * song.tracks.sum(0)
hidden = dasp.modules.Chain(
    Exciter(sample_rate, cutoff_hz=1500.0, drive_db=32.0, level_db=-24.0), dasp.modules.Gain(sample_rate, gain_db=-3.0)
)
chain = dasp.modules.Chain(Exciter(sample_rate), dasp.modules.Gain(sample_rate))
target = hidden.requires_grad_(False)(x)
loss = dasp.mixing.MultiResolutionSTFTLoss(resolutions=(512, 2048))
optimizer = torch.optim.Adam(chain.parameters(), lr=0.04)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
distances = []
for _ in range(120):
    distance = loss(chain(x), target)
    optimizer.zero_grad()
    distance.backward()
    optimizer.step()
    schedule.step()
    distances.append(distance.item())

print(f"{'':<20}{'hidden':>10}{'found':>10}")
for name, stage in chain.requires_grad_(False).stages().items():
    for control, value in stage.controls().items():
        true = hidden.stages()[name].controls()[control]
        print(f"{name + '.' + control:<20}{true:10.2f}{value:10.2f}")
        assert (value / true - 1).abs() < 0.05

# %%
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.semilogy(distances)
ax.set(xlabel="step", ylabel="spectral distance (dB)", title="Distance of the new processor to its target")
plt.show()

# %%
sounds = {"Input": x, "Target": target, "Trained chain": chain(x)}

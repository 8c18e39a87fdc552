"""
Process a stream in blocks
==========================

A channel strip runs on blocks as an audio interface delivers them: the blocks give what one call on the whole gives,
and the time for each block shows how far from real time the strip is.
"""

import time

import matplotlib.pyplot as plt
import torch

import dasp.mixing
import dasp.modules

# %%
# Equaliser, compressor and reverberation, and what they make of a song in one call.

sample_rate = 48000
song = dasp.mixing.multitrack(seed=4, seconds=5.0, sample_rate=sample_rate, num_tracks=6)
x = 0.2 * song.tracks.sum(0)
strip = dasp.modules.Chain(
    dasp.modules.ParametricEQ(sample_rate, gain_db=[4.0, 0.0, -3.0, 0.0, 2.0, 3.0]),
    dasp.modules.Compressor(sample_rate, threshold_db=-25.0, ratio=4.0, makeup_gain_db=4.0),
    dasp.modules.NoiseShapedReverb(sample_rate, decay_s=0.5, mix=0.2),
).requires_grad_(False)
whole = strip(x)

# %%
# A :class:`dasp.modules.Stream` keeps the memory of all stages: states of filters, the gain of the compressor, and the
# past that a reverberation still needs.  Blocks may be of any lengths, also of changing ones.

stream = dasp.modules.Stream(strip)
lengths = [1, 17, 480, 512, 4096, 1024]
blocks, rest = [], x
while rest.shape[-1]:
    block, rest = rest.split([n := min(lengths[len(blocks) % 6], rest.shape[-1]), rest.shape[-1] - n], -1)
    blocks.append(stream(block))
error_db = 20 * ((torch.cat(blocks, -1) - whole).abs().amax() / whole.abs().amax()).log10()
print(f"{len(blocks)} blocks of {min(lengths)} to {max(lengths)} samples: off by {error_db:.0f} dB from one call")
for name, value in stream.state.items():
    print(f"remembered: {name} {tuple(value.shape)}")
assert error_db < -100

# %%
# The time for a block is divided by its duration: below 1 the strip keeps up.  A block costs some calls of torch
# whatever its length, so that longer blocks are cheaper; the price is their latency.


def real_time_factors(module: dasp.modules.Processor | dasp.modules.Chain, size: int) -> torch.Tensor:
    stream, factors = dasp.modules.Stream(module), []
    for block in x[:, : 100 * size].split(size, -1):
        begin = time.perf_counter()
        stream(block)
        factors.append((time.perf_counter() - begin) * sample_rate / block.shape[-1])
    return torch.tensor(factors[5:])


sizes = [64, 128, 256, 512, 1024, 2048]
modules = {"EQ": strip[0], "EQ and compressor": dasp.modules.Chain(strip[0], strip[1]), "with reverb of 0.5 s": strip}
medians = {
    name: [real_time_factors(module, size).median().item() for size in sizes] for name, module in modules.items()
}
print("\nreal-time factor for blocks of" + "".join(f"{size:>8}" for size in sizes))
for name, factors in medians.items():
    print(f"{name:<30}" + "".join(f"{factor:8.3f}" for factor in factors))

# %%
fig, ax = plt.subplots(figsize=(5, 3.8), layout="constrained")
for name, factors in medians.items():
    ax.loglog(sizes, factors, "o-", label=name)
ax.axhline(1, color="k", linewidth=0.8)
ax.set_xticks(sizes, map(str, sizes), minor=False)
ax.minorticks_off()
ax.set(xlabel="block (samples)", ylabel="time / duration", title="Real-time factor, median: below 1 it keeps up")
ax.legend()
plt.show()

# %%
sounds = {"Input": x, "Through the strip, in blocks": torch.cat(blocks, -1)}

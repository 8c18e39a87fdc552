"""
Master to a loudness with gradients
===================================

Equaliser, compressor and gain are trained so that a mix has -16 LUFS and no true peak above -1 dBTP, both at once and
without a limiter: the meters of ITU-R BS.1770 are differentiable.
"""

import matplotlib.pyplot as plt
import torch

import dasp.functional as F
import dasp.mixing
import dasp.modules

# %%
# Drums are loud in this mix.  Brought to -16 LUFS by a gain alone, its peaks are above full scale.

sample_rate = 44100
song = dasp.mixing.multitrack(seed=2, seconds=6.0, num_tracks=8)
tracks = F.stereo_panner(song.tracks, sample_rate, torch.linspace(-0.5, 0.5, 8))
levels_db = torch.tensor([6.0, 3.0, -6.0, -3.0, -6.0, -6.0, -9.0, -3.0]) - 20
mix = F.stereo_bus(tracks, sample_rate, levels_db)
normalised = F.gain(mix, sample_rate, -16 - F.integrated_loudness(mix, sample_rate))

# %%
# The loss asks for the loudness, for peaks under the bound, and for an equaliser that stays near 0 dB.  The makeup gain
# of the compressor is left at 0 dB, for it does what the gain does.

chain = dasp.modules.Chain(
    dasp.modules.ParametricEQ(sample_rate),
    dasp.modules.Compressor(sample_rate, threshold_db=-20.0, ratio=2.0, attack_ms=5.0, release_ms=100.0),
    dasp.modules.Gain(sample_rate, gain_db=float(-26 - F.integrated_loudness(mix, sample_rate)) + 9),
)
eq, compressor, _ = chain
compressor.makeup_gain_db_normalized.requires_grad_(False)
optimizer = torch.optim.Adam(chain.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
curve = []
for _ in range(120):
    y = chain(mix)
    loudness_lufs, peak_dbtp = F.integrated_loudness(y, sample_rate), F.true_peak_db(y, sample_rate)
    curve.append((loudness_lufs.item(), peak_dbtp.item()))
    loss = (loudness_lufs + 16).square() + (peak_dbtp + 1.05).clamp_min(0).square()
    optimizer.zero_grad()
    (loss + 0.02 * eq.controls()["gain_db"].square().mean()).backward()
    optimizer.step()
    schedule.step()
master = chain(mix).detach()

# %%
print(f"{'':<20}{'loudness':>12}{'true peak':>14}")
for name, x in (("mix", mix), ("gain alone", normalised), ("trained chain", master)):
    print(f"{name:<20}{F.integrated_loudness(x, sample_rate):7.2f} LUFS{F.true_peak_db(x, sample_rate):9.2f} dBTP")
print(chain.requires_grad_(False))
assert abs(F.integrated_loudness(master, sample_rate) + 16) < 0.05
assert F.true_peak_db(master, sample_rate) < -1

# %%
# Some 2 dB less on the loudest hits do a part of what a limiter would.  The equaliser does the rest: it raises what the
# meter hears best, so that less gain is needed for the loudness.

fig, (upper, lower) = plt.subplots(2, figsize=(5, 6), layout="constrained")
loudness, peaks = zip(*curve, strict=True)
upper.plot(loudness, label="loudness (LUFS)")
upper.plot(peaks, label="true peak (dBTP)")
upper.axhline(-16, color="C0", linestyle=":")
upper.axhline(-1, color="C1", linestyle=":")
upper.set(xlabel="step", ylabel="level", title="Loudness and peak come to their aims (dotted)")
upper.legend()
controls = {name: value for name, value in compressor.controls().items() if name != "makeup_gain_db"}
reduction_db = F.compressor_gain(eq(mix), sample_rate, **controls)
lower.plot(torch.arange(mix.shape[-1]) / sample_rate, reduction_db[0])
lower.set(xlabel="time (s)", ylabel="gain (dB)", title="Gain of the compressor after training")
plt.show()

# %%
sounds = {"Gain alone, above full scale": normalised, "Trained chain": master}

"""
Match the spectrum of another recording
=======================================

An equaliser is fitted to one take so that its long-term spectrum becomes that of another.  The takes are different
performances: no sample of one has to agree with the other.
"""

import matplotlib.pyplot as plt
import torch

import dasp.mixing
import dasp.modules

# %%
# The first and the third section of a synthetic song are two takes of one part, with other accents and timing.  The
# second take has gone through an equaliser whose settings the fit does not see.

sample_rate = 44100
song = dasp.mixing.multitrack(seed=1, seconds=24.0)
section = round(4 * 4 * 60 / song.tempo * sample_rate)  # four bars of four beats
take, _, other_take = (0.2 * song.tracks.sum(0)).split(section, -1)[:3]
hidden = dasp.modules.ParametricEQ(
    sample_rate,
    frequency_hz=[80.0, 250.0, 700.0, 1800.0, 4500.0, 9000.0],
    gain_db=[5.0, 0.0, -6.0, 0.0, 4.0, -5.0],
).requires_grad_(False)
target = hidden(other_take)

# %%
# What is compared are levels in bands of a third of an octave.  An equaliser multiplies a spectrum by its response, the
# spectrum of what it makes of an impulse: so a step of the fit processes one frame, and not the whole take.

frame = 8192
frequency_hz = torch.fft.rfftfreq(frame, 1 / sample_rate)
band = torch.bucketize(frequency_hz, 50 * 2 ** (torch.arange(28) / 3))


def spectrum(x: torch.Tensor) -> torch.Tensor:
    frames = x[0].unfold(-1, frame, frame // 2) * torch.hann_window(frame)
    return torch.fft.rfft(frames).abs().square().mean(0)


def levels_db(power: torch.Tensor) -> torch.Tensor:
    return 10 * torch.zeros(29).index_add(0, band, power)[1:-1].log10()


def response(eq: dasp.modules.ParametricEQ) -> torch.Tensor:
    return torch.fft.rfft(eq(torch.eye(1, frame))[0]).abs().square()


# %%
# Frequencies and gains of six bands are learned, on the normalised scale of the module.  A small price on gains keeps
# bands from working against each other.

eq = dasp.modules.ParametricEQ(sample_rate)
optimizer = torch.optim.Adam([eq.frequency_hz_normalized, eq.gain_db_normalized], lr=0.01)
power, wanted_db = spectrum(take), levels_db(spectrum(target))
for _ in range(300):
    distance = (levels_db(power * response(eq)) - wanted_db).abs().mean()
    optimizer.zero_grad()
    (distance + 0.005 * eq.controls()["gain_db"].square().mean()).backward()
    optimizer.step()
found = eq.requires_grad_(False)

# %%
# Bands can share a gain or change places and sound the same, so responses are compared, and not settings.  The hidden
# equaliser itself leaves a distance, that of the two takes; the fit explains a part of it away, and ends closer.

for name, y in (("take", take), ("take, fitted", found(take)), ("take, hidden EQ", hidden(take))):
    print(f"{name:<16} {(levels_db(spectrum(y)) - wanted_db).abs().mean():.1f} dB from the target")
hidden_db, found_db = (10 * response(eq).log10() for eq in (hidden, found))
print("\nresponse at     hidden     found")
for hz in (50, 100, 250, 700, 1500, 3000, 5000, 10000):
    at = round(hz * frame / sample_rate)
    print(f"{hz:8d} Hz {hidden_db[at]:7.1f} dB {found_db[at]:6.1f} dB")
off_db = (found_db - hidden_db)[(frequency_hz > 40) & (frequency_hz < 16000)].abs()
print(f"\noff by {off_db.mean():.1f} dB on average, by {off_db.max():.1f} dB at most")
assert off_db.mean() < 1

# %%
fig, (upper, lower) = plt.subplots(2, figsize=(5, 6), layout="constrained", sharex=True)
for name, x in (("take", take), ("take, fitted", found(take)), ("target", target)):
    upper.semilogx(50 * 2 ** ((torch.arange(27) + 0.5) / 3), levels_db(spectrum(x)), label=name)
upper.set(ylabel="level (dB)", title="Third-octave levels: the take comes to the target")
lower.semilogx(frequency_hz, hidden_db, "k", label="hidden")
lower.semilogx(frequency_hz, found_db, "C1", label="found")
lower.set(
    xlim=(40, 16000), xlabel="frequency (Hz)", ylabel="gain (dB)", title="Response of the equaliser, hidden and found"
)
upper.legend(), lower.legend()
plt.show()

# %%
sounds = {"Take": take, "Take, fitted": found(take), "Target, which is another take": target}

"""
A network that sets an equaliser
================================

A network hears a recording and a reference, and sets an equaliser so that the first sounds like the second.  It
learns through the equaliser, from pairs that are made at random, and is judged on songs that it has not heard.
"""

import matplotlib.pyplot as plt
import torch

import dasp.functional as F
import dasp.mixing

# %%
# Each song gives two halves with other chords and patterns.  Their levels in third octaves are all that the network
# hears.

sample_rate, frame = 22050, 4096
edges_hz = 40 * 2 ** (torch.arange(25) / 3)
band = torch.bucketize(torch.fft.rfftfreq(frame, 1 / sample_rate), edges_hz)
bands = torch.nn.functional.one_hot(band, 26)[:, 1:-1].float()


def halves(seeds: range) -> torch.Tensor:
    songs = torch.stack([dasp.mixing.multitrack(s, 8.0, sample_rate, num_tracks=5).tracks.sum((0, 1)) for s in seeds])
    songs = 0.1 * songs / songs.square().mean(-1, keepdim=True).sqrt()
    return songs.unflatten(-1, (2, -1))  # (songs, 2, samples)


def spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft(x.unfold(-1, frame, frame // 2) * torch.hann_window(frame)).abs().square().mean(-2)


def levels_db(power: torch.Tensor) -> torch.Tensor:
    return 10 * (power @ bands).log10()


def response(gain_db: torch.Tensor) -> torch.Tensor:
    impulses = torch.eye(1, frame).expand(len(gain_db), 1, frame)
    return torch.fft.rfft(F.parametric_eq(impulses, sample_rate, gain_db=gain_db)[:, 0]).abs().square()


# %%
# In training, one half is the recording, and the other one is the reference, after an equaliser with random gains up to
# 8 dB. The loss compares the recording through the network's equaliser with the recording through that one.  As in
# :doc:`eq_matching`, the equaliser is applied to spectra, which makes 400 steps of 32 songs a matter of seconds.

torch.manual_seed(0)
network = torch.nn.Sequential(
    *(torch.nn.Linear(48, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, 6))
)


def gains_db(recording: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    have, want = levels_db(recording), levels_db(reference)
    return 12 * torch.tanh(network(torch.cat([(want - have) / 10, (want - want.mean(-1, keepdim=True)) / 20], -1)))


heard, steps = spectrum(halves(range(48))), 400
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
losses = []
for _ in range(steps):
    recording, other = heard[torch.randint(48, (32,))].roll(int(torch.randint(2, ())), 1).unbind(1)
    hidden = response(16 * torch.rand(32, 6) - 8)
    found = response(gains_db(recording, other * hidden))
    loss = (levels_db(recording * found) - levels_db(recording * hidden)).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())

# %%
# On held-out songs most of the difference is gone.  What is left is what a reference of other chords does not tell:
# where it has more of a band, the song may have it, or the equaliser.  The last band, at 10 kHz, lies at the end of
# what is heard, and is often missed.

songs = halves(range(1000, 1016))
true_db = 16 * torch.rand(16, 6) - 8
references = F.parametric_eq(songs[:, 1:], sample_rate, gain_db=true_db)
with torch.no_grad():
    found_db = gains_db(spectrum(songs[:, 0]), spectrum(references[:, 0]))
power, wanted = spectrum(songs[:, 0]), levels_db(spectrum(songs[:, 0]) * response(true_db))
before, after = ((levels_db(power * r) - wanted).abs().mean() for r in (torch.ones(()), response(found_db)))
print(f"16 held-out songs, from the wanted spectrum: {before:.1f} dB before, {after:.1f} dB after")
print("gains of the first song (dB)\nhidden " + "".join(f"{g:7.1f}" for g in true_db[0]))
print("found  " + "".join(f"{g:7.1f}" for g in found_db[0]))
assert after < 0.4 * before

# %%
fig, (upper, lower) = plt.subplots(2, figsize=(5, 6), layout="constrained")
upper.plot(losses)
upper.set(xlabel="step", ylabel="difference (dB)", ylim=(0, None), title="Training: difference of third-octave levels")
frequency_hz = torch.fft.rfftfreq(frame, 1 / sample_rate)
for i in range(3):
    lower.semilogx(frequency_hz, 10 * response(true_db)[i].log10(), f"C{i}", label=f"song {i + 1}, hidden")
    lower.semilogx(frequency_hz, 10 * response(found_db)[i].log10(), f"C{i}--", label="found")
lower.set(xlim=(40, 10000), xlabel="frequency (Hz)", ylabel="gain (dB)", title="Equalisers of three held-out songs")
lower.legend(ncols=3, fontsize="small")
plt.show()

# %%
equalised = F.parametric_eq(songs[:1, :1], sample_rate, gain_db=found_db[:1])[0]
sounds = {"Recording": songs[0, :1], "Through the network's equaliser": equalised, "Reference": references[0]}

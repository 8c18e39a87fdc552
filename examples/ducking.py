"""
Duck music under a voice
========================

The side-chain of a ducker is one line: the gain that a compressor would apply to the voice is applied to the music.
Its settings are learned from meters, so that the voice stays a wanted distance above the music.
"""

import matplotlib.pyplot as plt
import torch

import dasp.functional as F
import dasp.mixing
import dasp.modules

# %%
# The voice pauses now and then; the music is meant to come back in the pauses.

sample_rate = 44100
song = dasp.mixing.multitrack(seed=6, seconds=12.0, num_tracks=8)
voice = song.tracks[7]
music = song.tracks[[0, 1, 2, 3, 4, 6]].sum(0)
phrase = (torch.arange(voice.shape[-1]) // (2 * sample_rate)) % 2 == 0  # 2 s of singing, 2 s of pause
voice = F.gain(voice * phrase, sample_rate, -20 - F.integrated_loudness(voice, sample_rate))
music = F.gain(music, sample_rate, -20 - F.integrated_loudness(music, sample_rate))

# %%
# Where the voice sounds, it shall be 8 LU above the music, both measured as momentary loudness over 400 ms.  Every dB
# by which the music is lowered has a small price, so that it comes back in the pauses.


def duck(controls: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    controls = {name: value for name, value in controls.items() if name != "makeup_gain_db"}
    gain_db = F.compressor_gain(voice, sample_rate, **controls)
    return F.gain(music, sample_rate, gain_db), gain_db


start = {"threshold_db": -30.0, "ratio": 2.0, "attack_ms": 20.0, "release_ms": 300.0}
ducker = dasp.modules.Compressor(sample_rate, **start)
ducker.makeup_gain_db_normalized.requires_grad_(False)
voice_lufs = F.momentary_loudness(voice, sample_rate)
sings = voice_lufs > -26
optimizer = torch.optim.Adam(ducker.parameters(), lr=0.02)
for _ in range(50):
    y, gain_db = duck(ducker.controls())
    above = (voice_lufs - F.momentary_loudness(y, sample_rate))[sings]
    optimizer.zero_grad()
    ((8 - above).clamp_min(0).square().mean() + 0.05 * gain_db.square().mean()).backward()
    optimizer.step()
found = {name: value.detach() for name, value in ducker.controls().items()}
ducked, gain_db = duck(found)

# %%
# The price is paid in the pauses: with the release that was found the music needs some time to come back.

pause = ~phrase[None]
print(f"{'':<22}{'voice over music, median':>26}{'above 6 LU':>13}{'music in pauses':>18}")
for name, controls in (("no ducking", None), ("start", start), ("trained", found)):
    y, gain = (music, torch.zeros_like(music)) if controls is None else duck(controls)
    above = (voice_lufs - F.momentary_loudness(y, sample_rate))[sings]
    share = 100 * (above > 6).float().mean()
    print(f"{name:<22}{above.median():23.1f} LU{share:11.0f} %{gain[pause].mean():15.1f} dB")
print("found:", ", ".join(f"{name} {found[name]:.4g}" for name in start))
assert above.median() > 8

# %%
fig, (upper, lower) = plt.subplots(2, figsize=(5, 6), layout="constrained", sharex=True)
window_s = 0.2 + 0.1 * torch.arange(len(voice_lufs))
for name, x, style in (("voice", voice, "C0"), ("music", music, "0.7"), ("music, ducked", ducked, "C1")):
    upper.plot(window_s, F.momentary_loudness(x, sample_rate), style, label=name)
upper.set(ylim=(-45, -8), ylabel="loudness (LUFS)", title="Momentary loudness of voice and music")
upper.legend(loc="upper center", ncols=3)
lower.plot(torch.arange(voice.shape[-1]) / sample_rate, gain_db[0])
lower.set(xlabel="time (s)", ylabel="gain (dB)", title="Gain of the music, from the voice as side-chain")
plt.show()

# %%
sounds = {"Voice and music": voice + music, "Voice and ducked music": voice + ducked}

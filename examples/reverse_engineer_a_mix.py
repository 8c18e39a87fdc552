"""
Reverse-engineer a mix
======================

Faders, pans and equalisers of a mixing console are found from the tracks and the mix that was made of them.
"""

import matplotlib.pyplot as plt
import torch

import dasp.mixing
import dasp.modules
from dasp.mixing import DifferentiableMixingConsole

# %%
# Each strip of the console has a three-band equaliser, a fader and a panner; there are no buses, and the master is a
# fader that stays at 0 dB.

sample_rate = 44100
song = dasp.mixing.multitrack(seed=2, seconds=6.0, num_tracks=5)
strip = dasp.modules.Chain(
    dasp.modules.ParametricEQ(
        sample_rate, kinds=("low_shelf", "peaking", "high_shelf"), frequency_hz=[150.0, 1000.0, 5000.0]
    ),
    dasp.modules.Gain(sample_rate),
    dasp.modules.StereoPanner(sample_rate),
)
console = DifferentiableMixingConsole(
    sample_rate, strip, buses={}, master=dasp.modules.Chain(dasp.modules.Gain(sample_rate)), locked=["master.*"]
)

# %%
# Hidden settings.  The gains of an equaliser average 0 dB, for what it does to all frequencies alike is the fader's.

generator = torch.Generator().manual_seed(4)
hidden = console.denormalize(console.default_controls(5))
gains_db = 12 * torch.rand(5, 3, generator=generator) - 6
hidden["track"]["parametric_eq"]["gain_db"] = gains_db - gains_db.mean(-1, keepdim=True)
hidden["track"]["gain"]["gain_db"] = -10 * torch.rand(5, generator=generator)
hidden["track"]["stereo_panner"]["pan"] = 1.6 * torch.rand(5, generator=generator) - 0.8
mix = console.mix(song.tracks, hidden)

# %%
# The fit starts from faders and pans by least squares, descends on distances of spectra, and ends on the waveform.

result = dasp.mixing.fit(console, list(song.tracks), mix, steps=20)
found = console.denormalize(result.controls)
print(f"distance of spectra: best faders and pans {result.start_loss:.2f} dB, fit {result.end_loss:.3f} dB\n")

print(f"{'true and found':<16}{'fader (dB)':<16}{'pan':<16}low, mid and high gain of the equaliser (dB)")
for i, name in enumerate(song.names):
    line = f"{name:<12}"
    for stage, control in (("gain", "gain_db"), ("stereo_panner", "pan"), ("parametric_eq", "gain_db")):
        true, guess = (values["track"][stage][control][i].reshape(-1).tolist() for values in (hidden, found))
        line += "".join(f"{value:6.2f} " for value in true) + "|" + "".join(f"{value:6.2f} " for value in guess) + "  "
    print(line)

# %%
# The hi-hat is the exception: it has nothing below 1 kHz, so its low shelf is heard by nobody, and its fader and the
# other gains make up for what they have in common.  The mix is the same, and so is the response where the track has
# sound.


def response_db(eq: dict[str, torch.Tensor], track: int) -> torch.Tensor:
    controls = {name: value[track] for name, value in eq.items()}
    impulse = strip.stages()["parametric_eq"].process(torch.eye(1, 8192), **controls)
    return 20 * torch.fft.rfft(impulse[0]).abs().log10()


error = console.mix(song.tracks, found) - mix
print(f"error of the mix: {10 * (error.square().sum() / mix.square().sum()).log10():.0f} dB")
assert error.square().sum() < 1e-5 * mix.square().sum()

# %%
fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
frequency_hz = torch.fft.rfftfreq(8192, 1 / sample_rate)
for i, name in enumerate(song.names):
    for values, style, width, label in ((hidden, "-", 1.5, name), (found, ":", 4, None)):
        total_db = response_db(values["track"]["parametric_eq"], i) + values["track"]["gain"]["gain_db"][i]
        ax.semilogx(frequency_hz, total_db, f"C{i}{style}", linewidth=width, label=label)
ax.set(xlim=(30, 18000), xlabel="frequency (Hz)", ylabel="gain (dB)", title="Equaliser and fader: hidden, found (dots)")
ax.legend()
plt.show()

# %%
sounds = {"Sum of the tracks": 0.5 * song.tracks.sum(0), "Hidden mix": mix, "Mix with what was found": mix + error}

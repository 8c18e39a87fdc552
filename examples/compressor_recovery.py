"""
Recover the settings of a compressor
====================================

Threshold, ratio, attack and release are found from what went into a compressor and what came out.
"""

import matplotlib.pyplot as plt
import torch

import dasp.functional as F
import dasp.mixing
import dasp.modules

# %%
# Some tracks of a synthetic song are the input.  The hidden compressor lowers them by 8 dB on average.

sample_rate = 44100
song = dasp.mixing.multitrack(seed=5, seconds=6.0, names=["snare", "bass", "keys", "voice"])
x = song.tracks.sum(0)
x = (0.5 * x / x.abs().amax()).double()
hidden = {"threshold_db": -27.0, "ratio": 3.5, "attack_ms": 4.0, "release_ms": 180.0}
hidden |= {"knee_db": 3.0, "makeup_gain_db": 5.0}
y = F.compressor(x, sample_rate, **hidden)

# %%
# All six controls are learned.  Threshold, ratio and makeup gain trade against each other, which makes a long, narrow
# valley, along which plain gradient descent crawls.  L-BFGS learns the curvature from the gradients.  The loss is the
# level of the error relative to the output.  With another knee the rest can still come within -79 dB: to tell them
# apart takes float64, and patience.


def fit(x: torch.Tensor, y: torch.Tensor) -> tuple[dict[str, float], list[float]]:
    model = dasp.modules.Compressor(sample_rate).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=150, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )
    errors_db = []

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        error_db = 10 * ((model(x) - y).square().sum() / y.square().sum()).log10()
        error_db.backward()
        errors_db.append(error_db.item())
        return error_db

    optimizer.step(step)
    return {name: value.item() for name, value in model.controls().items()}, errors_db


# %%
# Recordings are never this clean, so the same is done with white noise added to the output, 20 dB below it.

noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)) * y.square().mean().sqrt()
found, errors_db = fit(x, y)
from_noise, noisy_errors_db = fit(x, y + 0.1 * noise)

start = {name: value.item() for name, value in dasp.modules.Compressor(sample_rate).controls().items()}
print(f"{'':<16}{'start':>9}{'hidden':>9}{'found':>9}{'from noise':>12}")
for name in hidden:
    print(f"{name:<16}{start[name]:9.2f}{hidden[name]:9.2f}{found[name]:9.2f}{from_noise[name]:12.2f}")

# %%
# From the clean output all six are found.  From the noisy one the knee is not: it changes the output least, less than
# the noise does.  The others are right even then, since there are many more samples than controls.

assert all(abs(found[name] / hidden[name] - 1) < 0.02 for name in hidden)
for name in ("ratio", "attack_ms", "release_ms"):
    assert abs(from_noise[name] / hidden[name] - 1) < 0.02

fig, (upper, lower) = plt.subplots(2, figsize=(5, 6), layout="constrained")
upper.plot(errors_db, label="clean output")
upper.plot(noisy_errors_db, label="with noise 20 dB below it")
upper.set(xlabel="evaluation", ylabel="error (dB)", title="Error of the fit, relative to the output")
time_s = torch.arange(x.shape[-1]) / sample_rate
for values, name, style in ((start, "start", "0.7"), (hidden, "hidden", "k"), (found, "found", "C1--")):
    controls = {control: value for control, value in values.items() if control != "makeup_gain_db"}
    lower.plot(time_s, F.compressor_gain(x, sample_rate, **controls)[0], style, label=name)
lower.set(xlim=(0.5, 2.5), xlabel="time (s)", ylabel="gain (dB)", title="Gain of the compressor, hidden and found")
upper.legend(), lower.legend()
plt.show()

# %%
sounds = {
    "Input": x,
    "Output of the hidden compressor": y,
    "Output of the one found": F.compressor(x, sample_rate, **found),
}

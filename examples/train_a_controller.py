"""
Train a network to mix
======================

A small network learns to set the faders and pans of a console from the tracks alone, in a plain torch loop, and is
judged on songs that it has not heard.
"""

import matplotlib.pyplot as plt
import torch
from torch.utils.data import DataLoader

import dasp.modules
from dasp.mixing import ControllerLoss, DeepSetController, DifferentiableMixingConsole, Recipe, RecipeItems
from dasp.mixing.recipe import DataPart, LossPart, TrainingPart

# %%
# The recipe says what to learn from: synthetic songs of three or four tracks, and the mix that is plausible for their
# instruments as the target.  Songs to validate on have other seeds.  The loss is a weighted sum of a distance of
# controls and of a distance of spectra of the mixes in dB, whose gradient comes through the console.

sample_rate = 16000
recipe = Recipe(
    TrainingPart(steps=128, validate_every=128),
    data=DataPart(seeds=48, validation_seeds=8, fewest=3, most=4, seconds=2.0, cached=True),
    loss=LossPart(controls=3.0, stft=0.03, features=0.0, resolutions=(512,)),
    sample_rate=sample_rate,
)
strip = dasp.modules.Chain(dasp.modules.Gain(sample_rate), dasp.modules.StereoPanner(sample_rate))
master = dasp.modules.Chain(dasp.modules.Gain(sample_rate))
console = DifferentiableMixingConsole(sample_rate, strip, buses={}, master=master)
controller = DeepSetController(console, features=32, hidden=64, encoder_options={"channels": 32}, reference=False)
loss_of = ControllerLoss(recipe, console)

# %%
# What is validated on is the distance of spectra.

batches = list(DataLoader(RecipeItems(recipe, console, num_items=64), batch_size=4))
held_out = next(iter(DataLoader(RecipeItems(recipe, console, num_items=16, validation=True), batch_size=16)))


@torch.no_grad()
def validate(controls: dict[str, torch.Tensor]) -> float:
    return loss_of(controls, held_out)["stft"].item()


optimizer = torch.optim.AdamW(controller.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=8 * len(batches))
training, validation = [], []
for _ in range(8):
    with torch.no_grad():
        validation.append((len(training), validate(controller(held_out["tracks"], held_out["mask"]))))
    for batch in batches:
        terms = loss_of(controller(batch["tracks"], batch["mask"]), batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        schedule.step()
        training.append(terms["stft"].item())

# %%
# A network that has learned no more than the mean setting is no mixer, so the mean of what it was trained on, the same
# for every track, stands beside it.

controls = controller.eval()(held_out["tracks"], held_out["mask"])
mean = torch.cat([batch["controls"]["track"][batch["mask"]] for batch in batches]).mean(0).expand(16, 4, -1)
neutral = console.default_controls(4, (16,))
distances = {
    "all controls neutral": validate(neutral),
    "the mean setting for all tracks": validate({**neutral, "track": mean}),
    "the network, untrained": validation[0][1],
    "the network, trained": validate(controls),
}
print("distance to the target on held-out songs, dB")
for name, distance_db in distances.items():
    print(f"{name:<34}{distance_db:6.1f}")
assert distances["the network, trained"] < distances["the mean setting for all tracks"]

# %%
# Some seconds of training teach which instruments are loud in a mix, and no more than that.  The controller that comes
# with dasp also sets equalisers, compressors and sends; it has learned for half an hour (see :doc:`/train`).

true_db, found_db = (
    console.denormalize(which)["track"]["gain"]["gain_db"][held_out["mask"]].detach()
    for which in (held_out["controls"], controls)
)
fig, (upper, lower) = plt.subplots(2, figsize=(5, 7), layout="constrained")
upper.plot(training, "0.7", label="training, each batch")
upper.plot(
    *zip(*validation, (len(training), distances["the network, trained"]), strict=True), "o-", label="held-out songs"
)
upper.set(xlabel="step", ylabel="spectral distance (dB)", ylim=(0, 20), title="Distance of the mixes to their targets")
upper.legend()
lower.plot(true_db, found_db, "o")
lower.axline((-10, -10), slope=1, color="k", linewidth=0.8)
lower.set(xlabel="fader of the target (dB)", ylabel="fader of the network (dB)", title="Faders of held-out songs")
plt.show()

# %%
# The first of the held-out songs.

before, after = (console(held_out["tracks"], c, held_out["mask"])[0].detach() for c in (neutral, controls))
sounds = {"Sum of the tracks": before / before.abs().amax(), "Network": after, "Target": held_out["target"][0]}

"""The picture of the page about controllers: what the one that comes with dasp decides for a song."""

from __future__ import annotations

import numpy as np
import torch
from figures.media import RATE, code_of, names_after, panel, picture
from matplotlib.axes import Axes

import dasp.mixing


@picture(
    "Faders in dB over pans, a point for each of the eight tracks: all stand near the centre, the hihat furthest to "
    "the right; kick, snare and voice are loudest, the pad is softest.",
    "Bars of five terms of the feature loss against a reference mix, on a logarithmic scale, for the sum of the "
    "tracks, the mix without the reference and the mix with it: those with the reference are the lowest.",
)
def decisions() -> list[Axes]:
    """The faders and pans of the mix above; and how far features are from those of another mix of the song, by usual
    settings with twice a person's variation, when the controller has not heard that mix and when it has
    (:class:`dasp.mixing.AudioFeatureLoss`, less is closer)."""
    names = names_after(code_of("train.rst", "controller"))
    controller, song = names["controller"], names["song"]
    console = controller.console
    faders = panel(xlabel="pan", ylabel="fader in dB", xlim=(-0.6, 0.6))
    values = console.denormalize(names["controls"])["track"]
    for name, pan, gain_db in zip(song.names, values["stereo_panner"]["pan"], values["gain"]["gain_db"], strict=True):
        faders.plot(pan, gain_db, "o", color="C0")
        faders.annotate(name, (float(pan), float(gain_db)), (4, 4), textcoords="offset points", fontsize=8)
    faders.margins(y=0.15)
    faders.set_xticks([-0.5, 0, 0.5], ["half left", "centre", "half right"])
    usual = dasp.mixing.plausible_controls(
        console, song.tracks, song.instruments, torch.Generator().manual_seed(0), variation=2.0
    )
    reference = console(song.tracks, usual)
    mixes = {
        "sum of the tracks": song.tracks.sum(0).expand(2, -1),
        "without reference": names["mix"],
        "with reference": console(song.tracks, controller(song.tracks, reference=reference)),
    }
    features, loss = panel(ylabel="distance"), dasp.mixing.AudioFeatureLoss(RATE)
    for number, (name, mix) in enumerate(mixes.items()):
        terms = loss.terms(mix, reference)
        at = np.arange(len(terms)) + 0.27 * (number - 1)
        features.bar(at, [float(term) for term in terms.values()], 0.25, label=name)
    features.set_xticks(range(len(terms)), [term.replace("_", "\n") for term in terms])
    features.set_yscale("log")
    features.set_ylim(top=30 * features.get_ylim()[1])
    features.legend(loc="upper center")
    return [faders, features]

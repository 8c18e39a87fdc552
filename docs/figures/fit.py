"""The picture of the page about fitting: how the loss came down, and the curves that were found."""

from __future__ import annotations

import numpy as np
import torch
from figures.media import RATE, code_of, names_after, panel, picture
from matplotlib.axes import Axes
from torch import Tensor

import dasp.functional as F

_FREQUENCY = torch.from_numpy(np.geomspace(50, 16000, 200))


def _response_db(equalizer: dict[str, Tensor], track: int, kinds: tuple[str, ...]) -> Tensor:
    """Response of the equaliser of a track without its mean, which the fader shares."""
    settings = [equalizer[name][track].double() for name in ("frequency_hz", "gain_db", "q")]
    sos = torch.stack([F.biquad(kind, RATE, *band) for kind, *band in zip(kinds, *settings, strict=True)])
    level = 20 * F.sosfreqz(sos, _FREQUENCY, RATE).abs().log10()
    return level - level.mean()


@picture(
    "Loss over the steps on a logarithmic scale: about 1 dB at first, falling to 0.15 dB; the refinement after the "
    "last step brings it to 0.01 dB.",
    "Responses of the equalisers of the three tracks, hidden ones as broad lines and found ones as thin dashed lines "
    "that lie on them for the most part.",
)
def found() -> list[Axes]:
    """The loss of each step, on an excerpt, and of the whole after the refinement; and the equalisers, without the gain
    that all frequencies share."""
    names = names_after(code_of("fit.rst", "found"))
    result, console = names["result"], names["console"]
    loss = panel(xlabel="step", ylabel="loss in dB", yscale="log")
    loss.plot(range(1, len(result.losses) + 1), result.losses, label="descent")
    loss.plot(len(result.losses) + 1, result.end_loss, "o", label="after refinement")
    loss.legend()
    curves = panel(ylabel="gain in dB", xscale="log", xlabel="frequency in Hz")
    kinds = console.sections()["track"].stages()["parametric_eq"].options["kinds"]
    equalizers = [console.denormalize(u)["track"]["parametric_eq"] for u in (names["hidden"], result.controls)]
    for track, name in enumerate(names["song"].names):
        hidden, fitted = (_response_db(equalizer, track, kinds) for equalizer in equalizers)
        curves.plot(_FREQUENCY, hidden, color=f"C{track}", linewidth=4, alpha=0.35, label=f"{name}, hidden")
        curves.plot(_FREQUENCY, fitted, "--", color=f"C{track}", label=f"{name}, found")
    curves.set_xticks([100, 1000, 10000], ["100", "1k", "10k"])
    curves.set_ylim(curves.get_ylim()[0], curves.get_ylim()[1] + 5)
    curves.legend(ncols=2, loc="upper center", fontsize=7)
    return [loss, curves]

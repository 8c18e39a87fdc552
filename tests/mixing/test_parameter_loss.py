"""The distance of controls: a weighted mean over what is present and free."""

from __future__ import annotations

import math

import pytest
import torch

import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole, ParameterLoss

CONSOLE = DifferentiableMixingConsole(44100)


def drawn(seed, tracks=4, batch=(3,)):
    return CONSOLE.random_controls(tracks, torch.Generator().manual_seed(seed), batch)


def by_hand(x, y, weights, mask=None):
    """Item by item, section by section, control by control."""
    losses = []
    for item in range(3):
        total = count = 0.0
        for section in CONSOLE.sections():
            locked = [name.removeprefix(f"{section}.") for name in CONSOLE.locked if name.startswith(f"{section}.")]
            rows = range(4) if section == "track" else [None]
            for row in rows:
                if row is not None and mask is not None and not mask[item, row]:
                    continue
                have, want = (c[section][item] if row is None else c[section][item, row] for c in (x, y))
                for index, name in enumerate(CONSOLE.control_names(section)):
                    if name.split("[")[0] not in locked:
                        weight = weights(section, name)
                        total += weight * abs(have[index].item() - want[index].item())
                        count += weight
        losses.append(total / count)
    return torch.tensor(losses)


def test_is_the_weighted_mean_over_free_controls_of_present_tracks():
    x, y = drawn(1), drawn(2)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    weights = {"track.compressor": 0.5, "track.compressor.ratio": 3.0, "reverb": 0.0}

    def weight(section, name):
        if section == "reverb":
            return 0.0
        if section == "track" and name.startswith("compressor"):
            return 3.0 if name == "compressor.ratio" else 0.5
        return 1.0

    plain = ParameterLoss(CONSOLE, reduction="none")
    torch.testing.assert_close(plain(x, y), by_hand(x, y, lambda *_: 1.0))
    loss = ParameterLoss(CONSOLE, weights, reduction="none")
    torch.testing.assert_close(loss(x, y, mask), by_hand(x, y, weight, mask))
    torch.testing.assert_close(ParameterLoss(CONSOLE, weights)(x, y, mask), loss(x, y, mask).mean())


def test_opposite_ends_are_1_and_equal_controls_0():
    y = CONSOLE.default_controls(2)
    low, high = ({name: torch.full_like(value, end) for name, value in y.items()} for end in (0.0, 1.0))
    for distance in ("absolute", "squared"):
        loss = ParameterLoss(CONSOLE, distance=distance)
        assert loss(low, high).item() == pytest.approx(1)
        assert loss(high, high) == 0
    half = {name: torch.full_like(value, 0.5) for name, value in y.items()}
    assert ParameterLoss(CONSOLE, distance="squared")(half, high).item() == pytest.approx(0.25)


def test_locked_controls_and_absent_tracks_have_no_part_and_no_gradient():
    x, y = drawn(1), drawn(2)
    mask = torch.tensor([True, True, False, True]).expand(3, 4)
    expected = ParameterLoss(CONSOLE)(x, y, mask)
    for section in x:
        x[section][..., ~CONSOLE.free(section)] = math.nan
        x[section].requires_grad_()
    with torch.no_grad():
        x["track"][:, 2] = math.nan
    value = ParameterLoss(CONSOLE)(x, y, mask)
    value.backward()
    torch.testing.assert_close(value, expected)
    assert not x["track"].grad[:, 2].any()
    for section in x:
        free = CONSOLE.free(section)
        assert not x[section].grad[..., ~free].any()
        present = x[section].grad[:, [0, 1, 3]] if section == "track" else x[section].grad
        assert present[..., free].all()
        assert present.isfinite().all()


def test_permuted_tracks_have_the_same_distance():
    x, y, order = drawn(1), drawn(2), [2, 0, 3, 1]
    moved = [{**c, "track": c["track"][:, order]} for c in (x, y)]
    torch.testing.assert_close(ParameterLoss(CONSOLE)(*moved), ParameterLoss(CONSOLE)(x, y))


def test_equal_sound_of_unequal_controls_is_a_distance():
    # A gain before and a gain after a linear filter: the audio knows only their sum.
    strip = M.Chain(M.Gain(44100), M.Gain(44100), M.StereoPanner(44100))
    console = DifferentiableMixingConsole(44100, strip, buses={}, master=M.Chain(M.Gain(44100)))
    controls = console.default_controls(1)
    x, y = ({**controls, "track": controls["track"].clone()} for _ in range(2))
    x["track"][..., 0] += 0.1
    y["track"][..., 1] += 0.1
    audio = torch.randn(1, 1, 1000)
    torch.testing.assert_close(console(audio, x), console(audio, y))
    assert ParameterLoss(console)(x, y) > 0.01


def test_moves_with_the_module():
    loss = ParameterLoss(CONSOLE).double()
    controls = {name: value.double() for name, value in drawn(1).items()}
    assert loss(controls, {name: value + 0.1 for name, value in controls.items()}).dtype == torch.float64
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ParameterLoss(CONSOLE, {"track.flanger": 1.0}), "weights has 'track.flanger', which no control"),
        (lambda x: ParameterLoss(CONSOLE, {"track": -1.0}), r"weights\['track'\] is -1.0, expected a number >= 0"),
        (lambda x: ParameterLoss(CONSOLE, dict.fromkeys(CONSOLE.sections(), 0.0)), "no control has a weight"),
        (lambda x: ParameterLoss(CONSOLE, distance="l3"), "distance is 'l3'"),
        (lambda x: ParameterLoss(CONSOLE, reduction="sum"), "reduction is 'sum'"),
        (lambda x: ParameterLoss(CONSOLE)({"track": x["track"]}, x), "controls has sections"),
        (lambda x: ParameterLoss(CONSOLE)(x, {"track": x["track"]}), "reference has sections"),
        (lambda x: ParameterLoss(CONSOLE)({**x, "master": x["master"][..., 1:]}, x), r"controls\['master'\] has shape"),
        (lambda x: ParameterLoss(CONSOLE)(x, {**x, "track": x["track"][:, 1:]}), r"reference\['track'\] has shape"),
        (lambda x: ParameterLoss(CONSOLE)(x, x, torch.ones(3, 5, dtype=torch.bool)), r"mask has shape \(3, 5\)"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(ValueError, match=text):
        call(drawn(1))

"""Consoles of published processors."""

from __future__ import annotations

import pytest
import torch

from dasp.mixing import DifferentiableMixingConsole

RATE = 44100
COUNTS = {
    "steinmetz2021": {"track": 26, "master": 0},
    "diff_mst": {"track": 27, "reverb": 25, "master": 26},
}


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_presets_have_the_published_numbers_of_controls(name, counts):
    console = DifferentiableMixingConsole.preset(name, RATE)
    assert {section: int(console.free(section).sum()) for section in console.sections()} == counts
    free = {
        section: [n for n, f in zip(console.control_names(section), console.free(section), strict=True) if f]
        for section in counts
    }
    stages = [name.split(".")[0] for name in free["track"]]
    per_stage = {stage: stages.count(stage) for stage in dict.fromkeys(stages)}
    assert (
        per_stage
        == {
            "steinmetz2021": {
                "gain": 1,
                "polarity": 1,
                "parametric_eq": 13,
                "compressor": 5,
                "noise_shaped_reverb": 4,
                "gain_2": 1,
                "stereo_panner": 1,
            },
            "diff_mst": {"gain": 1, "parametric_eq": 18, "compressor": 6, "stereo_panner": 1, "send": 1},
        }[name]
    )


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("name", COUNTS)
def test_presets_pass_the_sum_through_at_any_sample_rate(name, rate):
    console = DifferentiableMixingConsole.preset(name, rate)
    tracks = 0.1 * torch.randn(3, 1, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mix = console(tracks, console.default_controls(3, dtype=torch.float64))
    torch.testing.assert_close(mix, tracks.sum(0).expand(2, -1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", COUNTS)
def test_free_controls_are_completed_by_locked_ones(name):
    console = DifferentiableMixingConsole.preset(name, RATE)
    generator = torch.Generator().manual_seed(0)
    controls = console.random_controls(3, generator, (2,))
    free = {section: u[..., console.free(section)].requires_grad_() for section, u in controls.items()}
    complete = console.complete(free)
    for section, u in controls.items():
        assert torch.equal(complete[section], u)
    tracks = torch.randn(2, 3, 1, 1000, generator=generator)
    console(tracks, complete).square().mean().backward()
    assert all(u.grad is not None and u.grad.isfinite().all() for u in free.values() if u.numel())
    assert all(u.grad.abs().amax((0, 1)).all() for section, u in free.items() if section == "track")


def test_unknown_presets_and_numbers_of_controls_are_refused():
    with pytest.raises(ValueError, match="preset: 'diffmst' is unknown, did you mean diff_mst"):
        DifferentiableMixingConsole.preset("diffmst", RATE)
    console = DifferentiableMixingConsole.preset("steinmetz2021", RATE)
    with pytest.raises(ValueError, match=r"free\['track'\] has shape \(3, 29\), expected 26 values last"):
        console.complete({"track": torch.zeros(3, 29), "master": torch.zeros(0)})
    with pytest.raises(ValueError, match="free has sections"):
        console.complete({"track": torch.zeros(3, 26)})

"""Compressor and expander against the equations of Giannoulis, Massberg and Reiss (2012), run one number at a time."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dasp.functional as F
from tests.oracles import ROUNDING_64, array, decibels, noise, relative_error, tone

SAMPLE_RATE = 48000
# A time constant so long that nothing moves within a test.
NEVER_MS = 1e12


def static_reduction(level_db: float, threshold_db: float, ratio: float, knee_db: float) -> float:
    """x_G - y_G of their equation 4, in dB."""
    if 2 * (level_db - threshold_db) < -knee_db:
        output = level_db
    elif 2 * abs(level_db - threshold_db) <= knee_db and knee_db > 0:
        output = level_db + (1 / ratio - 1) * (level_db - threshold_db + knee_db / 2) ** 2 / (2 * knee_db)
    else:
        output = threshold_db + (level_db - threshold_db) / ratio
    return level_db - output


def static_expansion(level_db: float, threshold_db: float, ratio: float, knee_db: float, range_db: float) -> float:
    """The same mirrored at the threshold, with the slope R - 1 of an expander in place of 1 - 1 / R."""
    mirrored = static_reduction(2 * threshold_db - level_db, threshold_db, math.inf, knee_db)
    return min((ratio - 1) * mirrored, range_db)


def smoothed(reduction: np.ndarray, attack_ms: float, release_ms: float, sample_rate: float) -> np.ndarray:
    """Their equation 17 on the reduction in dB, from 0 dB: `attack_ms` while it grows."""
    poles = [math.exp(-1000 / (t * sample_rate)) if t > 0 else 0.0 for t in (attack_ms, release_ms)]
    y, last = np.empty_like(reduction), 0.0
    for n, value in enumerate(reduction):
        alpha = poles[0] if value > last else poles[1]
        last = alpha * last + (1 - alpha) * value
        y[n] = last
    return y


def linked(x: np.ndarray, link: str) -> np.ndarray:
    """Levels `(channels, samples)` in dB."""
    amplitude = np.abs(x)
    if link == "max":
        amplitude = np.broadcast_to(amplitude.max(0), x.shape)
    elif link == "mean":
        amplitude = np.broadcast_to(amplitude.mean(0), x.shape)
    return 20 * np.log10(np.maximum(amplitude, 1e-8))


def compressor_loop(
    x, sample_rate, threshold_db, ratio, attack_ms, release_ms, knee_db, makeup_gain_db=0.0, link="max"
):
    rows = [[static_reduction(level, threshold_db, ratio, knee_db) for level in row] for row in linked(x, link)]
    reduction = np.stack([smoothed(np.array(row), attack_ms, release_ms, sample_rate) for row in rows])
    return x * 10 ** ((makeup_gain_db - reduction) / 20)


def expander_loop(x, sample_rate, threshold_db, ratio, attack_ms, release_ms, knee_db, range_db, link="max"):
    rows = [[static_expansion(v, threshold_db, ratio, knee_db, range_db) for v in row] for row in linked(x, link)]
    # An expander attacks when its reduction falls.
    reduction = np.stack([smoothed(np.array(row), release_ms, attack_ms, sample_rate) for row in rows])
    return x * 10 ** (-reduction / 20)


def programme(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose level wanders between -70 and 0 dB, with a stretch of digital silence."""
    wander = np.repeat(np.random.default_rng(seed).uniform(-70, 0, samples // 100 + 1), 100)[:samples]
    x = 0.3 * noise(seed + 1, channels, samples) * 10 ** (wander / 20)
    x[:, samples // 2 : samples // 2 + 200] = 0
    return x


def controls(seed: int, ratios: tuple[float, float] = (1, 30)) -> dict[str, float]:
    """Settings over everything that dynamics are used for."""
    rng = np.random.default_rng(seed)
    return {
        "threshold_db": rng.uniform(-60, 0),
        "ratio": float(np.exp(rng.uniform(*np.log(ratios)))),
        "attack_ms": float(np.exp(rng.uniform(math.log(0.05), math.log(200)))),
        "release_ms": float(np.exp(rng.uniform(math.log(1), math.log(1000)))),
        "knee_db": rng.choice([0.0, rng.uniform(0, 24)]),
    }


def gain_db(y: torch.Tensor, x: np.ndarray) -> np.ndarray:
    return decibels(array(y) / x)


# The whole recursion


@pytest.mark.parametrize("link", ["max", "mean", "none"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_compressor_is_the_loop(channels, link):
    for seed in range(6):
        setting = {**controls(seed), "makeup_gain_db": 3.0 * seed, "link": link}
        x = programme(channels, 1000, seed)
        y = F.compressor(torch.from_numpy(x), SAMPLE_RATE, **setting)
        assert relative_error(y, compressor_loop(x, SAMPLE_RATE, **setting)) <= 1e-12


def settings_of_every_sample(samples: int, seed: int, ratios: tuple[float, float] = (1, 30)) -> dict[str, np.ndarray]:
    """Of which each has nothing to do with that of the sample before."""
    drawn = [controls(1000 * seed + n, ratios) for n in range(samples)]
    return {name: np.array([setting[name] for setting in drawn]) for name in drawn[0]}


def automated_loop(x, static, curves, attack_ms, release_ms, link):
    """The gain reduction in dB, with another setting for every sample."""
    reduction = np.empty_like(x)
    for row, levels in enumerate(linked(x, link)):
        last = 0.0
        for n, level in enumerate(levels):
            value = static(level, *(curve[n] for curve in curves))
            t = attack_ms[n] if value > last else release_ms[n]
            last = smoothed(np.array([value - last]), t, t, SAMPLE_RATE)[0] + last
            reduction[row, n] = last
    return reduction


@pytest.mark.parametrize("link", ["max", "mean", "none"])
def test_automation_is_the_loop(link):
    x, makeup = programme(2, 600), np.linspace(0, 20, 600)
    for seed in range(2):
        c = settings_of_every_sample(600, seed)
        curves = c["threshold_db"], c["ratio"], c["knee_db"]
        tensors = {name: torch.from_numpy(value)[None] for name, value in c.items()}
        y = F.compressor(
            torch.from_numpy(x), SAMPLE_RATE, **tensors, makeup_gain_db=torch.from_numpy(makeup)[None], link=link
        )
        reduction = automated_loop(x, static_reduction, curves, c["attack_ms"], c["release_ms"], link)
        assert relative_error(y, x * 10 ** ((makeup - reduction) / 20)) <= 1e-12
        range_db = np.linspace(0, 60, 600)
        y = F.expander(
            torch.from_numpy(x), SAMPLE_RATE, **tensors, range_db=torch.from_numpy(range_db)[None], link=link
        )
        # An expander attacks when its reduction falls.
        reduction = automated_loop(x, static_expansion, (*curves, range_db), c["release_ms"], c["attack_ms"], link)
        assert relative_error(y, x * 10 ** (-reduction / 20)) <= 1e-12


@pytest.mark.parametrize("link", ["max", "mean", "none"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_expander_is_the_loop(channels, link):
    for seed in range(6):
        setting = {**controls(seed, (1, 10)), "range_db": 10.0 * seed, "link": link}
        x = programme(channels, 1000, seed)
        y = F.expander(torch.from_numpy(x), SAMPLE_RATE, **setting)
        assert relative_error(y, expander_loop(x, SAMPLE_RATE, **setting)) <= 1e-12


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_float32_audio_is_processed_to_minus_140_db(name):
    # One rounding of the output is -144.5 dB of its peak.
    loop = {"compressor": compressor_loop, "expander": expander_loop}[name]
    worst = -math.inf
    for seed in range(16):
        setting = controls(seed, (1, 30) if name == "compressor" else (1, 10))
        setting |= {"range_db": 60.0} if name == "expander" else {}
        x = torch.from_numpy(programme(2, 2400, seed)).float()
        y = getattr(F, name)(x, SAMPLE_RATE, **setting)
        worst = max(worst, float(decibels(relative_error(y, loop(array(x), SAMPLE_RATE, **setting)))))
    assert worst <= -140


def test_settings_per_item_and_per_channel():
    x = np.stack([programme(2, 500, seed) for seed in range(3)])
    threshold_db = np.random.default_rng(0).uniform(-50, -10, (3, 2))
    ratio = np.random.default_rng(1).uniform(1, 10, 3)
    y = F.compressor(
        torch.from_numpy(x), SAMPLE_RATE, torch.from_numpy(threshold_db), torch.from_numpy(ratio), link="none"
    )
    for item in range(3):
        for channel in range(2):
            row = x[item, channel : channel + 1]
            want = compressor_loop(row, SAMPLE_RATE, threshold_db[item, channel], ratio[item], 10.0, 100.0, 6.0)
            assert relative_error(y[item, channel : channel + 1], want) <= 1e-12


# Statics


LEVELS_DB = np.linspace(-80, 0, 161)


@pytest.mark.parametrize(
    ("threshold_db", "ratio", "knee_db"), [(-24, 4, 0), (-24, 4, 12), (-40, 2, 6), (-10, math.inf, 3), (-60, 1.5, 24)]
)
def test_compressor_of_a_tone_staircase_follows_the_static_curve(threshold_db, ratio, knee_db):
    # Rising steps of a 1 kHz tone, 48 samples a period: peaks fall on samples.  With an instantaneous attack and a
    # release that never comes, the gain of each peak is static.
    x = np.concatenate([tone(1000, SAMPLE_RATE, 96, 10 ** (level / 20)) for level in LEVELS_DB])
    y = F.compressor(torch.from_numpy(x)[None], SAMPLE_RATE, threshold_db, ratio, 0.0, NEVER_MS, knee_db)[0]
    peaks = np.arange(len(LEVELS_DB)) * 96 + 60
    want = [level - static_reduction(level, threshold_db, ratio, knee_db) for level in LEVELS_DB]
    assert np.abs(decibels(array(y)[peaks]) - want).max() <= 1e-9


@pytest.mark.parametrize(
    ("threshold_db", "ratio", "knee_db", "range_db"),
    [(-40, 2, 0, 60), (-40, 2, 12, 60), (-30, 4, 6, 20), (-20, 10, 3, 80), (-50, 1.2, 24, 0)],
)
def test_expander_of_tones_follows_the_static_curve(threshold_db, ratio, knee_db, range_db):
    # It starts open, closes with a time constant of 2 ms within 100 ms, and opens at once at every peak.
    x = np.stack([tone(1000, SAMPLE_RATE, 4800, 10 ** (level / 20)) for level in LEVELS_DB])
    y = F.expander(torch.from_numpy(x)[:, None], SAMPLE_RATE, threshold_db, ratio, 0.0, 2.0, knee_db, range_db)[:, 0]
    want = [level - static_expansion(level, threshold_db, ratio, knee_db, range_db) for level in LEVELS_DB]
    assert np.abs(decibels(array(y)[:, -12]) - want).max() <= 1e-9


def settled_gain_db(name: str, level_db: torch.Tensor, *setting: float, **more: float) -> torch.Tensor:
    """Gain in dB for constants of some levels, differentiable, with every time constant 0."""
    x = torch.pow(10.0, level_db / 20)[:, None, None]
    y = getattr(F, name)(x, SAMPLE_RATE, *setting, attack_ms=0.0, release_ms=0.0, **more)
    return 20 * torch.log10(y / x)[:, 0, 0]


@pytest.mark.parametrize("name", ["compressor", "expander"])
@pytest.mark.parametrize("knee_db", [0.1, 6.0, 24.0])
def test_knee_is_continuous_with_a_continuous_slope(name, knee_db):
    threshold_db, ratio, step = -30.0, 5.0, 1e-7
    for edge in (threshold_db - knee_db / 2, threshold_db + knee_db / 2):
        level = torch.tensor([edge - step, edge + step], dtype=torch.float64, requires_grad=True)
        g = settled_gain_db(name, level, threshold_db, ratio, knee_db=knee_db)
        (slope,) = torch.autograd.grad(g.sum(), level)
        assert abs(g[1] - g[0]) <= 2.1 * step * ratio
        # The knee's curvature of at most (ratio - 1) / knee_db turns the slope by less than 1e-5 over the two steps.
        assert abs(slope[1] - slope[0]) <= 1e-4


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_slopes_outside_the_knee(name):
    level = torch.tensor([-40.0, -20.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(settled_gain_db(name, level, -30.0, 4.0, knee_db=6.0).sum(), level)
    want = [0, 1 / 4 - 1] if name == "compressor" else [4 - 1, 0]
    assert slope.tolist() == pytest.approx(want, abs=1e-12)


def test_expander_mirrors_the_compressor_at_the_threshold():
    above = torch.linspace(0, 30, 61, dtype=torch.float64)
    limited = settled_gain_db("compressor", -40 + above, -40.0, math.inf, knee_db=8.0)
    expanded = settled_gain_db("expander", -40 - above, -40.0, 2.0, knee_db=8.0, range_db=200.0)
    # Slope 1 / inf - 1 above the threshold, slope 2 - 1 below it.
    assert np.abs(array(limited - expanded)).max() <= 1e-10


def test_expander_attenuates_by_at_most_its_range():
    level = torch.linspace(-160, 0, 161, dtype=torch.float64)
    g = array(settled_gain_db("expander", level, -20.0, 10.0, knee_db=6.0, range_db=25.0))
    assert g.min() == pytest.approx(-25, abs=1e-11)
    x = torch.from_numpy(programme(2, 2000))
    assert torch.equal(F.expander(x, SAMPLE_RATE, -20.0, 10.0, range_db=0.0), x)


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_ratio_1_passes_audio_unchanged(name):
    x = torch.from_numpy(programme(2, 2000)).float()
    assert relative_error(getattr(F, name)(x, SAMPLE_RATE, ratio=1.0), array(x)) <= 1e-7


def test_infinite_ratio_limits():
    x = torch.from_numpy(programme(2, 2000))
    y = F.compressor(x, SAMPLE_RATE, -30.0, math.inf, 0.0, 50.0, 0.0)
    assert array(y).max() <= 10 ** (-30 / 20) * (1 + 1e-12)


SETTINGS = st.fixed_dictionaries(
    {
        "threshold_db": st.floats(-60, 0),
        "ratio": st.floats(1, 100),
        "attack_ms": st.floats(0, 200),
        "release_ms": st.floats(0, 2000),
        "knee_db": st.floats(0, 24),
    }
)


@given(setting=SETTINGS, name=st.sampled_from(["compressor", "expander"]), seed=st.integers(0, 9))
def test_gain_never_exceeds_0_db_before_makeup(setting, name, seed):
    x = torch.from_numpy(programme(2, 300, seed))
    y = getattr(F, name)(x, SAMPLE_RATE, **setting)
    assert bool((y.abs() <= x.abs() * (1 + 1e-7)).all())


@given(setting=SETTINGS, name=st.sampled_from(["compressor", "expander"]))
def test_louder_in_is_never_quieter_out(setting, name):
    level = torch.linspace(-100, 12, 449, dtype=torch.float64)
    setting = {k: v for k, v in setting.items() if not k.endswith("_ms")}
    out = level + settled_gain_db(name, level, **setting)
    assert bool((out.diff() >= -1e-7).all())


# Ballistics


def step(before_db: float, samples_before: int, after_db: float, samples_after: int) -> torch.Tensor:
    """A constant that changes once."""
    levels = torch.tensor([[before_db] * samples_before + [after_db] * samples_after], dtype=torch.float64)
    return torch.pow(10.0, levels / 20)


def samples_to_63_percent(g: np.ndarray) -> int:
    """After how many samples the way from the first value to the last is done to 1 - 1 / e."""
    way = (g - g[0]) / (g[-1] - g[0])
    return int(np.argmax(way >= 1 - math.exp(-1)))


@pytest.mark.parametrize("time_ms", [0.1, 1.0, 10.0, 50.0])
@pytest.mark.parametrize(
    ("name", "control", "before_db", "after_db"),
    [
        ("compressor", "attack_ms", -80, 0),
        ("compressor", "release_ms", 0, -80),
        ("expander", "attack_ms", -80, 0),
        ("expander", "release_ms", 0, -80),
    ],
)
def test_times_are_to_63_percent(name, control, before_db, after_db, time_ms):
    # Twenty of the other time constants before the step, and ten of this one after it, by when 5e-5 of the way is left.
    before, after = 20 * SAMPLE_RATE // 1000, round(10 * time_ms / 1000 * SAMPLE_RATE)
    other = {"attack_ms": "release_ms", "release_ms": "attack_ms"}[control]
    x = step(before_db, before, after_db, after)
    setting = {"threshold_db": -40.0, "ratio": 4.0, control: time_ms, other: 1.0}
    g = gain_db(getattr(F, name)(x, SAMPLE_RATE, **setting), array(x))[0, before - 1 :]
    want = time_ms / 1000 * SAMPLE_RATE
    assert abs(samples_to_63_percent(g) - want) <= 1 + 0.001 * want


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_gain_starts_at_0_db(name):
    level_db = 0.0 if name == "compressor" else -80.0
    x = torch.full((1, 4), 10 ** (level_db / 20), dtype=torch.float64)
    times = {"attack_ms": 10.0, "release_ms": 10.0}
    g = gain_db(getattr(F, name)(x, SAMPLE_RATE, -40.0, 3.0, knee_db=0.0, **times), array(x))[0]
    settled = -(1 - 1 / 3) * 40 if name == "compressor" else -40.0
    alpha = math.exp(-1 / 480)
    assert g == pytest.approx([settled * (1 - alpha ** (n + 1)) for n in range(4)], rel=1e-12)


@pytest.mark.parametrize("name", ["compressor", "expander"])
@pytest.mark.parametrize("control", ["attack_ms", "release_ms"])
def test_attack_and_release_both_matter_and_have_exact_gradients(name, control):
    x, weight = torch.from_numpy(programme(2, 3000)), torch.from_numpy(noise(9, 2, 3000))
    setting = {"threshold_db": -30.0, "ratio": 3.0, "attack_ms": 3.0, "release_ms": 40.0}

    def loss(value: float | torch.Tensor) -> torch.Tensor:
        return (getattr(F, name)(x, SAMPLE_RATE, **{**setting, control: value}) * weight).sum()

    value = torch.tensor(setting[control], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(value), value)
    h = 1e-5 * setting[control]
    difference = (loss(setting[control] + h) - loss(setting[control] - h)) / (2 * h)
    assert abs(difference) > 1e-4
    # A central difference of relative step 1e-5 is off by 1e-10, and by rounding over the step, some 1e-8.
    assert slope.item() == pytest.approx(difference.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_a_time_of_0_is_instantaneous_with_gradient_0(name):
    x = torch.from_numpy(programme(1, 500))
    attack_ms, release_ms = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    y = getattr(F, name)(x, SAMPLE_RATE, attack_ms=attack_ms, release_ms=release_ms)
    level = torch.from_numpy(linked(array(x), "max")[0])
    defaults = (-24.0, 4.0) if name == "compressor" else (-40.0, 2.0)
    more = {"knee_db": 6.0} if name == "compressor" else {"knee_db": 6.0, "range_db": 40.0}
    want = array(x) * 10 ** (array(settled_gain_db(name, level, *defaults, **more))[None] / 20)
    assert relative_error(y, want) <= 1e-12
    slopes = torch.autograd.grad(y.sum(), (attack_ms, release_ms))
    assert [slope.item() for slope in slopes] == [0, 0]


# Symmetries


@given(setting=SETTINGS, change_db=st.floats(-20, 20))
def test_scaling_audio_and_threshold_together_scales_the_output(setting, change_db):
    x, factor = torch.from_numpy(0.3 * noise(0, 2, 300)), 10 ** (change_db / 20)
    x = x + torch.sign(x) * 1e-4  # Above the floor of the detector, which does not scale.
    y = F.compressor(x, SAMPLE_RATE, **setting)
    moved = {**setting, "threshold_db": setting["threshold_db"] - change_db}
    assert relative_error(factor * F.compressor(x / factor, SAMPLE_RATE, **moved), array(y)) <= 1e-12


@pytest.mark.parametrize("link", ["max", "mean"])
@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_linked_channels_share_one_gain(name, link):
    x = programme(3, 1000)
    x[:, 500:700] = 1e-4 * noise(5, 3, 200)
    g = gain_db(getattr(F, name)(torch.from_numpy(x), SAMPLE_RATE, link=link), x)
    assert np.abs(g - g[:1]).max() <= 1e-11


@pytest.mark.parametrize("link", ["max", "mean"])
def test_antiphase_stereo_is_heard_as_loud_as_in_phase(link):
    mono = programme(1, 1000)
    together = F.compressor(torch.from_numpy(np.concatenate([mono, mono])), SAMPLE_RATE, link=link)
    against = F.compressor(torch.from_numpy(np.concatenate([mono, -mono])), SAMPLE_RATE, link=link)
    assert torch.equal(against[0], together[0])
    assert torch.equal(against[1], -together[1])


def test_equal_channels_are_heard_as_one():
    mono = torch.from_numpy(programme(1, 1000))
    want = F.compressor(mono, SAMPLE_RATE)
    for link in ("max", "mean", "none"):
        y = F.compressor(mono.expand(2, -1), SAMPLE_RATE, link=link)
        assert relative_error(y, array(want.expand(2, -1))) <= 8 * ROUNDING_64


def test_link_decides_what_a_silent_channel_hears():
    x = torch.tensor([[1.0], [1e-3]], dtype=torch.float64).expand(2, 4800)
    setting = {"threshold_db": -20.0, "ratio": 2.0, "attack_ms": 1.0, "knee_db": 0.0}
    y = {
        link: decibels(array(F.compressor(x, SAMPLE_RATE, **setting, link=link))[:, -1])
        for link in ("max", "mean", "none")
    }
    half = decibels((1 + 1e-3) / 2)
    assert y["max"] == pytest.approx([-10, -70], abs=1e-9)
    assert y["mean"] == pytest.approx([-(20 + half) / 2, -60 - (20 + half) / 2], abs=1e-9)
    assert y["none"] == pytest.approx([-10, -60], abs=1e-9)


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_future_samples_change_nothing_and_nan_stays_behind(name):
    x = torch.from_numpy(programme(1, 300))
    broken = x.clone()
    broken[:, 200:] = math.nan
    y, after = getattr(F, name)(x, SAMPLE_RATE), getattr(F, name)(broken, SAMPLE_RATE)
    assert torch.equal(y[:, :200], after[:, :200])
    assert bool(after[:, 200:].isnan().all())


# Domain and errors


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_knee_0_has_finite_gradients(name):
    x = torch.from_numpy(programme(1, 500))
    values = {"threshold_db": -30.0, "ratio": 4.0, "attack_ms": 5.0, "release_ms": 50.0, "knee_db": 0.0}
    tensors = {key: torch.tensor(value, dtype=torch.float64, requires_grad=True) for key, value in values.items()}
    y = getattr(F, name)(x, SAMPLE_RATE, **tensors)
    slopes = torch.autograd.grad(y.square().sum(), list(tensors.values()))
    assert all(bool(slope.isfinite()) for slope in slopes)
    assert all(slope.item() != 0 for key, slope in zip(values, slopes, strict=True) if key != "knee_db")


@pytest.mark.parametrize("name", ["compressor", "expander"])
@pytest.mark.parametrize(
    ("control", "given", "acts_as"),
    [
        ("threshold_db", -1000.0, -200.0),
        ("threshold_db", 1000.0, 200.0),
        ("ratio", 0.5, 1.0),
        ("knee_db", -3.0, 0.0),
        ("attack_ms", -3.0, 0.0),
        ("release_ms", -3.0, 0.0),
    ],
)
def test_outside_its_domain_a_control_acts_as_clamped_with_gradient_0(name, control, given, acts_as):
    x = torch.from_numpy(programme(1, 500))
    value = torch.tensor(given, dtype=torch.float64, requires_grad=True)
    y = getattr(F, name)(x, SAMPLE_RATE, **{control: value})
    assert torch.equal(y, getattr(F, name)(x, SAMPLE_RATE, **{control: acts_as}))
    assert torch.autograd.grad(y.sum(), value)[0].item() == 0


def test_silence_stays_silent_with_finite_gradients():
    for name in ("compressor", "expander"):
        x = torch.zeros(1, 100, requires_grad=True)
        y = getattr(F, name)(x, SAMPLE_RATE)
        assert torch.equal(y, torch.zeros_like(y))
        assert bool(torch.autograd.grad(y.sum(), x)[0].isfinite().all())


def test_gradient_through_the_detector_is_that_of_the_loop():
    x = 0.3 * noise(0, 1, 40)
    inputs = torch.from_numpy(x).requires_grad_()
    setting = controls(4)
    (slope,) = torch.autograd.grad(F.compressor(inputs, SAMPLE_RATE, **setting).sum(), inputs)
    for n in range(0, 40, 7):
        h = np.zeros_like(x)
        h[0, n] = 1e-6
        ends = [compressor_loop(x + sign * h, SAMPLE_RATE, **setting).sum() for sign in (1, -1)]
        assert slope[0, n].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_errors_name_the_argument():
    x = torch.zeros(4, 2, 100)
    with pytest.raises(ValueError, match=r"compressor: link is 'sum', expected one of 'max', 'mean', 'none'"):
        F.compressor(x, SAMPLE_RATE, link="sum")
    with pytest.raises(ValueError, match=r"expander: ratio has shape .*one value per channel needs link='none'"):
        F.expander(x, SAMPLE_RATE, ratio=torch.full((4, 2), 2.0))
    with pytest.raises(ValueError, match=r"compressor: ratio has shape \(3,\), expected \(\) or \(4,\) or \(4, 2\)"):
        F.compressor(x, SAMPLE_RATE, ratio=torch.full((3,), 2.0))
    with pytest.raises(ValueError, match=r"compressor: threshold_db has shape \(4, 2, 100\): one value per channel"):
        F.compressor(x, SAMPLE_RATE, torch.zeros(4, 2, 100))


def test_makeup_gain_may_differ_between_linked_channels():
    x = torch.from_numpy(programme(2, 500))
    y = F.compressor(x, SAMPLE_RATE, makeup_gain_db=torch.tensor([0.0, 20.0], dtype=torch.float64))
    plain = F.compressor(x, SAMPLE_RATE)
    assert torch.equal(y[0], plain[0])
    assert relative_error(y[1], 10 * array(plain[1])) <= 16 * ROUNDING_64


# The gain alone


@pytest.mark.parametrize("link", ["max", "mean", "none"])
@pytest.mark.parametrize("channels", [1, 2])
def test_gains_are_those_of_the_loops_in_silence_too(channels, link):
    for seed in range(4):
        setting = {**controls(seed), "link": link}
        x = programme(channels, 1000, seed)
        rows = [
            [static_reduction(level, *(setting[n] for n in ("threshold_db", "ratio", "knee_db"))) for level in row]
            for row in linked(x, link)
        ]
        times = setting["attack_ms"], setting["release_ms"]
        expected = np.stack([-smoothed(np.array(row), *times, SAMPLE_RATE) for row in rows])
        gain = array(F.compressor_gain(torch.from_numpy(x), SAMPLE_RATE, **setting))
        np.testing.assert_allclose(gain, expected if link == "none" else expected[:1], atol=1e-10, rtol=0)
        wide = {**setting, "range_db": 30.0}
        y = F.expander(torch.from_numpy(x), SAMPLE_RATE, **wide)
        applied = gain_db(y, np.where(x == 0, np.nan, x))
        gain = np.broadcast_to(array(F.expander_gain(torch.from_numpy(x), SAMPLE_RATE, **wide)), x.shape)
        np.testing.assert_allclose(gain[x != 0], applied[x != 0], atol=1e-9, rtol=0)
        assert np.isfinite(gain).all()


def test_gains_of_items_have_their_controls_and_gradients():
    x = torch.from_numpy(np.stack([programme(2, 300, seed) for seed in range(3)]))
    threshold = torch.tensor([-40.0, -20.0, -60.0], dtype=torch.float64, requires_grad=True)
    gain = F.compressor_gain(x, SAMPLE_RATE, threshold_db=threshold)
    assert gain.shape == (3, 1, 300)
    for item in range(3):
        alone = F.compressor_gain(x[item], SAMPLE_RATE, threshold_db=threshold[item].item())
        torch.testing.assert_close(gain[item], alone, atol=1e-12, rtol=0)
    gain.sum().backward()
    assert (threshold.grad > 0).all()
    assert F.compressor_gain(x.float(), SAMPLE_RATE).dtype == torch.float32


@pytest.mark.parametrize("name", ["compressor", "expander"])
def test_functions_of_gains_have_the_arguments_of_their_processors(name):
    own, whole = (inspect.signature(getattr(F, each)).parameters for each in (f"{name}_gain", name))
    assert set(whole) - set(own) == {"state"} | ({"makeup_gain_db"} if name == "compressor" else set())
    assert all(parameter.default == whole[argument].default for argument, parameter in own.items())


def test_wrong_arguments_of_gains_are_refused():
    with pytest.raises(ValueError, match="link is 'sum'"):
        F.compressor_gain(torch.zeros(1, 4), SAMPLE_RATE, link="sum")
    with pytest.raises(ValueError, match="needs link='none'"):
        F.expander_gain(torch.zeros(2, 4), SAMPLE_RATE, threshold_db=torch.zeros(2))
    with pytest.raises(TypeError, match="expected a floating-point type"):
        F.expander_gain(torch.zeros(2, 4, dtype=torch.int64), SAMPLE_RATE)

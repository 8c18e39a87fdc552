"""Declarations: what is read from a signature, and the map between units and [0, 1]."""

from __future__ import annotations

import math
from typing import Annotated

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import dasp
from dasp import PROCESSORS, Param, Spec
from dasp._spec import Control, State, control_line

RATE = 44100
ALL = [pytest.param(p, id=f"{s.name}.{n}") for s in PROCESSORS.values() for n, p in s.controls.items()]


@pytest.mark.parametrize("param", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_map_is_exact_at_both_ends_and_has_a_gradient_there(param, dtype):
    low, high = param.bounds(RATE)
    u = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
    value = param.denormalize(u, RATE)
    assert value.tolist() == torch.tensor([low, high], dtype=dtype).tolist()
    (gradient,) = torch.autograd.grad(value.sum(), u)
    expected = [high - low] * 2 if param.scale == "linear" else [v * math.log(high / low) for v in (low, high)]
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=dtype), rtol=1e-6, atol=0)
    assert param.normalize(value, RATE).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("param", ALL)
def test_normalize_inverts_denormalize(param):
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    value = param.denormalize(u, RATE)
    assert (value.diff() > 0).all()
    torch.testing.assert_close(param.normalize(value, RATE), u, atol=1e-12, rtol=0)


def test_a_logarithmic_scale_has_equal_ratios():
    value = Param("Hz", 20, 20000, "log").denormalize(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), 96000)
    assert (value[1] / value[0]).item() == pytest.approx((value[2] / value[1]).item())
    assert value[1].item() == pytest.approx(math.sqrt(20 * 20000))


def test_a_frequency_range_ends_below_half_the_sample_rate():
    assert Param("Hz", 20, 20000, "log").bounds(8000) == (20, 0.49 * 8000)
    with pytest.raises(ValueError, match="sample_rate is 30, which leaves nothing"):
        Param("Hz", 20, 20000, "log").bounds(30)


@pytest.mark.parametrize(("low", "high", "scale"), [(1, 1, "linear"), (2, 1, "linear"), (0, 1, "log"), (-1, 1, "log")])
def test_an_impossible_range_is_refused(low, high, scale):
    with pytest.raises(ValueError, match="Param: low is"):
        Param("", low, high, scale)


@pytest.mark.parametrize("name", PROCESSORS)
def test_defaults_are_within_the_range_at_every_rate(name):
    spec = PROCESSORS[name]
    for rate in (8000, 44100, 192000):
        for control, size in spec.layout():
            low, high = spec.controls[control].bounds(rate)
            default = spec.default(control, rate)
            assert default.shape == (() if size is None else (size,))
            assert ((default >= low) & (default <= high)).all()


@given(bands=st.integers(1, 9), batch=st.lists(st.integers(1, 3), max_size=2), seed=st.integers(0, 99))
def test_flat_vectors_of_any_number_of_bands_are_inverse(bands, batch, seed):
    spec, options = PROCESSORS["parametric_eq"], {"kinds": ("peaking",) * bands}
    assert spec.num_controls(options) == 3 * bands == len(spec.names(options))
    u = torch.rand(*batch, 3 * bands, generator=torch.Generator().manual_seed(seed))
    values = spec.denormalize(u, RATE, options)
    assert values["q"].shape == (*batch, bands)
    torch.testing.assert_close(spec.normalize(values, RATE, options), u, atol=1e-6, rtol=0)


def test_random_draws_repeat_and_stay_in_range():
    spec = PROCESSORS["compressor"]
    first, second = (spec.random((100,), RATE, torch.Generator().manual_seed(1)) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name])
        low, high = spec.controls[name].bounds(RATE)
        assert ((value >= low) & (value <= high)).all()
    # Uniform on the scale: half the ratios lie below the geometric mean.
    assert 0.35 < (first["ratio"] < math.sqrt(20)).float().mean() < 0.65


def test_missing_controls_take_their_defaults():
    spec = PROCESSORS["compressor"]
    values = spec.denormalize(spec.normalize({"ratio": torch.tensor([2.0, 3.0])}, RATE), RATE)
    torch.testing.assert_close(values["ratio"], torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(values["threshold_db"], torch.full((2,), -24.0))


def test_the_decorator_returns_the_function_and_reads_its_signature():
    def tilt(
        x: Tensor,
        sample_rate: float,
        slope_db: Annotated[Control, Param("dB", -6, 6, meaning="Slope.")] = 0.0,
        order: int = 2,
    ) -> Tensor:
        """Tilts.

        Args:
            x: Audio.
            sample_rate: Sample rate in Hz.
            order: Order.
        """
        return x

    try:
        globals().update(Annotated=Annotated, Control=Control, Param=Param, Tensor=Tensor)
        assert dasp.processor(tilt) is tilt
        spec = PROCESSORS["tilt"]
        assert isinstance(spec, Spec)
        assert list(spec.controls) == ["slope_db"]
        assert spec.options == {"order": 2}
        assert "slope_db: Slope. Usually -6 to 6 dB; default 0." in tilt.__doc__
    finally:
        PROCESSORS.pop("tilt", None)


def test_a_state_is_neither_control_nor_option():
    def hold(
        x: Tensor, sample_rate: float, order: int = 2, *, state: State | None = None
    ) -> Tensor | tuple[Tensor, State]:
        return x if state is None else (x, {"last": x[..., -1]})

    try:
        assert dasp.processor(hold) is hold
        spec = PROCESSORS["hold"]
        assert spec.stateful
        assert spec.options == {"order": 2}
        assert not spec.controls
        assert not PROCESSORS["gain"].stateful
    finally:
        PROCESSORS.pop("hold", None)


def test_wrong_signatures_are_refused():
    def backwards(sample_rate: float, x: Tensor) -> Tensor:
        return x

    def required(x: Tensor, sample_rate: float, level: float) -> Tensor:
        return x

    def positional(x: Tensor, sample_rate: float, state: State | None = None) -> Tensor:
        return x

    def required_state(x: Tensor, sample_rate: float, *, state: State) -> Tensor:
        return x

    with pytest.raises(TypeError, match="first arguments are x and sample_rate"):
        dasp.processor(backwards)
    for function in (positional, required_state):
        with pytest.raises(TypeError, match="state must be keyword-only with the default None"):
            dasp.processor(function)
    with pytest.raises(TypeError, match="level has no default"):
        dasp.processor(required)


def test_a_control_line_tells_unit_range_scale_and_default():
    line = control_line("q", Param("", 0.1, 10, "log", "Quality.", size="kinds"), (0.7, 0.7))
    assert line == "q: Quality. Usually 0.1 to 10, logarithmic; default 0.7; one value per band."

"""The contract that every processor inherits: a new one is tested by its declaration, with no further code."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import dasp
import dasp.modules
from dasp.kernels import cuda
from tests.cases import (
    EACH_VARIANT,
    LAYOUTS,
    SAMPLE_RATE,
    Case,
    assert_close,
    each_processor,
    each_variant,
    gradients,
    leaves,
)
from tests.strategies import audio, broadcasting_control, normalized_controls, seeds

# ---- shapes and types


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_variant
def test_shape_dtype_and_device_are_kept(case: Case, dtype: torch.dtype) -> None:
    for batch in ((), (2,), (2, 1, 3)):
        for channels in case.spec.channels or (1, 2, 3):
            x = case.audio(batch, 37, dtype, channels)
            y = case(x, case.controls(x))
            lead = x.shape[:-3] if case.spec.tracks else x.shape[:-2]
            assert y.shape == (*lead, case.spec.channels_out or channels, 37)
            assert (y.dtype, y.device) == (dtype, x.device)
            assert y.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_variant
def test_half_types_are_computed_in_float32_and_returned(case: Case, dtype: torch.dtype) -> None:
    (x,) = leaves(case.audio((2,), 100).to(dtype))
    (exact,) = leaves(x.float())
    controls, signals = case.controls(x), case.signals(x)
    y, want = case(x, controls, signals), case(exact, controls, [signal.float() for signal in signals])
    assert y.dtype == dtype
    assert torch.equal(y, want.to(dtype))
    assert torch.equal(gradients(y, [x])[0], gradients(want.to(dtype), [exact])[0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@each_processor
def test_the_type_of_controls_does_not_decide_that_of_the_output(case: Case, dtype: torch.dtype) -> None:
    x = case.audio(dtype=torch.float32)
    controls = leaves(*(value.to(dtype) for value in case.controls(x).values()))
    y = case(x, dict(zip(case.spec.controls, controls, strict=True)))
    assert y.dtype == torch.float32
    assert all(grad.dtype == dtype for grad in gradients(y, controls))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_processor
def test_audio_controls_and_gradients_all_in_half_types(case: Case, dtype: torch.dtype) -> None:
    x = case.audio((2,), 100).to(dtype)
    inputs = leaves(x, *case.signals(x), *(value.to(dtype) for value in case.controls(x).values()))
    count = 1 + len(case.spec.signals)

    def run(inputs: list[Tensor]) -> list[Tensor]:
        controls = _named(case, inputs[count:])
        y, state = with_state(case, inputs[0], controls, inputs[1:count])
        y, _ = with_state(case, inputs[0], controls, inputs[1:count], state)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(dtype).to(y.dtype)
        return [y, *torch.autograd.grad(y, inputs, weights)]

    got, want = run(inputs), run(leaves(*(value.float() for value in inputs)))
    # Each call's gradients are rounded, and so is their sum, half types being exact to 1/2 eps of a number that is not
    # subnormal; all between is computed as for float32.
    for value, exact in zip(got, want, strict=True):
        assert value.dtype == dtype
        assert_close(value.float(), exact, 2 * torch.finfo(dtype).eps, torch.finfo(dtype).tiny)


@pytest.mark.parametrize("autocast", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_processor
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype, autocast: torch.dtype) -> None:
    x = case.audio().to(dtype)
    results = []
    for enabled in (False, True):
        inputs = leaves(x, *case.controls(x).values())
        # The backward pass too, where users write it inside.
        with torch.autocast("cpu", dtype=autocast, enabled=enabled):
            y, state = with_state(case, inputs[0], _named(case, inputs[1:]), case.signals(x))
            results.append([y, *state.values(), *gradients(y, inputs)])
    assert results[0][0].dtype == dtype
    for got, want in zip(*results, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def _named(case: Case, controls: Sequence[Tensor]) -> dict[str, Tensor]:
    return dict(zip(case.spec.controls, controls, strict=True))


def with_state(
    case: Case,
    x: Tensor,
    controls: Mapping[str, Tensor],
    signals: Sequence[Tensor],
    state: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A block and the next state, which is `{}` of a processor without memory."""
    if not case.spec.stateful:
        return case(x, controls, signals), {}
    return case(x, controls, signals, state=dict(state or {}))


# ---- items, layouts, lengths


@given(data=st.data())
@each_variant
def test_items_of_a_batch_are_independent(case: Case, data: st.DataObject) -> None:
    x = data.draw(audio(case, st.tuples(st.integers(1, 5)), dtype=torch.float32))
    u = data.draw(normalized_controls(case, x.shape[:-2], torch.float32))
    signals = case.signals(x)
    y = case.flat(x, u, *signals)
    for item in range(x.shape[0]):
        case.assert_same(y[item], case.flat(x[item], u[item], *(signal[item] for signal in signals)), x)


@each_variant
def test_a_scalar_equals_a_filled_tensor(case: Case) -> None:
    for dtype in (torch.float32, torch.float64):
        x = case.audio((2, 3), dtype=dtype)
        single = {
            name: value[0, 0] if not case.spec.tracks else value[0, 0, 0] for name, value in _some(case, x).items()
        }
        want = case(x, single)
        for name, value in single.items():
            for shape in [(), x.shape[-3:-2], x.shape[:-2], (*x.shape[:-2], 1)]:
                case.assert_same(case(x, {**single, name: value.expand((*shape, *value.shape))}), want, x)
            number = value.tolist()
            case.assert_same(case(x, {**single, name: tuple(number) if value.ndim else number}), want, x)


def _some(case: Case, x: Tensor) -> dict[str, Tensor]:
    """One setting per item in float64, which a Python number is too."""
    return case.denormalize(case.normalized(x.double(), low=0.2, high=0.8))


@given(data=st.data())
@each_processor
def test_a_control_broadcasts_as_its_expanded_form(case: Case, data: st.DataObject) -> None:
    x = data.draw(audio(case, dtype=torch.float32))
    pairs = {name: data.draw(broadcasting_control(case, name, x)) for name in case.spec.controls}
    y, want = (case(x, {name: pair[form] for name, pair in pairs.items()}) for form in (0, 1))
    (case.assert_alike if case.spec.automation else case.assert_same)(y, want, x)


@pytest.mark.parametrize("layout", LAYOUTS)
@each_variant
def test_layout_in_memory_changes_nothing(case: Case, layout: str) -> None:
    x = case.audio((2, 2), 130, torch.float32)
    controls, signals = case.controls(x), case.signals(x)
    results = []
    for arranged in (lambda t: t.clone(), LAYOUTS[layout]):
        inputs = [arranged(t).requires_grad_() for t in (x, *signals)]
        y = case(inputs[0], controls, inputs[1:])
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
        results.append((y, *torch.autograd.grad(y, inputs, arranged(weights))))
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


@each_variant
def test_expanded_audio_equals_its_copy(case: Case) -> None:
    one = case.audio((1,), 130, torch.float32)
    (x,) = leaves(one)
    expanded = x.expand(4, *x.shape[1:])
    controls = case.controls(expanded)
    y, want = case(expanded, controls), case(expanded.contiguous(), controls)
    assert torch.equal(y, want)
    assert torch.equal(*(gradients(out, [x])[0] for out in (y, want)))


@each_variant
def test_inputs_stay_as_they_are_and_are_not_in_the_output(case: Case) -> None:
    x = case.audio(dtype=torch.float32)
    inputs = [x, *case.signals(x), *case.controls(x).values()]
    before, versions = [t.clone() for t in inputs], [t._version for t in inputs]
    signals = inputs[1 : 1 + len(case.spec.signals)]
    y = case(x, dict(zip(case.spec.controls, inputs[1 + len(signals) :], strict=True)), signals)
    assert [t._version for t in inputs] == versions
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))
    assert all(y.untyped_storage().data_ptr() != t.untyped_storage().data_ptr() for t in inputs)


@each_variant
def test_global_random_generators_are_left_alone(case: Case) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    x = case.audio((1,), 5000)
    case(x, case.controls(x))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@each_variant
def test_any_number_of_samples(case: Case) -> None:
    """A shorter signal gives the beginning of what a longer one gives."""
    whole = case.audio((2,), 300)
    u, signals = case.normalized(whole), case.signals(whole)
    want = case.flat(whole, u, *signals)
    for samples in (0, 1, 2, 3, 7, 61, 64, 65, 127, 257):
        inputs = leaves(whole[..., :samples], u, *(signal[..., : max(1, samples)] for signal in signals))
        y = case.flat(*inputs)
        case.assert_same(y, want[..., :samples], whole)
        for grad, value in zip(gradients(y, inputs), inputs, strict=True):
            assert grad.shape == value.shape
            assert bool(grad.isfinite().all())


@each_variant
def test_no_items(case: Case) -> None:
    for batch in ((0,), (2, 0), (0, 3)):
        x = case.audio(batch)
        inputs = leaves(x, case.normalized(x), *case.signals(x))
        y = case.flat(*inputs)
        assert y.shape[: len(batch)] == batch
        assert [grad.shape for grad in gradients(y, inputs)] == [value.shape for value in inputs]


@each_variant
def test_silence_gives_silence_and_finite_gradients(case: Case) -> None:
    x, u = leaves(torch.zeros_like(case.audio(samples=200)), case.normalized(case.audio()))
    y = case.flat(x, u, *case.signals(x))
    assert not y.any()
    assert all(bool(grad.isfinite().all()) for grad in gradients(y, [x, u]))


# ---- bad samples and bad settings stay where they are

BAD = (math.nan, math.inf, -math.inf)


@each_variant
def test_bad_samples_leave_other_items_alone(case: Case) -> None:
    places = list(itertools.product(BAD, (0, 65, 129)))
    # Every item with an odd index gets a bad sample.
    clean = case.audio((2 * len(places),), 130, torch.float32)
    bad = clean.clone()
    for item, (value, sample) in enumerate(places):
        bad[2 * item + 1, ..., -1, sample] = value
    results = []
    for audio_in in (clean, bad):
        inputs = leaves(audio_in, case.normalized(clean), *case.signals(clean))
        y = case.flat(*inputs)
        results.append([y, *gradients(y, inputs)])
    for got, want in zip(*results, strict=True):
        assert torch.equal(got[::2], want[::2])


@each_variant
def test_a_bad_setting_leaves_other_items_alone(case: Case) -> None:
    places = list(itertools.product(BAD, range(case.num_controls)))
    x = case.audio((2 * len(places),), 70)
    clean = case.normalized(x)
    bad = clean.clone()
    for item, (value, index) in enumerate(places):
        bad[2 * item + 1, ..., index] = value
    results = []
    for u in (clean, bad):
        inputs = leaves(x, u, *case.signals(x))
        y = case.flat(*inputs)
        results.append([y, *gradients(y, inputs)])
    for got, want in zip(*results, strict=True):
        if case.exact:
            assert torch.equal(got[::2], want[::2])
        else:
            assert_close(got[::2], want[::2], 1e-12, case.rounding(want))


@each_variant
def test_bad_samples_and_states_leave_the_states_of_other_items_alone(case: Case) -> None:
    if not case.spec.stateful:
        pytest.skip("has no memory")
    x = case.audio((8,), 130, torch.float32)
    controls, signals = case.controls(x), case.signals(x)
    _, clean = case(x, controls, signals, state={})
    # Items 1, 3 and 5 go on from a bad state, item 7 meets a bad sample.
    bad, bad_x = {name: value.clone() for name, value in clean.items()}, x.clone()
    for item, value in zip((1, 3, 5), BAD, strict=True):
        for entry in bad.values():
            entry[item].view(-1)[-1] = value
    bad_x[7, ..., 65] = math.nan
    results = []
    for audio_in, state in ((x, clean), (bad_x, bad)):
        inputs = leaves(audio_in, *controls.values(), *signals, *state.values())
        given = iter(inputs[1:])
        settings = {name: next(given) for name in controls}
        further = [next(given) for _ in signals]
        y, after = case(inputs[0], settings, further, state=dict(zip(state, given, strict=True)))
        results.append([y, *after.values(), *gradients(y, inputs)])
    for got, want in zip(*results, strict=True):
        assert torch.equal(got[::2], want[::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_variant
def test_later_samples_do_not_change_earlier_ones(case: Case, dtype: torch.dtype) -> None:
    x = case.audio((2,), 200, dtype)
    controls, signals = case.controls(x), case.signals(x)
    want = case(x, controls, signals)
    for start in (1, 63, 64, 65, 199):
        for value in (*BAD, 100.0) if case.exact else (100.0,):
            changed = x.clone()
            changed[..., start:] = value
            y = case(changed, controls, signals)[..., :start]
            if case.exact:
                assert torch.equal(y, want[..., :start])
            else:
                # Rounding of the FFT, relative to what goes through it.
                eps = torch.finfo(dtype).eps
                assert float((y - want[..., :start]).abs().max()) <= 16 * eps * 100 * float(want.abs().max())


# ---- ranges


@given(cuts=st.lists(st.integers(0, 200), max_size=4))
@each_variant
def test_blocks_equal_the_whole_with_gradients_across_them(case: Case, cuts: list[int]) -> None:
    x = case.audio((2,), 200)
    controls, signals = case.controls(x), case.signals(x)
    ends = [0, *sorted(cuts), 200]

    def in_blocks(x: Tensor, *settings: Tensor) -> Tensor:
        state, blocks = {}, []
        given = dict(zip(controls, settings, strict=True))
        for begin, end in itertools.pairwise(ends):
            y = case(x[..., begin:end], given, signals, **({"state": state} if case.spec.stateful else {}))
            if case.spec.stateful:
                y, state = y
            blocks.append(y)
        return torch.cat(blocks, -1)

    results = []
    for process in (lambda x, *settings: case(x, dict(zip(controls, settings, strict=True)), signals), in_blocks):
        inputs = leaves(x, *controls.values())
        y = process(*inputs)
        results.append((y.detach(), *gradients(y, inputs)))
    # An FFT rounds relative to the largest of what it transforms, which for the gradients of a reverberation's controls
    # is an impulse response much longer than the audio.
    scales = [0.0, 0.0, *(0.0 if case.exact else 1.0 for _ in controls)]
    for got, want, scale in zip(*results, scales, strict=True):
        assert_close(got, want, 1e-12, scale)


@each_processor
def test_a_state_of_something_else_is_refused(case: Case) -> None:
    if not case.spec.stateful:
        pytest.skip("has no memory")
    x = case.audio()
    with pytest.raises(ValueError, match=f"{case.spec.name}: state has 'other', expected"):
        case(x, {}, state={"other": x})
    _, state = case(x, {}, state={})
    (entry,) = state
    with pytest.raises(ValueError, match=f"{case.spec.name}: state '{entry}' has shape"):
        case(x, {}, state={entry: state[entry].unsqueeze(0)})
    with pytest.raises(TypeError, match=f"{case.spec.name}: state is"):
        case(x, {}, state=x)


@given(data=st.data())
@each_variant
def test_every_setting_gives_finite_output_and_gradients(case: Case, data: st.DataObject) -> None:
    (x,) = leaves(data.draw(audio(case, st.just((1,)), st.just(100), torch.float32)))
    (u,) = leaves(data.draw(normalized_controls(case, x.shape[:-2], torch.float32)))
    signals = leaves(*case.signals(x))
    y = case.flat(x, u, *signals)
    assert bool(y.isfinite().all())
    for grad in gradients(y, [x, u, *signals]):
        assert bool(grad.isfinite().all())


@each_variant
def test_every_control_moves_the_output_and_has_a_gradient(case: Case) -> None:
    x = case.audio((8,), 8192)
    signals = case.signals(x)
    u = case.normalized(x, low=0.25, high=0.75)
    names = case.spec.names(case.options)
    if "kinds" in case.options:
        # Only bands with a gain listen to it.
        plain = {band for band, kind in enumerate(case.options["kinds"]) if kind != "peaking" and "shelf" not in kind}
        names = [name for name in names if not (name.startswith("gain_db") and int(name[8:-1]) in plain)]
    for name in names:
        index = case.spec.names(case.options).index(name)
        ends = []
        for end in (0.0, 1.0):
            moved = u.clone()
            moved[..., index] = end
            ends.append(case.flat(x, moved, *signals))
        change = (ends[0] - ends[1]).abs().amax((-1, -2))
        assert bool((change > 1e-6 * ends[0].abs().amax((-1, -2))).all()), f"{name} does not move the output"
        (point,) = leaves(u)
        slope = gradients(case.flat(x, point, *signals), [point])[0][..., index]
        assert bool((slope != 0).any()), f"{name} has no gradient"


@each_processor
def test_the_module_at_its_defaults_equals_the_function_at_its_defaults(case: Case) -> None:
    x = case.audio(samples=500)
    signals = dict(zip(case.spec.signals, case.signals(x), strict=True))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        module = module_class(case.spec)(SAMPLE_RATE, **signals)
    finally:
        torch.set_default_dtype(before)
    # Logarithmic scales go through a logarithm and back, rounding a frequency by 1e-16 of itself times log(20000).
    assert_close(module(x), case(x, {}), 1e-12)


def module_class(spec: dasp.Spec) -> type[dasp.modules.Processor]:
    return next(
        cls
        for name in dasp.modules.__all__
        if isinstance(cls := getattr(dasp.modules, name), type) and getattr(cls, "spec", None) is spec
    )


@given(data=st.data())
@each_processor
def test_normalize_inverts_denormalize(case: Case, data: st.DataObject) -> None:
    u = data.draw(normalized_controls(case, (2,)))
    back = case.spec.normalize(case.denormalize(u), SAMPLE_RATE, case.options)
    # log(value / low) / log(high / low): each rounding counts log(high) / log(high / low) times, at most 5.
    assert float((back - u).abs().max()) <= 32 * 2**-53


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_processor
def test_both_ends_are_exact_and_have_a_gradient(case: Case, dtype: torch.dtype) -> None:
    for name, param in case.spec.controls.items():
        low, high = param.bounds(SAMPLE_RATE)
        ends = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
        value = param.denormalize(ends, SAMPLE_RATE)
        assert torch.equal(value.detach(), torch.tensor([low, high], dtype=dtype)), name
        assert torch.equal(param.normalize(value, SAMPLE_RATE).detach(), ends.detach()), name
        slope = gradients(value, [ends], seed=5)[0]
        inside = torch.tensor([1e-3, 1 - 1e-3], dtype=dtype, requires_grad=True)
        beside = gradients(param.denormalize(inside, SAMPLE_RATE), [inside], seed=5)[0]
        assert torch.allclose(slope, beside, rtol=0.01), name


# What lies outside the usual ranges: a unit or a name, and the values to try.
EXTREMES: dict[str, tuple[float, ...]] = {
    "Hz": (0.0, 1e-6, 10.0, SAMPLE_RATE / 2 - 1, SAMPLE_RATE / 2, SAMPLE_RATE),
    "dB": (-60.0, 60.0),
    "ms": (0.0, 1e-9, 1e-3),
    "s": (0.0, 1e-9, 10.0),
    "q": (0.0, 1e-3, 1e3, 1e6),
    "ratio": (1.0, 1e6, math.inf),
    "threshold_db": (-math.inf, math.inf, -300.0, 300.0),
    "knee_db": (0.0, 1e-12, 100.0),
    "range_db": (0.0, 300.0, math.inf),
}


def extremes(case: Case) -> list[tuple[str, float]]:
    return [
        (name, value)
        for name, param in case.spec.controls.items()
        for value in (*EXTREMES.get(param.unit, ()), *EXTREMES.get(name, ()))
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_variant
def test_extremes_give_finite_output_and_gradients(case: Case, dtype: torch.dtype) -> None:
    """Each by itself, and all of them in pairs."""
    settings = [dict(pair) for pair in itertools.combinations(extremes(case), 2) if pair[0][0] != pair[1][0]]
    settings += [{name: value} for name, value in extremes(case)]
    if not settings:
        pytest.skip("its usual ranges are all that it has")
    x = case.audio((len(settings),), 200, dtype)
    controls = case.controls(x.double())
    for item, setting in enumerate(settings):
        for name, value in setting.items():
            controls[name][item] = value
    values = leaves(*controls.values())
    inputs = leaves(x, *case.signals(x))
    y = case(inputs[0], dict(zip(controls, values, strict=True)), inputs[1:])
    for result in (y, *gradients(y, [*inputs, *values])):
        finite = result.isfinite().reshape(len(settings), -1).all(1)
        assert [setting for setting, good in zip(settings, finite.tolist(), strict=True) if not good] == []


# ---- derivatives


def _points(case: Case, samples: int, seed: int) -> list[Tensor]:
    """Audio, normalised controls and further audio: normalised, all controls have gradients of the same order.

    Within the ranges, where no control is at a kink; noise is at one with probability zero.
    """
    x = case.audio((1,), samples, seed=seed)
    return leaves(x, case.normalized(x, seed + 1, 0.05, 0.95), *case.signals(x, seed + 2))


@pytest.mark.parametrize(("samples", "seed"), [(64, 0), (101, 10), (220, 20)])
@each_variant
def test_gradients_are_those_of_finite_differences(case: Case, samples: int, seed: int) -> None:
    # All entries of the Jacobian for short signals; random directions for longer ones and for other options.
    assert gradcheck(case.flat, _points(case, samples, seed), fast_mode=samples > 64 or bool(case.options))


@each_variant
def test_second_derivatives_are_those_of_finite_differences(case: Case) -> None:
    assert gradgradcheck(case.flat, _points(case, 64, 30), fast_mode=True, check_fwd_over_rev=True)


@each_variant
def test_forward_mode_and_batched_gradients(case: Case) -> None:
    assert gradcheck(
        case.flat,
        _points(case, 24, 40),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        fast_mode=True,
    )


@each_processor
def test_directional_derivatives_of_long_audio(case: Case) -> None:
    """Errors that grow with the number of samples do not show in the short signals above."""
    x = case.audio((1,), 48000)
    point = leaves(x, case.normalized(x, low=0.2, high=0.8), *case.signals(x[..., :1000]))

    def loss(*values: Tensor) -> Tensor:
        return case.flat(*values).square().mean().sqrt()

    grads = torch.autograd.grad(loss(*point), point)
    generator = torch.Generator().manual_seed(6)
    for _ in range(3):
        direction = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in point]
        slope = sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True))
        # Rounding of the loss over the step, 1e-16 / 1e-6, and its third derivative times the square of the step.
        step = 1e-6
        ends = [
            float(loss(*(v.detach() + sign * step * d for v, d in zip(point, direction, strict=True))))
            for sign in (1, -1)
        ]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-7)


@each_variant
def test_any_subset_of_inputs_may_require_gradients(case: Case) -> None:
    x = case.audio(dtype=torch.float32)
    names = [*case.spec.signals, *case.spec.controls]
    values = [x, *case.signals(x), *case.controls(x).values()]

    def run(needed: frozenset[int]) -> dict[int, Tensor]:
        inputs = [value.clone().requires_grad_(index in needed) for index, value in enumerate(values)]
        y = case.spec.function(inputs[0], SAMPLE_RATE, **dict(zip(names, inputs[1:], strict=True)), **case.options)
        assert y.requires_grad == bool(needed)
        if needed:
            y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(7)))
        assert all((value.grad is not None) == (index in needed) for index, value in enumerate(inputs))
        return {index: inputs[index].grad for index in needed}

    everything = range(len(values))
    want = run(frozenset(everything))
    # All subsets of up to four inputs; of more, all with one and all without one.
    sizes = range(len(values)) if len(values) <= 4 else (0, 1, len(values) - 1)
    for subset in itertools.chain.from_iterable(itertools.combinations(everything, size) for size in sizes):
        for index, grad in run(frozenset(subset)).items():
            assert torch.equal(grad, want[index]), f"{['x', *names][index]} with {subset}"


@each_variant
def test_gradient_modes_change_nothing(case: Case) -> None:
    x, u = leaves(case.audio(), case.normalized(case.audio()))
    signals = case.signals(x)
    want = case.flat(x, u, *signals)
    grads = gradients(want, [x, u])
    with torch.no_grad():
        y = case.flat(x, u, *signals)
    assert not y.requires_grad
    assert torch.equal(y, want)
    with torch.inference_mode():
        assert torch.equal(case.flat(x, u, *signals), want)
    # What an inference pass leaves in a cache must serve training after it.
    y = case.flat(x, u, *signals)
    for _ in range(2):
        again = torch.autograd.grad(y.sum(), [x, u], retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(again, torch.autograd.grad(y.sum(), [x, u]), strict=True))
    saved = checkpoint(case.flat, x, u, *signals, use_reentrant=False)
    assert all(torch.equal(*pair) for pair in zip(gradients(saved, [x, u]), grads, strict=True))


@each_processor
def test_gradients_of_a_control_used_twice_add_up(case: Case) -> None:
    x, u = leaves(case.audio(), case.normalized(case.audio()))
    signals = case.signals(x)
    (once,) = torch.autograd.grad(case.flat(x, u, *signals).sum(), [u])
    (twice,) = torch.autograd.grad((case.flat(x, u, *signals) + case.flat(x, u, *signals)).sum(), [u])
    assert torch.equal(twice, 2 * once)


# ---- transforms of torch


@each_variant
def test_vmap_equals_a_batch(case: Case) -> None:
    x = case.audio((3, 2), dtype=torch.float32)
    inputs = [x, case.normalized(x), *case.signals(x)]
    y = case.flat(*inputs)
    case.assert_same(torch.func.vmap(case.flat)(*inputs), y, x)
    case.assert_same(torch.func.vmap(torch.func.vmap(case.flat))(*inputs), y, x)
    # Over the controls alone, and over another dimension than the first.
    shared = [value[0] for value in inputs]
    over_controls = torch.func.vmap(case.flat, in_dims=(None, 0, *(None for _ in shared[2:])))
    want = torch.stack([case.flat(shared[0], u, *shared[2:]) for u in inputs[1]])
    case.assert_same(over_controls(shared[0], inputs[1], *shared[2:]), want, x)
    moved = [value.movedim(0, 1) for value in inputs]
    case.assert_same(torch.func.vmap(case.flat, in_dims=1, out_dims=1)(*moved).movedim(1, 0), y, x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@each_variant
def test_functional_derivatives_equal_those_of_autograd(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """Two ways to the same sums: the backward pass of a kernel, and its composition of differentiable operators."""
    x = case.audio((2,), 40, dtype)
    inputs = leaves(x, case.normalized(x), *case.signals(x))
    positions = tuple(range(len(inputs)))

    def loss(*values: Tensor) -> Tensor:
        return case.flat(*values).square().sum()

    want = torch.autograd.grad(loss(*inputs), inputs)
    for derivative in (torch.func.grad(loss, positions), torch.func.vmap(torch.func.grad(loss, positions))):
        for got, exact in zip(derivative(*inputs), want, strict=True):
            assert_close(got, exact, tolerance, case.rounding(exact))
    rows, columns = (jacobian(case.flat, argnums=1)(*inputs) for jacobian in (torch.func.jacrev, torch.func.jacfwd))
    assert_close(rows, columns, tolerance, case.rounding(rows))


@each_processor
def test_transforms_with_a_state(case: Case) -> None:
    if not case.spec.stateful:
        pytest.skip("has no memory")
    x = case.audio((3,), 20)
    u, signals = case.normalized(x), case.signals(x)
    state = state_after(case, x, u, signals)

    def block(x: Tensor, u: Tensor, state: dict[str, Tensor], *signals: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return case(x, case.denormalize(u), signals, state=state)

    (y, after), (want, want_after) = (run(x, u, state, *signals) for run in (torch.func.vmap(block), block))
    case.assert_same(y, want, x)
    for name, value in want_after.items():
        end = after[name].shape[-1] - value.shape[-1] if case.spec.fft else 0
        case.assert_same(after[name][..., end:] if case.spec.fft else after[name], value, x)

    def sums(u: Tensor, state: dict[str, Tensor]) -> Tensor:
        return block(x, u, state, *signals)[0].square().sum((-1, -2))

    by_state = torch.func.jacrev(sums, argnums=(0, 1))(u, state)
    points = leaves(u, *state.values())
    energy = sums(points[0], dict(zip(state, points[1:], strict=True)))
    for item in range(3):
        exact = torch.autograd.grad(energy[item], points, retain_graph=True)
        for got, value in zip((by_state[0], *by_state[1].values()), exact, strict=True):
            assert_close(got[item], value, 1e-12, case.rounding(value))


def compile_and_compare(case: Case, backend: str) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(case.flat, backend=counter, fullgraph=True, dynamic=True)
    compilations = []
    for samples in (64, 101, 128, 250, 500):
        x = case.audio((2,), samples)
        results = []
        for run in (compiled, case.flat):
            inputs = leaves(x, case.normalized(x), *case.signals(x))
            y = run(*inputs)
            results.append([y, *gradients(y, inputs)])
        for got, want in zip(*results, strict=True):
            assert_close(got, want, 1e-12, case.rounding(want))
        compilations.append(counter.frame_count)
    assert compilations[-1] <= compilations[0] + 1, "once for the first length, and once for all others"


@each_processor
def test_compiled_whole_for_all_lengths(case: Case) -> None:
    compile_and_compare(case, "aot_eager")


@pytest.mark.slow
# It says so of every FFT, and calls the eager operators for them.
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
@each_variant
def test_compiled_by_inductor(case: Case) -> None:
    compile_and_compare(case, "inductor")


def _one_of_each_kind_of_state() -> list[Case]:
    kinds: dict[str, Case] = {}
    for case in map(Case, dasp.PROCESSORS.values()):
        if case.spec.stateful:
            x = case.audio((1,))
            kinds.setdefault(",".join(case(x, {}, state={})[1]), case)
    return list(kinds.values())


# One stands for all that share its kernel, of which the others are among the slow tests.
each_kind_of_state = pytest.mark.parametrize("case", _one_of_each_kind_of_state(), ids=repr)


def compile_and_compare_with_a_state(case: Case, backend: str) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)

    def block(x: Tensor, u: Tensor, state: dict[str, Tensor], *signals: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return case(x, case.denormalize(u), signals, state=state)

    compiled = torch.compile(block, backend=counter, fullgraph=True, dynamic=True)
    compilations = []
    for samples in (64, 101, 250):
        x = case.audio((2,), samples)
        values = x, case.normalized(x), *(signal[..., :50] for signal in case.signals(x))
        names, state = [], state_after(case, *values[:2], values[2:])
        results = []
        for run in (compiled, block):
            inputs, before = leaves(*values), dict(zip(state, leaves(*state.values()), strict=True))
            y, after = run(*inputs[:2], before, *inputs[2:])
            names.append(set(after))
            # As many as both have: eager code keeps no more than the settings of the moment ask for.
            count = min(value.shape[-1] for value in after.values()) if case.spec.fft else 0
            results.append([y, *gradients(y, [*inputs, *before.values()]), *after.values()])
        if count:
            results[0][-1] = results[0][-1][..., -count:]
        assert names[0] == names[1]
        for got, want in zip(*results, strict=True):
            assert_close(got, want, 1e-12, case.rounding(want))
        compilations.append(counter.frame_count)
    assert compilations[-1] <= compilations[0] + 1, "once for the first length, and once for all others"


@each_kind_of_state
def test_compiled_whole_with_a_state(case: Case) -> None:
    if case.spec.fft:
        pytest.skip("takes six seconds, and is among the slow ones")
    compile_and_compare_with_a_state(case, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
@each_variant
def test_every_processor_compiled_whole_with_a_state(case: Case, backend: str) -> None:
    if not case.spec.stateful:
        pytest.skip("has no memory")
    compile_and_compare_with_a_state(case, backend)


def state_after(case: Case, x: Tensor, u: Tensor, signals: Sequence[Tensor]) -> dict[str, Tensor]:
    """A state to go on from; that of a reverberation as long as where the values of controls are not read."""
    _, state = case(x, case.denormalize(u), signals, state={})
    if case.spec.fft:
        taps = signals[0].shape[-1] if signals else round(5.1 * SAMPLE_RATE) + 4
        state = {name: torch.nn.functional.pad(value, (taps - 1 - value.shape[-1], 0)) for name, value in state.items()}
    return {name: value.detach() for name, value in state.items()}


class Flat(torch.nn.Module):
    """What `torch.export` takes."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(
        self, x: Tensor, u: Tensor, signals: tuple[Tensor, ...], state: dict[str, Tensor] | None = None
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        if state is None:
            return self.case.flat(x, u, *signals)
        return self.case(x, self.case.denormalize(u), signals, state=state)


# No length is 1: torch 2.13 exports no size that could be.
BATCH, SAMPLES, TAPS = (torch.export.Dim(name, min=low) for name, low in (("batch", 1), ("samples", 1), ("taps", 3)))


def saved_and_loaded(program: torch.export.ExportedProgram) -> torch.nn.Module:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


@each_variant
def test_exported_for_any_batch_and_length(case: Case) -> None:
    x = case.audio((2,), 100, torch.float32)
    inputs = x, case.normalized(x), case.signals(x)
    dynamic = {0: BATCH, x.ndim - 1: SAMPLES}, {0: BATCH}, tuple({0: BATCH, x.ndim - 1: TAPS} for _ in inputs[2])
    program = saved_and_loaded(torch.export.export(Flat(case), inputs, dynamic_shapes=dynamic))
    for batch, length in ((2, 100), (5, 333), (1, 7)):
        x = case.audio((batch,), length, torch.float32)
        u, signals = case.normalized(x), tuple(signal[..., :50] for signal in case.signals(x))
        assert_close(program(x, u, signals), case.flat(x, u, *signals), 1e-6)


@each_kind_of_state
def test_exported_with_a_state(case: Case) -> None:
    export_and_compare_with_a_state(case)


@pytest.mark.slow
@each_variant
def test_every_processor_exported_with_a_state(case: Case) -> None:
    if not case.spec.stateful:
        pytest.skip("has no memory")
    export_and_compare_with_a_state(case)


def export_and_compare_with_a_state(case: Case) -> None:
    x = case.audio((2,), 100, torch.float32)
    u, signals = case.normalized(x), case.signals(x)
    state = state_after(case, x, u, signals)
    past = {2: torch.export.Dim("past", min=2)} if case.spec.fft else {}
    dynamic = (
        {0: BATCH, x.ndim - 1: SAMPLES},
        {0: BATCH},
        tuple({0: BATCH, x.ndim - 1: TAPS} for _ in signals),
        {name: {0: BATCH, **past} for name in state},
    )
    program = saved_and_loaded(torch.export.export(Flat(case), (x, u, signals, state), dynamic_shapes=dynamic))
    for batch, length in ((2, 100), (5, 333), (1, 7)):
        x = case.audio((batch,), length, torch.float32)
        u, signals = case.normalized(x), tuple(signal[..., :50] for signal in case.signals(x))
        state = state_after(case, x, u, signals)
        y, after = program(x, u, signals, state)
        want, want_after = case(x, case.denormalize(u), signals, state=state)
        assert_close(y, want, 1e-6)
        for name, value in want_after.items():
            # Eager code keeps no more than the settings of the moment ask for.
            end = value.shape[-1] if case.spec.fft else None
            assert_close(after[name] if end is None else after[name][..., after[name].shape[-1] - end :], value, 1e-6)


# ---- devices that run behind the program


class Waits(TorchDispatchMode):
    """Records what would make the program wait for a GPU, or be no part of a CUDA graph.

    Tensors are on the device "meta", which has no memory, so that every value that is read and every copy shows.  The
    library's own operators that consist of torch's run as they do on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tags = torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape
        if any(tag in func.tags for tag in tags):
            self.found.append(f"{func} reads values")
        run = self.run_kernel if func.namespace == "dasp" else lambda func, args, kwargs: func(*args, **kwargs)
        out = run(func, args, kwargs or {})
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        # A single number from the CPU is an argument of a GPU's kernel, which is no copy.
        if len({t.device for t in tensors if t.ndim or func.overloadpacket in COPIES}) > 1:
            self.found.append(f"{func} takes tensors of {[f'{t.device.type} {tuple(t.shape)}' for t in tensors]}")
        return out

    def run_kernel(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func.name()
        if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeExplicitAutograd"):
            if name.removeprefix("dasp::").removesuffix("_backward") not in cuda._MODULES:
                self.found.append(f"{name} has no CUDA kernel")
        elif name not in BY_TRANSFORMS:
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        return func(*args, **kwargs)


# Transforms of torch.func, by which these gradients are computed, do not run inside a mode.
BY_TRANSFORMS = {f"dasp::{name}_backward" for name in ("biquads", "gain_computer", "prototypes")}
COPIES = {torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.copy}


class NumbersCopied(TorchFunctionMode):
    """Records tensors that are made of Python's numbers on another device, which no dispatcher sees."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = torch.device((kwargs or {}).get("device") or "cpu")
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and device.type != "cpu":
            self.found.append(f"{func.__name__} on {device}")
        return func(*args, **(kwargs or {}))


@each_variant
def test_nothing_waits_for_a_gpu(case: Case) -> None:
    x = case.audio((2,), 100, torch.float32)
    values = x, case.normalized(x), *case.signals(x)
    plain = {
        name: value.reshape(-1, *value.shape[x.ndim - 2 :])[0].tolist() for name, value in case.controls(x).items()
    }

    def run() -> None:
        x, u, *signals = (torch.empty(v.shape, dtype=v.dtype, device="meta", requires_grad=True) for v in values)
        y = case.flat(x, u, *signals)
        torch.autograd.grad(y, [x, u, *signals], torch.empty_like(y))
        case(x, plain, signals)
        if case.spec.stateful:
            y, state = case(x, case.denormalize(u), signals, state={})
            y, state = case(x, case.denormalize(u), signals, state=state)
            torch.autograd.grad(y, [x, u, *signals], torch.empty_like(y))

    # What a first call makes and keeps is there when a CUDA graph is captured.
    with Waits():
        run()
    with NumbersCopied() as copied, Waits() as waits:
        run()
    assert copied.found + waits.found == []


# ---- the same again, on any number of threads


@pytest.mark.usefixtures("threads")
@each_processor
def test_results_do_not_depend_on_threads(case: Case) -> None:
    x = case.audio((4,), 12000, torch.float32)
    results: dict[int, list[Tensor]] = {}
    for threads in (1, 2, 4, 1, 2, 4):
        torch.set_num_threads(threads)
        inputs = leaves(x, case.normalized(x), *case.signals(x))
        y = case.flat(*inputs)
        now = [y, *gradients(y, inputs)]
        for got, again, want in zip(now, results.setdefault(threads, now), results[1], strict=True):
            assert torch.equal(got, again)
            # The sum over 12000 samples of rounding that differs with the share of each thread.
            case.assert_same(got, want, 100 * want)


# ---- linearity, time invariance


@given(data=st.data())
@each_variant
def test_linear_processors_are_linear(case: Case, data: st.DataObject) -> None:
    if not case.spec.linear:
        pytest.skip("not linear")
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        x = case.audio((2,), 150, dtype, seed=data.draw(seeds))
        other = case.audio((2,), 150, dtype, seed=data.draw(seeds))
        a, b = (data.draw(st.sampled_from([-1, 1])) * 10 ** data.draw(st.floats(-3, 3)) for _ in range(2))
        u, signals = case.normalized(x), case.signals(x)
        y, first, second = (case.flat(signal, u, *signals) for signal in (a * x + b * other, x, other))
        # Relative to each item, whose gains differ.
        scale = (a * first).abs().amax((-1, -2)) + (b * second).abs().amax((-1, -2)) + (a * x + b * other).abs().amax()
        assert bool(((y - a * first - b * second).abs().amax((-1, -2)) <= tolerance * scale).all())


@given(data=st.data())
@each_variant
def test_linear_processors_are_time_invariant(case: Case, data: st.DataObject) -> None:
    if not case.spec.linear:
        pytest.skip("what comes first decides its state")
    x = case.audio((2,), 150, torch.float32, seed=data.draw(seeds))
    u, signals = case.normalized(x), case.signals(x)
    shift = data.draw(st.integers(1, 1000))
    later = case.flat(torch.nn.functional.pad(x, (shift, 0)), u, *signals)
    case.assert_same(later[..., shift:], case.flat(x, u, *signals), x)


# ---- automation

automated = pytest.mark.parametrize("case", [case for case in EACH_VARIANT if case.spec.automation], ids=repr)


def repeated(curves: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Frames as values for every sample."""
    dim = x.ndim - 1
    return {name: v.repeat_interleave(x.shape[-1] // v.shape[dim], dim) for name, v in curves.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@automated
def test_a_frame_holds_for_its_samples(case: Case, dtype: torch.dtype) -> None:
    x = case.audio((2,), 120, dtype)
    for frames in (2, 24):
        curves = case.automation(x, frames)
        case.assert_same(case(x, curves), case(x, repeated(curves, x)), x)
        # One control with frames of its own among others, 24 of which 10 are no part.
        for name in curves:
            other = {**case.automation(x, 10), name: curves[name]}
            case.assert_same(case(x, other), case(x, repeated(other, x)), x)


@automated
def test_what_a_control_does_later_changes_nothing_before(case: Case) -> None:
    x = case.audio((2,), 130, torch.float32)
    curves = case.automation(x, 130)
    want = case(x, curves)
    later = {name: v.clone() for name, v in curves.items()}
    for value in later.values():
        value.narrow(x.ndim - 1, 64, 66).fill_(torch.nan)
    y = case(x, later)
    assert torch.equal(y[..., :64], want[..., :64])
    assert bool(y[..., 64:].isnan().all())


@automated
def test_automation_in_blocks_equals_the_whole(case: Case) -> None:
    """Also with gradients across blocks."""
    x = case.audio((2,), 130)
    results = []
    for lengths in ((130,), (1, 63, 64, 2)):
        (audio, *curves) = leaves(x, *case.automation(x, 130).values())
        state, blocks, start = {}, [], 0
        for length in lengths:
            part = {n: v.narrow(x.ndim - 1, start, length) for n, v in zip(case.spec.controls, curves, strict=True)}
            out = case(audio[..., start : start + length], part, **({"state": state} if case.spec.stateful else {}))
            out, state = out if case.spec.stateful else (out, state)
            blocks.append(out)
            start += length
        y = torch.cat(blocks, -1)
        results.append([y, *gradients(y, [audio, *curves])])
    for got, want in zip(*results, strict=True):
        assert_close(got, want, 1e-12)


@automated
def test_automation_of_no_samples_and_by_lists(case: Case) -> None:
    x = case.audio((2,), 0)
    assert case(x, case.automation(x, 0)).shape[-1] == 0
    x = case.audio((2,), 6)
    for name, value in case.automation(x, 3).items():
        want = case(x, {**case.controls(x), name: value})
        for form in (value.tolist(), value.numpy()):
            assert torch.equal(case(x, {**case.controls(x), name: form}), want)


@automated
def test_gradients_of_automation_are_those_of_differences(case: Case) -> None:
    x = case.audio((2,), 24)
    names = list(case.spec.controls)
    for frames in (24, 6):
        inputs = leaves(x, *case.automation(x, frames).values())
        assert gradcheck(lambda x, *curves: case(x, dict(zip(names, curves, strict=True))), inputs, fast_mode=True)


@automated
def test_automation_compiled_whole(case: Case) -> None:
    torch._dynamo.reset()
    names = list(case.spec.controls)

    def run(x: Tensor, *curves: Tensor) -> Tensor:
        return case(x, dict(zip(names, curves, strict=True)), [])

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
    for samples in (64, 100):
        x = case.audio((2,), samples)
        results = []
        for function in (compiled, run):
            inputs = leaves(x, *case.automation(x, samples).values())
            y = function(*inputs)
            results.append([y, *gradients(y, inputs)])
        for got, want in zip(*results, strict=True):
            assert_close(got, want, 1e-12)


# ---- errors


def raises(error: type[Exception], *parts: str) -> Any:
    """The message holds these parts in this order."""
    return pytest.raises(error, match=".*".join(re.escape(part) for part in parts))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool, torch.complex64])
@each_processor
def test_audio_of_other_types_is_a_type_error(case: Case, dtype: torch.dtype) -> None:
    x = case.audio(dtype=torch.float32)
    bad = torch.ones(x.shape, dtype=dtype)
    with raises(TypeError, f"{case.spec.name}: x has type {dtype}", "floating-point"):
        case(bad, {}, case.signals(x))
    for name in case.spec.signals:
        with raises(TypeError, f"{case.spec.name}: {name} has type {dtype}"):
            case.spec.function(x, SAMPLE_RATE, **{name: bad})


@pytest.mark.parametrize("value", [[[0.0, 1.0]], np.zeros((1, 4)), None, 1.0])
@each_processor
def test_audio_that_is_no_tensor_is_a_type_error(case: Case, value: object) -> None:
    with raises(TypeError, f"{case.spec.name}: x is a {type(value).__name__}", "torch.Tensor"):
        case(value, {}, case.signals(case.audio()))


@each_processor
def test_audio_of_a_wrong_shape_is_a_value_error(case: Case) -> None:
    signals = case.signals(case.audio())
    shapes = [(), (64,), (2, 0, 64), *([(2, 64)] if case.spec.tracks else [])]
    shapes += [(2, 2, count, 64) for count in range(1, 8) if case.spec.channels and count not in case.spec.channels]
    for shape in shapes:
        with raises(ValueError, f"{case.spec.name}: x has shape {shape}", "expected"):
            case(torch.zeros(shape), {}, signals)


@pytest.mark.parametrize("sample_rate", [0, -44100, math.nan, math.inf])
@each_processor
def test_a_sample_rate_outside_its_domain_is_a_value_error(case: Case, sample_rate: float) -> None:
    x = case.audio()
    with raises(ValueError, f"{case.spec.name}: sample_rate is {sample_rate}"):
        case.spec.function(x, sample_rate, *case.signals(x))


@pytest.mark.parametrize("sample_rate", [torch.tensor(44100.0), "44100", None, True])
@each_processor
def test_a_sample_rate_that_is_no_number_is_a_type_error(case: Case, sample_rate: object) -> None:
    x = case.audio()
    with raises(TypeError, f"{case.spec.name}: sample_rate is a {type(sample_rate).__name__}"):
        case.spec.function(x, sample_rate, *case.signals(x))


@each_processor
def test_controls_of_a_wrong_kind_are_a_type_error(case: Case) -> None:
    x = case.audio()
    for name in case.spec.controls:
        for value in ("loud", None, object()):
            with raises(TypeError, f"{case.spec.name}: {name} is {value!r}"):
                case(x, {name: value})
        with raises(TypeError, f"{case.spec.name}: {name} has type torch.complex64"):
            case(x, {name: torch.zeros((), dtype=torch.complex64)})


@each_variant
def test_controls_of_a_wrong_shape_are_a_value_error(case: Case) -> None:
    x = case.audio((2, 3), 50)
    controls = case.controls(x)
    for name, size in case.spec.layout(case.options):
        bands = () if size is None else (size,)
        wrong = [(7, *bands), (2, 7, *bands), (*x.shape[:-2], 7, *bands), (5, *x.shape, *bands), (0, *bands)]
        if size is not None:
            wrong += [(size + 1,), (2, size + 1), (size - 1,), (1, *x.shape[:-2], x.shape[-1] + 1, size)]
        if case.spec.automation:
            wrong += [(*x.shape[:-1], 49), (*x.shape[:-2], 7, 50)]
        for shape in wrong:
            with raises(ValueError, f"{case.spec.name}: {name} has shape {shape}"):
                case(x, {**controls, name: torch.ones(shape)})


@each_processor
def test_automation_is_taken_or_refused(case: Case) -> None:
    x = case.audio((2,), 50)
    for name, value in case.controls(x).items():
        size = case.spec.size(name)
        curve = value.reshape(*x.shape[:-2], 1, 1, *value.shape[x.ndim - 2 :])
        curve = curve.expand(*x.shape[:-2], 1, 50, *(() if size is None else (size,)))
        if case.spec.automation:
            for frames in (50, 10, 2, 1):
                case.assert_alike(case(x, {name: curve.narrow(x.ndim - 1, 0, frames)}), case(x, {name: value}), x)
        else:
            with raises(ValueError, f"{case.spec.name}: {name} has shape", "not supported by this processor"):
                case(x, {name: curve})


@each_processor
def test_debug_refuses_what_has_no_meaning(case: Case) -> None:
    x = case.audio()
    with dasp.debug():
        case(x, case.controls(x))
        bad = x.clone()
        bad[0, ..., -1] = torch.nan
        with raises(ValueError, f"{case.spec.name}: x has NaN or infinite samples"):
            case(bad, {}, case.signals(x))
        for name, param in case.spec.controls.items():
            for value in (math.nan, *(end + sign for end, sign in zip(param.domain, (-1, 1), strict=True))):
                if not -math.inf < value < math.inf and not math.isnan(value):
                    continue
                with raises(ValueError, f"{case.spec.name}: {name} has values outside"):
                    case(x, {name: value})


@each_processor
def test_modules_and_functions_are_copied_whole(case: Case) -> None:
    x = case.audio()
    signals = dict(zip(case.spec.signals, case.signals(x), strict=True))
    module = module_class(case.spec)(SAMPLE_RATE, **signals).double()
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(x), module(x))
    other = module_class(case.spec)(SAMPLE_RATE, **{name: torch.zeros_like(s) for name, s in signals.items()}).double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.5)
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(other(x), module(x))
    assert pickle.loads(pickle.dumps(case.spec)).function is case.spec.function

"""SPSA and finite differences against true gradients, and their errors."""

from __future__ import annotations

import copy
import math
import pickle
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import dasp.functional as F
import dasp.modules as M
from dasp.gradients import EffectError, NumpyEffect, finite_difference, spsa
from dasp.gradients._workers import instance
from tests.gradients import black_boxes
from tests.gradients.black_boxes import GAIN, Linear, Recorder, Recursive, Rewriting, gain, noise_of_torch

RATE = 44100
ESTIMATES = [spsa, finite_difference]


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rand(*shape, seed=2, low=0.1, high=0.9):
    u = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (low + (high - low) * u).requires_grad_()


def gradient(effect, x, u, weights):
    return torch.autograd.grad((effect(x, u) * weights).sum(), u)[0]


def draws_of(effect, x, u, weights, count, **options):
    """Estimates from `count` single draws, `(count, P)`: an item of a batch is a draw of its own."""
    many = u.detach().expand(count, -1).clone().requires_grad_()
    return gradient(spsa(effect, generator=1, **options), x.expand(count, *x.shape), many, weights)


def assert_unbiased(draws, true):
    """Every control within three standard errors, by which chance alone would fail one seed in ten for 27 controls."""
    error = (draws.mean(0) - true).abs()
    # Where draws are exact there is rounding: of 1e-16 of the audio, over a step of 1e-3.
    assert (error <= 3 * draws.std(0) / math.sqrt(len(draws)) + 1e-9 * true.abs()).all(), error


# The estimates


@pytest.mark.parametrize("draw", ["rademacher", "segmented_uniform"])
def test_the_mean_of_spsa_is_the_true_gradient_of_a_linear_effect(draw):
    effect, weights = Linear(27, 64), randn(1, 64)
    draws = draws_of(effect, torch.zeros(1, 64, dtype=torch.float64), rand(27), weights, 4096, draw=draw)
    true = effect.gradient(weights)
    assert_unbiased(draws, true)
    assert torch.cosine_similarity(draws.mean(0), true, 0) >= 0.99


@pytest.mark.parametrize("controls", [6, 27, 216])
def test_the_cosine_of_one_draw_falls_with_the_root_of_the_number_of_controls(controls):
    # Items with gradients of their own: at 6 controls the mean over draws depends on the gradient.
    items, samples = 4096, 16
    effect, weights = Linear(controls, samples), randn(items, 1, samples)
    effect.matrix = randn(items, controls, samples)
    x = torch.zeros(items, 1, samples, dtype=torch.float64)

    def each(x, u):
        return x + (u[..., None, :] @ effect.matrix)

    got = gradient(spsa(each), x, rand(items, controls), weights)
    true = (weights @ effect.matrix.mT).squeeze(-2)
    mean = torch.cosine_similarity(got, true, -1).mean().item()
    assert mean == pytest.approx(math.sqrt(2 / (math.pi * controls)), rel=0.05)


def test_groups_have_the_cosine_of_their_size():
    effect, items = Linear(24, 24), 16384
    x, weights = torch.zeros(items, 1, 24, dtype=torch.float64), randn(items, 1, 24)
    got = gradient(spsa(effect, groups=[6] * 4), x, rand(items, 24), weights)
    true = effect.gradient(weights)
    cosines = [torch.cosine_similarity(g, t, -1) for g, t in zip(got.split(6, -1), true.split(6, -1), strict=True)]
    # For a random gradient the mean is 4 % above the formula at this size.
    assert torch.stack(cosines).mean().item() == pytest.approx(math.sqrt(2 / (math.pi * 6)), rel=0.05)


def test_groups_of_one_control_give_the_exact_gradient_of_a_linear_effect():
    effect, weights, x = Linear(5, 32), randn(2, 1, 32), torch.zeros(2, 1, 32, dtype=torch.float64)
    got = gradient(spsa(effect, groups=[[3], [0], [1], [4], [2]]), x, rand(2, 5), weights)
    torch.testing.assert_close(got, effect.gradient(weights))


def test_hadamard_draws_as_many_as_controls_give_the_exact_gradient_of_a_linear_effect():
    effect, weights, x = Linear(27, 32), randn(3, 1, 32), torch.zeros(3, 1, 32, dtype=torch.float64)
    got = gradient(spsa(effect, num_draws=32, draw="hadamard"), x, rand(3, 27), weights)
    torch.testing.assert_close(got, effect.gradient(weights))


@pytest.mark.parametrize("num_draws", [1, 3, 4])
def test_hadamard_draws_fewer_than_controls_are_unbiased(num_draws):
    effect, weights = Linear(6, 32), randn(1, 32)
    x, u = torch.zeros(1, 32, dtype=torch.float64), rand(6)
    draws = []
    for seed in range(150):
        estimate = spsa(effect, num_draws=num_draws, draw="hadamard", generator=seed)
        draws.append(gradient(estimate, x.expand(4, 1, 32), u.expand(4, 6), weights))
    assert_unbiased(torch.cat(draws), effect.gradient(weights))


def test_more_draws_lessen_the_error_by_their_root():
    effect, weights = Linear(27, 64), randn(64, 1, 64)
    x, u, true = torch.zeros(64, 1, 64, dtype=torch.float64), rand(64, 27), effect.gradient(weights)
    one, sixteen = ((gradient(spsa(effect, num_draws=n), x, u, weights) - true).square().mean().item() for n in (1, 16))
    assert one / sixteen == pytest.approx(16, rel=0.2)


@pytest.mark.parametrize("at", [0.0, 1.0])
@pytest.mark.parametrize(
    "estimate",
    [
        spsa,
        lambda effect: spsa(effect, draw="segmented_uniform"),
        *(lambda effect, order=order: finite_difference(effect, order=order) for order in (1, 2, 4)),
    ],
)
def test_at_a_bound_the_estimate_is_the_one_sided_derivative(estimate, at):
    def effect(x, u):
        return x * torch.exp(2 * u)[..., None]

    u = torch.full((1,), at, dtype=torch.float64, requires_grad=True)
    got = gradient(estimate(effect), torch.ones(1, 4, dtype=torch.float64), u, torch.ones(1, 4))
    assert got.item() == pytest.approx(4 * 2 * math.exp(2 * at), rel=0.02)


def test_probes_stay_in_range_and_bounds_of_other_controls_do_not_bias():
    effect, weights = Linear(4, 16), randn(1, 16)
    u = torch.tensor([0.0, 1.0, 0.5, 0.0004], dtype=torch.float64)
    seen = []

    def watched(x, u):
        seen.append(u.clone())
        return effect(x, u)

    draws = draws_of(watched, torch.zeros(1, 16, dtype=torch.float64), u, weights, 4096)
    assert_unbiased(draws, effect.gradient(weights))
    assert all(((u >= 0) & (u <= 1)).all() for u in seen)


def processors():
    compressor = M.Compressor(RATE)
    equalizer = M.ParametricEQ(RATE)
    return {"compressor": compressor, "equalizer": equalizer}


@pytest.mark.parametrize("name", ["compressor", "equalizer"])
def test_finite_differences_equal_automatic_differentiation(name):
    module = processors()[name]
    x, weights, u = 0.3 * randn(2, 1, 2000), randn(2, 1, 2000, seed=3), rand(2, module.num_controls)
    true = gradient(module.process_normalized, x, u, weights)
    # Small, for the smoother of the compressor changes branch between samples where its steps are finite.
    got = gradient(finite_difference(module.process_normalized, epsilon=1e-6), x, u, weights)
    assert (got - true).norm() <= 1e-5 * true.norm()
    assert ((got - true).abs() <= 1e-5 * true.abs().amax(-1, keepdim=True)).all()


@pytest.mark.parametrize("name", ["compressor", "equalizer"])
def test_spsa_is_unbiased_on_real_processors(name):
    module = processors()[name]
    x, weights, u = 0.3 * randn(1, 500), randn(1, 500, seed=3), rand(module.num_controls)
    true = gradient(module.process_normalized, x, u, weights)
    assert_unbiased(draws_of(module.process_normalized, x, u, weights, 4096, epsilon=1e-5), true)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("at", [0.5, 0.0, 1.0, 0.01])
def test_the_error_of_finite_differences_is_of_their_order_also_at_a_bound(order, at):
    def effect(x, u):
        return x * torch.exp(u).sum(-1)[..., None, None]

    u, x = torch.full((2,), at, dtype=torch.float64, requires_grad=True), torch.ones(1, 1, dtype=torch.float64)
    errors = [
        (gradient(finite_difference(effect, epsilon, order), x, u, x) - math.exp(at)).abs().max().item()
        for epsilon in (0.04, 0.02)
    ]
    # The error of the next order takes some of it away at a finite step.
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("draws", [1, 5])
def test_spsa_takes_exactly_two_calls_per_draw_and_group(draws):
    effect, u = Linear(6, 8), rand(3, 6)
    x = torch.zeros(3, 1, 8, dtype=torch.float64)
    estimate = spsa(effect, num_draws=draws)
    y = estimate(x, u)
    assert estimate.num_calls == 3
    assert effect.shapes == [(3, 6)]
    y.sum().backward()
    assert estimate.num_calls == 3 + 3 * 2 * draws
    assert effect.shapes[1:] == [(2 * draws, 3, 6)]
    for estimate, calls in (
        (spsa(effect, num_draws=draws, groups=[2, 4]), 4 * draws),
        (spsa(effect, num_draws=draws, batched=False), 2 * draws),
        (spsa(effect, num_draws=draws, probes_per_call=3), 2 * draws),
        (finite_difference(effect), 12),
        (finite_difference(effect, order=1), 6),
        (finite_difference(effect, order=4), 24),
    ):
        effect.shapes.clear()
        estimate(x, u).sum().backward()
        assert estimate.num_calls == 3 + 3 * calls
        assert sum(math.prod(shape[:-1]) for shape in effect.shapes) == 3 + 3 * calls


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("options", [{"batched": False}, {"probes_per_call": 1}, {"probes_per_call": 3}])
def test_how_calls_are_made_does_not_change_the_result(estimate, options):
    module = processors()["compressor"]
    x, weights, u = 0.3 * randn(2, 2, 1, 100), randn(2, 2, 1, 100, seed=3), rand(2, 2, module.num_controls)
    want = gradient(estimate(module.process_normalized), x, u, weights)
    got = gradient(estimate(module.process_normalized, **options), x, u, weights)
    # Equal but for the order of sums in kernels that filter several rows at once.
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)


def test_float32_agrees_with_float64():
    module = processors()["equalizer"]
    x, weights, u = 0.3 * randn(2, 1, 500), randn(2, 1, 500, seed=3), rand(2, module.num_controls)
    want = gradient(finite_difference(module.process_normalized), x, u, weights)
    got = gradient(
        finite_difference(module.process_normalized), x.float(), u.detach().float().requires_grad_(), weights.float()
    )
    assert got.dtype == torch.float32
    # Rounding of samples (6e-8 of 1) in differences over a step of 1e-3.
    assert (got - want).norm() <= 3e-4 * want.norm()


# Random numbers


NOISY = [
    black_boxes.noise_of_torch,
    black_boxes.noise_of_numpy,
    black_boxes.noise_of_python,
    black_boxes.noise_of_seed,
    black_boxes.noise_of_generator,
]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("effect", NOISY)
def test_probes_and_the_forward_call_see_the_same_random_numbers(effect, batched):
    if effect is black_boxes.noise_of_python and batched:
        pytest.skip("draws for one item")
    x, u = torch.zeros(3, 1, 16, dtype=torch.float64), rand(3, 1)
    estimate = spsa(effect, num_draws=2, batched=batched)
    y = estimate(x, u)
    assert y.std() > 0
    if not batched:
        assert not torch.equal(y[0] / u[0], y[1] / u[1]), "items have the same noise"
    weights = randn(3, 1, 16)
    (y * weights).sum().backward()
    # y = u * noise: its derivative is that very noise.
    torch.testing.assert_close(u.grad, ((y.detach() / u.detach()[..., None]) * weights).sum((-2, -1))[:, None])


def global_states():
    return random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("effect", [*NOISY, black_boxes.raises])
@pytest.mark.parametrize("batched", [True, False])
def test_the_global_random_state_is_not_touched(effect, batched):
    if effect is black_boxes.noise_of_python and batched:
        pytest.skip("draws for one item")
    before = global_states()
    x, u = torch.zeros(2, 1, 8, dtype=torch.float64), rand(2, 1, low=0.1, high=0.4)
    estimate = spsa(effect, num_draws=2, batched=batched, input_gradient="spsa")
    estimate(x.requires_grad_(), u).sum().backward()
    if effect is black_boxes.raises:
        with pytest.raises(EffectError):
            estimate(x, u + 0.5)
    assert global_states() == before


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_same_seed_gives_the_same_bits_and_another_forward_call_other_draws(estimate):
    effect, x = black_boxes.noise_of_torch, torch.zeros(2, 1, 8, dtype=torch.float64)
    u, weights = rand(2, 1), randn(2, 1, 8)
    first, second = (
        [gradient(wrapped, x, u, weights) for _ in range(2)] for wrapped in (estimate(effect), estimate(effect))
    )
    assert all(map(torch.equal, first, second))
    assert not torch.equal(*first)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(gradient(estimate(effect, generator=generator), x, u, weights), first[0])
    assert not torch.equal(gradient(estimate(effect, generator=1), x, u, weights), first[0])


# Autograd


def test_effects_in_a_chain_have_exact_gradients_where_every_step_is():
    eq, level = M.ParametricEQ(RATE), M.Gain(RATE)
    x, weights = 0.3 * randn(2, 1, 300), randn(2, 1, 300, seed=3)
    u1, u2 = rand(2, eq.num_controls), rand(2, 1, seed=4)

    def chain(first, second):
        y = second(first(second(x, u2), u1), u2)
        return torch.autograd.grad((y * weights).sum(), (u1, u2))

    want = chain(eq.process_normalized, level.process_normalized)
    for way in ("time_reversal", "autograd"):
        first, second = (finite_difference(m.process_normalized, 1e-5, input_gradient=way) for m in (eq, level))
        for got, true in zip(chain(first, second), want, strict=True):
            assert (got - true).norm() <= 1e-6 * true.norm()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_straight_through_input_gradient_is_that_of_the_output(estimate):
    x, weights = randn(2, 1, 8).requires_grad_(), randn(2, 1, 8, seed=3)
    y = estimate(gain, input_gradient="straight_through")(x, rand(2, 1))
    assert torch.equal(torch.autograd.grad((y * weights).sum(), x)[0], weights)


def test_the_mean_of_the_spsa_of_the_input_is_its_true_gradient():
    module = processors()["compressor"]
    x, weights, u = 0.3 * randn(1, 12), randn(1, 12, seed=3), rand(module.num_controls).detach()
    leaf = x.clone().requires_grad_()
    true = torch.autograd.grad((module.process_normalized(leaf, u) * weights).sum(), leaf)[0]
    many = x.expand(4096, 1, 12).clone().requires_grad_()
    estimate = spsa(module.process_normalized, epsilon=1e-5, input_gradient="spsa")
    y = estimate(many, u.expand(4096, -1))
    draws = torch.autograd.grad((y * weights).sum(), many)[0]
    assert_unbiased(draws.flatten(1), true.flatten())


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_time_reversal_is_exact_for_a_filter_whatever_the_scale_of_the_gradient(estimate):
    x, u = randn(2, 1, 200).requires_grad_(), rand(2, 3)
    weights = torch.stack([1e-9 * randn(1, 200, seed=3), torch.zeros(1, 200)])
    module = M.Peaking(RATE)
    true = torch.autograd.grad((module.process_normalized(x, u) * weights).sum(), x)[0]
    y = estimate(module.process_normalized, input_gradient="time_reversal")(x, u)
    got = torch.autograd.grad((y * weights).sum(), x)[0]
    assert (got - true).norm() <= 1e-12 * true.norm()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_an_effect_may_change_the_number_of_channels(estimate):
    module, x, u = M.StereoPanner(RATE), randn(2, 1, 50), rand(2, 1)
    weights = randn(2, 2, 50)
    got = gradient(estimate(module.process_normalized, epsilon=1e-4), x, u, weights)
    torch.testing.assert_close(got, gradient(module.process_normalized, x, u, weights), rtol=1e-6, atol=0)
    wrapped = estimate(module.process_normalized, input_gradient="straight_through")
    y = wrapped(x.requires_grad_(), u)
    with pytest.raises(ValueError, match="as many channels"):
        y.sum().backward()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_backward_twice_gives_the_same_and_second_derivatives_an_error(estimate):
    x, u = randn(2, 1, 8), rand(2, 1)
    loss = estimate(gain)(x, u).square().sum()
    first = torch.autograd.grad(loss, u, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, u, retain_graph=True)[0], first)
    again = torch.autograd.grad(loss, u, create_graph=True)[0]
    assert torch.equal(again, first)
    with pytest.raises(RuntimeError, match="has no gradient itself"):
        again.sum().backward()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_no_gradient_is_estimated_that_nobody_asks_for(estimate):
    wrapped, x, u = estimate(gain, input_gradient="spsa"), randn(2, 1, 8), rand(2, 1)
    with torch.no_grad():
        assert torch.equal(wrapped(x, u), gain(x, u))
    with torch.inference_mode():
        assert torch.equal(wrapped(x, u), gain(x, u))
    assert wrapped.num_calls == 4
    assert not wrapped(x, u.detach()).requires_grad
    wrapped(x.requires_grad_(), u.detach()).sum().backward()
    assert u.grad is None
    assert wrapped.num_calls == 6 + 2 + 4


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("samples", [0, 1, 7])
def test_any_batch_and_length(estimate, batched, batch, samples):
    x, u = randn(*batch, 2, samples), rand(*batch, 1)
    wrapped = estimate(gain, batched=batched)
    y = wrapped(x, u)
    assert torch.equal(y, gain(x, u))
    y.sum().backward()
    torch.testing.assert_close(u.grad, x.sum((-2, -1))[..., None], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_inputs_are_not_changed_and_the_result_does_not_alias_them(estimate):
    x, u = randn(2, 1, 8), rand(2, 1)
    before = x.clone(), u.detach().clone()
    y = estimate(lambda x, u: x)(x, u)
    y.sum().backward()
    with torch.no_grad():
        y.mul_(2)
    assert torch.equal(x, before[0])
    assert torch.equal(u, before[1])


@pytest.mark.parametrize("batched", [True, False])
def test_effects_with_memory_are_reset_before_every_call(batched):
    def own(x, u):
        return torch.stack([Recursive()(*item) for item in zip(x, u, strict=True)])

    x, u, weights = randn(2, 1, 12), rand(2, 1), randn(2, 1, 12, seed=3)
    want = gradient(spsa(own, probes_per_call=1), x, u, weights)
    if batched:
        got = torch.stack(
            [gradient(spsa(Recursive(), probes_per_call=1), *item) for item in zip(x, u, weights, strict=True)]
        )
    else:
        got = gradient(spsa(Recursive(), batched=False), x, u, weights)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_a_wrapped_effect_can_be_copied_and_pickled():
    wrapped = spsa(gain, num_draws=2)
    x, u = randn(2, 1, 8), rand(2, 1)
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert torch.equal(gradient(other, x, u, x), gradient(spsa(gain, num_draws=2), x, u, x))


def test_in_a_data_loader():
    class Items(torch.utils.data.Dataset):
        effect = spsa(gain)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            u = torch.full((1,), index / 4, dtype=torch.float64, requires_grad=True)
            y = self.effect(torch.ones(1, 4, dtype=torch.float64), u)
            y.sum().backward()
            return y.detach(), u.grad

    loader = torch.utils.data.DataLoader(Items(), batch_size=4, num_workers=1, timeout=60)
    ((y, gradients),) = list(loader)
    assert torch.equal(y[:, 0, 0], torch.arange(4) / 4)
    torch.testing.assert_close(gradients, torch.full((4, 1), 4.0, dtype=torch.float64))


# torch 2.13 looks at `.grad` of what crosses a graph break.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_function_may_call_it_and_the_effect_is_not_compiled():
    traced = []

    def effect(x, u):
        traced.append(torch.compiler.is_compiling())
        return gain(x, u)

    wrapped = spsa(effect)

    @torch.compile(backend="eager")
    def process(x, u):
        return wrapped(x * 1, u * 1) * 2

    x, u = randn(2, 1, 8), rand(2, 1)
    torch.testing.assert_close(gradient(process, x, u, x), 2 * x.square().sum((-2, -1))[:, None])
    assert traced == [False, False]


# Errors


X, U = torch.zeros(2, 1, 8), torch.full((2, 1), 0.25)


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize(
    ("x", "u", "kind", "text"),
    [
        (X, U + 1, ValueError, r"u\[0, 0\] is 1.\d+, expected values in \[0, 1\]"),
        (X, U - 1, ValueError, r"u\[0, 0\] is -0.\d+, expected values in \[0, 1\]"),
        (X, U * math.nan, ValueError, r"u\[0, 0\] is nan, expected values in \[0, 1\]"),
        (X, U.expand(3, 2, 1), ValueError, r"u has shape \(3, 2, 1\), expected \(2, P\)"),
        (X, U[:, :0], ValueError, r"u has shape \(2, 0\), expected \(2, P\)"),
        (X[0], torch.tensor(0.5), ValueError, r"u has shape \(\), expected \(P\)"),
        (X, U.long(), TypeError, "u is a torch.int64, expected a floating-point"),
        (X, [0.5], TypeError, "u is a list, expected a floating-point"),
        (X.numpy(), U, TypeError, "x is a ndarray"),
        (X[0, 0], U, ValueError, "x has shape"),
        (X.bfloat16(), U.bfloat16(), ValueError, "epsilon is 0.001, too small a step for u of type torch.bfloat16"),
        (X.clone().requires_grad_(), U, ValueError, "x needs a gradient.*choose an input_gradient"),
    ],
)
def test_wrong_audio_and_controls_are_refused(estimate, x, u, kind, text):
    with pytest.raises(kind, match=f"^{estimate.__name__}: .*{text}"):
        estimate(gain)(x, u)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_number_of_controls_that_disagrees_is_refused(estimate):
    with pytest.raises(ValueError, match=r"u has shape \(2, 1\), expected \(2, 6\)"):
        estimate(M.Compressor(RATE).process_normalized)(X, U)
    with pytest.raises(EffectError, match="the effect raised ValueError: compressor"):
        estimate(lambda x, u: M.Compressor(RATE).process_normalized(x, u))(X, U)


@pytest.mark.parametrize("groups", [[1, 1], [2, 2], [[0, 1], [1, 2]], [[0], [2]], [[0, 1, 3]]])
def test_groups_that_are_no_partition_of_the_controls_are_refused(groups):
    with pytest.raises(ValueError, match="expected each of the 3 controls in one group"):
        spsa(Linear(3, 8), groups=groups)(X.double(), rand(2, 3))


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"epsilon": 0.0}, ValueError, "epsilon is 0.0"),
        ({"epsilon": 0.6}, ValueError, "epsilon is 0.6"),
        ({"epsilon": math.nan}, ValueError, "epsilon is nan"),
        ({"epsilon": "1"}, TypeError, "epsilon is a str"),
        ({"generator": None}, TypeError, "generator is a NoneType, expected a torch.Generator or a seed"),
        ({"batched": True, "workers": 2}, ValueError, "workers is 2, expected 0"),
        ({"workers": -1}, ValueError, "workers is -1, expected at least 0"),
        ({"workers": 1.5}, TypeError, "workers is 1.5"),
        ({"backend": "fork"}, ValueError, "backend is 'fork'"),
        ({"probes_per_call": 0}, ValueError, "probes_per_call is 0"),
        ({"timeout_s": 0, "workers": 1, "backend": "process"}, ValueError, "timeout_s is 0"),
        ({"timeout_s": 1.0, "workers": 1}, ValueError, "timeout_s is 1.0, which only backend='process' can keep to"),
        ({"backend": "process"}, ValueError, "backend is 'process', which needs workers above 0"),
        ({"input_gradient": "exact"}, ValueError, "input_gradient is 'exact'"),
        ({"input_gradient": "autograd", "batched": False}, ValueError, "takes? a whole batch"),
    ],
)
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_wrong_options_are_refused(estimate, options, kind, text):
    with pytest.raises(kind, match=text):
        estimate(gain, **options)


def test_wrong_options_of_one_of_them_are_refused():
    with pytest.raises(TypeError, match="effect is a Tensor"):
        spsa(X)
    for options, kind in (
        ({"num_draws": 0}, ValueError),
        ({"num_draws": 1.0}, TypeError),
        ({"draw": "gaussian"}, ValueError),
        ({"groups": [0, 2]}, TypeError),
        ({"groups": [1, [2]]}, TypeError),
        ({"groups": [1.0, 2]}, TypeError),
        ({"groups": [["a"]]}, TypeError),
        ({"groups": 3}, TypeError),
    ):
        with pytest.raises(kind, match=next(iter(options))):
            spsa(gain, **options)
    for order in (0, 3, True):
        with pytest.raises(ValueError, match="order is"):
            finite_difference(gain, order=order)


def broken(how, threshold=0.5):
    """A gain that is broken for any item whose control is above a threshold."""

    def effect(x, u):
        return how(x, u) if bool((u > threshold).any()) else gain(x, u)

    return effect


def failing(x, u):
    raise ArithmeticError("too loud")


FAILURES = [
    (failing, "raised ArithmeticError: too loud"),
    (lambda x, u: torch.where(u[..., None] > 0.5, math.nan, x), "returned NaN or infinite samples"),
    (lambda x, u: torch.where(u[..., None] > 0.5, math.inf, x), "returned NaN or infinite samples"),
    (lambda x, u: x[..., :-1], r"returned shape \(.*7\), expected \(.*8\)"),
    (lambda x, u: x.float(), "returned torch.float32, expected torch.float64"),
    (lambda x, u: x[..., 0, :], r"returned shape"),
    (lambda x, u: x.numpy(), "raised TypeError: it returned a ndarray, expected a torch.Tensor"),
    (lambda x, u: torch.cat([x, x], -2), r"returned shape \(.*2, 8\), expected \(.*1, 8\);"),
]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("how", "text"), FAILURES)
def test_an_effect_that_fails_in_a_draw_is_named_with_draw_item_and_controls(batched, how, text):
    x = torch.ones(2, 1, 8, dtype=torch.float64)
    u = torch.tensor([[0.25], [0.4995]], dtype=torch.float64, requires_grad=True)
    y = spsa(broken(how), num_draws=3, batched=batched)(x, u)
    with pytest.raises(EffectError, match=f"^spsa: the effect {text}") as caught:
        y.sum().backward()
    assert re.search(r"at draw 1 of 3, (plus|minus), item \([01],\), with controls 0\.\d+$", str(caught.value))
    if "shape" not in text and "torch.float32" not in text and "ndarray" not in text:
        assert "item (1,), with controls 0.5005" in str(caught.value)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("how", "text"), FAILURES[:-1])
def test_an_effect_that_fails_at_once_is_named_as_the_forward_call(batched, how, text):
    u = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    with pytest.raises(EffectError, match=f"{text}.*at the forward call, item"):
        spsa(broken(how), batched=batched)(torch.ones(2, 1, 8, dtype=torch.float64), u)


def test_errors_name_the_controls_that_have_names_and_the_group():
    module = M.Compressor(RATE)

    class Failing:
        num_controls, control_names = module.num_controls, module.control_names

        def __call__(self, x, u):
            if (u[..., 3] != 0.5).any():
                failing(x, u)
            return x

    u = torch.full((6,), 0.5, requires_grad=True)
    y = spsa(Failing(), groups=[2, 4])(torch.zeros(1, 8), u)
    with pytest.raises(
        EffectError, match=r"draw 1 of 1 of group 1, plus, with controls threshold_db=0.5, .*release_ms=0"
    ):
        y.sum().backward()
    y = finite_difference(Failing())(torch.zeros(1, 8), u)
    with pytest.raises(EffectError, match=r"point 1 of 2 around control 3, with controls threshold_db=0.5"):
        y.sum().backward()


def test_an_effect_that_fails_for_a_batch_only_is_reported_as_such():
    def effect(x, u):
        if x.ndim > 2:
            failing(x, u)
        return x

    with pytest.raises(EffectError, match=r"too loud for \(1, 2\) items together, and for none of them alone"):
        spsa(effect)(X, U)


def test_nan_that_the_effect_has_been_given_is_said():
    x = X.clone()
    x[1, 0, 3] = math.nan
    with pytest.raises(EffectError, match=r"NaN or infinite samples, and has been given such samples; .*item \(1,\)"):
        spsa(gain)(x, U)


def test_autograd_for_the_input_of_an_effect_that_torch_does_not_see_through_is_refused():
    x = X.clone().requires_grad_()
    y = spsa(lambda x, u: torch.from_numpy(x.detach().numpy() * 2), input_gradient="autograd")(x, U)
    with pytest.raises(EffectError, match="torch sees no way from x"):
        y.sum().backward()


def test_functional_processors_are_effects():
    u = torch.tensor([[0.5], [0.2]], requires_grad=True)
    y = spsa(lambda x, u: F.gain(x, RATE, 40 * u[..., 0] - 20))(X + 1, u)
    y.sum().backward()
    assert (u.grad > 0).all()


@pytest.mark.parametrize("batched", [True, False])
def test_an_effect_may_change_its_input_and_use_its_output_again(batched):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, 8, generator=generator, dtype=torch.float64)
    u = torch.full((3, 1), 0.5, dtype=torch.float64, requires_grad=True)
    before = x.clone()
    y = spsa(Rewriting(), batched=batched)(x, u)
    (y * before).sum().backward()
    assert torch.equal(x, before)
    assert torch.equal(u, torch.full_like(u, 0.5))
    assert torch.equal(y, 0.5 * before)
    # Linear in u: only rounding is left, of the step of 1e-3.
    torch.testing.assert_close(u.grad, before.square().sum((1, 2))[:, None], rtol=1e-10, atol=0)


def test_an_array_that_an_effect_returns_may_be_used_again():
    memory = np.empty((1, 8))
    effect = NumpyEffect(lambda x, sample_rate, gain_db: np.multiply(x, gain_db, out=memory), 44100, GAIN)
    x = torch.arange(24, dtype=torch.float64).reshape(3, 1, 8)
    u = torch.tensor([[0.25], [0.5], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(effect(x, u), x * torch.tensor([-10.0, 0.0, 20.0]).reshape(3, 1, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_method_of_an_object_with_state_is_called_from_rest(workers):
    x, u = torch.ones(3, 1, 8, dtype=torch.float64), torch.full((3, 1), 0.25, dtype=torch.float64)
    with spsa(Recorder().process, batched=False, workers=workers) as estimate:
        y = estimate(x, u)
        assert torch.equal(estimate(x, u), y)
    assert torch.equal(y, (1 - 0.75 ** torch.arange(1, 9, dtype=torch.float64)).expand(3, 1, 8))


def test_a_method_is_copied_with_its_object():
    recorder = Recorder()
    other = instance(recorder.process)
    assert isinstance(other.__self__, Recorder)
    assert other.__self__ is not recorder


def test_a_gradient_of_half_audio_does_not_underflow():
    u = torch.tensor([0.5], requires_grad=True)
    x = torch.full((1, 4096), 1e-2, dtype=torch.float16)
    y = spsa(lambda x, u: (x.float() * u[..., None]).half(), 0.25)(x, u)
    grad = torch.full_like(y, 1e-6)
    y.backward(grad)
    # Each product is below the least half, 6e-8; steps of audio near 5e-3 are 4e-6.
    torch.testing.assert_close(u.grad.item(), float((x.double() * grad.double()).sum()), rtol=2e-3, atol=0)


def test_a_step_too_small_for_the_audio_is_refused():
    effect = spsa(gain, 1e-3, input_gradient="spsa")
    with pytest.raises(ValueError, match=r"epsilon is 0.001, too small a step for x of type torch.float16"):
        effect(torch.ones(1, 1, 8).half().requires_grad_(), torch.full((1, 1), 0.5))


def test_autograd_of_the_input_names_what_an_effect_does_wrong():
    calls = []

    def effect(x, u):
        calls.append(x)
        if len(calls) > 1:
            raise ArithmeticError("gone")
        return x * 1

    x = torch.ones(1, 1, 8, requires_grad=True)
    y = spsa(effect, input_gradient="autograd")(x, torch.full((1, 1), 0.5))
    with pytest.raises(
        EffectError, match=r"spsa: the effect raised ArithmeticError: gone; at the call for the gradient"
    ):
        y.sum().backward()


def test_threads_of_a_program_do_not_disturb_each_other():
    x = torch.ones(4, 1, 64, dtype=torch.float64)
    u = torch.full((4, 1), 0.5, dtype=torch.float64)
    expected = spsa(noise_of_torch)(x, u)

    def noisy(x, u):
        time.sleep(1e-3)
        return noise_of_torch(x, u)

    with ThreadPoolExecutor(4) as executor:
        for y in executor.map(lambda _: spsa(noisy)(x, u), range(16)):
            assert torch.equal(y, expected)


def test_groups_may_be_of_numpy():
    x, u, weights = randn(2, 1, 8), rand(2, 3), randn(2, 1, 8)
    for groups in (np.array([1, 2]), [[np.int64(0)], np.array([2, 1])]):
        estimates = [gradient(spsa(Linear(3, 8), groups=g), x, u, weights) for g in (groups, [1, 2])]
        assert torch.equal(*estimates)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_one_setting_for_all_items_gets_the_sum_of_their_gradients(estimate):
    x, weights, shared = randn(3, 1, 8), randn(3, 1, 8), rand(2)
    each = shared.detach().expand(3, 2).clone().requires_grad_()
    have, want = (gradient(estimate(Linear(2, 8)), x, u, weights) for u in (shared, each))
    torch.testing.assert_close(have, want.sum(0))

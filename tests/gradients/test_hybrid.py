"""Hybrids: whose output and whose gradients they have, in training and in evaluation, alone and in a chain."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dasp.gradients import EffectError, NeuralProxy, hybrid
from tests.gradients import black_boxes
from tests.gradients.black_boxes import Recursive, noise_of_generator, noise_of_seed, noise_of_torch

MODES = ("proxy", "half", "full")


class Effect:
    """A clipper without gradients, which counts and keeps what it is called with."""

    def __init__(self):
        self.heard = []

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not x.requires_grad
        assert not u.requires_grad
        self.heard.append(x.clone())
        return torch.from_numpy((x * 4 * u[..., :1, None]).numpy().clip(-0.5, 0.5)) + u[..., 1:, None]


class Soft(nn.Module):
    """A proxy of it with a parameter and with dropout, which must be off."""

    num_controls = 2

    def __init__(self):
        super().__init__()
        self.drive = nn.Parameter(torch.tensor(4.0))
        self.dropout = nn.Dropout(0.5)
        self.calls = []

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        self.calls.append(self.training)
        return self.dropout(torch.tanh(self.drive * x * u[..., :1, None]) / 2 + u[..., 1:, None])


def trained_like(seed):
    """A proxy as after training: no parameter is zero."""
    proxy = NeuralProxy(2, channels=4, blocks=2, kernel_size=3, level_blocks=2, level_hop=8)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in proxy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return proxy


def inputs(*batch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*batch, 1, 50, generator=generator)
    u = torch.rand(*batch, 2, generator=generator)
    return x.requires_grad_(), u.requires_grad_()


def gradients(y, *tensors):
    """Of a sum in which every sample counts differently."""
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((y * weights).sum(), tensors)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize("proxy", [Soft().eval(), trained_like(0)], ids=["soft", "neural"])
def test_full_has_the_output_of_the_effect_and_the_gradients_of_the_proxy_to_the_bit(proxy, batch):
    x, u = inputs(*batch)
    y = hybrid(Effect(), proxy, "full")(x, u)
    with torch.no_grad():
        expected = Effect()(x.detach(), u.detach())
    assert torch.equal(y, expected)
    for have, want in zip(gradients(y, x, u), gradients(proxy(x, u), x, u), strict=True):
        assert torch.equal(have, want)
        assert have.abs().max() > 0


@pytest.mark.parametrize(
    ("mode", "training", "from_effect", "differentiable"),
    [
        ("proxy", True, False, True),
        ("proxy", False, False, True),
        ("half", True, False, True),
        ("half", False, True, False),
        ("full", True, True, True),
        ("full", False, True, True),
    ],
)
def test_modes_compute_what_the_table_says(mode, training, from_effect, differentiable):
    effect, proxy, (x, u) = Effect(), Soft().eval(), inputs(2)
    module = hybrid(effect, proxy, mode).train(training)
    y = module(x, u)
    assert len(effect.heard) == from_effect
    assert y.requires_grad == differentiable
    with torch.no_grad():
        expected = Effect()(x.detach(), u.detach()) if from_effect else proxy(x, u)
    assert torch.equal(y, expected)


def test_full_calls_the_effect_in_training():
    effect, (x, u) = Effect(), inputs(2)
    module = hybrid(effect, Soft(), "full").train()
    for _ in range(3):
        module(x, u).sum().backward()
    assert len(effect.heard) == 3


def test_full_spares_the_proxy_where_no_gradient_is_wanted():
    module, (x, u) = hybrid(Effect(), Soft(), "full"), inputs(2)
    module.proxy.calls.clear()
    with torch.no_grad():
        module(x, u)
    assert not module.proxy.calls


@pytest.mark.parametrize("mode", MODES)
def test_the_proxy_is_frozen_and_the_original_is_left_alone(mode):
    proxy = Soft().train()
    state = copy.deepcopy(proxy.state_dict())
    module, (x, u) = hybrid(Effect(), proxy, mode).train(), inputs(2)
    module(x, u).sum().backward()
    assert proxy.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in proxy.parameters())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    # Evaluation mode always, or dropout would be heard.
    assert not any(module.proxy.calls)
    with torch.no_grad():
        proxy.drive.add_(1.0)
    for name, tensor in module.proxy.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [True, False])
def test_input_is_not_modified(mode, training):
    x, u = inputs(2)
    before = x.detach().clone(), u.detach().clone()
    hybrid(Effect(), Soft(), mode).train(training)(x, u)
    assert torch.equal(x, before[0])
    assert torch.equal(u, before[1])
    assert (x._version, u._version) == (0, 0)


def test_in_a_chain_each_effect_hears_what_the_one_before_gave():
    effects, proxies = (Effect(), Effect()), (trained_like(0), trained_like(1))
    chain = [hybrid(effect, proxy, "full") for effect, proxy in zip(effects, proxies, strict=True)]
    (x, u), v = inputs(2), torch.rand(2, 2, requires_grad=True)
    y = chain[1](chain[0](x, u), v)
    between = effects[1].heard[0]
    with torch.no_grad():
        assert torch.equal(between, Effect()(x.detach(), u.detach()))
        assert torch.equal(y, Effect()(between, v.detach()))
    # By hand: the second proxy's gradients at the true signal between, handed to the first proxy.
    between.requires_grad_()
    second = proxies[1](between, v)
    grad_between, grad_v = gradients(second, between, v)
    grad_x, grad_u = torch.autograd.grad(proxies[0](x, u), (x, u), grad_between)
    for have, want in zip(gradients(y, x, u, v), (grad_x, grad_u, grad_v), strict=True):
        assert torch.equal(have, want)


def test_controls_of_all_items_get_the_sum_of_their_gradients():
    x, _ = inputs(3)
    u = torch.rand(2, requires_grad=True)
    module = hybrid(Effect(), Soft(), "full")
    (shared,) = gradients(module(x, u), u)
    each = u.detach().expand(3, 2).clone().requires_grad_()
    (separate,) = gradients(module(x, each), each)
    torch.testing.assert_close(shared, separate.sum(0))


def test_forward_mode_and_function_transforms_see_the_proxy():
    proxy, (x, u) = Soft().eval(), inputs(2)
    module = hybrid(lambda x, u: (x * u[..., :1, None]).sign(), proxy, "full")
    x, u, tangent = x.detach(), u.detach(), torch.ones_like(u)
    y, slope = torch.func.jvp(lambda u: module(x, u), (u,), (tangent,))
    _, expected = torch.func.jvp(lambda u: proxy(x, u), (u,), (tangent,))
    assert torch.equal(y, (x * u[..., :1, None]).sign())
    assert torch.equal(slope, expected)
    gradient = torch.func.grad(lambda u: module(x, u).sum())(u)
    torch.testing.assert_close(gradient, torch.func.grad(lambda u: proxy(x, u).sum())(u))


def test_a_function_can_be_the_proxy_and_a_module_the_effect():
    module = hybrid(Soft().eval(), lambda x, u: x * u[..., :1, None], "full")
    x, u = inputs(2)
    assert module(x, u).requires_grad


class Gives:
    """An effect or proxy whose output has something wrong with it."""

    def __init__(self, change):
        self.change = change

    def __call__(self, x, u):
        return self.change(x)


WRONG = pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x[..., :-1], ValueError, r"gives shape \(2, 1, 49\)"),
        (lambda x: x[:1], ValueError, r"gives shape \(1, 1, 50\)"),
        (lambda x: x[0, 0], ValueError, r"gives shape \(50,\)"),
        (lambda x: x.double(), TypeError, "gives type torch.float64, expected torch.float32"),
        (lambda x: x.detach().numpy(), TypeError, "gives a ndarray"),
    ],
)


@pytest.mark.parametrize("mode", ["half", "full"])
def test_an_effect_that_gives_something_else_is_refused(mode):
    x, u = inputs(2)
    for change, message in (
        (lambda x: x[..., :-1], r"returned shape \(2, 1, 49\), expected \(2, channels, 50\); at the forward call"),
        (lambda x: x.double(), r"returned torch.float64, expected torch.float32"),
        (lambda x: x.numpy(), r"raised TypeError: it returned a ndarray"),
        (lambda x: x * torch.nan, r"returned NaN"),
    ):
        with pytest.raises(EffectError, match=f"hybrid: the effect {message}"):
            hybrid(Gives(change), Soft(), mode).eval()(x, u)


def test_an_effect_is_called_from_rest_with_random_numbers_of_its_own():
    x, u = torch.ones(2, 1, 4, dtype=torch.float64), torch.full((2, 1), 0.5, dtype=torch.float64)
    for black_box in (noise_of_torch, noise_of_seed, noise_of_generator):
        before = torch.get_rng_state()
        first, second = (hybrid(black_box, black_boxes.gain, generator=seed)(x, u) for seed in (3, 3))
        assert torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(first, hybrid(black_box, black_boxes.gain, generator=4)(x, u))
    recursive = Recursive()
    recursive.batched = False
    module = hybrid(recursive, black_boxes.gain)
    assert torch.equal(module(x, u), module(x, u))


def test_the_output_of_full_can_be_changed_in_place():
    x, u = inputs(2)
    module = hybrid(Effect(), Soft(), "full")
    y = module(x, u)
    y *= 2
    for have, want in zip(gradients(y, x, u), gradients(2 * module(x, u), x, u), strict=True):
        assert torch.equal(have, want)


@WRONG
def test_a_proxy_that_gives_something_else_is_refused(change, error, message):
    x, u = inputs(2)
    for mode in MODES:
        with pytest.raises(error, match=f"the proxy {message}"):
            hybrid(Effect(), Gives(change), mode).train()(x, u)


def test_an_effect_and_a_proxy_of_other_channels_are_refused():
    x, u = inputs(2)
    doubled = Gives(lambda x: x.expand(2, 2, 50))
    with pytest.raises(ValueError, match=r"the effect gives shape \(2, 2, 50\), the proxy \(2, 1, 50\)"):
        hybrid(doubled, Soft(), "full")(x, u)
    with pytest.raises(EffectError, match=r"the effect returned shape \(2, 2, 50\), expected \(2, 1, 50\)"):
        hybrid(doubled, trained_like(0), "half").eval()(x, u)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [-1e-6, 1.0001, torch.nan])
def test_controls_outside_their_range_are_refused(mode, value):
    effect, (x, u) = Effect(), inputs(2)
    outside = u.detach().clone()
    outside[1, 0] = value
    with pytest.raises(ValueError, match=r"hybrid: u\[1, 0\] is .*, expected values in \[0, 1\]"):
        hybrid(effect, Soft(), mode)(x, outside)
    assert not effect.heard


@pytest.mark.parametrize("mode", MODES)
def test_the_bounds_are_inside(mode):
    x, _ = inputs(2)
    hybrid(Effect(), Soft(), mode)(x, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize("mode", MODES)
def test_another_number_of_controls_is_refused(mode):
    x, _ = inputs(2)
    with pytest.raises(ValueError, match=r"hybrid: u has shape \(2, 3\), expected \(2, 2\)"):
        hybrid(Effect(), Soft(), mode)(x, torch.rand(2, 3))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="mode is 'fh', expected one of 'proxy', 'half', 'full'"):
        hybrid(Effect(), Soft(), "fh")
    with pytest.raises(TypeError, match="effect is a NoneType"):
        hybrid(None, Soft())
    with pytest.raises(TypeError, match="proxy is a str"):
        hybrid(Effect(), "proxy")
    with pytest.raises(TypeError, match=r"x has type torch\.int64"):
        hybrid(Effect(), Soft())(torch.zeros(1, 8, dtype=torch.int64), torch.zeros(2))

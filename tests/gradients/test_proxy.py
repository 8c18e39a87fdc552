"""The proxy: the published numbers, causality, independence of items, and files."""

from __future__ import annotations

import errno
import itertools
import json
import struct

import pytest
import torch
from torch import nn

from dasp.gradients import NeuralProxy

SMALL = {
    "channels": 4,
    "blocks": 2,
    "kernel_size": 3,
    "dilation_growth": 3,
    "level_blocks": 2,
    "level_hop": 8,
    "embedding": 5,
}
PLAIN = {**SMALL, "level_blocks": 0, "embedding": 0}
CONFIGURATIONS = pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["level", "plain"])


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomized(proxy):
    """No parameter is zero, so that every path is heard."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in proxy.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return proxy


def small(num_controls=2, config=SMALL, **channels):
    return randomized(NeuralProxy(num_controls, **channels, **config))


def test_the_published_size_is_that_of_the_paper():
    sizes = {count: sum(p.numel() for p in NeuralProxy.published(count).parameters()) for count in (5, 6, 24)}
    assert NeuralProxy.published(6).receptive_field == 7021
    # Convolutions 1 -> 64 and three 64 -> 64 of 13 taps, the same PReLUs and residuals, FiLM of P controls, an output.
    convolutions = 64 * 13 + 64 + 3 * (64 * 64 * 13 + 64)
    assert sizes == {count: convolutions + 4 * (64 + 64) + 4 * 128 * (count + 1) + 65 for count in (5, 6, 24)}
    assert sizes[5] == 164481
    assert sizes[24] == 174209


def test_the_default_is_small_and_hears_seconds():
    proxy = NeuralProxy(6)
    assert sum(p.numel() for p in proxy.parameters()) < 20000
    assert proxy.receptive_field > 2 * 44100


@pytest.mark.parametrize(
    "changes", [{}, {"level_blocks": 0}, {"level_blocks": 1, "blocks": 4}, {"level_hop": 1}], ids=str
)
def test_the_receptive_field_is_what_an_output_depends_on(changes):
    config = {**SMALL, **changes}
    proxy = small(config=config).double()
    field, hop = proxy.receptive_field, config["level_hop"]
    start = -(-field // hop) * hop
    x = noise(1, start + hop, dtype=torch.float64).requires_grad_()
    y = proxy(x, torch.full((2,), 0.3, dtype=torch.float64))
    reach = []
    for n in range(start, start + hop):
        (gradient,) = torch.autograd.grad(y[0, n], x, retain_graph=True)
        reach.append(n + 1 - int(gradient[0].nonzero()[0]))
    assert max(reach) == field


@CONFIGURATIONS
@pytest.mark.parametrize("n", [0, 1, 23, 24, 25, 99])
def test_no_output_depends_on_a_later_sample(config, n):
    proxy, x, u = small(config=config), noise(1, 1, 100), torch.rand(1, 2)
    y = proxy(x, u)
    changed = x.clone()
    changed[..., n:] = torch.nan
    after = proxy(changed, u)
    assert torch.equal(after[..., :n], y[..., :n])
    assert after[..., n].isnan().all()
    # A shorter signal may be cut into other pieces by the convolution: rounding of sums of about 20 terms.
    torch.testing.assert_close(proxy(x[..., : n + 1], u), y[..., : n + 1], atol=1e-5, rtol=1e-5)


def test_it_is_aligned_with_its_input():
    proxy, x = small(config=PLAIN), noise(1, 1, 64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(proxy(x, torch.rand(1, 2))[0, 0, 40], x)
    assert gradient[0, 0, 40] != 0


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "expected"),
    [
        (1, 1, lambda x: x),
        (2, 2, lambda x: x),
        (1, 2, lambda x: x[:, [0, 0]]),
        (2, 1, lambda x: x.mean(1, keepdim=True)),
    ],
)
def test_it_begins_as_the_identity_or_the_mean(channels_in, channels_out, expected):
    proxy = NeuralProxy(3, channels_in, channels_out)
    x = noise(2, channels_in, 100)
    torch.testing.assert_close(proxy(x, torch.rand(2, 3)), expected(x), atol=1e-6, rtol=0)


@CONFIGURATIONS
@pytest.mark.parametrize("samples", [0, 1, 7, 8, 9, 97])
@pytest.mark.parametrize("batch", [(), (0,), (2,), (2, 1, 3)])
def test_any_length_and_batch(config, samples, batch):
    proxy = small(config=config, channels_in=2, channels_out=3)
    x, u = noise(*batch, 2, samples).requires_grad_(), torch.rand(*batch, 2)
    y = proxy(x, u)
    assert y.shape == (*batch, 3, samples)
    y.sum().backward()
    assert x.grad.isfinite().all()
    for place in itertools.product(*map(range, batch)):
        alone = proxy(x[place], u[place])
        # The same sums in another order.
        torch.testing.assert_close(alone, y[place], atol=1e-4, rtol=1e-4)


@CONFIGURATIONS
def test_training_and_evaluation_are_one_function(config):
    proxy, x, u = small(config=config), noise(3, 1, 200), torch.rand(3, 2)
    proxy.train()
    y = proxy(x, u)
    assert torch.equal(proxy.eval()(x, u), y)
    torch.testing.assert_close(proxy(x[1:2], u[1:2]), y[1:2], atol=1e-5, rtol=1e-5)
    assert not [name for name, _ in proxy.named_buffers()]


def test_controls_broadcast_to_the_batch():
    proxy, x, u = small(), noise(3, 1, 50), torch.rand(2)
    assert torch.equal(proxy(x, u), proxy(x, u.expand(3, 2)))


@CONFIGURATIONS
def test_gradients_are_those_of_differences(config):
    proxy = small(config=config).double()
    x = noise(2, 1, 30, dtype=torch.float64).requires_grad_()
    u = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(proxy, (x, u))


@CONFIGURATIONS
def test_every_parameter_and_control_takes_part(config):
    proxy, u = small(config=config), torch.rand(2, 2).requires_grad_()
    proxy(noise(2, 1, 300), u).square().sum().backward()
    assert (u.grad != 0).all()
    for name, parameter in proxy.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_silence_is_finite_with_its_gradients():
    x, u = torch.zeros(1, 1, 64, requires_grad=True), torch.rand(1, 2).requires_grad_()
    y = small()(x, u)
    y.sum().backward()
    assert all(t.isfinite().all() for t in (y, x.grad, u.grad))


def test_the_seed_decides_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (NeuralProxy(2, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["body.0.convolution.weight"], other["body.0.convolution.weight"])


@pytest.mark.parametrize(
    ("x", "u", "error", "message"),
    [
        (torch.zeros(1, 2, 8), torch.zeros(1, 2), ValueError, r"expected 1 channel"),
        (torch.zeros(8), torch.zeros(2), ValueError, r"\(\*batch, channels, samples\)"),
        (torch.zeros(1, 8).double(), torch.zeros(2), TypeError, "the parameters have torch.float32"),
        (torch.zeros(1, 8), torch.zeros(2).long(), TypeError, "u is a torch.int64, expected a floating-point"),
        (torch.zeros(1, 8), [0.0, 0.0], TypeError, "u is a list"),
        (torch.zeros(1, 8), torch.zeros(3), ValueError, r"u has shape \(3,\), expected \(2\)"),
        (torch.zeros(1, 8), torch.zeros(()), ValueError, r"u has shape \(\), expected \(2\)"),
        (torch.zeros(4, 1, 8), torch.zeros(3, 2), ValueError, r"u has shape \(3, 2\), expected \(4, 2\)"),
        (torch.zeros(1, 8), torch.zeros(1, 2), ValueError, r"u has shape \(1, 2\), expected \(2\)"),
    ],
)
def test_wrong_input_is_refused(x, u, error, message):
    with pytest.raises(error, match=message):
        small()(x, u)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"num_controls": 0}, ValueError),
        ({"num_controls": 2.0}, TypeError),
        ({"num_controls": 2, "blocks": 0}, ValueError),
        ({"num_controls": 2, "level_blocks": -1}, ValueError),
        ({"num_controls": True}, TypeError),
    ],
)
def test_wrong_sizes_are_refused(arguments, error):
    with pytest.raises(error, match="NeuralProxy: "):
        NeuralProxy(**arguments)


@CONFIGURATIONS
def test_a_file_gives_the_same_network(config, tmp_path):
    proxy, path = small(config=config, channels_out=2), tmp_path / "proxy.safetensors"
    proxy.save(path)
    before = torch.get_rng_state()
    loaded = NeuralProxy.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.config == proxy.config
    x, u = noise(2, 1, 90), torch.rand(2, 2)
    assert torch.equal(loaded(x, u), proxy(x, u))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert [file.name for file in tmp_path.iterdir()] == ["proxy.safetensors"]


def test_a_file_keeps_its_type(tmp_path):
    small().double().save(tmp_path / "proxy")
    assert (
        NeuralProxy.load(tmp_path / "proxy")(torch.zeros(1, 8).double(), torch.zeros(2).double()).dtype == torch.float64
    )


def test_a_file_is_whole_or_not_written(tmp_path, monkeypatch):
    proxy, path = small(), tmp_path / "proxy"
    proxy.save(path)
    content = path.read_bytes()

    def fail(_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        small(num_controls=3).save(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["proxy"]


def test_a_file_is_replaced_by_a_move(tmp_path):
    small().save(tmp_path / "proxy")
    with (tmp_path / "proxy").open("rb") as before:
        content = (tmp_path / "proxy").read_bytes()
        small(num_controls=3).save(tmp_path / "proxy")
        # Whoever reads meanwhile has the whole of the earlier file.
        assert before.read() == content
    assert NeuralProxy.load(tmp_path / "proxy").num_controls == 3


def edited(path, change):
    """Changes the header of a safetensors file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def with_config(**entries):
    def change(header):
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps({**config, **entries})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("__metadata__"), "has format None"),
        (lambda h: h["__metadata__"].update(format="other"), "has format 'other'"),
        (lambda h: h["__metadata__"].update(config="{"), "metadata are damaged"),
        (lambda h: h["__metadata__"].update(config="[1]"), "no configuration"),
        (lambda h: h["__metadata__"].pop("config"), "no configuration"),
        (with_config(channels="many"), "no configuration"),
        (with_config(unknown=1), "no configuration"),
        (with_config(channels=5), "expected"),
        # Neither may be built before it is refused.
        (with_config(channels=10**6), "expected"),
        (with_config(blocks=10**12), "more blocks"),
        (lambda h: h.update({"proxy.more": h.pop("proxy.output.bias")}), "not those of its configuration"),
        (lambda h: h["proxy.output.bias"].update(dtype="I32"), "floating-point"),
    ],
)
def test_a_file_that_is_no_proxy_is_refused(tmp_path, change, message):
    path = tmp_path / "proxy"
    small().save(path)
    edited(path, change)
    with pytest.raises(ValueError, match=message) as error:
        NeuralProxy.load(path)
    assert "proxy" in str(error.value)


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:-4], lambda c: c[:20], lambda c: b"\xff" * 300])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "proxy"
    small().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        NeuralProxy.load(path)


def test_parameters_that_are_nan_are_refused(tmp_path):
    proxy = small()
    nn.init.constant_(proxy.output.bias, torch.nan)
    proxy.save(tmp_path / "proxy")
    with pytest.raises(ValueError, match=r"proxy.output.bias has NaN"):
        NeuralProxy.load(tmp_path / "proxy")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        NeuralProxy.load(tmp_path / "missing")


def test_silence_in_half_precision_is_finite():
    proxy = NeuralProxy(2, channels=4, blocks=2, kernel_size=3, level_blocks=2, level_hop=8).half()
    assert torch.isfinite(proxy(torch.zeros(1, 64).half(), torch.full((2,), 0.5).half())).all()


def test_controls_of_another_type_are_converted():
    proxy, x, u = small(), torch.randn(1, 64), torch.tensor([0.25, 0.5])
    assert torch.equal(proxy(x, u.double()), proxy(x, u))

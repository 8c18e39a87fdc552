"""Training of proxies: what is learned, what is held out, repetition and resumption to the bit, and bad input."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch
from torch import Tensor

from dasp.gradients import EffectError, NeuralProxy, TrainingProgress, spectral_distance, train_proxy
from dasp.gradients.checkpoints import read_checkpoint, write_checkpoint
from dasp.gradients.proxy import FORMAT
from tests.gradients.black_boxes import Recursive, noise_of_generator, noise_of_seed, noise_of_torch

SIZE = {"channels": 4, "blocks": 2, "kernel_size": 3, "level_blocks": 2, "level_hop": 8, "embedding": 4}
# For silence the proxy is perfect at the start, and cannot become better.
SILENCE = torch.zeros(1, 1, 300)
SHORT = {"steps": 8, "batch_size": 2, "samples": 128, "validate_every": 3, "validation_batches": 2}


def noise(*shape, seed=0):
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(generator):
    return 0.3 * torch.randn(2, 1, 200, generator=generator)


def saturation(x: Tensor, u: Tensor) -> Tensor:
    """A gain of -6 to 6 dB into tanh, and one of -6 to 6 dB behind it."""
    before, after = (10 ** ((0.6 * u - 0.3)[..., i, None, None]) for i in (0, 1))
    return after * torch.tanh(before * x)


def proxy(num_controls=2, **sizes):
    return NeuralProxy(num_controls, **{**SIZE, **sizes})


def train(effect=saturation, network=None, audio=None, **arguments):
    network = proxy() if network is None else network
    audio = noise(4, 1, 400) if audio is None else audio
    return network, train_proxy(effect, network, audio, **{**SHORT, **arguments})


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_gain_and_a_saturation_are_learned():
    network = NeuralProxy(2, channels=8, blocks=2, kernel_size=3, level_blocks=1, level_hop=8, embedding=8)
    settings = {"steps": 240, "batch_size": 12, "samples": 128, "learning_rate": 1e-2}
    train_proxy(saturation, network, 3 * noise(16, 1, 4096), validate_every=10, plateau=2, patience=99, **settings)
    x, u = 3 * noise(32, 1, 1000, seed=5), torch.rand(32, 2, generator=torch.Generator().manual_seed(5))
    y = saturation(x, u)

    def error(z):
        return float((z.detach() - y).square().mean().sqrt() / y.square().mean().sqrt())

    # 0.036 was measured: the rest is for other orders of summation.
    assert error(network(x, u)) < 0.06
    assert error(x) > 0.5


def test_progress_is_told_after_each_step():
    told: list[TrainingProgress] = []
    _, result = train(on_step=told.append)
    assert [p.step for p in told] == list(range(1, 9))
    assert {p.steps for p in told} == {8}
    assert [p.loss for p in told] == list(result.losses)
    assert [p.step for p in told if p.validation_loss is not None] == [3, 6]
    assert list(result.validation_losses) == [0, 3, 6, 8]
    assert result.steps == 8
    assert not result.stopped_early
    assert not result.interrupted


def test_the_proxy_has_its_best_parameters_at_the_end():
    # With such steps training goes astray.
    network, result = train(steps=12, learning_rate=0.1)
    assert result.best_step < 12
    assert result.best_loss == min(result.validation_losses.values())
    assert result.best_loss == result.validation_losses[result.best_step]
    if result.best_step == 0:
        assert same(network, proxy())


def test_the_same_arguments_give_the_same_and_the_global_state_is_left_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, one = train()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second, two = train()
    assert same(first, second)
    assert one == two
    other, _ = train(generator=torch.Generator().manual_seed(1))
    assert not same(first, other)


SOURCES = pytest.mark.parametrize(
    "source",
    [
        lambda: noise(5, 1, 400),
        lambda: noise(1, 4000),
        lambda: drawn,
        lambda: list(noise(7, 1, 300)),
        lambda: list(noise(7, 3, 1, 300)),
        lambda: (noise(2, 1, 200, seed=n) for n in itertools.count()),
    ],
    ids=["tensor", "one item", "callable", "items", "batches", "iterator"],
)


class CrashError(Exception):
    """Ends a program in the middle of a training."""


@SOURCES
def test_a_resumed_training_equals_one_that_was_not_interrupted_to_the_bit(source, tmp_path):
    arguments = {"steps": 11, "plateau": 1, "patience": 100, "learning_rate": 0.3}
    whole, expected = train(audio=source(), **arguments)

    def crash(progress):
        if progress.step == 8:
            raise CrashError

    path = tmp_path / "training.safetensors"
    with pytest.raises(CrashError):
        train(audio=source(), **arguments, checkpoint=path, on_step=crash)
    told = []
    resumed, result = train(audio=source(), **arguments, checkpoint=path, resume=True, on_step=told.append)
    # The last checkpoint is that of step 6.
    assert told[0].step == 7
    assert same(resumed, whole)
    assert result == expected


def test_a_training_goes_on_after_its_end_as_if_it_had_been_longer(tmp_path):
    whole, expected = train(steps=10)
    train(steps=5, checkpoint=tmp_path / "training")
    resumed, result = train(steps=10, checkpoint=tmp_path / "training", resume=True)
    assert same(resumed, whole)
    assert result == expected


def test_the_best_parameters_are_resumed_too(tmp_path):
    train(validation_audio=SILENCE, steps=6, checkpoint=tmp_path / "training")
    network, result = train(
        network=proxy(seed=5), validation_audio=SILENCE, checkpoint=tmp_path / "training", resume=True
    )
    assert result.best_step == 0
    assert same(network, proxy())


def test_resume_needs_no_checkpoint_to_begin_with(tmp_path):
    network, result = train(checkpoint=tmp_path / "training", resume=True)
    again, _ = train()
    assert same(network, again)
    assert result.steps == 8


def test_a_checkpoint_gives_the_best_proxy(tmp_path):
    network, result = train(steps=6, checkpoint=tmp_path / "training")
    assert result.best_step in (0, 3, 6)
    assert same(NeuralProxy.load(tmp_path / "training"), network)
    assert [file.name for file in tmp_path.iterdir()] == ["training"]


def test_training_ends_early_and_slows_down_on_a_plateau():
    told: list[TrainingProgress] = []
    settings = {"validation_audio": SILENCE, "steps": 50, "validate_every": 2, "plateau": 2, "patience": 5}
    network, result = train(**settings, on_step=told.append)
    assert result.stopped_early
    assert result.steps == 10
    assert result.best_step == 0
    assert same(network, proxy())
    assert [p.learning_rate for p in told] == [3e-3] * 4 + [1.5e-3] * 4 + [0.75e-3] * 2


def test_a_lower_learning_rate_makes_smaller_steps():
    settings = {"validation_audio": SILENCE, "steps": 6, "validate_every": 2}
    results = [train(**settings, plateau=plateau)[1] for plateau in (1, 99)]
    slow, fast = (result.losses for result in results)
    assert slow[:3] == fast[:3]
    assert slow[3] != fast[3]


@pytest.mark.parametrize("when", [1, 7])
def test_an_interrupted_training_gives_its_best(when):
    def interrupt(progress):
        if progress.step == when:
            raise KeyboardInterrupt

    network, result = train(on_step=interrupt)
    assert result.interrupted
    assert result.steps == when
    assert result.best_loss == result.validation_losses[result.best_step]
    fresh, _ = train(steps=result.best_step)
    assert same(network, fresh)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"steps": 2, "validate_every": 50}, {"steps": 7}, {"steps": 8}])
def test_a_checkpoint_has_what_is_returned(arguments, tmp_path):
    network, result = train(lambda x, u: 0.5 * x, **arguments, checkpoint=tmp_path / "training")
    assert same(NeuralProxy.load(tmp_path / "training"), network)
    assert result.best_step == arguments["steps"]


def test_an_interrupted_training_leaves_a_checkpoint_to_go_on_from(tmp_path):
    def interrupt(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    for path, every in ((tmp_path / "early", 50), (tmp_path / "late", 3)):
        network, _ = train(on_step=interrupt, checkpoint=path, validate_every=every)
        assert same(NeuralProxy.load(path), network)
        whole, expected = train(validate_every=every)
        resumed, result = train(checkpoint=path, resume=True, validate_every=every)
        assert same(resumed, whole)
        assert result == expected


def test_the_effect_runs_in_batches_without_autograd_on_controls_that_fill_their_range():
    drawn_controls = []

    def effect(x, u):
        assert not torch.is_grad_enabled()
        assert x.shape == (2, 1, 128)
        assert u.shape == (2, 3)
        drawn_controls.append(u)
        return torch.from_numpy(x.numpy() * 0.5)

    train(effect, proxy(3), steps=40, validate_every=20)
    u = torch.cat(drawn_controls)
    # Uniform in [0, 1]: the mean of 84 draws has a standard deviation of 0.03.
    assert ((u >= 0) & (u <= 1)).all()
    assert ((u.mean(0) - 0.5).abs() < 0.1).all()
    assert (u.amin(0) < 0.05).all()
    assert (u.amax(0) > 0.95).all()


def marked(items):
    """Items that can be told apart by their level."""
    return torch.ones(items, 1, 300) * torch.arange(1, items + 1)[:, None, None] / 100


def levels(seen):
    return {round(float(100 * x.amax())) for batch in seen for x in batch}


@pytest.mark.parametrize(
    ("source", "held_out"),
    [(lambda: marked(20), {19, 20}), (lambda: marked(2), {2}), (lambda: list(marked(9)), {1, 2, 3, 4})],
    ids=["tensor", "two items", "iterable"],
)
def test_what_is_held_out_is_not_trained_on(source, held_out):
    seen = []

    def effect(x, u):
        seen.append(x)
        return x

    train(effect, audio=source(), steps=30)
    validation, training = seen[:2], seen[2:]
    assert levels(validation) <= held_out
    assert not levels(training) & held_out
    assert len(levels(training)) > 4 or held_out == {2}


def test_of_one_item_the_end_is_held_out():
    seen = []

    def effect(x, u):
        seen.append(x)
        return x

    ramp = torch.arange(4000.0).reshape(1, 4000) / 4000
    train(effect, audio=ramp, steps=15)
    assert min(x.min() for x in seen[:2]) >= 0.9
    assert max(x.max() for x in seen[2:]) < 0.9


def test_validation_audio_is_what_is_given():
    seen = []

    def effect(x, u):
        seen.append(x)
        return x

    train(effect, audio=marked(3), validation_audio=50 * torch.ones(1, 1, 300), steps=10)
    assert levels(seen[:2]) == {5000}
    assert levels(seen[2:]) == {1, 2, 3}


def test_short_audio_is_followed_by_silence():
    seen = []

    def effect(x, u):
        seen.append(x)
        return x

    train(effect, audio=torch.ones(3, 1, 100), steps=1)
    assert all(torch.equal(x, torch.cat([torch.ones(2, 1, 100), torch.zeros(2, 1, 28)], -1)) for x in seen)


def test_another_loss_is_what_is_minimised():
    calls = []

    def loss(y, target):
        calls.append((y.requires_grad, target.requires_grad))
        return (y - target).square().mean()

    _, result = train(loss=loss, steps=2, validate_every=1, validation_batches=1)
    assert result.losses[0] < 1
    # One of the start, two steps with their validations, one of the identity.
    assert calls == [(False, False), (True, False), (False, False), (True, False), (False, False), (False, False)]


def test_the_loss_of_the_identity_is_reported_where_there_is_one():
    _, result = train(lambda x, u: x, steps=0)
    assert result.identity_loss == 0
    _, result = train(lambda x, u: x.expand(-1, 2, -1), NeuralProxy(2, 1, 2, **SIZE), steps=0)
    assert math.isnan(result.identity_loss)


def test_training_in_float64():
    train(network=proxy().double(), audio=noise(4, 1, 400).double(), steps=1)


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (lambda x, u: x[..., 1:], r"returned shape \(2, 1, 127\)"),
        (lambda x, u: x.expand(2, 2, 128), r"returned .* expected \(2, 1, 128\)"),
        (lambda x, u: x.double(), r"returned torch\.float64"),
        (lambda x, u: x.numpy(), "raised TypeError: it returned a ndarray"),
        (lambda x, u: x / 0 * 0, r"returned NaN .* with controls 0\.\d+, 0\.\d+$"),
    ],
)
def test_an_effect_that_gives_something_else_is_refused(effect, message):
    with pytest.raises(EffectError, match=f"train_proxy: the effect {message}"):
        train(effect)


@pytest.mark.parametrize("effect", [noise_of_torch, noise_of_seed, noise_of_generator])
def test_a_training_with_an_effect_that_draws_resumes_to_the_bit(effect, tmp_path):
    def single(x, u, **random):
        return effect(x, u[..., :1], **random)

    single.__signature__ = inspect.signature(effect)
    audio = noise(4, 1, 400).double()
    before = torch.get_rng_state()
    whole, expected = train(single, proxy().double(), audio, steps=9)
    train(single, proxy().double(), audio, steps=6, checkpoint=tmp_path / "training")
    torch.rand(1)
    settings = {"steps": 9, "checkpoint": tmp_path / "training", "resume": True}
    resumed, result = train(single, proxy().double(), audio, **settings)
    assert same(resumed, whole)
    assert result == expected
    torch.set_rng_state(before)


def test_an_effect_with_state_that_takes_single_items_is_trained_on():
    effect = Recursive()
    effect.batched = False
    _, one = train(effect, steps=2)
    _, two = train(effect, steps=2)
    assert one == two


def test_an_error_of_the_effect_is_not_hidden():
    def effect(x, u):
        raise RuntimeError("the plug-in is gone")

    with pytest.raises(RuntimeError, match="the plug-in is gone"):
        train(effect)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": -1}, ValueError, "steps, learning_rate and max_norm are -1"),
        ({"learning_rate": 0.0}, ValueError, "steps, learning_rate and max_norm"),
        ({"max_norm": -1.0}, ValueError, "steps, learning_rate and max_norm"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, expected at least 1"),
        ({"samples": 0}, ValueError, "samples is 0"),
        ({"validate_every": 0}, ValueError, "validate_every is 0"),
        ({"patience": 0}, ValueError, "patience is 0"),
        ({"loss": lambda y, t: (y - t).abs().mean((1, 2))}, ValueError, "expected a finite scalar"),
        (
            {"loss": lambda y, t: (y - t).abs().mean() * torch.nan},
            ValueError,
            "loss gives nan, expected a finite scalar",
        ),
        ({"audio": torch.zeros(0, 1, 400)}, ValueError, r"audio has shape \(0, 1, 400\), expected samples"),
        ({"audio": torch.zeros(1, 200)}, ValueError, "one item of 200 samples, of which none can be held out"),
        ({"audio": torch.zeros(400)}, ValueError, r"audio has shape \(400,\)"),
        ({"audio": torch.zeros(4, 1, 400, dtype=torch.int16)}, TypeError, r"audio has type torch\.int16"),
        ({"audio": torch.zeros(4, 2, 400)}, ValueError, r"expected 1 channel"),
        ({"audio": lambda generator: [0.0]}, TypeError, "audio is a list"),
        ({"audio": iter(noise(6, 1, 200))}, ValueError, "audio is exhausted"),
        ({"audio": []}, ValueError, "audio is exhausted"),
        ({"validation_audio": torch.zeros(400)}, ValueError, r"validation_audio has shape \(400,\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        train(**arguments)


def test_a_checkpoint_is_not_overwritten_unless_it_is_resumed(tmp_path):
    train(checkpoint=tmp_path / "training", steps=1)
    content = (tmp_path / "training").read_bytes()
    with pytest.raises(FileExistsError, match="resume=True"):
        train(checkpoint=tmp_path / "training")
    assert (tmp_path / "training").read_bytes() == content


def test_a_checkpoint_of_another_architecture_is_refused_and_the_difference_named(tmp_path):
    path = tmp_path / "training"
    train(checkpoint=path, steps=1)
    other = proxy(channels=8, level_hop=16)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    message = (
        r"training is of another architecture: it has channels=4, level_hop=8, the proxy channels=8, level_hop=16$"
    )
    with pytest.raises(ValueError, match=message):
        train(network=other, checkpoint=path, resume=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    with pytest.raises(ValueError, match="it has num_controls=2, the proxy num_controls=5"):
        train(lambda x, u: x, proxy(5), checkpoint=path, resume=True)


def test_a_file_without_a_training_is_not_resumed(tmp_path):
    proxy().save(tmp_path / "proxy")
    with pytest.raises(ValueError, match="no state of a training"):
        train(checkpoint=tmp_path / "proxy", resume=True)
    (tmp_path / "damaged").write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        train(checkpoint=tmp_path / "damaged", resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, course: tensors.pop("generator"),
        lambda tensors, course: tensors.update(generator=torch.zeros(3)),
        lambda tensors, course: tensors.update({"adam.0.exp_avg": torch.zeros(2)}),
        lambda tensors, course: tensors.pop("adam.1.step"),
        lambda tensors, course: course.pop("learning_rate"),
        lambda tensors, course: course.update(unknown=1),
        lambda tensors, course: course.update(step="6"),
        lambda tensors, course: course.update(losses=[None]),
        lambda tensors, course: course.update(validation_losses=[1.0]),
    ],
)
def test_a_damaged_training_is_refused_and_changes_nothing(damage, tmp_path):
    path = tmp_path / "training"
    train(checkpoint=path, steps=6)
    tensors, notes = read_checkpoint(path, FORMAT)
    damage(tensors, notes["course"])
    write_checkpoint(path, tensors, notes, FORMAT)
    network, generator = proxy(seed=5), torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="its state of a training is damaged"):
        train(network=network, checkpoint=path, resume=True, generator=generator)
    assert same(network, proxy(seed=5))


def test_spectral_distance_is_its_definition():
    y, target = noise(2, 1, 5000).double(), noise(2, 1, 5000, seed=1).double()
    total = (y - target).abs().mean() / (target.abs().mean() + 1e-4)
    for size in (256, 1024, 4096):
        window = torch.hann_window(size, dtype=torch.float64) * 2 / size
        have, want = (
            torch.stft(a[:, 0], size, size // 4, window=window, center=False, return_complex=True).abs()
            for a in (y, target)
        )
        total = total + ((have + 1e-4).log() - (want + 1e-4).log()).abs().mean() / 3
        total = total + (have - want).abs().sum() / (want.sum() + 1e-4 * want.numel()) / 3
    torch.testing.assert_close(spectral_distance(y, target), total)


@pytest.mark.parametrize("samples", [1, 100, 5000])
def test_spectral_distance_is_zero_for_equals_and_finite_for_silence(samples):
    y = noise(2, 1, samples)
    assert spectral_distance(y, y) == 0
    silence = torch.zeros(2, 1, samples, requires_grad=True)
    distance = spectral_distance(silence, torch.zeros(2, 1, samples)) + spectral_distance(silence, y)
    distance.backward()
    assert distance.isfinite()
    assert silence.grad.isfinite().all()


def test_spectral_distance_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"shapes \(1, 8\) and \(2, 8\)"):
        spectral_distance(torch.zeros(1, 8), torch.zeros(2, 8))
    with pytest.raises(ValueError, match="expected one shape with samples"):
        spectral_distance(torch.zeros(1, 0), torch.zeros(1, 0))
    with pytest.raises(TypeError, match="target has type"):
        spectral_distance(torch.zeros(1, 8), torch.zeros(1, 8).int())

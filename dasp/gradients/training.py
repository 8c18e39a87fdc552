"""Trains a proxy to imitate an effect, with validation, early stopping and checkpoints that resume to the bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from dasp._checks import check_audio, shape_text
from dasp.gradients._probing import Probing
from dasp.gradients._random import draw_seed
from dasp.gradients._workers import AnyEffect
from dasp.gradients.checkpoints import check_parameters, part, prefixed, read_checkpoint, write_checkpoint
from dasp.gradients.proxy import FORMAT, NeuralProxy

AudioSource: TypeAlias = Tensor | Callable[[torch.Generator], Tensor] | Iterable[Tensor]

_SIZES = (256, 1024, 4096)
# Magnitudes below this, for a sine of amplitude 1, count as silence.
_SILENCE = 1e-4
# Share of a tensor of audio that is held out for validation.
_HELD_OUT = 0.1
# Factor of the learning rate where the validation loss no longer falls.
_PLATEAU = 0.5


@dataclass(frozen=True)
class TrainingProgress:
    """What is known after a step of training.

    Attributes:
        step: Steps done.
        steps: Steps planned.
        loss: Loss of this step's batch.
        validation_loss: Loss on held-out audio and controls, None where it was not evaluated.
        learning_rate: Of this step.

    Example:
        >>> proxy = dasp.gradients.NeuralProxy(1, channels=2, blocks=1, level_blocks=1)
        >>> noise, steps = torch.randn(8, 1, 512), []
        >>> result = dasp.gradients.train_proxy(
        ...     lambda x, u: u[..., None] * x,
        ...     proxy,
        ...     noise,
        ...     steps=2,
        ...     samples=256,
        ...     validate_every=2,
        ...     on_step=steps.append,
        ... )
        >>> [(progress.step, progress.validation_loss is not None) for progress in steps]
        [(1, False), (2, True)]
    """

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    learning_rate: float


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        steps: Steps done, those before it was resumed included.
        losses: Loss of each step's batch.
        validation_losses: Loss on held-out audio and controls by step, that of step 0 included.
        best_step: The step whose parameters the proxy has now.
        best_loss: Its loss on held-out audio and controls.
        identity_loss: Loss there of the input itself, NaN where its channels are not those of the output.
        stopped_early: Whether the validation loss had stopped falling.
        interrupted: Whether a KeyboardInterrupt ended it.

    Example:
        >>> proxy = dasp.gradients.NeuralProxy(1, channels=2, blocks=1, level_blocks=1)
        >>> noise = torch.randn(8, 1, 512)
        >>> result = dasp.gradients.train_proxy(
        ...     lambda x, u: u[..., None] * x, proxy, noise, steps=2, samples=256, validate_every=1
        ... )
        >>> result.steps, sorted(result.validation_losses), result.best_loss == min(result.validation_losses.values())
        (2, [0, 1, 2], True)
    """

    steps: int
    losses: tuple[float, ...]
    validation_losses: dict[int, float]
    best_step: int
    best_loss: float
    identity_loss: float
    stopped_early: bool
    interrupted: bool


@dataclass
class _Course:
    """Where a training stands, apart from tensors: what a checkpoint stores."""

    learning_rate: float
    validation_seed: int
    step: int = 0
    losses: list[float] = field(default_factory=list)
    validation_losses: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = math.inf
    stale: int = 0


def spectral_distance(y: Tensor, target: Tensor) -> Tensor:
    """How far audio is from a target: spectra on a logarithmic and a linear scale, at three resolutions, and samples.

    The sum of the mean of |ln((|Y| + s) / (|T| + s))|, the mean of ||Y| - |T|| over that of |T|, both averaged over
    STFTs of 256, 1024 and 4096 samples, and the mean of |y - t| over that of |t|; s is -80 dBFS.

    Args:
        y: Audio `(*batch, channels, samples)`.
        target: Audio of that shape.

    Returns:
        Scalar, without unit.

    Raises:
        TypeError: If one of them is not floating-point audio.
        ValueError: If the shapes differ or there are no samples.

    Example:
        >>> y = torch.randn(1, 8192, generator=torch.Generator().manual_seed(0))
        >>> round(dasp.gradients.spectral_distance(0.5 * y, y).item(), 2)  # ln 2 + 1 / 2 + 1 / 2
        1.69
    """
    check_audio("spectral_distance", y, argument="y")
    check_audio("spectral_distance", target, argument="target")
    if y.shape != target.shape or y.numel() == 0:
        shapes = f"{shape_text(y.shape)} and {shape_text(target.shape)}"
        raise ValueError(f"spectral_distance: y and target have shapes {shapes}, expected one shape with samples")
    total = (y - target).abs().mean() / (target.abs().mean() + _SILENCE)
    for size in _SIZES:
        window = torch.hann_window(size, dtype=y.dtype, device=y.device) * (2 / size)
        # Frames that lie in the audio whole; audio shorter than a frame is one frame.
        short = max(0, size - y.shape[-1])
        have, want = (
            torch.fft.rfft(nn.functional.pad(a, (0, short)).unfold(-1, size, size // 4) * window).abs()
            for a in (y, target)
        )
        logarithmic = ((have + _SILENCE) / (want + _SILENCE)).log().abs().mean()
        linear = (have - want).abs().mean() / (want.mean() + _SILENCE)
        total = total + (logarithmic + linear) / len(_SIZES)
    return total


class _Source:
    """Batches of audio `(batch, channels, samples)` from whatever holds audio."""

    def __init__(
        self, audio: AudioSource, channels: int, batch_size: int, samples: int, argument: str = "audio"
    ) -> None:
        self._channels, self._size, self._samples, self._argument = channels, batch_size, samples, argument
        self._audio = audio
        if isinstance(audio, Tensor):
            self._audio = self._flat(audio)
        elif not callable(audio):
            self._elements = self._forever(audio)
        # Elements at the beginning of an iterable that are for validation.
        self.held_out = 0

    def batch(self, generator: torch.Generator) -> Tensor:
        """The next batch, drawn by the generator as far as there is a choice."""
        if isinstance(self._audio, Tensor):
            items = torch.randint(len(self._audio), (self._size,), generator=generator).tolist()
            return torch.stack([self._excerpt(self._audio[i], generator) for i in items])
        if callable(self._audio):
            return self._excerpt(self._flat(self._audio(generator)), generator)
        return torch.cat([self._excerpt(self._flat(x), generator) for x in self._collected()])

    def skip(self, batches: int) -> None:
        """Passes over batches of an iterable; other sources depend on the generator alone."""
        if not isinstance(self._audio, Tensor) and not callable(self._audio):
            for _ in range(batches):
                self._collected()

    def hold_out(self, batches: int, generator: torch.Generator) -> list[Tensor]:
        """Batches for validation, which this source does not give again if it is a tensor or an iterable."""
        if not isinstance(self._audio, Tensor):
            held_out = [self.batch(generator) for _ in range(batches)]
            self.held_out = self._taken if not callable(self._audio) else 0
            return held_out
        items, length = len(self._audio), self._audio.shape[-1]
        if items > 1:
            kept = items - max(1, round(_HELD_OUT * items))
            self._audio, others = self._audio[:kept], self._audio[kept:]
        else:
            end = length - max(self._samples, round(_HELD_OUT * length))
            if end < self._samples:
                raise ValueError(
                    f"train_proxy: audio is one item of {length} samples, of which none can be held out: "
                    f"expected at least {2 * self._samples} samples or several items, or give validation_audio"
                )
            self._audio, others = self._audio[..., :end], self._audio[..., end:]
        source = _Source(others, self._channels, self._size, self._samples)
        return [source.batch(generator) for _ in range(batches)]

    def _collected(self) -> list[Tensor]:
        """The next element of an iterable if it is a batch, else as many elements as make one."""
        elements = [next(self._elements)]
        while elements[0].ndim == 2 and len(elements) < self._size:
            elements.append(next(self._elements))
        return elements

    def _forever(self, audio: Iterable[Tensor]) -> Iterator[Tensor]:
        """The elements of an iterable again and again, after the first time without those that are held out."""
        while True:
            self._taken = 0
            for x in audio:
                self._taken += 1
                if self._taken > self.held_out:
                    yield x
            if self._taken <= self.held_out:
                raise ValueError(
                    f"train_proxy: {self._argument} is exhausted: give an iterable that can begin anew, or a callable"
                )

    def _flat(self, x: Tensor) -> Tensor:
        check_audio("train_proxy", x, (self._channels,), self._argument)
        if x.numel() == 0:
            raise ValueError(f"train_proxy: {self._argument} has shape {shape_text(x.shape)}, expected samples")
        return x.reshape(-1, *x.shape[-2:])

    def _excerpt(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A stretch at a random place; silence follows audio that is too short."""
        length = x.shape[-1]
        if length <= self._samples:
            return nn.functional.pad(x, (0, self._samples - length))
        begin = int(torch.randint(length - self._samples + 1, (), generator=generator))
        return x[..., begin : begin + self._samples]


class _Training:
    """A proxy in training: its optimiser, where it stands, and what is held out."""

    def __init__(
        self,
        effect: AnyEffect,
        proxy: NeuralProxy,
        loss: Callable[[Tensor, Tensor], Tensor],
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        self.proxy, self.loss, self.generator = proxy, loss, generator
        self.probing = Probing("train_proxy", effect)
        self.optimizer = torch.optim.Adam(proxy.parameters(), learning_rate)
        seed = int(torch.randint(2**62, (), generator=generator))
        self.course = _Course(learning_rate, seed)
        self.best = self._parameters()
        self.held_out: list[tuple[Tensor, Tensor, Tensor]] = []
        self.remember()

    def example(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Audio, controls drawn for it, and what the effect makes of both."""
        u = torch.rand(len(x), self.proxy.num_controls, generator=generator).to(x.device, x.dtype)
        # Of a copy: what the effect is given must not change what is drawn next.
        y, _ = self.probing.first(x, u, draw_seed(generator.clone_state()), self.proxy.channels_out)
        return x, u, y

    def step(self, x: Tensor, max_norm: float) -> float:
        """One step of Adam."""
        x, u, y = self.example(x, self.generator)
        self.optimizer.zero_grad()
        loss = self.distance(self.proxy(x, u), y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.proxy.parameters(), max_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.course.learning_rate
        self.optimizer.step()
        self.course.step += 1
        self.course.losses.append(float(loss.detach()))
        return self.course.losses[-1]

    def distance(self, y: Tensor, target: Tensor) -> Tensor:
        """The loss, which must be a finite scalar."""
        loss = self.loss(y, target)
        if loss.ndim or not bool(torch.isfinite(loss)):
            raise ValueError(f"train_proxy: loss gives {loss.detach()}, expected a finite scalar")
        return loss

    @torch.no_grad()
    def held_out_distance(self, outputs: Iterable[Tensor]) -> float:
        """Mean loss of outputs for what is held out."""
        losses = [float(self.distance(have, y)) for have, (_, _, y) in zip(outputs, self.held_out, strict=True)]
        return sum(losses) / len(losses)

    @torch.no_grad()
    def validate(self, plateau: int) -> float:
        """Loss on what is held out; remembers the best parameters and lowers the learning rate on a plateau."""
        course = self.course
        loss = self.held_out_distance(self.proxy(x, u) for x, u, _ in self.held_out)
        course.validation_losses.append((course.step, loss))
        if loss < course.best_loss:
            course.best_loss, course.best_step, course.stale = loss, course.step, 0
            self.best = self._parameters()
        else:
            course.stale += 1
            if course.stale % plateau == 0:
                course.learning_rate *= _PLATEAU
        return loss

    def _parameters(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.proxy.state_dict().items()}

    def remember(self) -> None:
        """Copies all that a training needs to go on from here to the bit."""
        tensors = {
            **prefixed("best", self.best),
            **prefixed("current", self._parameters()),
            "generator": self.generator.get_state(),
        }
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= prefixed(f"adam.{number}", {name: tensor.clone() for name, tensor in state.items()})
        self.remembered: tuple[dict[str, Tensor], dict[str, Any]] = tensors, asdict(self.course)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what was remembered, and the best parameters of now as those of the proxy."""
        tensors, course = self.remembered
        notes = {"config": self.proxy.config, "course": course}
        write_checkpoint(path, {**prefixed("proxy", self.best), **tensors}, notes, FORMAT)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Puts everything to where `remember` was called."""
        tensors, notes = read_checkpoint(path, FORMAT)
        config = notes.get("config")
        if config != self.proxy.config:
            raise ValueError(
                f"train_proxy: {path} is of another architecture: {_difference(config, self.proxy.config)}"
            )
        if not isinstance(notes.get("course"), dict):
            raise ValueError(f"train_proxy: {path} has no state of a training, from which it could resume")
        for name in ("best", "current"):
            check_parameters(f"train_proxy: {path}", part(tensors, name), self.proxy.state_dict())
        # All of it is read before anything is changed.
        try:
            course = _read_course(notes["course"])
            moments = self._read_moments(tensors)
            torch.Generator(self.generator.device).set_state(tensors["generator"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"train_proxy: {path}: its state of a training is damaged ({error})") from error
        self.course = course
        self.best = part(tensors, "best")
        self.proxy.load_state_dict(part(tensors, "current"))
        self.generator.set_state(tensors["generator"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.remember()

    def _read_moments(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """What Adam knows of each parameter, nothing before the first step."""
        moments = {}
        for number, parameter in enumerate(self.proxy.parameters()):
            if state := part(tensors, f"adam.{number}"):
                shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
                if {name: tuple(tensor.shape) for name, tensor in state.items()} != shapes:
                    raise ValueError(f"adam.{number} does not suit its parameter")
                moments[number] = state
        return moments


def _read_course(notes: Mapping[str, Any]) -> _Course:
    """A course as it was written."""
    course = _Course(**notes)
    kinds = asdict(_Course(0.0, 0))
    for name, value in asdict(course).items():
        if type(value) is not type(kinds[name]):
            raise TypeError(f"{name} is {value!r}")
    course.losses = [float(loss) for loss in course.losses]
    course.validation_losses = [(int(step), float(loss)) for step, loss in course.validation_losses]
    return course


def _difference(have: object, want: dict[str, int]) -> str:
    """Where two configurations differ, in words."""
    if not isinstance(have, dict):
        return "it has no configuration"
    names = [name for name in want if have.get(name) != want[name]]
    theirs, ours = (", ".join(f"{name}={config.get(name)}" for name in names) for config in (have, want))
    return f"it has {theirs}, the proxy {ours}"


def train_proxy(
    effect: AnyEffect,
    proxy: NeuralProxy,
    audio: AudioSource,
    *,
    validation_audio: Tensor | None = None,
    steps: int = 1000,
    batch_size: int = 8,
    samples: int = 32768,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    learning_rate: float = 3e-3,
    max_norm: float = 1.0,
    validate_every: int = 50,
    validation_batches: int = 4,
    plateau: int = 2,
    patience: int = 10,
    generator: torch.Generator | None = None,
    on_step: Callable[[TrainingProgress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Trains a proxy, in place, to imitate an effect on random controls, uniform in [0, 1], and random audio.

    The effect runs without autograd and is asked for batches: audio `(batch, channels, samples)`, controls
    `(batch, P)`.  Adam follows gradients of limited norm; every `validate_every` steps the loss is evaluated on audio
    that is held out, with controls of its own, and at the end the proxy has the parameters that were best there.  A
    KeyboardInterrupt ends training in the same way.

    Args:
        effect: `effect(x, u) -> y`, any function that keeps the length of the audio; as for `hybrid`.
        proxy: The proxy.
        audio: What to train on. A tensor `(*items, channels, samples)`, of which random stretches are taken; a callable
            that gives a batch of audio, drawn with the generator that it is called with; or an iterable of batches
            `(batch, channels, samples)` or of single items `(channels, samples)`, which begins anew when it ends.
        validation_audio: Held-out audio `(*items, channels, samples)`.  Without it the last tenth of a tensor is held
            out, or what comes first from a callable or an iterable.
        steps: Steps of training, those before it was resumed included.
        batch_size: Items per batch, for tensors and single items.
        samples: Length of the stretches of audio.  What the effect remembers for longer is not learned.
        loss: `loss(y, target)`, a differentiable scalar; `spectral_distance` if None.
        learning_rate: First learning rate of Adam.
        max_norm: Limit of the norm of the gradient.
        validate_every: Steps between evaluations on what is held out.
        validation_batches: Batches held out.
        plateau: The learning rate is halved after each so many evaluations in a row without a new best one.
        patience: Training ends after so many in a row.
        generator: What all randomness is drawn from, on the CPU; one with seed 0 if None.
        on_step: Called after each step.
        checkpoint: A safetensors file, written at each evaluation and at the end, with everything that is needed to go
            on from the last evaluation. `NeuralProxy.load` reads the best parameters from it.
        resume: Go on from the checkpoint if there is one.  The result is that of a training that was never interrupted,
            to the bit, if the other arguments are those of before.

    Returns:
        How the loss came down.  The same arguments give the same result; the global random state is left alone.

    Raises:
        TypeError: If audio is no floating-point tensor of the type of the proxy, or the effect cannot be called.
        ValueError: If a number is too small, audio has no samples, is exhausted or cannot be divided for validation,
            the loss is no finite scalar, or the checkpoint is damaged or of another architecture.
        EffectError: If the effect raises, or returns another length, type, device, batch, other channels, or NaN.
        FileExistsError: If there is a checkpoint already and it is not to be resumed.

    Example:
        >>> def effect(x, u):
        ...     return u[..., None] * x
        >>> proxy = dasp.gradients.NeuralProxy(1, channels=4, blocks=1, level_blocks=1)
        >>> noise = torch.randn(8, 1, 4096, generator=torch.Generator().manual_seed(0))
        >>> result = dasp.gradients.train_proxy(effect, proxy, noise, steps=20, samples=1024, validate_every=10)
        >>> result.best_loss < result.identity_loss
        True
    """
    numbers = {"batch_size": batch_size, "samples": samples, "validate_every": validate_every}
    numbers |= {"validation_batches": validation_batches, "plateau": plateau, "patience": patience}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"train_proxy: {name} is {value}, expected at least 1")
    if steps < 0 or not learning_rate > 0 or not max_norm > 0:
        given = f"steps, learning_rate and max_norm are {steps}, {learning_rate} and {max_norm}"
        raise ValueError(f"train_proxy: {given}, expected at least 0, and two numbers above 0")
    resumed = checkpoint is not None and Path(checkpoint).exists()
    if resumed and not resume:
        raise FileExistsError(f"train_proxy: {checkpoint} exists already: give resume=True to go on from it")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    training = _Training(effect, proxy, loss or spectral_distance, learning_rate, generator)
    if resumed and checkpoint is not None:
        training.load(checkpoint)
    course = training.course
    channels = proxy.config["channels_in"]
    source = _Source(audio, channels, batch_size, samples)
    held_out_generator = torch.Generator().manual_seed(course.validation_seed)
    if validation_audio is None:
        held_out = source.hold_out(validation_batches, held_out_generator)
    else:
        validation = _Source(validation_audio, channels, batch_size, samples, "validation_audio")
        held_out = [validation.batch(held_out_generator) for _ in range(validation_batches)]
    training.held_out = [training.example(x, held_out_generator) for x in held_out]
    source.skip(course.step)
    interrupted = False
    try:
        if not course.validation_losses:
            training.validate(plateau)
        while course.step < steps and course.stale < patience:
            rate = course.learning_rate
            current = training.step(source.batch(generator), max_norm)
            validated = course.step % validate_every == 0
            validation_loss = training.validate(plateau) if validated else None
            if checkpoint is not None and validated:
                training.remember()
                training.save(checkpoint)
            if on_step is not None:
                on_step(TrainingProgress(course.step, steps, current, validation_loss, rate))
        if course.validation_losses[-1][0] < course.step:
            # A training that goes on from here knows nothing of this evaluation.
            training.remember()
            training.validate(plateau)
    except KeyboardInterrupt:
        interrupted = True
    if checkpoint is not None:
        training.save(checkpoint)
    proxy.load_state_dict(training.best)
    comparable = all(x.shape == y.shape for x, _, y in training.held_out)
    return TrainingResult(
        steps=course.step,
        losses=tuple(course.losses),
        validation_losses=dict(course.validation_losses),
        best_step=course.best_step,
        best_loss=course.best_loss,
        identity_loss=training.held_out_distance(x for x, _, _ in training.held_out) if comparable else math.nan,
        stopped_early=course.stale >= patience,
        interrupted=interrupted,
    )

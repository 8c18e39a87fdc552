"""Calls of an effect that has no gradient: with the same random numbers, checked, and with errors that name them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from dasp._checks import shape_text
from dasp.gradients._random import seeded
from dasp.gradients._workers import (
    AnyEffect,
    Task,
    TaskError,
    WorkerError,
    Workers,
    call,
    owner_of,
    random_arguments,
    reason_of,
)

# Tasks that workers get at once, each: fewer wait more often for the last of them, more hold more results.
_TASKS_PER_WORKER = 16
# Values that an error prints.
_SHOWN = 32

Label = Callable[[int], str]
P = ParamSpec("P")
R = TypeVar("R")


def check_effect(name: str, effect: object) -> None:
    """Raises unless an effect can be called."""
    if not callable(effect):
        raise TypeError(f"{name}: effect is a {type(effect).__name__}, expected a callable (x, u) -> y")


class EffectError(RuntimeError):
    """An effect failed or returned what it must not; the text names the call and the values of the controls.

    Example:
        >>> effect = dasp.gradients.spsa(lambda x, u: x / 0)
        >>> effect(torch.ones(1, 1, 4), torch.rand(1, 1))
        Traceback (most recent call last):
        dasp.gradients._probing.EffectError: ...
    """


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which a compiler leaves as it is: what it traces is torch code, and an effect may be anything.

    The decorator of torch is not used as such: it would import the compiler with this package.
    """
    if not torch.compiler.is_compiling():
        return function
    disabled: Callable[P, R] = torch.compiler.disable(function)
    return disabled


class Probing:
    """Calls an effect on probes, that is, on several settings of the controls of each item.

    Args:
        name: The function that the user called, for messages.
        effect: `(x, u) -> y`.
        batched: Whether it takes any number of batch dimensions; else it is called for one item at a time.  None for
            what the effect says, or else for whether there are no workers.
        probes_per_call: Most probes of an item in one call of a batched effect; None for all.
        workers: The workers for calls of one item each; none if None.

    Attributes:
        num_calls: Calls so far, a batched call as one for each item and probe in it.
    """

    def __init__(
        self,
        name: str,
        effect: AnyEffect,
        batched: bool | None = None,
        probes_per_call: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        check_effect(name, effect)
        self._workers = Workers(effect, 0, "thread", None) if workers is None else workers
        if batched is None:
            batched = bool(getattr(owner_of(effect), "batched", self._workers.count == 0))
        self.name, self.effect, self.batched = name, effect, batched
        self.num_calls = 0
        self._probes_per_call = probes_per_call

    def first(self, x: Tensor, u: Tensor, seed: int, channels: int | None = None) -> tuple[Tensor, bool]:
        """The effect as it is, and whether it draws random numbers; `channels` are those expected of it."""
        if not self.batched:
            return next(self.run(x[None], u[None], seed, False, lambda _: "the forward call", channels))[0], False
        with seeded(seed, x) as used:
            y = self._together(x[None], u[None], seed, 0, lambda _: "the forward call", channels)[0]
            return y, used() or bool(random_arguments(self.effect))

    def run(
        self, xs: Tensor, us: Tensor, seed: int, random: bool, label: Label, channels: int | None = None
    ) -> Iterator[Tensor]:
        """Audio of probes, in their order, some at a time.

        Args:
            xs: Audio, `(probes, *batch, channels, samples)`.
            us: Controls, `(probes, *batch, P)`.
            seed: That of the random numbers, as in the forward call.
            random: Whether the effect draws random numbers: then each probe is a call of the shape of the forward
                call, so that it draws the same.
            label: What a probe is called in errors.
            channels: Channels that the effect has returned before, None if it was not called yet.

        Yields:
            `(probes of this call, *batch, channels, samples)`.

        Raises:
            EffectError: If the effect raises, or returns another type, length or batch, other channels, or NaN.
        """
        size = 1 if random else self._at_once(xs)
        for start in range(0, len(us), size):
            x, u = xs[start : start + size], us[start : start + size]
            if not self.batched:
                yield self._one_by_one(x, u, seed, start, label, channels)
                continue
            with seeded(seed, xs):
                y = self._together(x, u, seed, start, label, channels)
            yield y

    def differentiated(self, x: Tensor, u: Tensor, grad: Tensor, seed: int) -> Tensor:
        """The vector-Jacobian product with respect to x of an effect that torch can differentiate in x."""
        leaf = x.detach().requires_grad_()
        with torch.enable_grad(), seeded(seed, x):
            label = "the call for the gradient of x"
            y = self._together(leaf[None], u[None], seed, 0, lambda _: label, grad.shape[-2], differentiable=True)[0]
        if not y.requires_grad:
            raise EffectError(f"{self.name}: input_gradient='autograd', but torch sees no way from x to the result")
        return torch.autograd.grad(y, leaf, grad)[0]

    def _at_once(self, xs: Tensor) -> int:
        if self._probes_per_call is not None:
            return self._probes_per_call
        if self.batched or self._workers.count == 0:
            return max(1, len(xs) if self.batched else 1)
        items = max(1, math.prod(xs.shape[1:-2]))
        return math.ceil(_TASKS_PER_WORKER * self._workers.count / items)

    def _together(
        self,
        xs: Tensor,
        us: Tensor,
        seed: int,
        start: int,
        label: Label,
        channels: int | None,
        differentiable: bool = False,
    ) -> Tensor:
        """One call for several probes; a single one has the shape of the forward call."""
        self.num_calls += len(us) * math.prod(us.shape[1:-1])
        single = len(us) == 1
        try:
            x, u = (xs[0], us[0]) if single else (xs, us)
            y = call(self.effect, x, u, seed, differentiable)
        except Exception as error:
            place, together = self._culprit(xs, us, seed)
            reason = f"raised {reason_of(error)}{together}"
            raise self._error(reason, us, place, start, label) from error
        if reason := _complaint(y, x, channels):
            raise self._error(reason, us, (0,) * (us.ndim - 1), start, label)
        return self._finite(y[None] if single else y, xs, us, start, label)

    def _one_by_one(self, xs: Tensor, us: Tensor, seed: int, start: int, label: Label, channels: int | None) -> Tensor:
        """One call for each probe and item; an item has the same random numbers in all of its probes."""
        places = list(product(*map(range, us.shape[:-1])))
        items = max(1, math.prod(us.shape[1:-1]))
        self.num_calls += len(places)
        tasks = [Task(xs[place], us[place], seed + i % items, place) for i, place in enumerate(places)]
        try:
            results = self._workers.results(tasks)
        except TaskError as failure:
            verb = "failed:" if isinstance(failure.__cause__, WorkerError) else "raised"
            raise self._error(f"{verb} {failure}", us, failure.task.place, start, label) from failure.__cause__
        except (RuntimeError, TypeError) as error:
            raise type(error)(f"{self.name}: {error}") from error
        if not results:
            return xs.new_empty(xs.shape)
        for task, y in zip(tasks, results, strict=True):
            if reason := _complaint(y, task.x, channels):
                raise self._error(reason, us, task.place, start, label)
            channels = y.shape[0]
        return self._finite(torch.stack(results).reshape(*us.shape[:-1], *results[0].shape), xs, us, start, label)

    def _culprit(self, xs: Tensor, us: Tensor, seed: int) -> tuple[tuple[int, ...], str]:
        """Which item of which probe fails by itself, after a call of several failed; and what to say if none does."""
        for place in product(*map(range, us.shape[:-1])):
            try:
                with seeded(seed, xs):
                    call(self.effect, xs[place], us[place], seed)
            except Exception:
                return place, ""
        return (0,) * (us.ndim - 1), f" for {tuple(us.shape[:-1])} items together, and for none of them alone"

    def _finite(self, y: Tensor, xs: Tensor, us: Tensor, start: int, label: Label) -> Tensor:
        finite = torch.isfinite(y).flatten(-2).all(-1)
        if not bool(finite.all()):
            place = tuple(int(i) for i in (~finite).nonzero()[0])
            given = "" if bool(torch.isfinite(xs[place]).all()) else ", and has been given such samples"
            raise self._error(f"returned NaN or infinite samples{given}", us, place, start, label)
        return y

    def _error(self, reason: str, us: Tensor, place: Sequence[int], start: int, label: Label) -> EffectError:
        probe, *item = place
        where = f", item {tuple(item)}" if item else ""
        text = _controls_text(self.effect, us[tuple(place)])
        return EffectError(f"{self.name}: the effect {reason}; at {label(start + probe)}{where}, with controls {text}")


def _complaint(y: Tensor, x: Tensor, channels: int | None) -> str:
    """What is wrong with the kind or shape of audio that an effect made of x; nothing if it is right."""
    if y.dtype != x.dtype:
        return f"returned {y.dtype}, expected {x.dtype} as it was given"
    if y.device != x.device:
        return f"returned audio on {y.device}, expected {x.device}"
    wanted = "channels" if channels is None else str(channels)
    expected = f"({', '.join([*map(str, x.shape[:-2]), wanted, str(x.shape[-1])])})"
    if y.ndim != x.ndim or y.shape[:-2] != x.shape[:-2] or y.shape[-1] != x.shape[-1]:
        return f"returned shape {shape_text(y.shape)}, expected {expected}"
    if channels is not None and y.shape[-2] != channels:
        return f"returned shape {shape_text(y.shape)}, expected {expected}"
    return ""


def _controls_text(effect: AnyEffect, u: Tensor) -> str:
    values = [f"{value:.7g}" for value in u[:_SHOWN].tolist()]
    names = getattr(owner_of(effect), "control_names", None)
    if names is not None and len(names) == len(u):
        values = [f"{name}={value}" for name, value in zip(names[:_SHOWN], values, strict=True)]
    return ", ".join(values) + (f" and {len(u) - _SHOWN} more" if len(u) > _SHOWN else "")

"""Gradients of effects that have none, estimated from calls: SPSA and finite differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dasp._checks import check_audio, check_choice, shape_text
from dasp.gradients._controls import check_unit_range, expand_controls
from dasp.gradients._plans import DRAWS, Draw, Perturbation, Plan, Stencil, checked_groups, draw_label, signs
from dasp.gradients._probing import Label, Probing, check_effect, eager
from dasp.gradients._random import draw_seed, generator_of
from dasp.gradients._workers import AnyEffect, Backend, Workers, owner_of

InputGradient = Literal["straight_through", "time_reversal", "spsa", "autograd"]

_INPUT_GRADIENTS = ("straight_through", "time_reversal", "spsa", "autograd")
# A step of fewer units of rounding than this would be wrong by more than a percent.
_LEAST_STEP = 100
# The largest step for which a stencil of five points fits into [0, 1] around every value.
_LARGEST_STENCIL = 0.125


class _Options(NamedTuple):
    """What all estimates have in common."""

    input_gradient: InputGradient | None
    batched: bool | None
    probes_per_call: int | None
    workers: int
    backend: Backend
    timeout_s: float | None

    def check(self, name: str) -> None:
        if self.input_gradient is not None:
            check_choice(name, "input_gradient", self.input_gradient, _INPUT_GRADIENTS)
        check_choice(name, "backend", self.backend, ("thread", "process"))
        _check_whole(name, "workers", self.workers, 0)
        if self.backend == "process" and not self.workers:
            raise ValueError(f"{name}: backend is 'process', which needs workers above 0")
        if self.timeout_s is not None and self.backend != "process":
            raise ValueError(f"{name}: timeout_s is {self.timeout_s}, which only backend='process' can keep to")
        if self.probes_per_call is not None:
            _check_whole(name, "probes_per_call", self.probes_per_call, 1)
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise ValueError(f"{name}: timeout_s is {self.timeout_s}, expected a finite number of seconds above 0")


class EstimatedGradient:
    """An effect whose vector-Jacobian product is estimated from calls of it; `spsa` and `finite_difference` make it.

    It is called as the effect is, `(x, u) -> y`, and may be used in a `with` statement, which ends its workers.

    Attributes:
        effect: The effect.
        num_calls: Calls of the effect so far, those for a gradient included and those that look for an error not; a
            call for several items or probes at once counts as one for each.

    Example:
        >>> estimate = dasp.gradients.finite_difference(lambda x, u: x * u[..., None])
        >>> u = torch.tensor([[0.5]], requires_grad=True)
        >>> estimate(torch.ones(1, 1, 8), u).sum().backward()
        >>> round(u.grad.item(), 2), estimate.num_calls
        (8.0, 3)
    """

    def __init__(
        self,
        name: str,
        effect: AnyEffect,
        plan: Plan,
        epsilon: float,
        num_draws: int,
        generator: torch.Generator | int,
        options: _Options,
    ) -> None:
        check_effect(name, effect)
        self._generator = generator_of(name, generator)
        options.check(name)
        self._workers = Workers(effect, options.workers, options.backend, options.timeout_s)
        self._probing = Probing(name, effect, options.batched, options.probes_per_call, self._workers)
        batched = self._probing.batched
        # Workers are for effects that take one item; else the effect says what it takes.
        if batched and options.workers:
            raise ValueError(
                f"{name}: workers is {options.workers}, expected 0 for an effect that is called for a whole batch"
            )
        if not batched and options.input_gradient == "autograd":
            raise ValueError(f"{name}: input_gradient='autograd' is for torch effects that take a whole batch")
        self.effect = effect
        self._name, self._plan, self._epsilon, self._num_draws = name, plan, epsilon, num_draws
        self._input_gradient = options.input_gradient

    @property
    def num_calls(self) -> int:
        """Calls of the effect so far, a call for several items or probes at once as one for each."""
        return self._probing.num_calls

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """The effect's audio, with a gradient for u, and for x if `input_gradient` was chosen.

        Args:
            x: Audio `(*batch, channels, samples)`.
            u: Normalised controls `(*batch, P)` in [0, 1], or fewer dimensions that broadcast to these.

        Returns:
            Audio `(*batch, channels, samples)` as the effect gives it; it may have another number of channels.

        Raises:
            TypeError: If x or u is no floating-point tensor.
            ValueError: If u does not match x or the effect, or has values outside [0, 1]; if the type of u, or of x
                where `input_gradient` is "spsa", is too coarse for epsilon; if x needs a gradient and
                `input_gradient` was not chosen.
            EffectError: If the effect raises, or returns another length, type, device or batch, or NaN.
        """
        return eager(self._estimated)(x, u)

    def _estimated(self, x: Tensor, u: Tensor) -> Tensor:
        u = self._checked(x, u)
        seed = draw_seed(self._generator)
        y: Tensor = _Estimate.apply(x, u, self, seed)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return y

    def close(self) -> None:
        """Ends the workers; a further call starts others."""
        self._workers.close()

    def __enter__(self) -> EstimatedGradient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, x: Tensor, u: Tensor) -> Tensor:
        """The controls of each item."""
        name = self._name
        check_audio(name, x)
        u = expand_controls(name, u, x, getattr(owner_of(self.effect), "num_controls", None))
        self._plan.check(u.shape[-1])
        check_unit_range(name, u)
        if self._epsilon < _LEAST_STEP * torch.finfo(u.dtype).eps:
            raise ValueError(f"{name}: epsilon is {self._epsilon:g}, too small a step for u of type {u.dtype}")
        if self._input_gradient == "spsa" and self._epsilon < _LEAST_STEP * torch.finfo(x.dtype).eps:
            raise ValueError(f"{name}: epsilon is {self._epsilon:g}, too small a step for x of type {x.dtype}")
        if torch.is_grad_enabled() and x.requires_grad and self._input_gradient is None:
            raise ValueError(
                f"{name}: x needs a gradient, which is not estimated unless asked for: choose an input_gradient, make "
                f"one effect of those in a chain, or give x.detach()"
            )
        return u

    def _gradient(self, x: Tensor, u: Tensor, y: Tensor, grad: Tensor, seed: int, random: bool) -> Tensor:
        """The vector-Jacobian product with respect to u."""
        probes = self._plan(u, torch.Generator().manual_seed(seed))
        xs = x.expand(len(probes.u), *x.shape)
        changes = torch.cat(list(self._changes(xs, probes.u, y, grad, seed, random, probes.label)))
        return (probes.weights * changes[..., None]).sum(0).to(u.dtype)

    def _changes(
        self, xs: Tensor, us: Tensor, y: Tensor, grad: Tensor, seed: int, random: bool, label: Label
    ) -> Iterator[Tensor]:
        """How the loss changes to first order from the forward call to each probe, `(probes, *batch)` in float64."""
        for probe in self._probing.run(xs, us, seed, random, label, y.shape[-2]):
            yield ((probe - y).double() * grad.double()).sum((-2, -1))

    def _input_gradient_of(self, x: Tensor, u: Tensor, y: Tensor, grad: Tensor, seed: int, random: bool) -> Tensor:
        """The vector-Jacobian product with respect to x, in the way that was chosen."""
        if self._input_gradient == "spsa":
            return self._spsa_of_input(x, u, y, grad, seed, random)
        if self._input_gradient == "autograd":
            return self._probing.differentiated(x, u, grad, seed)
        if y.shape != x.shape:
            raise ValueError(
                f"{self._name}: input_gradient={self._input_gradient!r} needs as many channels out of the effect as go "
                f"in, but it makes {shape_text(y.shape)} of {shape_text(x.shape)}"
            )
        if self._input_gradient == "straight_through":
            return grad
        # The adjoint of a convolution is that convolution run backwards.  The effect gets a signal as loud as x: it
        # may round, or treat what is quiet as silence.
        scale = _peak(grad) / _peak(x)
        backwards = next(
            self._probing.run((grad / scale).flip(-1)[None], u[None], seed, random, lambda _: "the call backwards")
        )
        return backwards[0].flip(-1) * scale

    def _spsa_of_input(self, x: Tensor, u: Tensor, y: Tensor, grad: Tensor, seed: int, random: bool) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 1)
        total = torch.zeros_like(x)
        for draw in range(self._num_draws):
            step = self._epsilon * _peak(x) * signs(x.shape, generator).to(x)
            xs = torch.stack([x + step, x - step])
            label = partial(draw_label, draw=draw, num_draws=self._num_draws, of=" of x")
            us = u.expand(2, *u.shape)
            plus, minus = torch.cat(list(self._changes(xs, us, y, grad, seed, random, label)))
            total += (plus - minus)[..., None, None].to(x.dtype) / (xs[0] - xs[1])
        return total / self._num_draws


class _Estimate(torch.autograd.Function):
    """The effect forward, the estimate backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, estimated: EstimatedGradient, seed: int) -> Tensor:
        # In here a view of a tensor that needs a gradient says that it needs one, and could not be sent to a process.
        y, random = estimated._probing.first(x.detach(), u.detach(), seed)
        ctx.save_for_backward(x, u, y)
        ctx.estimated, ctx.seed, ctx.random = estimated, seed, random
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, u, y = ctx.saved_tensors
        arguments = (x.detach(), u.detach(), y.detach(), grad.detach(), ctx.seed, ctx.random)
        results = [
            _once(method(*arguments), (x, u, grad), ctx.estimated._name) if needed else None
            for needed, method in zip(
                ctx.needs_input_grad[:2], (ctx.estimated._input_gradient_of, ctx.estimated._gradient), strict=True
            )
        ]
        return results[0], results[1], None, None


class _Once(torch.autograd.Function):
    """The identity, with an error in place of a gradient."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, name: str, *inputs: Tensor) -> Tensor:
        ctx.name = name
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError(f"{ctx.name}: the estimate of a gradient has no gradient itself (second derivatives)")


def _once(gradient: Tensor, inputs: tuple[Tensor, ...], name: str) -> Tensor:
    if not torch.is_grad_enabled():
        return gradient
    once: Tensor = _Once.apply(gradient, name, *inputs)  # type: ignore[no-untyped-call]
    return once


def _peak(x: Tensor) -> Tensor:
    """The largest magnitude of each item, 1 for silence."""
    if x.numel() == 0:
        return x.new_ones(*x.shape[:-2], 1, 1)
    peak = x.abs().amax((-2, -1), keepdim=True)
    return torch.where(peak > 0, peak, 1.0)


def _check_whole(name: str, argument: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {argument} is {value!r}, expected a whole number")
    if value < least:
        raise ValueError(f"{name}: {argument} is {value}, expected at least {least}")


def _check_epsilon(name: str, epsilon: float, largest: float) -> None:
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)):
        raise TypeError(f"{name}: epsilon is a {type(epsilon).__name__}, expected a number")
    if not 0 < epsilon <= largest:
        raise ValueError(f"{name}: epsilon is {epsilon}, expected more than 0 and at most {largest}")


def spsa(
    effect: AnyEffect,
    epsilon: float = 1e-3,
    num_draws: int = 1,
    generator: torch.Generator | int = 0,
    groups: Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    draw: Draw = "rademacher",
    input_gradient: InputGradient | None = None,
    batched: bool | None = None,
    probes_per_call: int | None = None,
    workers: int = 0,
    backend: Backend = "thread",
    timeout_s: float | None = None,
) -> EstimatedGradient:
    """Gives any effect a gradient by simultaneous perturbation of its controls (Spall 1992, equation 2.2).

    Forward runs the effect as it is.  Backward estimates the vector-Jacobian product from two calls per draw, however
    many controls there are: with g the gradient of the loss for y,

        grad_i = mean over draws of <g, effect(x, u_plus) - effect(x, u_minus)> / (u_plus_i - u_minus_i),
        u_plus, u_minus = clamp(u + epsilon * delta, 0, 1), clamp(u - epsilon * delta, 0, 1).

    The step is the one that was made, so that at a bound the estimate is that of the one-sided derivative.  It is
    unbiased but for terms of epsilon**2, or of epsilon at a bound, and noisy: with one draw of signs the mean cosine to
    the true gradient of P controls is sqrt(2 / (pi P)).

    All calls for one gradient, the forward one included, see the same random numbers: the global generators of torch,
    numpy and Python are seeded for each call and put back after it, and an effect whose signature has `seed` or
    `generator` without a default is given them.  An effect that draws from a generator of its own must do so from the
    same state at every call.

    Args:
        effect: `(x, u) -> y`; x is audio `(*batch, channels, samples)`, u normalised controls `(*batch, P)`, y audio of
            the same batch and length.  An effect with a method `reset` has state: it is reset before each call, and
            each worker has an instance of its own, by the effect's method `copy` or else `copy.deepcopy`.
        epsilon: Step of the controls on their normalised scale, above 0, at most 0.5.
        num_draws: Draws that are averaged, at least 1.
        generator: Where draws come from, or a seed for it; the global generators are never touched.
        groups: Controls that are perturbed together, one group after another, as sizes of consecutive groups or as the
            indices in each; None for all together.  Two calls per draw and group; the cosine for a group of p controls
            is sqrt(2 / (pi p)).
        draw: What delta is: "rademacher", signs; "segmented_uniform", magnitudes between 0.5 and 1.5 with a sign; or
            "hadamard", signs that are orthogonal over the draws: for an effect that is linear in P controls, a power
            of two of at least P draws gives the exact gradient.
        input_gradient: How the gradient for x is found, None for not at all.  "straight_through" passes that of y
            on as if the effect were the identity.  "time_reversal" runs the effect on it backwards in time, which is
            exact for an effect that is linear and time-invariant and keeps channels apart, and wrong for others.
            "spsa" perturbs every sample of x in two further calls per draw, by epsilon times its peak: unbiased, but
            with a cosine to the true one of sqrt(2 / (pi channels samples)).  "autograd" has torch differentiate the
            effect for x in one further call.  None of the first three finds what a compressor does to upstream
            effects: make those one effect with it where that matters.
        batched: Whether the effect takes any number of batch dimensions.  Then all probes are one call of
            `(2 num_draws groups, *batch, ...)`; else each call is for one item, `(channels, samples)` and `(P,)`.  None
            for the effect's attribute `batched`, without one True where there are no workers.
        probes_per_call: Most probes of each item in one call, to save memory; None for all.
        workers: Number of workers for calls of one item each; 0 for one call after another.
        backend: "thread", for effects that release the interpreter's lock and do not draw from the global generators;
            "process", for effects that can be pickled.
        timeout_s: Seconds after which a process that works on one call is ended; None for any time.

    Returns:
        A callable `(x, u) -> y` with these gradients; second derivatives raise a `RuntimeError`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If processes or a time limit are asked for without what they need, epsilon, num_draws or another
            number is out of range, or an option is unknown.

    Example:
        >>> effect = lambda x, u: torch.from_numpy(np.tanh(x.numpy() * u.numpy()[..., None]))
        >>> u = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
        >>> x = torch.ones(1, 8, dtype=torch.float64)
        >>> dasp.gradients.spsa(effect)(x, u).sum().backward()
        >>> round(u.grad.item() / 8, 4), round(1 / math.cosh(0.5) ** 2, 4)
        (0.7864, 0.7864)
    """
    _check_epsilon("spsa", epsilon, 0.5)
    _check_whole("spsa", "num_draws", num_draws, 1)
    check_choice("spsa", "draw", draw, tuple(DRAWS))
    plan = Perturbation(epsilon, num_draws, checked_groups(groups), draw)
    options = _Options(input_gradient, batched, probes_per_call, workers, backend, timeout_s)
    return EstimatedGradient("spsa", effect, plan, epsilon, num_draws, generator, options)


def finite_difference(
    effect: AnyEffect,
    epsilon: float = 1e-3,
    order: int = 2,
    generator: torch.Generator | int = 0,
    *,
    input_gradient: InputGradient | None = None,
    batched: bool | None = None,
    probes_per_call: int | None = None,
    workers: int = 0,
    backend: Backend = "thread",
    timeout_s: float | None = None,
) -> EstimatedGradient:
    """Gives any effect a gradient by finite differences of each of its controls.

    Forward runs the effect as it is.  Backward finds the derivative for each control of the polynomial through the
    forward call and `order` calls at multiples of epsilon around its value, by which the error is of the order of
    epsilon**order.  Half of the points are on either side; near a bound the other side has more, with an error of the
    same order.  Random numbers are those of the forward call, as in `spsa`.

    Args:
        effect: `(x, u) -> y`, as for `spsa`.
        epsilon: Distance of the points on the normalised scale of the controls, above 0, at most 0.125.
        order: 1, 2 or 4; `order * P` calls for each gradient.
        generator: Where the random numbers of an effect that has them come from, or a seed for it.
        input_gradient: How the gradient for x is found, None for not at all; as for `spsa`, with one draw.
        batched: Whether the effect takes any number of batch dimensions, as for `spsa`.
        probes_per_call: Most probes of each item in one call, to save memory; None for all.
        workers: Number of workers for calls of one item each; 0 for one call after another.
        backend: "thread" or "process", as for `spsa`.
        timeout_s: Seconds after which a process that works on one call is ended; None for any time.

    Returns:
        A callable `(x, u) -> y` with these gradients; second derivatives raise a `RuntimeError`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If processes or a time limit are asked for without what they need, epsilon or another number is
            out of range, or an option is unknown.

    Example:
        >>> effect = dasp.gradients.finite_difference(lambda x, u: x * u[..., None] ** 3)
        >>> u = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
        >>> effect(torch.ones(1, 8, dtype=torch.float64), u).mean().backward()
        >>> round(u.grad.item(), 5), effect.num_calls
        (0.75, 3)
    """
    _check_epsilon("finite_difference", epsilon, _LARGEST_STENCIL)
    if order not in (1, 2, 4) or isinstance(order, bool):
        raise ValueError(f"finite_difference: order is {order!r}, expected 1, 2 or 4")
    plan = Stencil(epsilon, order)
    options = _Options(input_gradient, batched, probes_per_call, workers, backend, timeout_s)
    return EstimatedGradient("finite_difference", effect, plan, epsilon, 1, generator, options)

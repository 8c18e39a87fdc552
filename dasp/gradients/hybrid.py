"""Effects that have no gradients, with those of a proxy."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dasp._checks import check_audio, check_choice, shape_text
from dasp.gradients._controls import check_unit_range, expand_controls
from dasp.gradients._probing import Probing, check_effect, eager
from dasp.gradients._random import draw_seed, generator_of
from dasp.gradients._workers import AnyEffect

MODES = ("proxy", "half", "full")


class _Through(torch.autograd.Function):
    """Shows one signal and passes gradients to another."""

    @staticmethod
    def forward(shown: Tensor, learned: Tensor) -> Tensor:
        # A view could not be changed in place.
        return shown.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad

    @staticmethod
    def jvp(ctx: Any, shown: Tensor, learned: Tensor) -> Tensor:
        return learned.view_as(learned)


class Hybrid(nn.Module):
    """An effect and its proxy as one differentiable effect; `hybrid` makes it.

    Attributes:
        effect: The effect.
        proxy: The proxy; a copy with frozen parameters, in evaluation mode, if it is a module.
        mode: "proxy", "half" or "full".

    Example:
        >>> effect = dasp.gradients.hybrid(lambda x, u: (x * u[..., None]).round(), lambda x, u: x * u[..., None])
        >>> u = torch.tensor([[0.5]], requires_grad=True)
        >>> effect(torch.ones(1, 1, 8), u).sum().backward()
        >>> effect.mode, u.grad.item()
        ('full', 8.0)
    """

    def __init__(
        self,
        effect: AnyEffect,
        proxy: AnyEffect,
        mode: Literal["proxy", "half", "full"] = "full",
        generator: torch.Generator | int = 0,
    ) -> None:
        super().__init__()
        check_choice("hybrid", "mode", mode, MODES)
        check_effect("hybrid", effect)
        if not callable(proxy):
            raise TypeError(f"hybrid: proxy is a {type(proxy).__name__}, expected a callable (x, u) -> y")
        self.effect = effect
        self._generator = generator_of("hybrid", generator)
        # A copy: the caller's proxy stays trainable, and training it changes no gradient here.
        self.proxy = copy.deepcopy(proxy).requires_grad_(False).eval() if isinstance(proxy, nn.Module) else proxy
        self.mode = mode

    def train(self, mode: bool = True) -> Hybrid:
        """Sets training or evaluation, which decides what "half" computes; the proxy stays in evaluation."""
        super().train(mode)
        if isinstance(self.proxy, nn.Module):
            self.proxy.eval()
        return self

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Processes audio.

        Args:
            x: Audio `(*batch, channels, samples)`.
            u: Normalised controls `(*batch, P)` in [0, 1], or fewer dimensions that broadcast to these.

        Returns:
            Audio of the effect or of the proxy, as the mode says.

        Raises:
            TypeError: If x is not audio, u no floating-point tensor, or what the proxy gives has another type.
            ValueError: If a shape does not match or u is outside [0, 1], or if the effect and the proxy disagree about
                channels or the proxy changes the length.
            EffectError: If the effect raises, or returns another length, type, device or batch, other channels than
                a `NeuralProxy`, or NaN.
        """
        check_audio("hybrid", x)
        u = expand_controls("hybrid", u, x, getattr(self.proxy, "num_controls", None))
        check_unit_range("hybrid", u)
        if self.mode == "proxy" or (self.mode == "half" and self.training):
            return self._imitated(x, u)
        shown = eager(self._shown)(x.detach(), u.detach())
        if self.mode == "half" or not torch.is_grad_enabled():
            return shown
        learned = self._imitated(x, u)
        if learned.shape != shown.shape:
            raise ValueError(
                f"hybrid: the effect gives shape {shape_text(shown.shape)}, the proxy {shape_text(learned.shape)}"
            )
        y: Tensor = _Through.apply(shown, learned)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return y

    def _shown(self, x: Tensor, u: Tensor) -> Tensor:
        channels = getattr(self.proxy, "channels_out", None)
        return Probing("hybrid", self.effect).first(x, u, draw_seed(self._generator), channels)[0]

    def _imitated(self, x: Tensor, u: Tensor) -> Tensor:
        y = self.proxy(x, u)
        if not isinstance(y, Tensor):
            raise TypeError(f"hybrid: the proxy gives a {type(y).__name__}, expected a torch.Tensor")
        if y.dtype != x.dtype:
            raise TypeError(f"hybrid: the proxy gives type {y.dtype}, expected {x.dtype} like x")
        if y.ndim != x.ndim or y.shape[:-2] != x.shape[:-2] or y.shape[-1] != x.shape[-1]:
            raise ValueError(f"hybrid: the proxy gives shape {shape_text(y.shape)} for x of {shape_text(x.shape)}")
        return y

    def extra_repr(self) -> str:
        """The mode."""
        return f"mode={self.mode!r}"


def hybrid(
    effect: AnyEffect,
    proxy: AnyEffect,
    mode: Literal["proxy", "half", "full"] = "full",
    generator: torch.Generator | int = 0,
) -> Hybrid:
    """Joins an effect without gradients and a proxy of it (Steinmetz et al. 2022).

    ======== ==================== ========= ==================
    mode     forward in training  backward  forward in evaluation
    ======== ==================== ========= ==================
    "proxy"  proxy                proxy     proxy
    "half"   proxy                proxy     effect
    "full"   effect               proxy     effect
    ======== ==================== ========= ==================

    Training and evaluation are those of the module that is returned, `train()` and `eval()`.  With "full", output and
    gradients are those of the effect and of the proxy to the bit, and in a chain of hybrids each effect hears what the
    effect before it gave.  The effect runs without autograd, on detached tensors: what "half" gives in evaluation has
    no gradient.

    Args:
        effect: `effect(x, u) -> y`, any function of audio `(*batch, channels, samples)` and of normalised controls
            `(*batch, P)` in [0, 1] that keeps the length.  One whose attribute `batched` is False is called for one
            item at a time; one with a method `reset` is reset before each call.
        proxy: The same as a differentiable function; a trained `NeuralProxy`, or an effect that is nearly the same.
            A module is copied and its parameters are frozen.
        mode: Which of them computes what.
        generator: Where the random numbers of an effect that has them come from, as for `spsa`, or a seed for it.

    Returns:
        A module `(x, u) -> y`.

    Raises:
        TypeError: If effect or proxy cannot be called, or generator is neither.
        ValueError: If the mode is another.

    Example:
        >>> def clip(x, u):
        ...     return (x * 10 ** u[..., None]).clamp(-1, 1).round(decimals=1)
        >>> def soft_clip(x, u):
        ...     return torch.tanh(x * 10 ** u[..., None])
        >>> u = torch.tensor([0.5], requires_grad=True)
        >>> y = dasp.gradients.hybrid(clip, soft_clip, "full")(torch.tensor([[0.1, -0.2, 0.5]]), u)
        >>> y.detach()
        tensor([[ 0.3000, -0.6000,  1.0000]])
        >>> y.abs().sum().backward()
        >>> bool(u.grad > 0)
        True
    """
    return Hybrid(effect, proxy, mode, generator)

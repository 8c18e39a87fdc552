"""The processors under test, with audio and controls for each that follow from its declaration alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import dasp.functional  # noqa: F401  # declares the processors
from dasp import PROCESSORS, Spec

SAMPLE_RATE = 44100.0

# Settings of options beside the defaults, where these take another path through a processor.
_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "compressor": [{"link": "mean"}, {"link": "none"}],
    "distortion": [{"curve": "hard"}, {"curve": "soft_cubic"}],
    "expander": [{"link": "mean"}, {"link": "none"}],
    "noise_shaped_reverb": [{"seed": 3, "bands_hz": (500.0, 4000.0)}],
    "parametric_eq": [
        {"kinds": ("peaking",)},
        {"kinds": ("highpass", "high_shelf", "allpass", "notch", "peaking") * 2},
    ],
    "stereo_panner": [{"law": "linear"}, {"law": "-4.5dB"}],
}


class Case:
    """A processor with settings of its options."""

    def __init__(self, spec: Spec, options: Mapping[str, Any] | None = None) -> None:
        self.spec = spec
        self.options = dict(options or {})

    def __repr__(self) -> str:
        values = [str(len(v) if isinstance(v, tuple) else v) for v in self.options.values()]
        return "-".join([self.spec.name, *values])

    @property
    def exact(self) -> bool:
        """Whether equal means equal to the bit: an FFT groups its sums by the length it is given."""
        return not self.spec.fft

    @property
    def num_controls(self) -> int:
        return self.spec.num_controls(self.options)

    @property
    def channels(self) -> int:
        """The most channels that it takes, or 2."""
        return max(self.spec.channels, default=2)

    def audio(
        self,
        batch: Sequence[int] = (2,),
        samples: int = 64,
        dtype: torch.dtype = torch.float64,
        channels: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """White noise, which has all bands, from 0 dB down to -70 dB and up again, which has all levels.

        A processor of tracks gets three of them as the last dimension of the batch.
        """
        generator = torch.Generator().manual_seed(seed)
        tracks = (3,) if self.spec.tracks else ()
        shape = (*batch, *tracks, self.channels if channels is None else channels, samples)
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        x *= 10 ** (-70 / 20 * (1 - torch.linspace(-1, 1, samples, dtype=torch.float64).abs()))
        return x.to(dtype)

    def signals(self, x: Tensor, seed: int = 1) -> tuple[Tensor, ...]:
        """Further audio, shaped as x."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) / 8 for _ in self.spec.signals
        )

    def normalized(self, x: Tensor, seed: int = 2, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One normalised setting per item of x, each value drawn from [low, high]."""
        generator = torch.Generator().manual_seed(seed)
        u = torch.rand(*x.shape[:-2], self.num_controls, generator=generator, dtype=torch.float64)
        return (low + (high - low) * u).to(x.dtype if x.dtype == torch.float64 else torch.float32)

    def automation(self, x: Tensor, frames: int, seed: int = 2) -> dict[str, Tensor]:
        """Another physical setting for each item of x and each frame, away from the ends of the ranges."""
        generator = torch.Generator().manual_seed(seed)
        u = torch.rand(*x.shape[:-2], 1, frames, self.num_controls, generator=generator, dtype=torch.float64)
        return self.denormalize((0.2 + 0.6 * u).to(x.dtype))

    def controls(self, x: Tensor, seed: int = 2) -> dict[str, Tensor]:
        """One physical setting per item of x, away from the ends of the ranges."""
        return self.denormalize(self.normalized(x, seed, 0.2, 0.8))

    def denormalize(self, u: Tensor) -> dict[str, Tensor]:
        return self.spec.denormalize(u, SAMPLE_RATE, self.options)

    def __call__(
        self, x: Tensor, controls: Mapping[str, Any], signals: Sequence[Tensor] | None = None, **state: Any
    ) -> Any:
        """Runs it with controls in physical units."""
        given = dict(zip(self.spec.signals, self.signals(x) if signals is None else signals, strict=True))
        return self.spec.function(x, SAMPLE_RATE, **given, **controls, **self.options, **state)

    def flat(self, x: Tensor, u: Tensor, *signals: Tensor) -> Tensor:
        """Runs it with controls as one normalised tensor."""
        return self(x, self.denormalize(u), signals)

    def assert_same(self, got: Tensor, want: Tensor, x: Tensor) -> None:
        """Equal to the bit, or with an FFT to 1e-6 or, in float64, 1e-12 of the peak of what it transforms."""
        if self.exact:
            assert torch.equal(got, want), f"differs by up to {float((got - want).abs().max())}"
        else:
            self.assert_alike(got, want, x)

    def assert_alike(self, got: Tensor, want: Tensor, x: Tensor) -> None:
        """Equal to 1e-6 or, in float64, 1e-12 of the peak: a filter whose controls vary has another structure."""
        assert_close(got, want, 1e-12 if want.dtype == torch.float64 else 1e-6, peak(x))

    def rounding(self, gradient: Tensor) -> float:
        """What the rounding of this gradient scales with, for `assert_close`.

        The whole range of a pre-delay is 4410 samples, by which its gradient amplifies the rounding of an FFT.
        """
        return 0.0 if self.exact else 4410 * peak(gradient)


def peak(x: Tensor) -> float:
    return float(x.detach().abs().max()) if x.numel() else 0.0


def assert_close(got: Tensor, want: Tensor, tolerance: float, scale: float = 0.0) -> None:
    """Equal within a share of the peak of `want`, or of `scale` where that is more."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    error = peak(got.double() - want.double())
    assert error <= tolerance * max(peak(want), scale), f"differs by up to {error}"


def gradients(y: Tensor, inputs: Sequence[Tensor], seed: int = 3) -> tuple[Tensor, ...]:
    """Gradients of y weighted by noise, zeros for what y does not depend on."""
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype)
    return torch.autograd.grad(y, inputs, weights, allow_unused=True, materialize_grads=True)


def _slice(x: Tensor) -> Tensor:
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 5), torch.nan, dtype=x.dtype)
    wide[..., 3:-2] = x
    return wide[..., 3:-2]


def _strided(x: Tensor) -> Tensor:
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan, dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def _unaligned(x: Tensor) -> Tensor:
    """One byte off: further than a slice, whose elements are aligned."""
    memory = bytearray(1 + x.numel() * x.element_size())
    view = torch.frombuffer(memory, dtype=x.dtype, offset=1).reshape(x.shape)
    return view.copy_(x)


# Ways to lie in memory.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "samples outermost": lambda x: x.movedim(-1, 0).contiguous().movedim(0, -1),
    "channels innermost": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "slice": _slice,
    "every second": _strided,
    "flipped": lambda x: x.flip(-1).contiguous().flip(-1),
    "unaligned": _unaligned,
}


def leaves(*tensors: Tensor) -> list[Tensor]:
    """Copies that require gradients."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def _parametrize(cases: Sequence[Case]) -> Callable[..., Any]:
    return pytest.mark.parametrize("case", cases, ids=repr)


EACH_PROCESSOR = [Case(spec) for spec in PROCESSORS.values()]
EACH_VARIANT = [
    *EACH_PROCESSOR,
    *(Case(PROCESSORS[name], options) for name, list_ in _VARIANTS.items() for options in list_),
]
each_processor = _parametrize(EACH_PROCESSOR)
each_variant = _parametrize(EACH_VARIANT)

"""What is measured: seeded inputs that follow from the processors' declarations, and what dasp does with them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

import dasp.functional as F
import dasp.modules as M
from benchmarks import GROUPS
from benchmarks.oracles import (
    ORACLES,
    Array,
    biquad,
    branching_one_pole,
    cascade,
    equalizer_sos,
    first_order,
    integrated_loudness,
)
from dasp import PROCESSORS, Spec, kernels, mixing

OURS = "dasp"

SAMPLE_RATE = 44100.0

_SAMPLES, _QUICK_SAMPLES = 262144, 8192
_ONE_ROW, _SHORT = (1, 1, _SAMPLES), (1, 1, 64)
_TRACKS = 8
# Of a processor's input where it is not 8 x 2 x 262144 or 1 x 8 tracks x 2 x 262144: panners place mono signals, and
# reverberation is measured at the size of one stereo mix.
_SHAPES = {
    "stereo_panner": (16, 1, _SAMPLES),
    "noise_shaped_reverb": (1, 2, 131072),
    "convolution_reverb": (1, 2, 131072),
}

# The conditions under which filters must be exact.
_RATES_HZ = (8000.0, 22050.0, 44100.0, 48000.0, 96000.0, 192000.0)
_LOWEST_HZ, _HIGHEST_OF_RATE = 10.0, 0.49
_LOWEST_Q, _HIGHEST_Q = 0.1, 40.0
_GAIN_DB = 24.0
_KINDS = ("lowpass", "highpass", "bandpass", "notch", "allpass", "peaking", "low_shelf", "high_shelf")
# Frequency, q and gain of peaks whose poles crowd at 0 Hz, where coefficients and state lose most digits.
_CORNERS = ((10.0, 40.0, 24.0), (10.0, 0.1, -24.0), (20.0, 10.0, 12.0), (20.0, 0.7, 12.0), (30.0, 10.0, 12.0))


@dataclass(frozen=True)
class Inputs:
    """One call's arguments.

    Attributes:
        x: Audio.
        tensors: Controls and further signals by name.
        sample_rate: Sample rate in Hz.
        options: Static settings.
    """

    x: Tensor
    tensors: dict[str, Tensor]
    sample_rate: float = SAMPLE_RATE
    options: Mapping[str, Any] = field(default_factory=dict)

    def exact(self) -> tuple[Array, float, dict[str, Array], Mapping[str, Any]]:
        """The arguments of an oracle."""
        return self.x.double().numpy(), self.sample_rate, self.arrays(), self.options

    def arrays(self) -> dict[str, Array]:
        """The tensors in float64."""
        return {name: tensor.double().numpy() for name, tensor in self.tensors.items()}


Ours: TypeAlias = Callable[..., Any]


class Point(NamedTuple):
    """The shape of an input, and the threads to use (None: as many as there are)."""

    shape: tuple[int, ...]
    threads: int | None = None


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: Its name in the table.
        group: One of `benchmarks.GROUPS`.
        subject: What peers register for: cases of one subject differ only in their inputs.
        shape: Shape of the input, with the samples last.
        make: From the shape to inputs; several for the group "accuracy", which is about errors only.
        ours: From inputs to the function `(x, **tensors)` of dasp.
        exact: From inputs to the exact output in float64; None to compare with dasp itself in float64.
        points: For the group "scaling", the sizes and numbers of threads to compare, in place of the shape.
    """

    name: str
    group: str
    subject: str
    shape: tuple[int, ...]
    make: Callable[[tuple[int, ...]], Iterable[Inputs]]
    ours: Callable[[Inputs], Ours]
    exact: Callable[[Inputs], Array] | None
    points: tuple[Point, ...] = ()

    @property
    def samples(self) -> int:
        """Samples of the input, over all channels and items."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the input, which is float32."""
        return 4 * self.samples

    @property
    def sweep(self) -> bool:
        """Whether only errors are measured, over many inputs."""
        return self.group == "accuracy"

    @property
    def bound_by_memory(self) -> bool:
        """Whether the time that memory takes is a bound worth knowing."""
        return self.group in ("kernels", "processors")


def cases(quick: bool = False) -> list[Case]:
    """Every kernel, every declared processor, the exactness of filters, console, meter, scaling, cost of a call."""
    processors = (*map(_processor, PROCESSORS.values()), _automated("lowpass", 1), _automated("parametric_eq", 64))
    found = {case.name: case for case in (*_kernels(), *processors)}
    of_size = [
        replace(found[name], name=f"{name}_{label}", group=group, shape=shape)
        for label, group, shape in (("one_row", "processors", _ONE_ROW), ("short", "overhead", _SHORT))
        for name in ("parametric_eq", "compressor")
    ]
    everything = [*found.values(), *of_size, *_sweeps(quick), *_consoles(), _loudness(), *_scaling(found)]
    everything.sort(key=lambda case: GROUPS.index(case.group))
    return [case if case.sweep or not quick else _small(case) for case in everything]


def _small(case: Case) -> Case:
    shape = (*(min(size, 2) for size in case.shape[:-1]), min(case.shape[-1], _QUICK_SAMPLES))
    # Smaller than that by far, and still different from each other.
    points = tuple(
        point._replace(shape=(*point.shape[:-1], math.ceil(point.shape[-1] / 1024))) for point in case.points
    )
    return replace(case, shape=shape, points=points)


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def _audio(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise whose level wanders between -50 and -6 dB every tenth of a second, so that dynamics have work to do."""
    level_db = -50 + 44 * _wandering(shape[:-1], shape[-1], 1, generator)
    return torch.randn(shape, generator=generator) * 10 ** (level_db / 20) / 3


def _wandering(rows: Sequence[int], length: int, hop: int, generator: torch.Generator) -> Tensor:
    """`(*rows, length)` in [0, 1]: lines between values every tenth of a second, of one value for `hop` samples."""
    points = max(2, math.ceil(10 * length * hop / SAMPLE_RATE))
    values = torch.rand(math.prod(rows), 1, points, generator=generator)
    return torch.nn.functional.interpolate(values, length, mode="linear").reshape(*rows, length)


def _processor(spec: Spec) -> Case:
    """A processor at controls drawn over its declared ranges."""
    channels = 2 if not spec.channels or 2 in spec.channels else spec.channels[0]
    items = (1, _TRACKS) if spec.tracks else (8,)
    oracle = ORACLES.get(spec.name)

    def make(shape: tuple[int, ...]) -> Iterator[Inputs]:
        generator = _generator(spec.name)
        tensors = {name: _impulse_response(shape, generator) for name in spec.signals}
        tensors |= spec.random(shape[:-2], SAMPLE_RATE, generator)
        if "pre_delay_ms" in tensors:  # A whole number of samples, for the oracle.
            tensors["pre_delay_ms"] = torch.full_like(tensors["pre_delay_ms"], 10.0)
        yield Inputs(_audio(shape, generator), tensors, options=spec.options)

    return Case(
        spec.name,
        "processors",
        spec.name,
        _SHAPES.get(spec.name, (*items, channels, _SAMPLES)),
        make,
        lambda inputs: partial(spec.function, sample_rate=inputs.sample_rate, **inputs.options),
        None if oracle is None else lambda inputs: oracle(*inputs.exact()),
    )


def _automated(processor: str, hop: int) -> Case:
    """Controls that wander over their declared ranges, with another value every `hop` samples."""
    spec = PROCESSORS[processor]

    def make(shape: tuple[int, ...]) -> Iterator[Inputs]:
        generator = _generator(f"{processor} automation")
        frames = shape[-1] // hop
        u = _wandering((*shape[:-2], spec.num_controls()), frames, hop, generator).movedim(-1, -2)
        tensors = spec.denormalize(u.unsqueeze(-3), SAMPLE_RATE)
        yield Inputs(_audio(shape, generator), tensors, options=spec.options)

    name = f"{processor}_automation"
    return Case(
        name,
        "processors",
        name,
        (8, 2, _SAMPLES),
        make,
        lambda inputs: partial(spec.function, sample_rate=inputs.sample_rate, **inputs.options),
        None,
    )


def _impulse_response(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Decaying noise as long as half the audio, of about unit energy."""
    taps = max(1, shape[-1] // 2)
    decay = torch.exp(-6.9 * torch.arange(taps) / taps)
    return torch.randn(*shape[:-1], taps, generator=generator) * decay * math.sqrt(13.8 / taps)


def _kernels() -> list[Case]:
    return [
        Case(name + label, group, name, shape, make, ours, exact)
        for label, group, shape in (
            ("", "kernels", (16, 1, _SAMPLES)),
            ("_one_row", "kernels", (1, 1, 4 * _SAMPLES)),
            ("_short", "overhead", _SHORT),
        )
        for name, make, ours, exact in (
            ("sosfilt", _sosfilt_inputs, _sosfilt, _sosfilt_exact),
            ("ballistics", _ballistics_inputs, _ballistics, _ballistics_exact),
            ("recurrence", _recurrence_inputs, _recurrence, _recurrence_exact),
        )
    ]


def _scaling(found: Mapping[str, Case]) -> list[Case]:
    """Time per sample over the length of stereo audio, the number of rows, and the number of threads."""
    cores = torch.get_num_threads()
    threads = sorted({cores, *(2**n for n in range(cores.bit_length()))})
    axes = {
        "samples": [Point((1, 2, round(SAMPLE_RATE * seconds))) for seconds in (1, 10, 60, 600)],
        "rows": [Point((rows, 1, _SAMPLES)) for rows in (1, 2, 4, 8, 16, 32)],
        "threads": [Point((8, 2, _SAMPLES), number) for number in threads if number <= cores],
    }
    return [
        replace(
            found[name],
            name=f"{name}_{axis}",
            group="scaling",
            shape=points[-1].shape,
            exact=None,
            points=tuple(points),
        )
        for name in ("sosfilt", "parametric_eq", "compressor")
        for axis, points in axes.items()
    ]


def _sosfilt_inputs(shape: tuple[int, ...]) -> Iterator[Inputs]:
    generator = _generator("sosfilt")
    controls = PROCESSORS["parametric_eq"].random((shape[0],), SAMPLE_RATE, generator)
    kinds = PROCESSORS["parametric_eq"].options["kinds"]
    sos = equalizer_sos(SAMPLE_RATE, {name: value.double().numpy() for name, value in controls.items()}, kinds)
    yield Inputs(_audio(shape, generator), {"sos": torch.from_numpy(sos)})


def _sosfilt(inputs: Inputs) -> Ours:
    return F.sosfilt


def _sosfilt_exact(inputs: Inputs) -> Array:
    return cascade(inputs.x.double().numpy(), inputs.tensors["sos"].numpy())


def _ballistics_inputs(shape: tuple[int, ...]) -> Iterator[Inputs]:
    """A gain curve in dB, with attacks up to 30 ms and releases up to 300 ms."""
    generator = _generator("ballistics")
    level_db = 20 * torch.log10(_audio((shape[0], shape[-1]), generator).abs().clamp_min(1e-8))
    drawn = torch.rand(2, shape[0], generator=generator, dtype=torch.float64)
    times_s = torch.tensor([[0.0005, 0.03], [0.05, 0.3]], dtype=torch.float64)
    poles = torch.exp(-1 / (times_s[:, :1] * (times_s[:, 1:] / times_s[:, :1]) ** drawn * SAMPLE_RATE))
    yield Inputs(-torch.relu(level_db + 30), {"attack": poles[0], "release": poles[1]})


def _ballistics(inputs: Inputs) -> Ours:
    start = torch.zeros(len(inputs.x), dtype=torch.float64)
    return lambda x, attack, release: kernels.ballistics(x, attack, release, start)[0]


def _ballistics_exact(inputs: Inputs) -> Array:
    tensors = inputs.arrays()
    return branching_one_pole(inputs.x.double().numpy(), tensors["attack"], tensors["release"])


def _recurrence_inputs(shape: tuple[int, ...]) -> Iterator[Inputs]:
    """Coefficients that change with every sample, memories of 1 to 100 ms."""
    generator = _generator("recurrence")
    rows = (shape[0], shape[-1])
    samples = SAMPLE_RATE * 10 ** (-3 + 2 * torch.rand(rows, generator=generator))
    yield Inputs(_audio(rows, generator), {"a": torch.exp(-1 / samples)})


def _recurrence(inputs: Inputs) -> Ours:
    start = torch.zeros(len(inputs.x), dtype=torch.float64)
    return lambda x, a: kernels.recurrence(a, x, start)[0]


def _recurrence_exact(inputs: Inputs) -> Array:
    return first_order(inputs.arrays()["a"], inputs.x.double().numpy())


def _sweeps(quick: bool) -> list[Case]:
    """Filters drawn over the whole range in which they promise to be exact, at every usual sample rate."""
    shape = (4, 1, 4800) if quick else (50, 1, 48000)
    oracle = ORACLES["parametric_eq"]
    return [
        Case("sosfilt_accuracy", "accuracy", "sosfilt", shape, _drawn_sections, _sosfilt, _sosfilt_exact),
        Case(
            "parametric_eq_accuracy",
            "accuracy",
            "parametric_eq",
            shape,
            _drawn_equalizers,
            lambda inputs: partial(F.parametric_eq, sample_rate=inputs.sample_rate, **inputs.options),
            lambda inputs: oracle(*inputs.exact()),
        ),
    ]


def _drawn_controls(shape: tuple[int, ...], sample_rate: float, generator: torch.Generator) -> dict[str, Tensor]:
    def draw(low: float, high: float) -> Tensor:
        return torch.exp(math.log(low) + math.log(high / low) * torch.rand(shape, generator=generator))

    return {
        "frequency_hz": draw(_LOWEST_HZ, _HIGHEST_OF_RATE * sample_rate),
        "gain_db": _GAIN_DB * (2 * torch.rand(shape, generator=generator) - 1),
        "q": draw(_LOWEST_Q, _HIGHEST_Q),
    }


def _drawn_sections(shape: tuple[int, ...]) -> Iterator[Inputs]:
    """One section each: all kinds in turn, and the hardest corners as peaks."""
    for sample_rate in _RATES_HZ:
        generator = _generator(f"sosfilt {sample_rate}")
        controls = {k: v.double().numpy() for k, v in _drawn_controls(shape[:1], sample_rate, generator).items()}
        kinds = [_KINDS[item % len(_KINDS)] for item in range(shape[0])]
        for item, (frequency_hz, q, gain_db) in enumerate(_CORNERS):
            if item < shape[0] // 2:
                kinds[item] = "peaking"
                for name, value in (("frequency_hz", frequency_hz), ("q", q), ("gain_db", gain_db)):
                    controls[name][item] = value
        sos = np.stack(
            [
                biquad(kind, sample_rate, *(controls[name][item] for name in ("frequency_hz", "gain_db", "q")))
                for item, kind in enumerate(kinds)
            ]
        )
        x = torch.randn(shape, generator=generator)
        yield Inputs(x, {"sos": torch.from_numpy(sos)[:, None]}, sample_rate)


def _drawn_equalizers(shape: tuple[int, ...]) -> Iterator[Inputs]:
    options = PROCESSORS["parametric_eq"].options
    for sample_rate in _RATES_HZ:
        generator = _generator(f"parametric_eq {sample_rate}")
        controls = _drawn_controls((shape[0], len(options["kinds"])), sample_rate, generator)
        yield Inputs(torch.randn(shape, generator=generator), controls, sample_rate, options)


def _consoles() -> list[Case]:
    """A mix of mono tracks through strips (six-band equaliser, compressor, fader, panner) and a master."""
    if not hasattr(mixing, "DifferentiableMixingConsole"):
        return []
    return [
        Case(name, "console", name, (_TRACKS, 1, 131072), partial(_console_inputs, reverb=reverb), _console, None)
        for name, reverb in (("console", False), ("console_reverb", True))
    ]


def _console_inputs(shape: tuple[int, ...], reverb: bool) -> Iterator[Inputs]:
    strip = M.Chain(*(kind(SAMPLE_RATE) for kind in (M.ParametricEQ, M.Compressor, M.Gain, M.StereoPanner)))
    master = M.Chain(*(kind(SAMPLE_RATE) for kind in (M.ParametricEQ, M.Compressor)))
    buses = {"reverb": M.Chain(M.NoiseShapedReverb(SAMPLE_RATE, mix=1.0))} if reverb else {}
    locked = ["reverb.noise_shaped_reverb.mix"] if reverb else []
    console = mixing.DifferentiableMixingConsole(SAMPLE_RATE, strip, buses, master, locked)
    generator = _generator("console")
    tensors = console.random_controls(shape[0], generator)
    yield Inputs(_audio(shape, generator), tensors, options={"console": console})


def _console(inputs: Inputs) -> Ours:
    console = inputs.options["console"]
    return lambda x, **controls: console(x, controls)


def _loudness() -> Case:
    """The loudness of 64 stereo programmes of 10 s."""
    name = "integrated_loudness"

    def make(shape: tuple[int, ...]) -> Iterator[Inputs]:
        # The audio of a quick run is a second at a low rate: at that of the others it is shorter than a block.
        sample_rate = SAMPLE_RATE if shape[-1] >= SAMPLE_RATE else 8000.0
        yield Inputs(_audio(shape, _generator(name)), {}, sample_rate)

    return Case(
        name,
        "meters",
        name,
        (64, 2, round(10 * SAMPLE_RATE)),
        make,
        lambda inputs: partial(F.integrated_loudness, sample_rate=inputs.sample_rate),
        lambda inputs: integrated_loudness(inputs.x.double().numpy(), inputs.sample_rate),
    )

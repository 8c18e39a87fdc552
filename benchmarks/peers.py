"""The libraries beside dasp, one adapter for each thing that one of them can do.  Nothing here is needed to run.

An adapter makes a `Subject` from a case's inputs.  Where a peer has another definition than dasp, the subject brings
the exact output of that definition, so that its error is one of computation.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import scipy.signal
import torch
from torch import Tensor

import dasp.functional as F
from benchmarks.cases import Inputs
from benchmarks.oracles import (
    Array,
    biquad,
    branching_one_pole,
    equalizer_sos,
    factor,
    level_db,
    per_item,
    pole,
    soft_knee,
)

_KINDS_OF_DASP_PYTORCH = {
    "lowpass": "low_pass",
    "highpass": "high_pass",
    "peaking": "peaking",
    "low_shelf": "low_shelf",
    "high_shelf": "high_shelf",
}
_PEDALBOARD_FILTERS = {"peaking": "PeakFilter", "low_shelf": "LowShelfFilter", "high_shelf": "HighShelfFilter"}
_FILTERS = ("lowpass", "highpass", "bandpass", "notch", "allpass", "peaking", "low_shelf", "high_shelf")


@dataclass(frozen=True)
class Subject:
    """What a library does with a case's inputs.

    Attributes:
        library: The distribution, with a remark in brackets where it appears more than once in a case.
        forward: One call without gradients, giving the output.
        backward: One call with the gradients of the audio and all controls; None for a library that has none.
        exact: The exact output of the library's own definition; None if it is the case's.
        comparable: Whether there is an exact output to compare with.
        once: Whether it is so slow that one call must do.
        note: What to know of the row.
    """

    library: str
    forward: Callable[[], Any]
    backward: Callable[[], object] | None = None
    exact: Callable[[], Array] | None = None
    comparable: bool = True
    once: bool = False
    note: str = ""

    def output(self) -> Array:
        """The output in float64."""
        y = self.forward()
        return np.asarray(y.detach().double().numpy() if isinstance(y, Tensor) else y, np.float64)


def differentiable(library: str, function: Callable[..., Any], tensors: Mapping[str, Tensor], **more: Any) -> Subject:
    """A torch function of named tensors, all of which get a gradient."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in plain.items()}

    def forward() -> Any:
        with torch.no_grad():
            return function(**plain)

    @functools.cache
    def direction(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(plain["x"].dtype)

    def backward() -> object:
        y = function(**leaves)
        return torch.autograd.grad(y, list(leaves.values()), direction(y.shape), allow_unused=True)

    return Subject(library, forward, backward, **more)


Adapter: TypeAlias = Callable[[ModuleType, Inputs], Subject]

# The name of each peer's module, by the name of its distribution.
_MODULES = {
    "dasp-pytorch": "dasp_pytorch.functional",
    "pedalboard": "pedalboard",
    "philtorch": "philtorch.lti",
    "pyloudnorm": "pyloudnorm",
    "scipy": "scipy.signal",
    "torchaudio": "torchaudio.functional",
    "torchcomp": "torchcomp",
    "torchlpc": "torchlpc",
}
_ADAPTERS: dict[tuple[str, str], list[Adapter]] = {}


@dataclass(frozen=True)
class Peer:
    """A library beside dasp.

    Attributes:
        name: Its distribution.
        version: Its version; "" if it is not installed.
        status: "" if it can be used, else why not.
        module: It, if it can be used.
    """

    name: str
    version: str
    status: str
    module: ModuleType | None

    def adapters(self, subject: str) -> list[Callable[[Inputs], Subject]]:
        """What makes its subjects for a case, from the inputs; none if it cannot be used."""
        if self.module is None:
            return []
        return [functools.partial(adapter, self.module) for adapter in _ADAPTERS.get((self.name, subject), [])]


def names(subject: str) -> list[str]:
    """The peers that have an adapter for a case's subject, installed or not."""
    return [name for name in _MODULES if (name, subject) in _ADAPTERS]


def load() -> list[Peer]:
    """All peers; those that are not installed or cannot be imported say so."""
    return [find(name, module) for name, module in _MODULES.items()]


def find(name: str, module: str) -> Peer:
    """The library of a distribution and its module; one that is not installed or cannot be imported says so."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Peer(name, "", "not installed", None)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = importlib.import_module(module)
    except Exception as error:  # Whatever a peer raises at import is its status.
        return Peer(name, version, f"cannot be imported: {_first_line(error)}", None)
    # A peer that falls back to something slow says so in a warning.
    status = "; ".join(sorted({str(w.message) for w in caught if issubclass(w.category, UserWarning)}))
    return Peer(name, version, status, loaded)


def _first_line(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return re.sub(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:]+)+[\\/]", "", text)  # Folders of this machine tell nothing.


def _adapts(library: str, *subjects: str) -> Callable[[Adapter], Adapter]:
    def register(adapter: Adapter) -> Adapter:
        for subject in subjects:
            _ADAPTERS.setdefault((library, subject), []).append(adapter)
        return adapter

    return register


def _with(adapter: Callable[..., Subject], name: str) -> Adapter:
    return lambda module, inputs: adapter(module, inputs, name)


def _rows(inputs: Inputs) -> Array:
    """Audio (*batch, channels, samples) as a float32 array, one item after another."""
    return np.asarray(inputs.x.reshape(-1, *inputs.x.shape[-2:]).numpy())


# scipy: float64 on one thread, and no gradients.


def _scipy_cascade(module: ModuleType, x: Array, sos: Array) -> Subject:
    filters = np.array(np.broadcast_to(sos, (len(x), *sos.shape[-2:])))
    return Subject(
        "scipy",
        lambda: np.stack([module.sosfilt(item, row, axis=-1) for row, item in zip(x, filters, strict=True)]),
        comparable=False,
        note="the oracle itself; one thread, one call per item",
    )


@_adapts("scipy", "sosfilt")
def _scipy_sosfilt(module: ModuleType, inputs: Inputs) -> Subject:
    return _scipy_cascade(module, _rows(inputs), inputs.tensors["sos"].numpy())


@_adapts("scipy", "parametric_eq")
def _scipy_equalizer(module: ModuleType, inputs: Inputs) -> Subject:
    sos = equalizer_sos(inputs.sample_rate, inputs.arrays(), inputs.options["kinds"])
    return _scipy_cascade(module, _rows(inputs), sos)


def _scipy_filter(module: ModuleType, inputs: Inputs, kind: str) -> Subject:
    c = inputs.arrays()
    sos = biquad(kind, inputs.sample_rate, c["frequency_hz"], c.get("gain_db", np.zeros(())), c["q"])
    return _scipy_cascade(module, _rows(inputs), sos[..., None, :])


for _kind in _FILTERS:
    _adapts("scipy", _kind)(_with(_scipy_filter, _kind))


@_adapts("scipy", "convolution_reverb")
def _scipy_convolution(module: ModuleType, inputs: Inputs) -> Subject:
    x, response = inputs.x.numpy(), inputs.tensors["impulse_response"].numpy()
    mix = per_item(inputs.tensors["mix"].numpy())
    return Subject(
        "scipy",
        lambda: (1 - mix) * x + mix * module.oaconvolve(x, response, axes=-1)[..., : x.shape[-1]],
        note="oaconvolve in float32; one thread",
    )


# pedalboard: float32 on one thread, items one after another, and no gradients.


def _pedalboard(inputs: Inputs, chains: list[list[Any]], module: ModuleType, note: str = "", **more: Any) -> Subject:
    x, boards = _rows(inputs), [module.Pedalboard(chain) for chain in chains]
    shape = tuple(inputs.x.shape)

    def forward() -> Array:
        items = zip(x, boards, strict=True)
        return np.stack([board.process(item, inputs.sample_rate) for item, board in items]).reshape(shape)

    return Subject("pedalboard", forward, note=f"one thread, one call per item{note}", **more)


def _settings(inputs: Inputs) -> list[dict[str, float]]:
    """The controls of each item, as numbers."""
    items = math.prod(inputs.x.shape[:-2])
    columns = {name: tensor.expand(inputs.x.shape[:-2]).reshape(-1).tolist() for name, tensor in inputs.tensors.items()}
    return [{name: column[item] for name, column in columns.items()} for item in range(items)]


@_adapts("pedalboard", "parametric_eq")
def _pedalboard_equalizer(module: ModuleType, inputs: Inputs) -> Subject:
    kinds = [getattr(module, _PEDALBOARD_FILTERS[kind]) for kind in inputs.options["kinds"]]
    frequency_hz, gain_db, q = (inputs.tensors[name].tolist() for name in ("frequency_hz", "gain_db", "q"))
    chains = [
        [kind(*setting) for kind, *setting in zip(kinds, *item, strict=True)]
        for item in zip(frequency_hz, gain_db, q, strict=True)
    ]
    return _pedalboard(inputs, chains, module)


def _pedalboard_filter(module: ModuleType, inputs: Inputs, kind: str) -> Subject:
    plugin = getattr(module, _PEDALBOARD_FILTERS[kind])
    chains = [[plugin(s["frequency_hz"], s["gain_db"], s["q"])] for s in _settings(inputs)]
    return _pedalboard(inputs, chains, module)


for _kind in _PEDALBOARD_FILTERS:
    _adapts("pedalboard", _kind)(_with(_pedalboard_filter, _kind))


@_adapts("pedalboard", "compressor")
def _pedalboard_compressor(module: ModuleType, inputs: Inputs) -> Subject:
    chains = [
        [module.Compressor(s["threshold_db"], s["ratio"], s["attack_ms"], s["release_ms"])] for s in _settings(inputs)
    ]
    return _pedalboard(inputs, chains, module, "; hard knee; its ballistics are not documented", comparable=False)


@_adapts("pedalboard", "expander")
def _pedalboard_gate(module: ModuleType, inputs: Inputs) -> Subject:
    chains = [
        [module.NoiseGate(s["threshold_db"], s["ratio"], s["attack_ms"], s["release_ms"])] for s in _settings(inputs)
    ]
    return _pedalboard(inputs, chains, module, "; NoiseGate, whose ballistics are not documented", comparable=False)


@_adapts("pedalboard", "gain")
def _pedalboard_gain(module: ModuleType, inputs: Inputs) -> Subject:
    return _pedalboard(inputs, [[module.Gain(s["gain_db"])] for s in _settings(inputs)], module)


@_adapts("pedalboard", "distortion")
def _pedalboard_distortion(module: ModuleType, inputs: Inputs) -> Subject:
    return _pedalboard(inputs, [[module.Distortion(s["drive_db"])] for s in _settings(inputs)], module)


# pyloudnorm: one thread, items one after another, and no gradients.


@_adapts("pyloudnorm", "integrated_loudness")
def _pyloudnorm_loudness(module: ModuleType, inputs: Inputs) -> Subject:
    # Its default filters are not those of the standard.
    meter = module.Meter(inputs.sample_rate, filter_class="DeMan")
    items = [item.T for item in _rows(inputs)]
    return Subject(
        "pyloudnorm",
        lambda: np.array([meter.integrated_loudness(item) for item in items]),
        note='one thread, one call per item; filter_class="DeMan"',
    )


# dasp-pytorch: recursive filters by sampling their responses on an FFT grid.


def _dasp_pytorch(function: Callable[..., Any], inputs: Inputs, **more: Any) -> Subject:
    return differentiable("dasp-pytorch", function, {"x": inputs.x, **inputs.tensors}, **more)


@_adapts("dasp-pytorch", "parametric_eq")
def _dasp_pytorch_equalizer(module: ModuleType, inputs: Inputs) -> Subject:
    def function(x: Tensor, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Any:
        bands = zip(gain_db.unbind(-1), frequency_hz.unbind(-1), q.unbind(-1), strict=True)
        return module.parametric_eq(x, inputs.sample_rate, *(control for band in bands for control in band))

    return _dasp_pytorch(function, inputs)


@_adapts("dasp-pytorch", "sosfilt")
def _dasp_pytorch_sosfilt(module: ModuleType, inputs: Inputs) -> Subject:
    sosfilt = module.dasp_pytorch.signal.sosfilt_via_fsm
    tensors = {"x": inputs.x, "sos": inputs.tensors["sos"].float()}
    return differentiable("dasp-pytorch", lambda x, sos: sosfilt(sos, x), tensors, note="coefficients in float32")


def _dasp_pytorch_filter(module: ModuleType, inputs: Inputs, kind: str) -> Subject:
    signal = module.dasp_pytorch.signal

    def function(x: Tensor, frequency_hz: Tensor, q: Tensor, gain_db: Tensor | None = None) -> Any:
        level_db = torch.zeros_like(q) if gain_db is None else gain_db
        b, a = signal.biquad(level_db, frequency_hz, q, inputs.sample_rate, _KINDS_OF_DASP_PYTORCH[kind])
        return signal.sosfilt_via_fsm(torch.cat([b, a], -1).unsqueeze(1), x)

    return _dasp_pytorch(function, inputs, note="signal.biquad and signal.sosfilt_via_fsm")


for _kind in _KINDS_OF_DASP_PYTORCH:
    _adapts("dasp-pytorch", _kind)(_with(_dasp_pytorch_filter, _kind))


def _one_attack(inputs: Inputs) -> Array:
    """The compressor of dasp-pytorch: summed side-chain, attack only, times from 10 to 90 %."""
    x, sample_rate, c, _ = inputs.exact()
    level = level_db(np.abs(x.sum(-2, keepdims=True)))
    threshold, ratio, knee = (per_item(c[name]) for name in ("threshold_db", "ratio", "knee_db"))
    g = (1 / ratio - 1) * soft_knee(level - threshold, knee)
    poles = np.exp(-math.log(9) / (c["attack_ms"] / 1000 * sample_rate))
    smoothed = [scipy.signal.lfilter([1 - p], [1, -p], item, axis=-1) for p, item in zip(poles, g, strict=True)]
    return np.asarray(x * 10 ** ((np.stack(smoothed) + per_item(c["makeup_gain_db"])) / 20))


@_adapts("dasp-pytorch", "compressor")
def _dasp_pytorch_compressor(module: ModuleType, inputs: Inputs) -> Subject:
    order = ("threshold_db", "ratio", "attack_ms", "release_ms", "knee_db", "makeup_gain_db")

    def function(x: Tensor, **c: Tensor) -> Any:
        return module.compressor(x, inputs.sample_rate, *(c[name] for name in order))

    return _dasp_pytorch(
        function, inputs, exact=lambda: _one_attack(inputs), note="attack only, no release; error against that"
    )


@_adapts("dasp-pytorch", "noise_shaped_reverb")
def _dasp_pytorch_reverb(module: ModuleType, inputs: Inputs) -> Subject:
    batch = inputs.x.shape[0]
    drawn = torch.rand(3, batch, 12, generator=torch.Generator().manual_seed(0))
    tensors = {"x": inputs.x, "gains": drawn[0], "decays": drawn[1], "mix": drawn[2, :, :1]}

    def function(x: Tensor, gains: Tensor, decays: Tensor, mix: Tensor) -> Any:
        bands = (*gains.split(1, -1), *decays.split(1, -1))
        return module.noise_shaped_reverberation(x, inputs.sample_rate, *bands, mix)

    return differentiable(
        "dasp-pytorch", function, tensors, comparable=False, once=True, note="65536 taps; new noise in every call"
    )


@_adapts("dasp-pytorch", "gain")
def _dasp_pytorch_gain(module: ModuleType, inputs: Inputs) -> Subject:
    return _dasp_pytorch(lambda x, gain_db: module.gain(x, inputs.sample_rate, gain_db), inputs)


@_adapts("dasp-pytorch", "distortion")
def _dasp_pytorch_distortion(module: ModuleType, inputs: Inputs) -> Subject:
    def function(x: Tensor, drive_db: Tensor) -> Any:
        # Stereo audio needs one drive per channel.
        return module.distortion(x, inputs.sample_rate, drive_db.unsqueeze(-1).expand(x.shape[:2]).contiguous())

    return _dasp_pytorch(function, inputs)


@_adapts("dasp-pytorch", "stereo_bus")
def _dasp_pytorch_bus(module: ModuleType, inputs: Inputs) -> Subject:
    tensors = {"x": inputs.x.transpose(1, 2), "send_db": inputs.tensors["send_db"].unsqueeze(-1)}
    return differentiable("dasp-pytorch", lambda x, send_db: module.stereo_bus(x, inputs.sample_rate, send_db), tensors)


@_adapts("dasp-pytorch", "stereo_panner")
def _dasp_pytorch_panner(module: ModuleType, inputs: Inputs) -> Subject:
    def function(x: Tensor, pan: Tensor) -> Any:
        return module.stereo_panner(x, inputs.sample_rate, (pan.unsqueeze(-1) + 1) / 2).squeeze(2)

    def exact() -> Array:
        x, _, c, _ = inputs.exact()
        p = per_item((c["pan"] + 1) / 2)
        gains = np.sqrt(np.concatenate([(1 - p) * np.cos(p * np.pi / 2), p * np.sin(p * np.pi / 2)], -2))
        return np.asarray(x * gains)

    return _dasp_pytorch(function, inputs, exact=exact, note="its -4.5 dB law; error against that")


@_adapts("dasp-pytorch", "stereo_widener")
def _dasp_pytorch_widener(module: ModuleType, inputs: Inputs) -> Subject:
    def function(x: Tensor, width: Tensor) -> Any:
        return module.stereo_widener(x, inputs.sample_rate, (width / 2).unsqueeze(-1))

    def exact() -> Array:
        x, _, c, _ = inputs.exact()
        left, right, w = x[..., 0, :], x[..., 1, :], c["width"][..., None] / 2
        mid, side = (1 - w) * (left + right), w * (left - right)
        return np.stack([mid + side, mid - side], -2)

    return _dasp_pytorch(function, inputs, exact=exact, note="scales the middle too; error against that")


@_adapts("dasp-pytorch", "console")
def _dasp_pytorch_console(module: ModuleType, inputs: Inputs) -> Subject:
    return _console(module, inputs, reverb=False)


@_adapts("dasp-pytorch", "console_reverb")
def _dasp_pytorch_console_reverb(module: ModuleType, inputs: Inputs) -> Subject:
    return _console(module, inputs, reverb=True)


def _console(module: ModuleType, inputs: Inputs, reverb: bool) -> Subject:
    """The same strips and master, put together as its README does."""
    sample_rate = inputs.sample_rate
    physical = inputs.options["console"].denormalize(inputs.tensors)
    tensors = {
        f"{section} {stage} {name}": value.squeeze(0) if section != "track" and value.ndim > 1 else value
        for section in ("track", "master")
        for stage, values in physical[section].items()
        for name, value in values.items()
    }
    compressor = ("threshold_db", "ratio", "attack_ms", "release_ms", "knee_db", "makeup_gain_db")

    def equalized_and_compressed(x: Tensor, section: str, c: Mapping[str, Tensor]) -> Any:
        f, g, q = (c[f"{section} parametric_eq {name}"] for name in ("frequency_hz", "gain_db", "q"))
        bands = zip(g.unbind(-1), f.unbind(-1), q.unbind(-1), strict=True)
        x = module.parametric_eq(x, sample_rate, *(control.reshape(-1) for band in bands for control in band))
        return module.compressor(
            x, sample_rate, *(c[f"{section} compressor {name}"].reshape(-1) for name in compressor)
        )

    def function(x: Tensor, **c: Tensor) -> Any:
        strips = equalized_and_compressed(x, "track", c)
        strips = module.gain(strips, sample_rate, c["track gain gain_db"])
        panned = module.stereo_panner(strips.transpose(0, 1), sample_rate, (c["track stereo_panner pan"][None] + 1) / 2)
        mix = module.stereo_bus(panned, sample_rate, torch.zeros(1, len(x), 1))
        if reverb:
            sent = module.stereo_bus(panned, sample_rate, c["track send reverb_db"].reshape(1, -1, 1))
            half = torch.full((1, 1), 0.5)
            mix = mix + module.noise_shaped_reverberation(sent, sample_rate, *[half] * 24, torch.ones(1, 1))
        return equalized_and_compressed(mix, "master", c)

    tensors["x"] = inputs.x
    note = "reverb with fixed settings" if reverb else ""
    return differentiable("dasp-pytorch", function, tensors, comparable=False, once=reverb, note=note)


# torchcomp and torchlpc: recursions of first order, in compiled loops over samples.


@_adapts("torchcomp", "ballistics")
def _torchcomp_ballistics(module: ModuleType, inputs: Inputs) -> Subject:
    tensors = {"x": inputs.x, **{name: value.to(inputs.x.dtype) for name, value in inputs.tensors.items()}}
    start = torch.zeros(len(inputs.x))
    return differentiable(
        "torchcomp",
        lambda x, attack, release: module.compressor_core(x, start, 1 - attack, 1 - release),
        tensors,
        note="coefficients and state in float32",
    )


@_adapts("torchlpc", "recurrence")
def _torchlpc_recurrence(module: ModuleType, inputs: Inputs) -> Subject:
    tensors = {"x": inputs.x, **inputs.tensors}
    return differentiable("torchlpc", lambda x, a: module.sample_wise_lpc(x, -a.unsqueeze(-1)), tensors)


@_adapts("torchlpc", "lowpass_automation")
def _torchlpc_lowpass(module: ModuleType, inputs: Inputs) -> Subject:
    def function(x: Tensor, **c: Tensor) -> Any:
        five = F.biquad("lowpass", inputs.sample_rate, **c).to(x.dtype).expand(*x.shape, 6).flatten(0, -3)
        rows = torch.nn.functional.pad(x.flatten(0, -2), (2, 0))
        forced = five[..., 0] * rows[:, 2:] + five[..., 1] * rows[:, 1:-1] + five[..., 2] * rows[:, :-2]
        return module.sample_wise_lpc(forced, five[..., 4:]).reshape(x.shape)

    note = "direct form I, designed by dasp"
    return differentiable("torchlpc", function, {"x": inputs.x, **inputs.tensors}, comparable=False, note=note)


def _smoothing_of_gain(inputs: Inputs, g_db: Array) -> Array:
    """The exact smoothing of an amplitude from a start of 1."""
    c = inputs.arrays()
    attack, release = (pole(c[name], inputs.sample_rate) for name in ("attack_ms", "release_ms"))
    return branching_one_pole(10 ** (g_db / 20), attack, release, start=1.0)


def _torchcomp_gain(module: ModuleType, level: Tensor, sample_rate: float, c: Mapping[str, Tensor]) -> Tensor:
    attack, release = (-torch.expm1(-1 / (c[name] / 1000 * sample_rate)) for name in ("attack_ms", "release_ms"))
    # The expander that comes with it is set out of reach.
    gain: Tensor = module.compexp_gain(level, c["threshold_db"], c["ratio"], -400.0, 0.5, attack, release)
    return gain


@_adapts("torchcomp", "compressor")
def _torchcomp_compressor(module: ModuleType, inputs: Inputs) -> Subject:
    def function(x: Tensor, knee_db: Tensor, **c: Tensor) -> Any:
        level = x.abs().amax(-2).clamp_min(1e-8)
        makeup = 10 ** (c["makeup_gain_db"] / 20)
        gain = _torchcomp_gain(module, level, inputs.sample_rate, c)
        return x * (gain * makeup.unsqueeze(-1)).unsqueeze(-2)

    def exact() -> Array:
        x, _, c, _ = inputs.exact()
        level = level_db(np.abs(x).max(-2))
        g = (1 / c["ratio"][:, None] - 1) * np.maximum(level - c["threshold_db"][:, None], 0)
        return np.asarray(x * _smoothing_of_gain(inputs, g)[:, None] * factor(c["makeup_gain_db"]))

    note = "hard knee, gain smoothed as amplitude; error against that"
    return differentiable("torchcomp", function, {"x": inputs.x, **inputs.tensors}, exact=exact, note=note)


@_adapts("torchcomp", "compressor")
def _torchcomp_smoothing(module: ModuleType, inputs: Inputs) -> Subject:
    """Only the recursion, on the gain of the linked channels."""
    _, _, c, _ = inputs.exact()
    level = level_db(np.abs(inputs.x.double().numpy()).max(-2))
    g_db = (1 / c["ratio"][:, None] - 1) * np.maximum(level - c["threshold_db"][:, None], 0)
    tensors = {
        "x": torch.from_numpy(10 ** (g_db / 20)).float(),
        "attack_ms": inputs.tensors["attack_ms"],
        "release_ms": inputs.tensors["release_ms"],
    }
    start = torch.ones(len(inputs.x))

    def function(x: Tensor, **times_ms: Tensor) -> Any:
        coefficients = (-torch.expm1(-1 / (t / 1000 * inputs.sample_rate)) for t in times_ms.values())
        return module.compressor_core(x, start, *coefficients)

    return differentiable(
        "torchcomp (smoothing alone)",
        function,
        tensors,
        exact=lambda: _smoothing_of_gain(inputs, g_db),
        note="one row per item, as linked channels have; per sample of the stereo audio",
    )


# torchaudio and philtorch: one recursive filter per call.


def _section_by_section(lfilter: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, sos: Tensor) -> Tensor:
    """Sections `(b, a)` one after another, each item with its own."""
    batch, channels, samples = x.shape
    rows = x.reshape(-1, samples)
    for section in sos.unbind(-2):
        b, a = section.to(x.dtype).repeat_interleave(channels, 0).split(3, -1)
        rows = lfilter(rows, b, a)
    return rows.reshape(batch, channels, samples)


_LFILTERS: dict[str, Callable[[ModuleType], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "torchaudio": lambda module: lambda x, b, a: module.lfilter(x, a, b, clamp=False),
    # Without a0, which is 1 in designs of dasp and of the oracle.
    "philtorch": lambda module: lambda x, b, a: module.lfilter(b, a[..., 1:], x),
}


def _lfilter_sosfilt(module: ModuleType, inputs: Inputs, library: str) -> Subject:
    lfilter = _LFILTERS[library](module)
    tensors = {"x": inputs.x, "sos": inputs.tensors["sos"].float()}
    return differentiable(library, lambda x, sos: _section_by_section(lfilter, x, sos), tensors)


def _lfilter_equalizer(module: ModuleType, inputs: Inputs, library: str) -> Subject:
    lfilter, kinds = _LFILTERS[library](module), inputs.options["kinds"]

    def function(x: Tensor, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Any:
        controls = (c.unbind(-1) for c in (frequency_hz, gain_db, q))
        sections = [F.biquad(kind, inputs.sample_rate, *band) for kind, *band in zip(kinds, *controls, strict=True)]
        return _section_by_section(lfilter, x, torch.stack(sections, -2))

    note = "one lfilter per band, designed by dasp"
    return differentiable(library, function, {"x": inputs.x, **inputs.tensors}, note=note)


for _library in _LFILTERS:
    _adapts(_library, "sosfilt")(_with(_lfilter_sosfilt, _library))
    _adapts(_library, "parametric_eq")(_with(_lfilter_equalizer, _library))

"""Black boxes with named controls: numpy functions, external commands, LV2 plug-ins, and chains of any of them."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import torch
from torch import Tensor

from dasp._checks import check_audio, check_sample_rate, shape_text
from dasp._spec import Param
from dasp.gradients._controls import check_unit_range, expand_controls

# Characters of what a failed command printed that an error repeats.
_REPEATED = 500
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Effect(ABC):
    """An effect on one item at a time, with named controls in physical units and on a normalised scale.

    A subclass says in `process` what one item becomes; it begins from rest at each call.

    Args:
        sample_rate: Sample rate in Hz.
        controls: The controls by name: unit, range and scale; their order is that of the normalised vector.
        name: What the effect is called in a chain; by default the class's name in small letters.

    Attributes:
        batched: False: `spsa` and others call it for one item at a time.

    Raises:
        TypeError: If a control is not declared by a `dasp.Param`, or has several values.
        ValueError: If there is no control, or the sample rate leaves nothing of its range.

    Example:
        >>> class Crush(dasp.gradients.Effect):
        ...     def process(self, x, u):
        ...         steps = 2 ** self.denormalize(u)["bits"]
        ...         return np.round(x * steps) / steps
        >>> crush = Crush(44100, {"bits": dasp.Param("", 1, 16)})
        >>> crush(torch.tensor([[0.3, 0.7]]), torch.zeros(1))
        tensor([[0.5000, 0.5000]])
    """

    batched: ClassVar[bool] = False

    def __init__(self, sample_rate: float, controls: Mapping[str, Param], name: str | None = None) -> None:
        kind = type(self).__name__
        check_sample_rate(kind, sample_rate)
        for control, param in controls.items():
            if not isinstance(param, Param) or param.size is not None:
                raise TypeError(f"{kind}: {control} is {param!r}, expected a dasp.Param of a single value")
            param.bounds(sample_rate)
        if not controls:
            raise ValueError(f"{kind}: controls is empty, expected at least one")
        self.controls = dict(controls)
        self.sample_rate = sample_rate
        self.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()

    @abstractmethod
    def process(self, x: np.ndarray, u: Tensor) -> np.ndarray:
        """Processes one item from rest.

        Args:
            x: Audio `(channels, samples)`, the effect's to change.
            u: Normalised controls `(P,)`, of which `denormalize` gives physical values.

        Returns:
            Audio of the same length and type.
        """

    @property
    def num_controls(self) -> int:
        """Length of the normalised vector."""
        return len(self.controls)

    @property
    def control_names(self) -> list[str]:
        """A name for each value of the normalised vector."""
        return list(self.controls)

    def normalize(self, values: Mapping[str, float]) -> Tensor:
        """Physical values of all controls to a normalised vector `(P,)` in float64.

        Raises:
            ValueError: If a control is missing or unknown, or a value is outside its range.
        """
        self._check_names(values)
        u = torch.zeros(self.num_controls, dtype=torch.float64)
        for index, (name, param) in enumerate(self.controls.items()):
            low, high = param.bounds(self.sample_rate)
            if not low <= values[name] <= high:
                raise ValueError(f"{self.name}: {name} is {values[name]}, expected {low:g} to {high:g} {param.unit}")
            u[index] = param.normalize(torch.tensor(values[name], dtype=torch.float64), self.sample_rate)
        return u

    def denormalize(self, u: Tensor) -> dict[str, float]:
        """A normalised vector `(P,)` to physical values of all controls.

        Raises:
            ValueError: If u has another shape, or values outside [0, 1].
        """
        self._check_normalized(u)
        exact = u.detach().cpu().double()
        return {
            name: float(param.denormalize(value, self.sample_rate))
            for (name, param), value in zip(self.controls.items(), exact, strict=True)
        }

    def _check_names(self, values: Mapping[str, float]) -> None:
        if set(values) != set(self.controls):
            raise ValueError(
                f"{self.name}: got values of {', '.join(values) or 'nothing'}, expected {', '.join(self.controls)}"
            )

    def _check_normalized(self, u: Tensor) -> None:
        if u.shape != (self.num_controls,):
            raise ValueError(f"{self.name}: u has shape {shape_text(u.shape)}, expected ({self.num_controls},)")
        check_unit_range(self.name, u)

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Processes items one after another, each from rest and without gradients.

        Args:
            x: Audio `(*batch, channels, samples)`.
            u: Normalised controls `(*batch, P)` in [0, 1], or fewer dimensions that broadcast to these.

        Returns:
            Audio `(*batch, channels, samples)` as `process` gives it.

        Raises:
            TypeError: If x is no floating-point audio, u no floating-point tensor, or `process` returns something else
                than an array.
            ValueError: If u does not match, or has values outside [0, 1].
        """
        check_audio(self.name, x)
        u = expand_controls(self.name, u, x, self.num_controls)
        check_unit_range(self.name, u)
        items = [self._item(x[place], u[place]) for place in product(*map(range, x.shape[:-2]))]
        return torch.stack(items).reshape(*x.shape[:-2], *items[0].shape) if items else torch.empty_like(x)

    def _item(self, x: Tensor, u: Tensor) -> Tensor:
        # Copies: what the effect does to its input must not reach the caller's, and it may use its output again.
        y = self.process(np.array(x.detach().cpu().numpy(), order="C"), u.detach().cpu())
        if not isinstance(y, np.ndarray):
            raise TypeError(f"{self.name}: process returned a {type(y).__name__}, expected a numpy array")
        return torch.from_numpy(np.array(y, order="C")).to(x.device)


class NumpyEffect(Effect):
    """A numpy function `function(x, sample_rate, **controls) -> y` as an effect.

    Args:
        function: Takes audio `(channels, samples)`, the sample rate in Hz and each control by its name in physical
            units, and returns audio of the same length and type.  If it has state, it begins from rest at each call.
        sample_rate: Sample rate in Hz.
        controls: The controls by name: unit, range and scale.
        name: What the effect is called in a chain; by default the function's name.

    Raises:
        TypeError: If the function is not callable, or a control is not declared by a `dasp.Param`.
        ValueError: If there is no control, or the sample rate leaves nothing of its range.

    Example:
        >>> def drive(x, sample_rate, drive_db):
        ...     return np.tanh(x * x.dtype.type(10 ** (drive_db / 20)))
        >>> effect = dasp.gradients.NumpyEffect(drive, 44100, {"drive_db": dasp.Param("dB", 0, 40)})
        >>> effect.denormalize(torch.tensor([0.5]))
        {'drive_db': 20.0}
        >>> u = torch.full((3, 1), 0.5, requires_grad=True)
        >>> dasp.gradients.spsa(effect)(torch.randn(3, 2, 64), u).square().mean().backward()
        >>> u.grad.shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        function: Callable[..., np.ndarray],
        sample_rate: float,
        controls: Mapping[str, Param],
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"NumpyEffect: function is a {type(function).__name__}, expected a callable")
        super().__init__(sample_rate, controls, name or getattr(function, "__name__", None))
        self.function = function

    def process(self, x: np.ndarray, u: Tensor) -> np.ndarray:
        """What the function returns."""
        return self.function(x, self.sample_rate, **self.denormalize(u))


class CommandEffect(Effect):
    """A program that reads a WAV file and writes another, as an effect.

    The program is started anew for each call, without a shell, with files in a folder that is gone afterwards.  Samples
    are written as 32-bit floats, or 64-bit ones for float64 audio; what the program rounds, steps must exceed.

    Args:
        command: The program and its arguments.  In each, `{in}` and `{out}` become the paths of the files, and the name
            of a control in braces its value in physical units; an argument that is `{params}` becomes one argument
            for each control, its value, in their order.
        sample_rate: Sample rate in Hz, a whole number.
        controls: The controls by name: unit, range and scale.
        timeout_s: Seconds after which the program, and what it has started, is ended.
        name: What the effect is called in a chain; by default the program's name.

    Raises:
        TypeError: If the command is not a sequence of strings, or a control is not declared by a `dasp.Param`.
        ValueError: If a name in braces is no control, an input, an output or a control is missing, or a number is out
            of range.
        FileNotFoundError: If there is no such program.

    A call raises a `RuntimeError` that names the command if it fails, does not end in time, or leaves no usable file.

    Example:
        >>> effect = dasp.gradients.CommandEffect(
        ...     ["sox", "{in}", "{out}", "treble", "{gain_db}"], 44100, {"gain_db": dasp.Param("dB", -20, 20)}
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        command: Sequence[str],
        sample_rate: float,
        controls: Mapping[str, Param],
        timeout_s: float = 60.0,
        name: str | None = None,
    ) -> None:
        if isinstance(command, str) or not all(isinstance(argument, str) for argument in command) or not command:
            raise TypeError(
                f"CommandEffect: command is {command!r}, expected a list of strings: split it by shlex.split"
            )
        program = shutil.which(command[0])
        if program is None:
            raise FileNotFoundError(f"CommandEffect: there is no program {command[0]!r}")
        super().__init__(sample_rate, controls, name or Path(program).stem)
        if sample_rate != int(sample_rate):
            raise ValueError(f"CommandEffect: sample_rate is {sample_rate}, expected a whole number")
        if not 0 < timeout_s < math.inf:
            raise ValueError(f"CommandEffect: timeout_s is {timeout_s}, expected a finite number of seconds above 0")
        used = {found for argument in command[1:] for found in _PLACEHOLDER.findall(argument)}
        if "{params}" in command[1:]:
            used = used - {"params"} | set(controls)
        for placeholder in sorted({"in", "out", *controls} - used):
            raise ValueError(f"CommandEffect: {{{placeholder}}} does not occur in the command")
        for placeholder in sorted(used - {"in", "out", *controls}):
            raise ValueError(f"CommandEffect: {{{placeholder}}} is no control, expected one of {', '.join(controls)}")
        self.command = (program, *command[1:])
        self.timeout_s = timeout_s

    def arguments(self, values: Mapping[str, float], source: str, target: str) -> list[str]:
        """The command for given settings and files."""
        texts = {name: repr(float(values[name])) for name in self.controls} | {"in": source, "out": target}
        filled = [self.command[0]]
        for argument in self.command[1:]:
            if argument == "{params}":
                filled += [texts[name] for name in self.controls]
            else:
                filled.append(_PLACEHOLDER.sub(lambda match: texts[match[1]], argument))
        return filled

    def process(self, x: np.ndarray, u: Tensor) -> np.ndarray:
        """What the program makes of a file.

        Raises:
            RuntimeError: If it fails, does not end in time, or leaves no file of the same sample rate.
        """
        import soundfile

        with tempfile.TemporaryDirectory(prefix="dasp-") as folder:
            source, target, printed = (Path(folder) / part for part in ("in.wav", "out.wav", "printed.txt"))
            subtype = "DOUBLE" if x.dtype == np.float64 else "FLOAT"
            soundfile.write(source, x.T, int(self.sample_rate), subtype=subtype, format="WAV")
            # A file and not a pipe: whoever inherits a pipe can keep it open.
            with printed.open("w+b") as output:
                self._run(self.arguments(self.denormalize(u), str(source), str(target)), output)
            if not target.is_file():
                raise RuntimeError(f"{self.name}: the command wrote no file where {{out}} is")
            try:
                y, sample_rate = soundfile.read(target, dtype=x.dtype.name, always_2d=True)
            except soundfile.LibsndfileError as error:
                raise RuntimeError(f"{self.name}: the command wrote no audio file ({error.error_string})") from error
        if sample_rate != self.sample_rate:
            raise RuntimeError(f"{self.name}: the command changed the sample rate to {sample_rate} Hz")
        return np.ascontiguousarray(y.T)

    def _run(self, arguments: list[str], output: IO[bytes]) -> None:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(self.timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{self.name}: the command did not end within {self.timeout_s:g} s") from error
        finally:
            _end(process)
        if code != 0:
            output.seek(0)
            text = " ".join(output.read().decode(errors="replace").split())[-_REPEATED:]
            raise RuntimeError(f"{self.name}: the command failed with exit code {code}: {text or 'it printed nothing'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that may be running, and where the system knows groups what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def lv2_effect(
    uri: str,
    sample_rate: float,
    controls: Mapping[str, Param] | Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    timeout_s: float = 60.0,
) -> CommandEffect:
    """An LV2 plug-in as an effect, run by the program `lv2apply` of lilv-utils.

    Args:
        uri: The plug-in's URI, as `lv2ls` lists it.
        sample_rate: Sample rate in Hz, a whole number.
        controls: The controls by the symbols of their ports: with a `dasp.Param` each, or the symbols alone, of which
            `lv2info` then tells the range, on a linear scale; None for all that it tells a range of.
        fixed: Values of other ports; those of the plug-in itself where there is none.
        timeout_s: Seconds after which a call is ended.

    Returns:
        The effect.  It computes in float32, and the plug-in must have as many audio inputs as the audio channels.

    Raises:
        FileNotFoundError: If there is no `lv2apply`, or no such plug-in.
        ValueError: If a symbol is no control port with a range.
    """
    for program in ("lv2apply", "lv2info"):
        if shutil.which(program) is None:
            raise FileNotFoundError(f"lv2_effect: there is no program {program!r}: install lilv-utils")
    # The program ends with 0 and an empty answer, or with another code, where it does not know the plug-in.
    told = subprocess.run(["lv2info", uri], capture_output=True, text=True, timeout=timeout_s, check=False)
    if told.returncode != 0 or not told.stdout.strip():
        raise FileNotFoundError(f"lv2_effect: there is no plug-in {uri!r}; lv2ls lists those that there are")
    known = _lv2_controls(told.stdout)
    if not isinstance(controls, Mapping):
        for symbol in controls or ():
            if symbol not in known:
                raise ValueError(f"lv2_effect: {symbol} is no control with a range, expected one of {', '.join(known)}")
        left = [symbol for symbol in known if symbol not in (fixed or {})] if controls is None else controls
        controls = {symbol: known[symbol] for symbol in left}
    command = ["lv2apply", "-i", "{in}", "-o", "{out}"]
    for symbol in controls:
        command += ["-c", symbol, f"{{{symbol}}}"]
    for symbol, value in (fixed or {}).items():
        command += ["-c", symbol, repr(float(value))]
    return CommandEffect([*command, uri], sample_rate, controls, timeout_s, name=re.split(r"[/#:]", uri)[-1])


def _lv2_controls(told: str) -> dict[str, Param]:
    """The input ports for control that have a range, as `lv2info` prints them."""
    controls = {}
    for port in re.split(r"^\s*Port \d+:\s*$", told, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^\s*(Symbol|Name|Minimum|Maximum):\s*(.*?)\s*$", port, flags=re.MULTILINE))
        if "#ControlPort" not in port or "#InputPort" not in port or not {"Minimum", "Maximum"} <= set(fields):
            continue
        low, high = float(fields["Minimum"]), float(fields["Maximum"])
        if low < high < math.inf and low > -math.inf:
            controls[fields["Symbol"]] = Param("", low, high, meaning=f"{fields['Name']}.")
    return controls


class EffectChain(Effect):
    """Effects one after another as one, whose controls are those of all in a row.

    Its gradient is one estimate for all controls, which no gradient for the audio between the effects is needed for.

    Args:
        *effects: The effects, of one sample rate.

    Raises:
        TypeError: If one of them is not an `Effect`.
        ValueError: If there is none, or their sample rates differ.

    Attributes:
        effects: The effects by name, numbered where one occurs again: `gain`, `gain_2`.

    Example:
        >>> def drive(x, sample_rate, drive_db):
        ...     return np.tanh(x * x.dtype.type(10 ** (drive_db / 20)))
        >>> effect = dasp.gradients.NumpyEffect(drive, 44100, {"drive_db": dasp.Param("dB", 0, 40)})
        >>> chain = dasp.gradients.EffectChain(effect, effect)
        >>> chain.control_names
        ['drive.drive_db', 'drive_2.drive_db']
    """

    def __init__(self, *effects: Effect) -> None:
        if not effects:
            raise ValueError("EffectChain: expected at least one effect")
        self.effects: dict[str, Effect] = {}
        for effect in effects:
            if not isinstance(effect, Effect):
                raise TypeError(f"EffectChain: got a {type(effect).__name__}, expected an Effect")
            if effect.sample_rate != effects[0].sample_rate:
                raise ValueError(
                    f"EffectChain: sample rates differ: {effects[0].sample_rate} and {effect.sample_rate} Hz"
                )
            name, count = effect.name, 1
            while name in self.effects:
                count += 1
                name = f"{effect.name}_{count}"
            self.effects[name] = effect
        controls = {
            f"{name}.{control}": param
            for name, effect in self.effects.items()
            for control, param in effect.controls.items()
        }
        super().__init__(effects[0].sample_rate, controls)

    def process(self, x: np.ndarray, u: Tensor) -> np.ndarray:
        """What the last effect gives."""
        for effect, own in self._parts(u):
            x = effect.process(x, own)
        return x

    def normalize(self, values: Mapping[str, float]) -> Tensor:
        """Physical values of all controls, such as `gain.gain_db`, to a normalised vector `(P,)` in float64.

        Raises:
            ValueError: If a control is missing or unknown, or a value is outside its range.
        """
        self._check_names(values)
        return torch.cat(
            [
                effect.normalize({control: values[f"{name}.{control}"] for control in effect.controls})
                for name, effect in self.effects.items()
            ]
        )

    def denormalize(self, u: Tensor) -> dict[str, float]:
        """A normalised vector `(P,)` to physical values of all controls.

        Raises:
            ValueError: If u has another shape, or values outside [0, 1].
        """
        self._check_normalized(u)
        return {
            f"{name}.{control}": value
            for name, (effect, own) in zip(self.effects, self._parts(u), strict=True)
            for control, value in effect.denormalize(own).items()
        }

    def reset(self) -> None:
        """Resets those of the effects that have state."""
        for effect in self.effects.values():
            reset = getattr(effect, "reset", None)
            if callable(reset):
                reset()

    def _parts(self, u: Tensor) -> list[tuple[Effect, Tensor]]:
        effects = list(self.effects.values())
        return list(zip(effects, u.split([effect.num_controls for effect in effects]), strict=True))

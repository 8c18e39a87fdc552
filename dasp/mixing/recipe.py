"""Recipes: what a controller is trained on and how, as a TOML file whose every key is checked."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

__all__ = ["Recipe", "RecipeError"]

_MOST_BYTES = 1 << 20


class RecipeError(ValueError):
    """A recipe that is none; the text names the file, the key, what stands there and what was expected.

    Example:
        >>> dasp.mixing.Recipe.parse("[training]\\nsteps = -1")
        Traceback (most recent call last):
        dasp.mixing.recipe.RecipeError: ...
    """


def _at_least(low: float, default: Any = MISSING) -> Any:
    """A number from `low` up."""
    return field(default=default, metadata={"low": low})


def _above(low: float, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"above": low})


def _one_of(*choices: str) -> Any:
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True)
class ControllerPart:
    """The network: `kind`, and arguments of `DeepSetController` or `TransformerController` by name.

    Attributes:
        kind: "deep_set" or "transformer".
        seed: Seed of its parameters.
        start: File of a controller to begin from, instead of kind, seed and options.
        options: Its other arguments.
    """

    kind: str = _one_of("deep_set", "transformer")
    seed: int = _at_least(0, 0)
    start: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataPart:
    """The songs and how items are drawn of them, see `MixDataset`.

    Attributes:
        target: Share of items without reference, whose target is plausible for the instruments.
        reference: Share of items with the mix of another section as reference.
        reference_dropped: Probability that an item of the latter kind comes without its reference.
        folder: Folder of songs for `MultitrackFolder`; if empty, songs are synthetic.
        layout: Layout of the folder.
        validation_folder: Folder of songs to validate on.
        first_seed: First seed of the synthetic songs to train on.
        seeds: Number of these songs.
        validation_seed: First seed of those to validate on.
        validation_seeds: Number of these.
        fewest: Least number of tracks of an item.
        most: Largest number of tracks of an item.
        seconds: Duration of an item.
        spread: Spread of the settings behind references, see `controls_around`.
        variation: Variation of plausible settings, see `plausible_controls`.
        stereo: Give tracks in stereo.
        cached: Keep synthetic tracks in memory.
        own_mixes: Take the mixes of the folder.
    """

    target: float = _at_least(0.0, 1.0)
    reference: float = _at_least(0.0, 0.0)
    reference_dropped: float = _at_least(0.0, 0.0)
    folder: str = ""
    layout: str = "auto"
    validation_folder: str = ""
    first_seed: int = _at_least(0, 0)
    seeds: int = _at_least(1, 100_000)
    validation_seed: int = _at_least(0, 500_000)
    validation_seeds: int = _at_least(1, 1000)
    fewest: int = _at_least(1, 4)
    most: int = _at_least(1, 8)
    seconds: float = _above(0.0, 131072 / 44100)
    spread: float = _at_least(0.0, 1.0)
    variation: float = _at_least(0.0, 1.0)
    stereo: bool = False
    cached: bool = False
    own_mixes: bool = False


@dataclass(frozen=True)
class LossPart:
    """Weights of the terms of the loss.

    Attributes:
        controls: Of `ParameterLoss`, the distance from the controls behind the target.
        control_weights: Weights of controls in it by name.
        stft: Of `StereoSTFTLoss` between mix and target, in dB.
        resolutions: Its STFT sizes.
        features: Of `AudioFeatureLoss` between mix and target, or the reference of items that have one.
        audio_from_step: First step of the terms that need a mix: before it the console does not run.
    """

    controls: float = _at_least(0.0, 1.0)
    control_weights: dict[str, float] = field(default_factory=dict)
    stft: float = _at_least(0.0, 0.1)
    resolutions: tuple[int, ...] = (512, 2048)
    features: float = _at_least(0.0, 0.1)
    audio_from_step: int = _at_least(0, 0)


@dataclass(frozen=True)
class TrainingPart:
    """The loop.

    Attributes:
        steps: Steps of the optimiser in all.
        batch_size: Items of a step, on each device.
        learning_rate: Highest step size of AdamW.
        weight_decay: Of AdamW.
        warmup_steps: Steps in which the step size rises to its highest; it falls to a hundredth of it along a cosine.
        clip_norm: Gradients are scaled down to this norm.
        validate_every: Steps from one validation, checkpoint and line of the log to the next; divides `steps`.
        validation_items: Items to validate on.
        workers: Processes that load data; 0 for none.
        accelerator: As of Lightning's Trainer, like the three that follow.
        devices: How many devices, or "auto".
        precision: Type of the numbers, such as "32-true" or "bf16-mixed".
        strategy: How the work is divided among devices.
    """

    steps: int = _at_least(1)
    batch_size: int = _at_least(1, 4)
    learning_rate: float = _above(0.0, 1e-3)
    weight_decay: float = _at_least(0.0, 1e-4)
    warmup_steps: int = _at_least(0, 50)
    clip_norm: float = _above(0.0, 1.0)
    validate_every: int = _at_least(1, 100)
    validation_items: int = _at_least(1, 16)
    workers: int = _at_least(0, 0)
    accelerator: str = "auto"
    devices: int = _at_least(1, 1)
    precision: str = "32-true"
    strategy: str = "auto"


@dataclass(frozen=True)
class Recipe:
    """What a controller is trained on and how.

    Attributes:
        training: The loop.
        controller: The network.
        data: The songs.
        loss: The loss.
        sample_rate: Sample rate in Hz of the console, the default one.
        seed: Seed of what is drawn.

    Raises:
        RecipeError: If values contradict each other.

    Example:
        >>> recipe = dasp.mixing.Recipe.parse("[training]\\nsteps = 100\\nvalidate_every = 50")
        >>> recipe.training.steps, recipe.controller.kind
        (100, 'deep_set')
    """

    training: TrainingPart
    controller: ControllerPart = field(default_factory=ControllerPart)
    data: DataPart = field(default_factory=DataPart)
    loss: LossPart = field(default_factory=LossPart)
    sample_rate: int = _at_least(8000, 44100)
    seed: int = _at_least(0, 0)

    def __post_init__(self) -> None:
        data, loss, training = self.data, self.loss, self.training
        if data.target + data.reference == 0:
            raise RecipeError("data.target and data.reference are 0, expected a share above 0")
        if data.reference_dropped > 1:
            raise RecipeError(f"data.reference_dropped is {data.reference_dropped}, expected a probability")
        if data.fewest > data.most:
            raise RecipeError(f"data.fewest is {data.fewest}, expected at most data.most, {data.most}")
        if loss.controls + loss.stft + loss.features == 0:
            raise RecipeError("loss.controls, loss.stft and loss.features are 0, expected a weight above 0")
        if loss.controls == 0 and loss.audio_from_step > 0:
            raise RecipeError(f"loss.audio_from_step is {loss.audio_from_step}, expected 0 without loss.controls")
        if data.own_mixes and (loss.controls or not data.folder):
            raise RecipeError("data.own_mixes is set, expected data.folder, and loss.controls = 0: they are unknown")
        if training.steps % training.validate_every:
            raise RecipeError(
                f"training.validate_every is {training.validate_every}, expected a divisor of training.steps, "
                f"{training.steps}"
            )
        if self.controller.start and self.controller.options:
            raise RecipeError("controller.options are given, but controller.start has its own")
        if data.reference and not self.controller.options.get("reference", True):
            raise RecipeError("controller.options.reference is false, but data.reference asks for references")
        try:
            overlap = range(max(data.first_seed, data.validation_seed), min(*(self._ends())))
        except TypeError as error:
            raise RecipeError(f"data: {error}") from error
        if len(overlap) and not data.folder:
            raise RecipeError(f"data.validation_seed is {data.validation_seed}: songs to validate on are trained on")

    def _ends(self) -> tuple[int, int]:
        data = self.data
        return data.first_seed + data.seeds, data.validation_seed + data.validation_seeds

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Reads a recipe from TOML text.

        Raises:
            RecipeError: If it is no TOML, or a key is missing, unknown or of the wrong kind; the text names the key.
            ImportError: On Python 3.10 without tomli.
        """
        library = _toml()
        try:
            tables = library.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"is not TOML: {str(error)[:120]}") from error
        return _built(cls, tables, "")

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Reads a recipe from a TOML file.

        Raises:
            RecipeError: If the file cannot be read, or as in `parse`; the text names the file.
            ImportError: On Python 3.10 without tomli.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise RecipeError(f"is longer than {_MOST_BYTES >> 20} MiB, expected a recipe")
            return cls.parse(data.decode("utf-8"))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: is not TOML: byte {error.start} is no UTF-8") from error
        except ValueError as error:
            raise RecipeError(f"{path}: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """All values by table and key."""
        return asdict(self)


def _toml() -> ModuleType:
    try:
        return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError as error:
        raise ImportError("recipes need tomli on Python 3.10: pip install 'dasp[train]'") from error


_Part = TypeVar("_Part")


def _built(part: type[_Part], table: Any, place: str) -> _Part:
    """A dataclass of a table, each key checked against the annotation and limits of its field."""
    if not isinstance(table, dict):
        raise RecipeError(f"{place} is {table!r}, expected a table")
    known = {entry.name: entry for entry in fields(part)}  # type: ignore[arg-type]  # all parts are dataclasses
    for key in table:
        if key not in known:
            raise RecipeError(f"{_place(place, key)} is unknown, expected one of {', '.join(known)}")
    hints = get_type_hints(part)
    values = {}
    for key, entry in known.items():
        if key in table:
            values[key] = _value(table[key], hints[key], entry.metadata, _place(place, key))
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise RecipeError(f"{_place(place, key)} is missing")
    return part(**values)


def _place(place: str, key: str) -> str:
    return f"{place}.{key}".lstrip(".")


def _value(value: Any, hint: Any, limits: Mapping[str, Any], place: str) -> Any:
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        return _built(hint, value, place)
    if hint is bool:
        return _checked(value, isinstance(value, bool), place, "true or false")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint in (int, float):
        fits = number and math.isfinite(value) and (hint is float or isinstance(value, int))
        _checked(value, fits, place, "a number" if hint is float else "a whole number")
        if "low" in limits:
            _checked(value, value >= limits["low"], place, f"at least {limits['low']:g}")
        if "above" in limits:
            _checked(value, value > limits["above"], place, f"more than {limits['above']:g}")
        return hint(value)
    if hint is str:
        _checked(value, isinstance(value, str), place, "a text")
        choices = limits.get("choices", (value,))
        return _checked(value, value in choices, place, f"one of {', '.join(choices)}")
    if hint == dict[str, float]:
        _checked(value, isinstance(value, dict), place, "a table")
        return {key: _value(weight, float, {"low": 0.0}, f'{place}."{key}"') for key, weight in value.items()}
    if hint == tuple[int, ...]:
        whole = isinstance(value, list) and bool(value) and all(type(v) is int and v > 0 for v in value)
        return tuple(_checked(value, whole, place, "a list of whole numbers"))
    return _checked(value, isinstance(value, dict), place, "a table")


def _checked(value: Any, fits: bool, place: str, expected: str) -> Any:
    if not fits:
        raise RecipeError(f"{place} is {value!r}, expected {expected}")
    return value

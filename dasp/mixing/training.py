"""Training of controllers: items, loss and validation as plain modules, and Lightning's loop around them."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from dasp.gradients.checkpoints import read_checkpoint, write_checkpoint
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controllers import Controller, DeepSetController, TransformerController
from dasp.mixing.dataset import MixDataset, SynthSongs
from dasp.mixing.folders import MultitrackFolder
from dasp.mixing.losses import AudioFeatureLoss, ParameterLoss, StereoSTFTLoss
from dasp.mixing.recipe import Recipe, RecipeError

__all__ = ["ControllerLoss", "RecipeItems", "train"]

CONTROLLER, STATE = "controller.safetensors", "state.ckpt"
OUTPUTS = (CONTROLLER, STATE)
_STATE_FORMAT = "dasp.training 1"
_KINDS: dict[str, type[DeepSetController] | type[TransformerController]] = {
    "deep_set": DeepSetController,
    "transformer": TransformerController,
}
# The step size ends at this share of its highest.
_LAST_RATE = 0.01


class RecipeItems(Dataset[dict[str, Any]]):
    """The items of a recipe, with and without references, as many as are asked for.

    Items are those of `MixDataset`, with a "reference", silent where there is none, and "has_reference", a bool.
    Item i is drawn from the seed and i alone.

    Args:
        recipe: The recipe.
        console: Its console.
        validation: Draw of the songs for validation.
        num_items: Number of items.

    Raises:
        RecipeError: If songs cannot be drawn as the recipe asks.
        ValueError: If a folder has no songs.

    Example:
        >>> recipe = dasp.mixing.Recipe.parse("[training]\\nsteps = 100\\nvalidate_every = 50")
        >>> items = dasp.mixing.RecipeItems(recipe, dasp.mixing.DifferentiableMixingConsole(44100), num_items=2)
        >>> len(items), "reference" in items[0]
        (2, True)
    """

    def __init__(
        self, recipe: Recipe, console: DifferentiableMixingConsole, num_items: int, validation: bool = False
    ) -> None:
        data = recipe.data
        self.seed = [recipe.seed, int(validation)]
        self.num_items = num_items
        self.dropped = data.reference_dropped
        self.shares = {"target": data.target, "reference": data.reference}
        if data.folder:
            folder = data.validation_folder if validation and data.validation_folder else data.folder
            layout: Any = data.layout
        self.sets: dict[str, MixDataset] = {}
        for kind, share in self.shares.items():
            if share == 0:
                continue
            songs: SynthSongs | MultitrackFolder
            if data.folder:
                songs = MultitrackFolder(folder, layout)
            else:
                first, count = (
                    (data.validation_seed, data.validation_seeds) if validation else (data.first_seed, data.seeds)
                )
                songs = SynthSongs(range(first, first + count), data.fewest, data.cached)
            try:
                self.sets[kind] = MixDataset(
                    songs,
                    console,
                    kind,  # type: ignore[arg-type]  # one of the two
                    num_items,
                    data.seconds,
                    data.most,
                    data.stereo,
                    seed=recipe.seed + int(validation),
                    amount=data.variation if kind == "target" else data.spread,
                    own_mixes=data.own_mixes,
                )
            except ValueError as error:
                raise RecipeError(f"data: {error}") from error

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([*self.seed, index, 1])
        total = sum(self.shares.values())
        kind = "target" if rng.random() * total < self.shares["target"] else "reference"
        item = self.sets[kind][index]
        kept = kind == "reference" and bool(rng.random() >= self.dropped)
        item["has_reference"] = torch.tensor(kept)
        if not kept:
            item["reference"] = torch.zeros_like(item["target"])
        return item


class ControllerLoss(nn.Module):
    """The loss of a recipe: distances of controls, of the mix from its target, and of features of a mix.

    Features are compared with the reference of items that have one, and otherwise with the target.

    Args:
        recipe: The recipe.
        console: Its console.

    Raises:
        RecipeError: If a weight belongs to no control.

    Example:
        >>> recipe = dasp.mixing.Recipe.parse("[training]\\nsteps = 100\\nvalidate_every = 50")
        >>> loss = dasp.mixing.ControllerLoss(recipe, dasp.mixing.DifferentiableMixingConsole(44100))
        >>> sorted(loss.weights)
        ['controls', 'features', 'stft']
    """

    def __init__(self, recipe: Recipe, console: DifferentiableMixingConsole) -> None:
        super().__init__()
        weights = recipe.loss
        self.weights = {"controls": weights.controls, "stft": weights.stft, "features": weights.features}
        self._console = [console]
        try:
            self.controls = ParameterLoss(console, weights.control_weights)
            self.stft = StereoSTFTLoss(resolutions=weights.resolutions)
        except ValueError as error:
            raise RecipeError(f"loss: {error}") from error
        self.features = AudioFeatureLoss(console.sample_rate)

    def forward(self, controls: Mapping[str, Tensor], item: Mapping[str, Any], audio: bool = True) -> dict[str, Tensor]:
        """The terms whose weights are not 0, and "loss", their weighted sum.

        Args:
            controls: What a controller found for the item.
            item: A batch of `RecipeItems`.
            audio: Whether to mix, and compare the mix.
        """
        terms: dict[str, Tensor] = {}
        if self.weights["controls"]:
            terms["controls"] = self.controls(controls, item["controls"], item["mask"])
        if audio and (self.weights["stft"] or self.weights["features"]):
            mix = self._console[0](item["tracks"], controls, item["mask"])
            if self.weights["stft"]:
                terms["stft"] = self.stft(mix, item["target"])
            if self.weights["features"]:
                there = item["has_reference"][:, None, None]
                terms["features"] = self.features(mix, torch.where(there, item["reference"], item["target"]))
        return {**terms, "loss": torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()}


def make_controller(recipe: Recipe) -> Controller:
    """The controller that a recipe begins from, with its console.

    Raises:
        RecipeError: If its options are not those of its kind, or it cannot be read.
    """
    console = DifferentiableMixingConsole(recipe.sample_rate)
    part = recipe.controller
    if part.start:
        try:
            return Controller.load(part.start, console).train()
        except (OSError, ValueError) as error:
            raise RecipeError(f"controller.start: {error}") from error
    try:
        return _KINDS[part.kind](console, seed=part.seed, **part.options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"controller.options: {error}") from error


def step_size(recipe: Recipe) -> Callable[[int], float]:
    """The step size at a step over the highest."""
    training = recipe.training

    def at(step: int) -> float:
        if step < training.warmup_steps:
            return (step + 1) / (training.warmup_steps + 1)
        done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
        return _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return at


class _Stretch(Sampler[int]):
    """The items of an epoch, each in one of the processes that train: there is no item twice."""

    def __init__(self, per_epoch: int, rank: int, processes: int) -> None:
        self.per_epoch, self.rank, self.processes, self.epoch = per_epoch, rank, processes, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.per_epoch
        return iter(range(first + self.rank, first + self.per_epoch, self.processes))

    def __len__(self) -> int:
        return self.per_epoch // self.processes


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    resume: bool = False,
    progress: bool = True,
    notify: Callable[[str], None] | None = None,
) -> Controller:
    """Trains a controller by a recipe, in Lightning's loop.

    Writes, in `output`, "controller.safetensors", the controller of the lowest validation loss, and "state.ckpt", from
    which an interrupted training resumes, both at each validation; and logs in CSV and for TensorBoard.  The same
    recipe on one machine gives the same controller, resumed or not.

    Args:
        recipe: The recipe.
        output: The folder, made if it does not exist.
        resume: Continue from the state in the folder, if there is one.
        progress: Show a bar.
        notify: Is told of each validation.

    Returns:
        The controller of the lowest validation loss.

    Raises:
        ImportError: If Lightning or TensorBoard is not installed; its text says what to install.
        RecipeError: If the recipe cannot be followed, or the state in the folder is of another.
        KeyboardInterrupt: If the training is interrupted; its state is that of the last validation.

    Example:
        >>> recipe = dasp.mixing.Recipe.parse("[training]\\nsteps = 100\\nvalidate_every = 50")
        >>> controller = dasp.mixing.train(recipe, "trained")  # doctest: +SKIP
    """
    lightning = _lightning()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    module = _adapter(lightning, recipe, folder, notify)
    resumed = resume and state.exists()
    if resumed:
        _check_same(state, recipe)
    training = recipe.training
    # Validation comes after training in an epoch; a state that is whole is one between epochs.
    checkpoint = lightning.callbacks.ModelCheckpoint(
        folder, Path(STATE).stem, save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _quiet(), warnings.catch_warnings():
            # Data are drawn in this process on purpose: on two cores a second one gains nothing.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            # Lightning 2.6 asks torch 2.13 for the kind of a tree in a way that this deprecates.
            warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
            trainer = lightning.Trainer(
                accelerator=training.accelerator,
                devices=training.devices,
                precision=training.precision,
                strategy=training.strategy,
                max_epochs=training.steps // training.validate_every,
                gradient_clip_val=training.clip_norm,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                log_every_n_steps=min(10, training.validate_every),
                enable_progress_bar=progress,
                enable_model_summary=False,
                logger=[
                    lightning.loggers.CSVLogger(folder, "csv"),
                    lightning.loggers.TensorBoardLogger(folder, "tensorboard"),
                ],
                callbacks=[checkpoint],
                plugins=[_states(lightning, recipe)],
                default_root_dir=folder,
            )
            trainer.fit(module, ckpt_path=str(state) if resumed else None)
    except SystemExit as exit_:
        # Lightning ends the process when it is interrupted, and leaves Ctrl-C without effect.
        raise KeyboardInterrupt from exit_
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
    return Controller.load(folder / CONTROLLER)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notices of what hardware there is, and its advertisements."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _lightning() -> ModuleType:
    try:
        import lightning
        import lightning.pytorch
        import tensorboard  # noqa: F401  # the logger needs it
    except ImportError as error:
        missing = getattr(error, "name", None) or "lightning"
        raise ImportError(f"training needs {missing}: pip install 'dasp[train]'") from error
    module: ModuleType = lightning.pytorch
    return module


def _adapter(lightning: ModuleType, recipe: Recipe, folder: Path, notify: Callable[[str], None] | None) -> Any:
    """A LightningModule around controller, items and loss."""
    base: Any = lightning.LightningModule

    class Training(base):  # type: ignore[misc]  # a class of a module that is not there when this is read
        def __init__(self) -> None:
            super().__init__()
            self.controller = make_controller(recipe)
            self.loss = ControllerLoss(recipe, self.controller.console)
            training = recipe.training
            self.items = RecipeItems(recipe, self.controller.console, training.steps * training.batch_size)
            self.held_out = RecipeItems(recipe, self.controller.console, training.validation_items, validation=True)
            self.register_buffer("lowest", torch.tensor(math.inf))

        def configure_optimizers(self) -> dict[str, Any]:
            training = recipe.training
            optimizer = torch.optim.AdamW(
                self.controller.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
            )
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, step_size(recipe))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def train_dataloader(self) -> DataLoader[Any]:
            training = recipe.training
            processes = self.trainer.world_size
            sampler = _Stretch(training.validate_every * training.batch_size * processes, self.global_rank, processes)
            self.items.num_items = training.steps * training.batch_size * processes
            for items in self.items.sets.values():
                items.num_items = self.items.num_items
            return DataLoader(
                self.items,
                training.batch_size,
                sampler=sampler,
                num_workers=training.workers,
                persistent_workers=training.workers > 0,
                # It draws a seed for its workers, which items do not need.
                generator=torch.Generator(),
            )

        def val_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.held_out, recipe.training.batch_size, generator=torch.Generator())

        def on_fit_start(self) -> None:
            self.controller.console.to(self.device)

        def _terms(self, batch: dict[str, Any], audio: bool) -> dict[str, Tensor]:
            controls = self.controller(batch["tracks"], batch["mask"], *self._references(batch))
            terms: dict[str, Tensor] = self.loss(controls, batch, audio)
            return terms

        def _references(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
            heard = self.controller.config["reference"] and recipe.data.reference > 0
            return (batch["reference"], batch["has_reference"]) if heard else ()

        def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
            terms = self._terms(batch, self.global_step >= recipe.loss.audio_from_step)
            self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, prog_bar=True)
            return terms["loss"]

        def validation_step(self, batch: dict[str, Any], _: int) -> None:
            size = len(batch["mask"])
            terms = self._terms(batch, audio=True)
            self.log_dict({f"validation/{n}": term for n, term in terms.items()}, batch_size=size, sync_dist=True)

        def on_validation_epoch_end(self) -> None:
            loss = self.trainer.callback_metrics["validation/loss"].float()
            if not bool(torch.isfinite(loss)):
                raise ValueError(f"the validation loss is {float(loss)} after {self.global_step} steps")
            training = recipe.training
            if notify is not None and self.trainer.is_global_zero:
                notify(f"step {self.global_step} of {training.steps}: validation loss {float(loss):.4f}")
            if bool(loss < self.lowest):
                self.lowest.copy_(loss)
                if self.trainer.is_global_zero:
                    self.controller.save(folder / CONTROLLER)

    return Training()


# ---- states


def _states(lightning: ModuleType, recipe: Recipe) -> Any:
    """Lightning's states as safetensors: tensors and JSON, nothing that runs when it is read."""
    base: Any = lightning.plugins.CheckpointIO

    class States(base):  # type: ignore[misc]  # as above
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            tensors: dict[str, Tensor] = {}
            notes = {"state": _plain(checkpoint, tensors), "recipe": recipe.as_dict()}
            write_checkpoint(path, tensors, notes, _STATE_FORMAT)

        def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> Any:
            tensors, notes = read_checkpoint(path, _STATE_FORMAT)
            return _revived(notes["state"], tensors)

        def remove_checkpoint(self, path: Any) -> None:
            Path(path).unlink(missing_ok=True)

    return States()


def _check_same(path: Path, recipe: Recipe) -> None:
    _, notes = read_checkpoint(path, _STATE_FORMAT)
    kept = notes.get("recipe")
    wanted = json.loads(json.dumps(recipe.as_dict()))
    if not isinstance(kept, dict) or "state" not in notes:
        raise ValueError(f"{path}: has no training in it")
    for key, value in wanted.items():
        before = kept.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            for name in value:
                if before.get(name) != value[name]:
                    raise RecipeError(
                        f"{path}: was trained with {key}.{name} = {before.get(name)!r}, not {value[name]!r}"
                    )
        elif before != value:
            raise RecipeError(f"{path}: was trained with {key} = {before!r}, not {value!r}")


_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Nested values as JSON has them: each with the name of its kind, tensors by number."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
        # A lowest value that is yet to be found is infinite, which no tensor of a checkpoint may be.
        return ["scalar", [str(value.dtype).removeprefix("torch."), float(value).hex()]]
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return ["tensor", name]
    if isinstance(value, Mapping):
        return ["dict", [[_plain(key, tensors), _plain(entry, tensors)] for key, entry in value.items()]]
    if isinstance(value, (list, tuple)):
        return ["tuple" if isinstance(value, tuple) else "list", [_plain(entry, tensors) for entry in value]]
    if value is None or isinstance(value, (bool, int, str)):
        return ["is", value]
    if isinstance(value, float):
        return ["float", value.hex()]
    raise TypeError(f"a training state holds a {type(value).__name__}, expected tensors, numbers and text")


def _revived(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    kind, content = value
    if kind == "tensor":
        return tensors[content]
    if kind == "scalar":
        return torch.tensor(float.fromhex(content[1]), dtype=_TYPES[content[0]])
    if kind == "dict":
        return {_revived(key, tensors): _revived(entry, tensors) for key, entry in content}
    if kind in ("list", "tuple"):
        entries = [_revived(entry, tensors) for entry in content]
        return tuple(entries) if kind == "tuple" else entries
    return float.fromhex(content) if kind == "float" else content

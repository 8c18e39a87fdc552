"""Networks that set a console: from tracks, and a reference mix if there is one, to controls."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, cast

import torch
from torch import Tensor, nn

from dasp._checks import check_audio, shape_text
from dasp.gradients.checkpoints import check_parameters, read_checkpoint, write_checkpoint
from dasp.gradients.layers import empty, initialize
from dasp.mixing import settings as settings_format
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.encoders import ENCODERS, encoder, level_lufs, stereo_image
from dasp.modules._processor import project

__all__ = ["Controller", "DeepSetController", "TransformerController"]

FORMAT = "dasp.Controller 1"
# Tracks and references are brought to this loudness before they are encoded.
NOMINAL_LUFS = -30.0
# Levels are told to the network in this unit.
_LEVEL_UNIT_DB = 10.0
# Level, balance and width are told beside what an encoder says.
_TOLD = 3
# Weights of the last layer are drawn this much smaller: settings begin near the defaults, and apart by enough for the
# gradient of a panner, which is 0 in the centre (systems with sum-and-difference losses).
_LAST = 0.03
_PRETRAINED = "small.safetensors"


class Controller(nn.Module):
    """What controllers share: levels, masks, defaults, locks, and files.

    A controller maps tracks to normalised controls of the console that it is made for, as `console` takes them.  Each
    track is brought to one loudness and encoded; where a subclass goes from there is its own matter.  What it finds
    is added to the console's default controls and projected to [0, 1] (`dasp.modules.project`), so that a control can
    reach the ends of its range and leave them; locked controls are the defaults, with gradient 0.

    The order of tracks means nothing, and an absent track changes nothing, in training as in evaluation: there is no
    batch normalisation, and no dropout.

    Args:
        console: The console to control.
        encoder: "log_mel", "spectrogram" or "waveform".
        encoder_options: Arguments of the encoder by name.
        features: Length of the vector that describes a track, or the reference.
        reference: Whether it can listen to a reference mix.
        follow_level: How many dB a control in dB moves for each dB that a track is louder than -30 LUFS, by its name:
            with `{"gain.gain_db": -1, "compressor.threshold_db": 1}` the mix does not depend on the level that a track
            was recorded at.  If empty, the network is told the level of each track.
        seed: Seed of the initial parameters.

    Attributes:
        config: The arguments by name, without console and seed.

    Raises:
        TypeError: If console is none.
        ValueError: If an argument is out of its range.

    Example:
        >>> controller = dasp.mixing.Controller.pretrained(sample_rate=44100)
        >>> song = dasp.mixing.multitrack(seed=1, seconds=1.0, num_tracks=2)
        >>> {section: tuple(values.shape) for section, values in controller(song.tracks).items()}
        {'track': (2, 21), 'reverb': (22,), 'master': (18,)}
    """

    config: dict[str, Any]

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        *,
        encoder: str,
        encoder_options: Mapping[str, Any] | None,
        features: int,
        reference: bool,
        follow_level: Mapping[str, float] | None,
        **sizes: int,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(console, DifferentiableMixingConsole):
            raise TypeError(f"{name}: console is a {type(console).__name__}, expected a DifferentiableMixingConsole")
        if encoder not in ENCODERS:
            raise ValueError(f"{name}: encoder is {encoder!r}, expected one of {', '.join(ENCODERS)}")
        for argument, value in {"features": features, **sizes}.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: {argument} is {value!r}, expected a whole number of at least 1")
        self.config = {
            "encoder": encoder,
            "encoder_options": dict(encoder_options or {}),
            "features": features,
            "reference": bool(reference),
            "follow_level": dict(follow_level or {}),
            **sizes,
        }
        # In a list, so that the console is no part of this module's parameters and state.
        self._console = [console]
        self.sections = {section: console.num_controls(section) for section in console.sections()}
        defaults = console.default_controls(1)
        for section in self.sections:
            default = defaults[section].squeeze(0) if section == "track" else defaults[section]
            self.register_buffer(f"default_{section}", default.clone(), persistent=False)
            self.register_buffer(f"free_{section}", console.free(section), persistent=False)
        self.register_buffer("follow", self._following(console), persistent=False)

    follow: Tensor
    track_encoder: nn.Module
    reference_encoder: nn.Module
    heads: nn.ModuleDict

    def _following(self, console: DifferentiableMixingConsole) -> Tensor:
        """Normalised units per dB by which each control of a track follows its level."""
        wanted: dict[str, float] = self.config["follow_level"]
        names = console.control_names("track")
        ranges = _ranges_db(console)
        for name in wanted:
            if name not in names or name not in ranges:
                raise ValueError(
                    f"{type(self).__name__}: follow_level has {name!r}, expected controls of a track in dB: "
                    f"{', '.join(n for n in names if n in ranges)}"
                )
        return torch.tensor([wanted.get(name, 0.0) / ranges.get(name, 1.0) for name in names])

    @property
    def console(self) -> DifferentiableMixingConsole:
        """The console that is controlled."""
        return self._console[0]

    def _encoder(self, signals: int) -> nn.Module:
        rate, features = self.console.sample_rate, self.config["features"]
        return encoder(self.config["encoder"], rate, signals, features, **self.config["encoder_options"])

    def _heads(self, features: int, of_tracks: int) -> nn.ModuleDict:
        """The last layer of each section, whose input is as wide, and that of tracks."""
        inputs = {section: of_tracks if section == "track" else features for section in self.sections}
        return nn.ModuleDict({name: empty(nn.Linear, inputs[name], count) for name, count in self.sections.items()})

    @torch.no_grad()
    def _initialize(self, seed: int) -> None:
        if self.follow.is_meta:
            return
        initialize(self, torch.Generator().manual_seed(seed))
        for head in cast(Iterable[nn.Linear], self.heads.values()):
            head.weight.mul_(_LAST)
            head.bias.zero_()

    def forward(
        self,
        tracks: Tensor | Sequence[Tensor],
        mask: Tensor | None = None,
        reference: Tensor | None = None,
        reference_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Finds controls.

        Args:
            tracks: `(batch, tracks, channels, samples)` or `(tracks, channels, samples)` with one or two channels, or
                a sequence of `(*batch, channels, samples)` where mono and stereo tracks meet.
            mask: `(*batch, tracks)` bool, False where a track is absent.
            reference: A mix that this one should be like, `(*batch, 2, samples)`, of any length.
            reference_mask: `(*batch,)` bool, False for items without a reference, whose content means nothing.

        Returns:
            Normalised controls by section: "track" `(*batch, tracks, P)`, the others `(*batch, P)`.

        Raises:
            TypeError: If tracks or reference is not floating-point audio.
            ValueError: If shapes do not match, or a reference is given to a controller that was made without.
        """
        audio = self._stacked(tracks)
        single = audio.ndim == 3
        if single:
            audio = audio.unsqueeze(0)
        batch = audio.shape[:2]
        mask = self._checked_mask(mask, batch, single)
        present = self._checked_reference(reference, reference_mask, batch[0], single)
        dtype = cast(Tensor, self.heads["master"].weight).dtype
        audio = torch.where(mask[..., None, None], audio, 0.0).to(dtype)
        level = level_lufs(audio, self.console.sample_rate).to(dtype)
        told = torch.zeros_like(level) if self.config["follow_level"] else level - NOMINAL_LUFS
        # A network that knows the level would not follow it exactly.
        tracks_in = self._describe(self.track_encoder, audio.flatten(0, 1), level.flatten(), told.flatten())
        described = None
        if reference is not None and present is not None:
            mix = reference.unsqueeze(0) if single else reference
            mix = torch.where(present[:, None, None], mix, 0.0).to(dtype)
            reference_level = level_lufs(mix, self.console.sample_rate).to(dtype)
            told = reference_level - NOMINAL_LUFS
            described = self._describe(self.reference_encoder, mix, reference_level, told)
        found = self._decide(tracks_in.unflatten(0, batch), mask, described, present)
        found["track"] = found["track"] + (level - NOMINAL_LUFS).unsqueeze(-1) * self.follow.to(dtype)
        return {section: self._settled(section, move, single) for section, move in found.items()}

    def _describe(self, network: nn.Module, audio: Tensor, level: Tensor, told: Tensor) -> Tensor:
        """The encoding of audio at one loudness, what is told of its level, and its stereo image.

        Returns:
            `(items, features + 3)`.
        """
        normal = audio * torch.pow(10.0, (NOMINAL_LUFS - level) / 20)[:, None, None]
        encoded = network(normal)
        return torch.cat([encoded, (told / _LEVEL_UNIT_DB).unsqueeze(-1), stereo_image(normal)], -1)

    def _decide(
        self, tracks: Tensor, mask: Tensor, reference: Tensor | None, present: Tensor | None
    ) -> dict[str, Tensor]:
        """How far controls lie from the defaults, by section.

        Args:
            tracks: `(batch, tracks, features + 3)`, see `_describe`.
            mask: `(batch, tracks)`.
            reference: `(batch, features + 3)`, or None.
            present: `(batch,)`, whether an item has its reference; None where there is none at all.
        """
        raise NotImplementedError

    def _settled(self, section: str, move: Tensor, single: bool) -> Tensor:
        default = self.get_buffer(f"default_{section}").to(move.dtype)
        controls = torch.where(self.get_buffer(f"free_{section}"), project(default + move), default)
        return controls.squeeze(0) if single else controls

    def _stacked(self, tracks: Tensor | Sequence[Tensor]) -> Tensor:
        name = type(self).__name__
        if isinstance(tracks, Tensor):
            audio = tracks
        else:
            if not tracks:
                raise ValueError(f"{name}: tracks is empty, expected at least one track")
            for position, track in enumerate(tracks):
                check_audio(name, track, (1, 2), f"tracks[{position}]")
                if (track.shape[:-2], track.shape[-1]) != (tracks[0].shape[:-2], tracks[0].shape[-1]):
                    raise ValueError(
                        f"{name}: tracks[{position}] has shape {shape_text(track.shape)}, "
                        f"expected batch and samples of tracks[0], {shape_text(tracks[0].shape)}"
                    )
            channels = max(track.shape[-2] for track in tracks)
            audio = torch.stack([t.expand(*t.shape[:-2], channels, -1) for t in tracks], -3)
        check_audio(name, audio, (1, 2), "tracks")
        if audio.ndim not in (3, 4) or audio.shape[-3] == 0:
            raise ValueError(
                f"{name}: tracks has shape {shape_text(audio.shape)}, expected (batch, tracks, channels, samples) or "
                "(tracks, channels, samples) with at least one track"
            )
        return audio

    def _checked_mask(self, mask: Tensor | None, batch: torch.Size, single: bool) -> Tensor:
        expected = tuple(batch[1:] if single else batch)
        if mask is None:
            return torch.ones(batch, dtype=torch.bool, device=self.follow.device)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            have = f"shape {shape_text(mask.shape)} and type {mask.dtype}"
            raise ValueError(f"{type(self).__name__}: mask has {have}, expected {shape_text(expected)} of bool")
        return mask.unsqueeze(0) if single else mask

    def _checked_reference(
        self, reference: Tensor | None, present: Tensor | None, items: int, single: bool
    ) -> Tensor | None:
        name = type(self).__name__
        if reference is None:
            if present is not None:
                raise ValueError(f"{name}: reference_mask is given without a reference")
            return None
        if not self.config["reference"]:
            raise ValueError(f"{name}: reference is given, but the controller was made with reference=False")
        check_audio(name, reference, (2,), "reference")
        lead = () if single else (items,)
        if tuple(reference.shape[:-2]) != lead:
            expected = shape_text((*lead, *reference.shape[-2:]))
            raise ValueError(f"{name}: reference has shape {shape_text(reference.shape)}, expected {expected}")
        if present is None:
            return torch.ones(items, dtype=torch.bool, device=reference.device)
        if present.dtype != torch.bool or tuple(present.shape) != lead:
            have = f"shape {shape_text(present.shape)} and type {present.dtype}"
            raise ValueError(f"{name}: reference_mask has {have}, expected {shape_text(lead)} of bool")
        return present.reshape(items)

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes configuration, console and parameters to a safetensors file, at once or not at all.

        Raises:
        """
        notes = {"kind": type(self).__name__, "config": self.config, "console": console_layout(self.console)}
        write_checkpoint(path, self.state_dict(), notes, FORMAT)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        console: DifferentiableMixingConsole | None = None,
        sample_rate: float | None = None,
    ) -> Controller:
        """Reads a controller that `save` or a training wrote, of any class.

        Args:
            path: The file.
            console: The console to control, at any sample rate, otherwise that of the training; by default such a
                console is made.
            sample_rate: Sample rate in Hz of the console that is made, by default that of the training.

        Returns:
            The controller, in evaluation mode; `controller.console` is its console.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, its parameters are not those of its configuration, or not finite, or
                console is another than that of the training.  The text names the file.
        """
        tensors, notes = read_checkpoint(path, FORMAT)
        kinds = {kind.__name__: kind for kind in (DeepSetController, TransformerController)}
        kind = kinds.get(str(notes.get("kind")))
        if kind is None or not issubclass(kind, cls):
            expected = ", ".join(name for name, known in kinds.items() if issubclass(known, cls))
            raise ValueError(f"{path}: holds a {notes.get('kind')!r}, expected {expected}")
        layout = notes.get("console")
        if console is None:
            console = _console_of(path, layout, sample_rate)
        difference = _difference(layout, console_layout(console), console.sample_rate)
        if difference:
            raise ValueError(f"{path}: was trained for another console: {difference}")
        config: Any = notes.get("config")
        if not isinstance(config, dict):
            raise ValueError(f"{path}: has no configuration of a controller")
        try:
            _check_sizes(config, len(tensors))
            # On the meta device nothing is allocated before the shapes are known to be those of the file.
            with torch.device("meta"):
                shapes = kind(console, **config).state_dict()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: has no configuration of a controller ({error})") from error
        check_parameters(str(path), tensors, shapes)
        controller = kind(console, **config)
        controller.load_state_dict(tensors)
        return controller.eval()

    @classmethod
    def pretrained(
        cls, console: DifferentiableMixingConsole | None = None, sample_rate: float | None = None
    ) -> Controller:
        """The small controller that comes with dasp, for the default console, with and without a reference.

        Args:
            console: The default console at any sample rate; by default it is made.
            sample_rate: Sample rate in Hz of the console that is made, by default 44.1 kHz.

        Raises:
            ValueError: If console is another.

        Example:
            >>> controller = dasp.mixing.Controller.pretrained(sample_rate=48000)
            >>> song = dasp.mixing.multitrack(seed=1, seconds=3.0, sample_rate=48000)
            >>> controls = controller(song.tracks)
            >>> controller.console(song.tracks, controls).shape
            torch.Size([2, 144000])
        """
        with resources.as_file(resources.files("dasp.mixing") / "models" / _PRETRAINED) as path:
            return cls.load(path, console, sample_rate)


_LARGEST = 1 << 16
_DEPTHS = ("layers", "blocks")


def _check_sizes(config: Mapping[str, Any], tensors: int) -> None:
    """Refuses widths beyond reason, and more layers than a file has tensors: to make them would take for ever."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            _check_sizes(value, tensors)
        sizes = value if isinstance(value, list) else [value]
        most = tensors if name in _DEPTHS else _LARGEST
        if len(sizes) > tensors or any(isinstance(size, int) and size > most for size in sizes):
            raise ValueError(f"{name} is {json.dumps(value)[:40]}, a size beyond reason")


class DeepSetController(Controller):
    """Track by track, in the context of all tracks: their mean (Steinmetz et al. 2021).

    One encoder describes every track; the mean of what it says, and how many tracks there are, is the context.  A
    network with one hidden layer per size sets each track from its own description, the context, and the description
    of the reference, and others the buses and the master from the latter two.

    Args:
        console: The console to control.
        encoder: "log_mel", "spectrogram" or "waveform".
        encoder_options: Arguments of the encoder by name.
        features: Length of the vector that describes a track, or the reference.
        hidden: Width of the two hidden layers.
        reference: Whether it can listen to a reference mix.
        follow_level: See `Controller`.
        seed: Seed of the initial parameters.

    Raises:
        TypeError: If console is none.
        ValueError: If an argument is out of its range.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> controller = dasp.mixing.DeepSetController(console)
        >>> controls = controller(torch.zeros(2, 5, 1, 44100))
        >>> controls["track"].shape, controls["master"].shape
        (torch.Size([2, 5, 21]), torch.Size([2, 18]))
    """

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        *,
        encoder: str = "log_mel",
        encoder_options: Mapping[str, Any] | None = None,
        features: int = 128,
        hidden: int = 192,
        reference: bool = True,
        follow_level: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            console,
            encoder=encoder,
            encoder_options=encoder_options,
            features=features,
            reference=reference,
            follow_level=follow_level,
            hidden=hidden,
        )
        self.track_encoder = self._encoder(2)
        self.track_norm = nn.LayerNorm(features)
        described = features + _TOLD
        # The mean of the tracks and their number, and the reference with a flag.
        around = described + 1
        if reference:
            self.reference_encoder = self._encoder(4)
            self.reference_norm = nn.LayerNorm(features)
            around += described + 1
        self.track_layers = _layers(described + around, hidden)
        self.other_layers = _layers(around, hidden)
        # The last layers read what the hidden ones read too: that a louder reference needs louder tracks is linear.
        self.heads = self._heads(hidden + around, hidden + described + around)
        self._initialize(seed)

    @classmethod
    def published(
        cls, console: DifferentiableMixingConsole, reference: bool = False, seed: int = 0
    ) -> DeepSetController:
        """The size of the encoder and head of the automix-toolkit's differentiable mixing console.

        Seven residual stages of 128 to 512 channels, 512 features, hidden layers of 256: about 12 million parameters.
        Its batch normalisation and dropout are left out.
        """
        return cls(console, encoder="spectrogram", features=512, hidden=256, reference=reference, seed=seed)

    def _decide(
        self, tracks: Tensor, mask: Tensor, reference: Tensor | None, present: Tensor | None
    ) -> dict[str, Tensor]:
        tracks = self._normed(self.track_norm, tracks)
        weight = mask.unsqueeze(-1).to(tracks.dtype)
        count = weight.sum(1)
        mean = (tracks * weight).sum(1) / count.clamp_min(1)
        parts = [mean, torch.log2(count.clamp_min(1)) - 3]
        if self.config["reference"]:
            if reference is None or present is None:
                parts.append(mean.new_zeros(mean.shape[0], mean.shape[1] + 1))
            else:
                there = present.unsqueeze(-1).to(mean.dtype)
                said = self._normed(self.reference_norm, reference)
                parts += [torch.where(there > 0, said, 0.0), there]
        around = torch.cat(parts, -1)
        each = torch.cat([tracks, around.unsqueeze(1).expand(-1, tracks.shape[1], -1)], -1)
        of_tracks = torch.cat([self.track_layers(each), each], -1)
        of_others = torch.cat([self.other_layers(around), around], -1)
        return {name: head(of_tracks if name == "track" else of_others) for name, head in self.heads.items()}

    @staticmethod
    def _normed(norm: nn.Module, described: Tensor) -> Tensor:
        """What an encoder says, normalised, with what is told beside it as it is."""
        return torch.cat([norm(described[..., :-_TOLD]), described[..., -_TOLD:]], -1)


class TransformerController(Controller):
    """Tracks, reference, buses and master as tokens that attend to each other (Vanka et al. 2024, Diff-MST).

    A token for each track, two for the reference, and one that is learned for each bus and the master, each with a
    vector that is learned for its kind, run through a pre-norm transformer; a linear layer per section reads the
    controls.  There are no positions, so that the order of tracks means nothing.

    Args:
        console: The console to control.
        encoder: "log_mel", "spectrogram" or "waveform".
        encoder_options: Arguments of the encoder by name.
        features: Length of a token.
        layers: Layers of the transformer.
        attention_heads: Heads of its attention, a divisor of features.
        hidden: Width of its hidden layers.
        reference: Whether it can listen to a reference mix.
        follow_level: See `Controller`.
        seed: Seed of the initial parameters.

    Raises:
        TypeError: If console is none.
        ValueError: If an argument is out of its range.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> controller = dasp.mixing.TransformerController(console, features=32, layers=1)
        >>> controls = controller(torch.zeros(2, 5, 1, 44100), reference=torch.zeros(2, 2, 88200))
        >>> controls["track"].shape, controls["master"].shape
        (torch.Size([2, 5, 21]), torch.Size([2, 18]))
    """

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        *,
        encoder: str = "log_mel",
        encoder_options: Mapping[str, Any] | None = None,
        features: int = 128,
        layers: int = 3,
        attention_heads: int = 4,
        hidden: int = 256,
        reference: bool = True,
        follow_level: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            console,
            encoder=encoder,
            encoder_options=encoder_options,
            features=features,
            reference=reference,
            follow_level=follow_level,
            layers=layers,
            attention_heads=attention_heads,
            hidden=hidden,
        )
        if features % attention_heads:
            raise ValueError(f"TransformerController: features is {features}, expected a multiple of {attention_heads}")
        self.track_encoder = self._encoder(2)
        self.track_token = empty(nn.Linear, features + _TOLD, features)
        if reference:
            self.reference_encoder = self._encoder(4)
            self.reference_token = empty(nn.Linear, features + _TOLD, 2 * features)
        # The kind of a track is the bias of the layer that makes its token, that of the reference likewise.
        self.learned = nn.Parameter(torch.zeros(len(self.sections) - 1, features))
        self.blocks = nn.ModuleList(_Attention(features, attention_heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(features)
        self.heads = self._heads(features, features)
        self._initialize(seed)

    @torch.no_grad()
    def _initialize(self, seed: int) -> None:
        super()._initialize(seed)
        if not self.learned.is_meta:
            generator = torch.Generator().manual_seed(seed + 1)
            drawn = torch.empty(self.learned.shape, device=generator.device)
            self.learned.copy_(drawn.normal_(generator=generator))

    @classmethod
    def published(
        cls, console: DifferentiableMixingConsole, reference: bool = True, seed: int = 0
    ) -> TransformerController:
        """The size of Diff-MST: 12 layers of width 512, 8 heads, and two encoders of 64 to 2048 channels.

        About 190 million parameters.  Group normalisation stands in the place of batch normalisation.
        """
        return cls(
            console,
            encoder="spectrogram",
            encoder_options={"stages": [64, 128, 256, 512, 1024, 2048], "residual": False},
            features=512,
            layers=12,
            attention_heads=8,
            hidden=2048,
            reference=reference,
            seed=seed,
        )

    def _decide(
        self, tracks: Tensor, mask: Tensor, reference: Tensor | None, present: Tensor | None
    ) -> dict[str, Tensor]:
        items, count = mask.shape
        learned = self.learned.expand(items, -1, -1)
        tokens, heard = [self.track_token(tracks), learned], [mask, mask.new_ones(learned.shape[:2])]
        if reference is not None and present is not None:
            tokens.append(self.reference_token(reference).unflatten(-1, (2, -1)))
            heard.append(present.unsqueeze(-1).expand(-1, 2))
        x, keys = torch.cat(tokens, 1), torch.cat(heard, 1)
        for block in self.blocks:
            x = block(x, keys)
        x = self.norm(x)
        others = [section for section in self.sections if section != "track"]
        found = {section: self.heads[section](x[:, count + position]) for position, section in enumerate(others)}
        found["track"] = self.heads["track"](x[:, :count])
        return found


class _Attention(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, features: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.into = empty(nn.Linear, features, 3 * features)
        self.out = empty(nn.Linear, features, features)
        self.widen = empty(nn.Linear, features, hidden)
        self.narrow = empty(nn.Linear, hidden, features)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """Tokens `(batch, tokens, features)`, of which those where keys is False are not attended to."""
        parts = self.into(self.first_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.transpose(1, 3).unbind(2)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, keys[:, None, None, :])
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        return x + cast(Tensor, self.narrow(nn.functional.gelu(self.widen(self.second_norm(x)))))


def _layers(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        empty(nn.Linear, inputs, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        empty(nn.Linear, hidden, hidden),
        nn.GELU(),
    )


def _ranges_db(console: DifferentiableMixingConsole) -> dict[str, float]:
    """The range in dB of each control of a track that is measured in dB and has one value."""
    ranges = {}
    for name, stage in console.sections()["track"].stages().items():
        for control, size in stage.spec.layout(stage.options):
            param = stage.spec.controls[control]
            if param.unit == "dB" and size is None:
                ranges[f"{name}.{control}"] = param.high - param.low
    return ranges


def console_layout(console: DifferentiableMixingConsole) -> dict[str, Any]:
    """A console and its default controls, as settings of one track."""
    layout = console.describe(console.default_controls(1, dtype=torch.float64), ["track"])
    if not layout["tracks"]["track"].get("send", True):
        del layout["tracks"]["track"]["send"]
    return cast(dict[str, Any], json.loads(settings_format.to_json(layout)))


def _console_of(path: str | os.PathLike[str], layout: Any, sample_rate: float | None) -> DifferentiableMixingConsole:
    """The console of a layout, with its default controls."""
    try:
        changed = {**layout, "sample_rate": layout["sample_rate"] if sample_rate is None else sample_rate}
        plain = DifferentiableMixingConsole(changed["sample_rate"])
        if not _difference(layout, console_layout(plain), plain.sample_rate):
            return plain
        console, values, _, _ = settings_format.interpret(changed)
        for section, chain in console.sections().items():
            for name, stage in chain.stages().items():
                for control in stage.spec.controls:
                    value = values[section][name][control]
                    value = value.squeeze(0) if section == "track" else value
                    unit = stage.spec.controls[control].normalize(value, console.sample_rate)
                    parameter = getattr(stage, f"{control}_normalized")
                    parameter.copy_(unit.clamp(0, 1))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: has no console that can be made ({error})") from error
    return console


def _difference(trained: Any, given: Any, sample_rate: float, place: str = "") -> str:
    """Where two layouts differ, in words; empty if they do not, but for the sample rate and what it limits."""
    if isinstance(trained, dict) and isinstance(given, dict):
        for key in [*trained, *(key for key in given if key not in trained)]:
            inner = f"{place}.{key}".lstrip(".")
            if inner == "sample_rate":
                continue
            if key not in trained or key not in given:
                return f"{inner} is in {'that one' if key in trained else 'this one'} alone"
            found = _difference(trained[key], given[key], sample_rate, inner)
            if found:
                return found
        return ""
    if isinstance(trained, list) and isinstance(given, list) and len(trained) == len(given):
        pairs = enumerate(zip(trained, given, strict=True))
        return next((d for i, (a, b) in pairs if (d := _difference(a, b, sample_rate, f"{place}[{i}]"))), "")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (trained, given)):
        # Defaults have been through a map to [0, 1] in float32, and frequencies end below half of a sample rate.
        limited = "_hz" in place and 0.45 * sample_rate < given < trained
        if limited or math.isclose(trained, given, rel_tol=1e-4, abs_tol=1e-4):
            return ""
    return "" if trained == given else f"{place} was {json.dumps(trained)[:60]} and is {json.dumps(given)[:60]}"

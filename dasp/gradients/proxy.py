"""A network that imitates an effect with controls, so that gradients can flow where the effect has none."""

from __future__ import annotations

import math
import os
from typing import cast

import torch
from torch import Tensor, nn

from dasp._checks import check_audio
from dasp.gradients._controls import expand_controls
from dasp.gradients.checkpoints import check_parameters, part, prefixed, read_checkpoint, write_checkpoint
from dasp.gradients.layers import empty, initialize

# Levels below -80 dBFS are silence to the network.
_SILENCE = 1e-4
FORMAT = "dasp.NeuralProxy 1"
_LEAST = {"level_blocks": 0, "embedding": 0}


class _Block(nn.Module):
    """A causal dilated convolution, FiLM, PReLU, and a residual connection with a weight per channel."""

    def __init__(self, channels_in: int, channels: int, kernel_size: int, dilation: int, num_controls: int) -> None:
        super().__init__()
        self.padding = (kernel_size - 1) * dilation
        groups = math.gcd(channels_in, channels)
        self.convolution = empty(nn.Conv1d, channels_in, channels, kernel_size, dilation=dilation)
        self.film = empty(nn.Linear, num_controls, 2 * channels)
        self.activation = nn.PReLU(channels)
        self.residual = empty(nn.Conv1d, channels_in, channels, 1, groups=groups, bias=False)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        scale, shift = self.film(u).unsqueeze(-1).chunk(2, -2)
        y = self.convolution(nn.functional.pad(x, (self.padding, 0)))
        return cast(Tensor, self.activation(scale * y + shift) + self.residual(x))


def _stack(
    channels_in: int, channels: int, blocks: int, kernel_size: int, growth: int, num_controls: int
) -> nn.ModuleList:
    return nn.ModuleList(
        _Block(channels if n else channels_in, channels, kernel_size, growth**n, num_controls) for n in range(blocks)
    )


class NeuralProxy(nn.Module):
    r"""A causal network f(x, u) that can be trained to imitate an effect with controls u (Steinmetz et al. 2022).

    Its body is a temporal convolutional network: blocks of a convolution whose dilation grows as dilation_growth^n, of
    FiLM, scale and shift per channel that are linear in u or in an embedding of it, of a PReLU and a residual
    connection.  That alone, without embedding, is the published proxy, `NeuralProxy.published`.

    The default adds what effects on levels need and convolutions of audio hardly learn, a level path: a second network
    of this kind that reads the peak and mean levels, on a logarithmic scale, of frames of `level_hop` samples, and so
    looks far back at little cost.  What it finds is interpolated, causally, to a value for every sample; it is added
    inside the first network and decides a gain: $y = e^{g} \, (W x) + z$, g from the level path, z from the body.  Such
    a proxy begins as the identity, or as the mean of all inputs where it has another number of outputs.

    There is no batch normalisation, unlike in the published network: an item comes out the same whatever is beside it,
    in training as in evaluation, and the numbers of parameters and the receptive field are unchanged.

    Args:
        num_controls: Number of controls P.
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        channels: Channels of the blocks.
        blocks: Blocks of the body.
        kernel_size: Taps of each convolution.
        dilation_growth: Dilation of each block over that of the block before.
        level_blocks: Blocks of the level path; 0 for none, and then y = z.
        level_hop: Samples per frame of the level path.
        embedding: Features that two layers make of u for FiLM; 0 for FiLM of u itself.
        seed: Seed of the initial parameters.

    Attributes:
        config: The arguments by name, without the seed: what a checkpoint stores, and makes the same network again.

    Raises:
        TypeError: If an argument is no whole number.
        ValueError: If one is too small.

    Example:
        >>> proxy = dasp.gradients.NeuralProxy(num_controls=5)
        >>> x, u = torch.randn(2, 1, 44100), torch.rand(2, 5)
        >>> proxy(x, u).shape, proxy.receptive_field
        (torch.Size([2, 1, 44100]), 100183)
    """

    config: dict[str, int]

    def __init__(
        self,
        num_controls: int,
        channels_in: int = 1,
        channels_out: int = 1,
        *,
        channels: int = 16,
        blocks: int = 3,
        kernel_size: int = 5,
        dilation_growth: int = 5,
        level_blocks: int = 5,
        level_hop: int = 32,
        embedding: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = {
            "num_controls": num_controls,
            "channels_in": channels_in,
            "channels_out": channels_out,
            "channels": channels,
            "blocks": blocks,
            "kernel_size": kernel_size,
            "dilation_growth": dilation_growth,
            "level_blocks": level_blocks,
            "level_hop": level_hop,
            "embedding": embedding,
        }
        for name, value in self.config.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"NeuralProxy: {name} is {value!r}, expected a whole number")
            if value < _LEAST.get(name, 1):
                raise ValueError(f"NeuralProxy: {name} is {value}, expected at least {_LEAST.get(name, 1)}")
        if embedding:
            self.embedding = nn.Sequential(
                empty(nn.Linear, num_controls, embedding),
                nn.PReLU(embedding),
                empty(nn.Linear, embedding, embedding),
                nn.PReLU(embedding),
            )
        size = (kernel_size, dilation_growth, embedding or num_controls)
        self.body = _stack(channels_in, channels, blocks, *size)
        self.output = empty(nn.Conv1d, channels, channels_out, 1)
        if level_blocks:
            self.level = _stack(2 * channels_in, channels, level_blocks, *size)
            self.level_to_body = empty(nn.Conv1d, channels, channels, 1)
            self.level_to_gain = empty(nn.Conv1d, channels, channels_out, 1)
            self.direct = empty(nn.Conv1d, channels_in, channels_out, 1, bias=False)
        if not self.output.weight.is_meta:
            self._initialize(torch.Generator().manual_seed(seed))

    @classmethod
    def published(cls, num_controls: int, channels_in: int = 1, channels_out: int = 1, seed: int = 0) -> NeuralProxy:
        """The size of Steinmetz et al. 2022: 4 blocks, 64 channels, kernel 13, dilation 8^n, and no level path.

        Returns:
            A network of about 165 000 parameters with a receptive field of 7021 samples.
        """
        return cls(
            num_controls,
            channels_in,
            channels_out,
            channels=64,
            blocks=4,
            kernel_size=13,
            dilation_growth=8,
            level_blocks=0,
            embedding=0,
            seed=seed,
        )

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator) -> None:
        """Weights as torch draws them, but from a generator; with a level path, y = W x at first."""
        initialize(self, generator)
        if self.config["level_blocks"]:
            for parameter in (*self.output.parameters(), *self.level_to_gain.parameters()):
                parameter.zero_()
            inputs, outputs = self.config["channels_in"], self.config["channels_out"]
            weight = torch.eye(inputs) if inputs == outputs else torch.full((outputs, inputs), 1 / inputs)
            self.direct.weight.copy_(weight.unsqueeze(-1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes configuration and parameters to a safetensors file, at once or not at all.

        Raises:
        """
        write_checkpoint(path, prefixed("proxy", self.state_dict()), {"config": self.config}, FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeuralProxy:
        """Reads a proxy that `save` or `train_proxy` wrote; of a training, its best parameters.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or its parameters are not those of its configuration, or not finite.
        """
        tensors, notes = read_checkpoint(path, FORMAT)
        parameters = part(tensors, "proxy")
        config = notes.get("config")
        # On the meta device nothing is allocated before the shapes are known to be those of the file.
        try:
            if not isinstance(config, dict):
                raise TypeError("none at all")
            if config["blocks"] + config["level_blocks"] > len(parameters):
                raise ValueError("more blocks than parameters")
            with torch.device("meta"):
                proxy = cls(**config)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: has no configuration of a proxy ({error})") from error
        check_parameters(str(path), parameters, proxy.state_dict())
        proxy.load_state_dict(parameters, assign=True)
        return proxy

    @property
    def num_controls(self) -> int:
        """Number of controls P."""
        return self.config["num_controls"]

    @property
    def channels_out(self) -> int:
        """Channels of the output."""
        return self.config["channels_out"]

    @property
    def receptive_field(self) -> int:
        """Input samples that an output sample depends on at most, itself included."""
        taps, growth = self.config["kernel_size"] - 1, self.config["dilation_growth"]
        body, level = (
            1 + sum(taps * int(growth**n) for n in range(self.config[blocks])) for blocks in ("blocks", "level_blocks")
        )
        if not self.config["level_blocks"]:
            return body
        # The last sample but one of a frame depends on the two frames before (the last one on that before alone), and
        # what is added to the body passes through all its blocks but the first.
        return max(body, (level + 2) * self.config["level_hop"] - 1 + body - 1 - taps)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Imitates the effect.

        Args:
            x: Audio `(*batch, channels_in, samples)`, of the type of the parameters.
            u: Normalised controls `(*batch, num_controls)` in [0, 1], or fewer dimensions that broadcast to these.

        Returns:
            Audio `(*batch, channels_out, samples)` without delay.  Sample n depends on no later sample of x.

        Raises:
            TypeError: If x is not audio of the type of the parameters, or u is no floating-point tensor.
            ValueError: If a shape does not match.
        """
        check_audio("NeuralProxy", x, (self.config["channels_in"],))
        dtype = self.output.weight.dtype
        if x.dtype != dtype:
            raise TypeError(f"NeuralProxy: x has type {x.dtype}, the parameters have {dtype}: convert one of them")
        batch, samples = x.shape[:-2], x.shape[-1]
        controls = expand_controls("NeuralProxy", u, x, self.num_controls).to(dtype).reshape(-1, self.num_controls)
        if x.numel() == 0:
            return x.sum(-2, keepdim=True).expand(*batch, self.channels_out, samples)
        y = self._run(x.reshape(-1, *x.shape[-2:]), controls)
        return y.reshape(*batch, self.channels_out, samples)

    def _run(self, x: Tensor, u: Tensor) -> Tensor:
        if self.config["embedding"]:
            u = self.embedding(u)
        first, *others = self.body
        z = first(x, u)
        if not self.config["level_blocks"]:
            for block in others:
                z = block(z, u)
            return cast(Tensor, self.output(z))
        level = self._levels(x)
        for block in self.level:
            level = block(level, u)
        z = z + self._interpolate(self.level_to_body(level), x.shape[-1])
        for block in others:
            z = block(z, u)
        gain = self._interpolate(self.level_to_gain(level), x.shape[-1])
        return cast(Tensor, gain.exp() * self.direct(x) + self.output(z))

    def _levels(self, x: Tensor) -> Tensor:
        """Peak and root mean square of each channel and frame, in tens of dB above the middle of -80 to 0 dBFS."""
        hop = self.config["level_hop"]
        # The power of silence is below the least number of half precision.
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        frames = nn.functional.pad(exact, (0, -x.shape[-1] % hop)).unflatten(-1, (-1, hop))
        peak = torch.log10(frames.abs().amax(-1) + _SILENCE)
        power = torch.log10(frames.square().mean(-1) + _SILENCE**2)
        return (torch.cat([2 * peak, power], -2) + 4).to(x.dtype)

    def _interpolate(self, frames: Tensor, samples: int) -> Tensor:
        """A value for every sample: within a frame from that of the last but one frame before to that of the last."""
        hop = self.config["level_hop"]
        before = nn.functional.pad(frames, (2, 0))
        start, end = before[..., :-2, None], before[..., 1:-1, None]
        share = torch.arange(1, hop + 1, dtype=frames.dtype, device=frames.device) / hop
        return torch.lerp(start, end, share).flatten(-2)[..., :samples]

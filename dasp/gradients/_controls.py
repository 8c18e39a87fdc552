"""Checks of the normalised controls of effects and proxies."""

from __future__ import annotations

from torch import Tensor

from dasp._checks import shape_text


def expand_controls(name: str, u: Tensor, x: Tensor, num_controls: int | None = None) -> Tensor:
    """Normalised controls `(*batch, P)` for audio `(*batch, channels, samples)`.

    Raises:
        TypeError: If u is no floating-point tensor.
        ValueError: If its last dimension is not P, or is 0, or the others do not broadcast to the batch of x.
    """
    if not isinstance(u, Tensor) or not u.is_floating_point():
        kind = u.dtype if isinstance(u, Tensor) else type(u).__name__
        raise TypeError(f"{name}: u is a {kind}, expected a floating-point torch.Tensor")
    batch = x.shape[:-2]
    wanted = u.shape[-1] if num_controls is None and u.ndim else num_controls
    fits = 1 <= u.ndim <= len(batch) + 1 and u.shape[-1] == wanted and wanted != 0
    if fits:
        pairs = zip(reversed(u.shape[:-1]), reversed(batch), strict=False)
        fits = all(have in (1, want) for have, want in pairs)
    if not fits:
        expected = ", ".join(map(str, [*batch, "P" if num_controls is None else num_controls]))
        raise ValueError(
            f"{name}: u has shape {shape_text(u.shape)}, expected ({expected}) "
            f"to match x of shape {shape_text(x.shape)}"
        )
    return u.expand(*batch, u.shape[-1])


def check_unit_range(name: str, u: Tensor) -> None:
    """Raises unless all controls are in [0, 1]; NaN is not."""
    inside = (u >= 0) & (u <= 1)
    if not bool(inside.all()):
        place = tuple(int(i) for i in (~inside).nonzero()[0])
        raise ValueError(
            f"{name}: u{list(place)} is {float(u[place].detach())}, expected values in [0, 1]: bring them there, for "
            f"example with dasp.modules.project"
        )

"""Equalisers: cascades of filters with one set of controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from dasp._checks import check_choice
from dasp._spec import Control, Param, State, processor
from dasp.functional.filters import equalized
from dasp.kernels import KINDS

_SIX_BANDS = ("low_shelf", "peaking", "peaking", "peaking", "peaking", "high_shelf")


@processor(automation=True, linear=True)
def parametric_eq(
    x: Tensor,
    sample_rate: float,
    frequency_hz: Annotated[
        Control, Param("Hz", 20, 20000, "log", "Frequency of each band.", size="kinds", domain=(0, math.inf))
    ] = (80.0, 200.0, 600.0, 2000.0, 5000.0, 10000.0),
    gain_db: Annotated[Control, Param("dB", -24, 24, meaning="Gain of each band.", size="kinds")] = 0.0,
    q: Annotated[
        Control, Param("", 0.1, 10, "log", "Quality factor of each band.", size="kinds", domain=(0, math.inf))
    ] = math.sqrt(0.5),
    kinds: Sequence[str] = _SIX_BANDS,
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    r"""Parametric equaliser: a cascade of Audio EQ Cookbook filters in one pass, exact and recursive.

    $$H(z) = \prod_{\mathrm{bands}} H_{\mathrm{kind}}(z)$$

    The response of each kind stands with the processor of its name, such as `peaking`.  Bands without a gain, such as
    "highpass", ignore their gain_db.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        kinds: The kind of each band, from `KINDS`; any number of bands.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x; with a state, the pair of that and the next state, `{"zi": (*batch, channels, bands, 2)}`, or under
        automation `{"integrators": (*batch, channels, bands, 2)}`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If a kind is unknown or there is none, or a control does not have one value per band or does not
            match x, or a state does not match x.

    Domain:
        frequency_hz acts as clamped to [1 Hz, 0.499 sample_rate] and q to [0.001, 1000], with gradient 0 outside.

    Example:
        >>> F.parametric_eq(torch.zeros(2, 64), 44100, gain_db=[3.0, 0.0, -2.0, 0.0, 0.0, 1.5]).shape
        torch.Size([2, 64])
    """
    if not kinds:
        raise ValueError("parametric_eq: kinds is empty, expected at least one band")
    for kind in kinds:
        check_choice("parametric_eq", "kinds", kind, KINDS)
    controls = {"frequency_hz": frequency_hz, "gain_db": gain_db, "q": q}
    return equalized("parametric_eq", x, sample_rate, tuple(kinds), controls, state)

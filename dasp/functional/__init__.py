"""Pure, batched, differentiable audio processors.

Every processor takes `(x, sample_rate, *controls)` with audio `(*batch, channels, samples)`; a control is a number or a
tensor, one setting per item or per channel.  Nothing is changed in place and nothing is remembered between calls.
"""

from __future__ import annotations

from dasp.functional.distortion import distortion
from dasp.functional.dynamics import compressor, compressor_gain, expander, expander_gain
from dasp.functional.equalizer import parametric_eq
from dasp.functional.filters import (
    allpass,
    bandpass,
    biquad,
    high_shelf,
    highpass,
    low_shelf,
    lowpass,
    notch,
    peaking,
    sosfilt,
    sosfreqz,
)
from dasp.functional.level import gain, polarity, stereo_bus
from dasp.functional.meters import (
    integrated_loudness,
    k_weighting,
    loudness_range,
    momentary_loudness,
    short_term_loudness,
    true_peak_db,
)
from dasp.functional.reverb import convolution_reverb, noise_shaped_reverb
from dasp.functional.stereo import stereo_panner, stereo_widener

__all__ = [
    "allpass",
    "bandpass",
    "biquad",
    "compressor",
    "compressor_gain",
    "convolution_reverb",
    "distortion",
    "expander",
    "expander_gain",
    "gain",
    "high_shelf",
    "highpass",
    "integrated_loudness",
    "k_weighting",
    "loudness_range",
    "low_shelf",
    "lowpass",
    "momentary_loudness",
    "noise_shaped_reverb",
    "notch",
    "parametric_eq",
    "peaking",
    "polarity",
    "short_term_loudness",
    "sosfilt",
    "sosfreqz",
    "stereo_bus",
    "stereo_panner",
    "stereo_widener",
    "true_peak_db",
]

"""The interface of dasp-pytorch 0.0.1: `import dasp.compat.dasp_pytorch as dasp_pytorch`.

Names, order of arguments, shapes and ranges are those of dasp-pytorch; what is computed is dasp's.  The documentation
says where the two differ.
"""

from __future__ import annotations

from dasp.compat.dasp_pytorch import functional, modules, signal
from dasp.compat.dasp_pytorch.functional import (
    compressor,
    distortion,
    expander,
    gain,
    noise_shaped_reverberation,
    parametric_eq,
    stereo_bus,
    stereo_panner,
    stereo_widener,
)
from dasp.compat.dasp_pytorch.modules import Compressor, Distortion, Gain, NoiseShapedReverb, ParametricEQ, Processor

__all__ = [
    "Compressor",
    "Distortion",
    "Gain",
    "NoiseShapedReverb",
    "ParametricEQ",
    "Processor",
    "compressor",
    "distortion",
    "expander",
    "functional",
    "gain",
    "modules",
    "noise_shaped_reverberation",
    "parametric_eq",
    "signal",
    "stereo_bus",
    "stereo_panner",
    "stereo_widener",
]

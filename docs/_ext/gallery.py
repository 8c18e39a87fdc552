"""The gallery: examples run from one state, warnings are errors, and `sounds` become players."""

from __future__ import annotations

import base64
import builtins
import configparser
import html
import io
import random
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx_gallery.scrapers import matplotlib_scraper
from torch import Tensor

import dasp

ROOT = Path(__file__).parents[2]
# In the order of the page: what is found, what is trained, what runs.
ORDER = (
    "compressor_recovery",
    "eq_matching",
    "filter_sweep",
    "blind_reverb",
    "reverse_engineer_a_mix",
    "black_box_spsa",
    "loudness_normalisation",
    "ducking",
    "eq_network",
    "train_a_controller",
    "new_processor",
    "streaming",
    "compiled_chain",
)
# What a player holds at most.
_LONGEST_S = 6

_undo = ExitStack()


def order(name: str) -> int:
    """The place of an example on the page."""
    return ORDER.index(Path(name).stem)


def reset(gallery_conf: Mapping[str, Any], name: str, when: str) -> None:
    """Before an example, seeds generators and makes warnings errors, as in the tests; after it, all is as it was."""
    _undo.close()
    if when == "after":
        return
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # the global generator is what is seeded here
    random.seed(0)
    _undo.callback(torch.set_num_threads, torch.get_num_threads())
    _undo.callback(_restore_processors, dict(dasp.PROCESSORS))
    _undo.enter_context(warnings.catch_warnings())
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    for line in settings["tool:pytest"]["filterwarnings"].split("\n"):
        action, _, rest = line.partition(":")
        message, _, category = rest.rpartition(":")
        if action == "error":
            warnings.simplefilter("error")
        elif action == "ignore":
            warnings.filterwarnings("ignore", message, getattr(builtins, category))


def _restore_processors(registered: dict[str, dasp.Spec]) -> None:
    """Forgets what an example has registered."""
    for name in dasp.PROCESSORS.keys() - registered.keys():
        del dasp.PROCESSORS[name]


def scrape(block: Any, variables: dict[str, Any], gallery_conf: Mapping[str, Any], **options: Any) -> str:
    """Figures, and players for the `sounds` that a block assigns: audio by name, at the example's `sample_rate`."""
    found: str = matplotlib_scraper(block, variables, gallery_conf, **options)
    names = variables["example_globals"]
    if "sounds" in names:
        found += _players(names.pop("sounds"), names["sample_rate"])
    return found


def _players(sounds: Mapping[str, Tensor], sample_rate: int) -> str:
    peak = max(float(audio.abs().amax()) for audio in sounds.values())
    lines = ["", ".. raw:: html", "", '   <div class="sounds">']
    for name, audio in sounds.items():
        # One gain for all, that levels can be compared; clipping is what the MP3 would add.
        samples = audio.detach()[..., : _LONGEST_S * sample_rate] * min(1.0, 0.9 / peak)
        lines += ["   " + line for line in _player(name, samples.numpy().T, sample_rate)]
    return "\n".join([*lines, "   </div>", "", ""])


def _player(name: str, samples: np.ndarray, sample_rate: int) -> list[str]:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="MP3")
    data, name = base64.b64encode(file.getvalue()).decode("ascii"), html.escape(name)
    source = f"data:audio/mpeg;base64,{data}"
    return [
        f"<figure><figcaption>{name}</figcaption>",
        f'<audio controls preload="metadata" aria-label="{name}" src="{source}"></audio></figure>',
    ]


def _name_thumbnails(app: Sphinx, doctree: nodes.document) -> None:
    """Gives the pictures of the overview an alternative text, which sphinx-gallery leaves empty."""
    for image in doctree.findall(nodes.image):
        place, _, name = image["uri"].rpartition("sphx_glr_")
        if place and name.endswith("_thumb.png"):
            image["alt"] = f"A plot of {name.removesuffix('_thumb.png').replace('_', ' ')}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", _name_thumbnails)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

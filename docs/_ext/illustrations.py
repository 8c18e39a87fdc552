"""Pages that show and sound: `.. picture::`, `.. player::`, and both for a public function, `.. illustrations::`.

A picture is a function of a file in `docs/figures`.  A sound is code: it is run while the page is read, and is what the
page shows.  A page is read again when what it is made of has changed.
"""

from __future__ import annotations

import html
import importlib
import os
import re
import shutil
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from figures.media import RATE, Picture, Sound, draw
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dasp.io import encoded

# Where sounds lie, and how a page names the place before it is known where the page itself lies.
_FOLDER, _SOUNDS = "_sounds", "{sounds}"


class _Illustrated(SphinxDirective):
    """What directives share that draw or play."""

    def folder(self) -> Path:
        """Where files for this page are kept between builds."""
        return Path(self.env.doctreedir, "illustrations", *self.env.docname.split("/"))

    def show(self, shown: Picture, name: str) -> nodes.Node:
        here = Path(self.env.doc2path(self.env.docname)).parent
        images = [
            nodes.image(uri=Path(os.path.relpath(path, here)).as_posix(), alt=alt)
            for path, alt in zip(draw(shown, self.folder(), name), shown.alt, strict=True)
        ]
        return nodes.container("", *images, *self.parse_text_to_nodes(_dedented(shown.caption)), classes=["picture"])

    def play(self, sound: Sound, name: str) -> nodes.Node:
        folder = self.folder()
        folder.mkdir(parents=True, exist_ok=True)
        said = self.parse_text_to_nodes(sound.text + ("" if sound.as_loud else "  Their levels are as they are."))
        players = []
        for when, title, audio in zip(("before", "after"), sound.labels, sound.played(), strict=True):
            (folder / f"{name}-{when}.mp3").write_bytes(encoded(audio, RATE, "MP3"))
            label = html.escape(f"{name.replace('_', ' ')}, {title}: {' '.join(node.astext() for node in said)}")
            players.append(
                f'<figure><figcaption>{html.escape(title)}</figcaption><audio controls preload="none" '
                f'aria-label="{label}" src="{_SOUNDS}/{self.env.docname}/{name}-{when}.mp3"></audio></figure>'
            )
        language = "pycon" if ">>>" in sound.code else "python"
        code = nodes.literal_block(sound.code, sound.code, language=language)
        raw = nodes.raw("", f'<div class="players">{"".join(players)}</div>', format="html")
        return nodes.container("", code, *said, raw, classes=["sound"])


def _dedented(text: str) -> str:
    return re.sub(r"\n +", "\n", text).strip()


class ShowPicture(_Illustrated):
    """`.. picture:: FILE NAME`: a picture of a file in `docs/figures`."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        file, name = self.arguments
        module = importlib.import_module(f"figures.{file}")
        self.env.note_dependency(module.__file__)
        return [self.show(getattr(module, name), name)]


class PlaySound(_Illustrated):
    """`.. player:: NAME`: the code in it, and two expressions of its names to hear; `:text:` says what is heard."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "text": directives.unchanged_required,
        "before": directives.unchanged_required,
        "after": directives.unchanged_required,
        "labels": lambda text: tuple(label.strip() for label in text.split(",")),
    }

    def run(self) -> list[nodes.Node]:
        return [self.play(Sound(code="\n".join(self.content), **self.options), self.arguments[0])]


class Illustrations(_Illustrated):
    """`.. illustrations:: FUNCTION`: picture and sound of a public function, so far as it has them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from figures import processors

        name = self.arguments[0]
        self.env.note_dependency(processors.__file__)
        shown, sound = processors.picture_of(name), processors.sound_of(name)
        return [*([self.show(shown, name)] if shown else []), *([self.play(sound, name)] if sound else [])]


def _place_sounds(app: Sphinx, page: nodes.document, name: str) -> None:
    up = "../" * app.builder.get_target_uri(name).count("/") if app.builder.format == "html" else ""
    for raw in page.findall(nodes.raw):
        if _SOUNDS in raw.astext():
            raw.children = [nodes.Text(raw.astext().replace(_SOUNDS, up + _FOLDER))]


def _copy_sounds(app: Sphinx, exception: Exception | None) -> None:
    kept = Path(app.doctreedir, "illustrations")
    if exception is None and app.builder.format == "html":
        for path in kept.rglob("*.mp3"):
            target = Path(app.outdir, _FOLDER, path.relative_to(kept))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("picture", ShowPicture)
    app.add_directive("player", PlaySound)
    app.add_directive("illustrations", Illustrations)
    app.connect("doctree-resolved", _place_sounds)
    app.connect("build-finished", _copy_sounds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Pages that need no network, and that screen readers and keyboards can use.

Formulas become MathML, which browsers draw without a script.  What Sphinx and the theme write that is no valid HTML, or
that the keyboard cannot reach, is put right in the finished page: `docs/check_site.py` looks for it.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

_logger = logging.getLogger(__name__)

# A signature of several lines is a list of definitions without terms.
_SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def _mathml(node: nodes.Element, block: bool) -> str:
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except (MathError, SyntaxError) as error:
        _logger.warning("formula that docutils cannot write as MathML: %s", error, location=node)
        return f"<code>{nodes.Text(node.astext())}</code>"


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(_mathml(node, block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def _divisions(signature: re.Match[str]) -> str:
    lines = signature[1].replace("<dd>", "<div>").replace("</dd>", "</div>")
    return f'<div class="sig-params">\n{lines}</div>'


def _repair(app: Sphinx, page: str, template: str, context: dict[str, Any], document: nodes.document | None) -> None:
    if "body" in context:
        context["body"] = _SIGNATURE.sub(_divisions, context["body"])
    # The captions of the contents are headings without a level.
    if "furo_navigation_tree" in context:
        tree = str(context["furo_navigation_tree"])
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    # What is wider than the page scrolls, and the keyboard scrolls what has the focus.
    app.add_js_file("wide.js", loading_method="defer")
    # After the theme's own handlers.
    app.connect("html-page-context", _repair, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

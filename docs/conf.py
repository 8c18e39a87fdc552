"""Sphinx configuration.  Build with `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE), str(HERE.parent)]

import dasp  # noqa: E402  # from this checkout

project = "dasp"
author = "dasp contributors"
copyright = author
version = release = dasp.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "accessible",
    "benchmark_tables",
    "citation",
    "declarations",
    "gallery",
    "illustrations",
]
exclude_patterns = ["_build"]
# In docstrings a word in backticks is code.
default_role = "literal"
nitpicky = True
# Types that annotations and docstrings name and that have no page here.
_ELSEWHERE = "torch|nn|pathlib|AudioFileError|Tensor|Control|collections|inspect|typing|dasp\\._|'linear'|'log'"
nitpick_ignore_regex = [("py:.*", f"({_ELSEWHERE}).*")]

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Controls", "Domain"]
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
maximum_signature_line_length = 90
python_display_short_literal_types = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"dasp {release}"
html_static_path = ["_static"]
html_css_files = ["dasp.css"]
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    # That one is a program with options, for plug-ins that pedalboard loads.
    "ignore_pattern": "fit_plugin_chain",
    "filename_pattern": "",
    "within_subsection_order": "gallery.order",
    "reset_modules": ("matplotlib", "gallery.reset"),
    "reset_modules_order": "both",
    "image_scrapers": ("gallery.scrape",),
    "image_srcset": ["2x"],
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "notebook_extensions": set(),
    "show_signature": False,
    "write_computation_times": False,
}

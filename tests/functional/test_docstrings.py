"""Docstrings of public functions: the house's sections in their order, every argument, and an example that runs."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

import dasp.functional as F

SECTIONS = ("Args", "Returns", "Raises", "Domain", "Example")


@pytest.mark.parametrize("name", F.__all__)
def test_sections_are_in_order_and_every_argument_is_described(name):
    function = getattr(F, name)
    text = inspect.getdoc(function)
    found = re.findall(r"^(\w+):$", text, flags=re.MULTILINE)
    assert found == [section for section in SECTIONS if section in found]
    assert {"Args", "Returns", "Raises", "Example"} <= set(found)
    arguments = text.split("\nArgs:\n")[1].split("\nReturns:\n")[0]
    assert re.findall(r"^    (\w+):", arguments, flags=re.MULTILINE) != []
    assert set(re.findall(r"^    (\w+):", arguments, flags=re.MULTILINE)) == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", F.__all__)
def test_first_line_is_a_sentence(name):
    first, *rest = inspect.getdoc(getattr(F, name)).split("\n\n")
    assert "\n" not in first
    assert first.endswith(".")
    assert rest


@pytest.mark.parametrize("name", F.__all__)
def test_there_is_an_example(name):
    # That it runs and gives what it says is tested where it stands: pytest collects the doctests of dasp.
    assert doctest.DocTestParser().get_examples(inspect.getdoc(getattr(F, name)))

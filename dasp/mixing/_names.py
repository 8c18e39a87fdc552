"""Names of controls with wildcards, and what to say of a name that is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

_MOST_NAMES = 12


def check_known(what: str, name: str, known: Sequence[str]) -> str:
    """Returns a name that is known, and raises with the closest ones otherwise."""
    if name in known:
        return name
    raise ValueError(f"{what}: {name!r} is unknown, {_advice(name, known)}")


def _advice(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}expected one of {_listed(known)}" if known else "there is none"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")


def matching(what: str, pattern: str, places: Mapping[str, Mapping[str, Sequence[str]]]) -> list[tuple[str, str, int]]:
    """The controls that a name with wildcards means.

    A control is named `place.stage.control`, or `place.control` where one stage of the place has it.  A control with
    bands is meant as a whole, or one band of it by `control[2]`; a name that is that of a single value means no bands.

    Args:
        what: What the name is of, for messages.
        pattern: The name, in which `*` stands for any text and `?` for any character.
        places: By section and place in it the names of the flat vector, `compressor.threshold_db`.

    Returns:
        Section, place and position in the flat vector.

    Raises:
        ValueError: If the name is that of no control, or without its stage that of several.
    """
    text = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    expression = re.compile(text, re.DOTALL)
    found: list[tuple[str, str, int]] = []
    for section, own in places.items():
        for place, names in own.items():
            found += [(section, place, position) for position in _positions(what, pattern, expression, place, names)]
    if not found:
        known = [f"{place}.{name}" for own in places.values() for place, names in own.items() for name in names]
        close = difflib.get_close_matches(pattern, [*known, *map(_without_stage, known)], 3, 0.5)
        hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else f"expected {_listed(known)}"
        raise ValueError(f"{what} {pattern!r} is not a control of this console: {hint}")
    return found


def _without_band(name: str) -> str:
    return name.split("[")[0]


def _without_stage(name: str) -> str:
    place, _, control = name.rpartition(".")
    return f"{place.rpartition('.')[0]}.{control}"


def _positions(what: str, pattern: str, expression: re.Pattern[str], place: str, names: Sequence[str]) -> list[int]:
    for spelling in (lambda name: name, _without_band):
        found = [i for i, name in enumerate(names) if expression.fullmatch(f"{place}.{spelling(name)}")]
        if found:
            return found
    controls = [name.rpartition(".")[2] for name in names]
    for short in (lambda name: name, _without_band):
        found = [i for i, control in enumerate(controls) if expression.fullmatch(f"{place}.{short(control)}")]
        stages = dict.fromkeys(names[i].rpartition(".")[0] for i in found)
        if len(stages) > 1:
            several = " or ".join(f"{place}.{stage}.{_without_band(controls[found[0]])}" for stage in stages)
            raise ValueError(f"{what} {pattern!r} is that of several controls: write {several}")
        if found:
            return found
    return []

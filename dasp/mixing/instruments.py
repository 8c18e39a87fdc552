"""The instruments that tracks are tagged with, and which of them a name in a file or a data set means."""

from __future__ import annotations

import re

__all__ = ["FAMILIES", "recognise"]

FAMILIES: dict[str, str] = {
    "kick": "drums",
    "snare": "drums",
    "hihat": "drums",
    "tom": "drums",
    "overheads": "drums",
    "percussion": "drums",
    "drums": "drums",
    "bass": "bass",
    "guitar": "harmony",
    "keys": "harmony",
    "organ": "harmony",
    "pad": "harmony",
    "strings": "harmony",
    "brass": "harmony",
    "lead": "melody",
    "wind": "melody",
    "voice": "vocals",
    "backing voice": "vocals",
    "other": "other",
}
"""Every instrument of the vocabulary, with its family."""

# The first that fits counts: "bass drum" is no bass, a "bass clarinet" neither, "lead vocals" are no lead.
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("kick", r"kick|bass ?drum|\bbd\b|\bkd\b"),
    ("snare", r"snare|\bsd\b|rim ?shot"),
    ("hihat", r"hi ?hats?|\bhats?\b|\bhh\b"),
    ("tom", r"\btoms?\b"),
    ("overheads", r"over ?heads?|\bohs?\b|cymbals?|\bride\b|\bcrash\b|drum ?room"),
    ("percussion", r"percussion|perc\b|shaker|tambourine|conga|bongo|\bclaps?\b|cowbell|cabasa|maraca|timpani|vibraslap"
        r"|tabla|djembe|darbuka|cajon|marimba|xylophone|glockenspiel|vibraphone|mallets?|triangle|gong|scratch"),
    ("drums", r"drums?\b|drum ?(set|kit|machine)"),
    ("backing voice", r"(backing|background|back|harmony|bg|bk)\w* ?(vo|singer)|bgvs?\b|bvs?\b|choir|chorus|vocalists"),
    ("voice", r"vocals?|vox|voice|singer|rapper|speaker|singing|lead vo"),
    ("wind", r"flute|clarinet|oboe|sax\w*|bassoon|recorder|harmonica|piccolo|reeds?|\bwind|bagpipe|panpipe|whistle"
        r"|english horn|bamboo"),
    ("brass", r"brass|trumpet|trombone|horns?\b|tuba|cornet|flugelhorn|euphonium"),
    ("strings", r"strings?\b|violins?|violas?\b|cellos?|erhu|fiddle|orchestra"),
    ("bass", r"bass|contrabass"),
    ("guitar", r"guitars?|gtrs?\b|banjo|mandolin|ukulele|\bharp\b|sitar|\boud\b|lute|zhongruan|guzheng|yangqin|pipa"
        r"|dulcimer|liuqin|koto|plucked"),
    ("organ", r"organ\b|hammond|accordion|melodica|harmonium"),
    ("pad", r"\bpads?\b"),
    ("lead", r"lead|melody|theremin"),
    ("keys", r"keys?\b|keyboards?|piano|rhodes|wurlitzer|harpsichord|clavi\w*|celesta|synth\w*|mellotron|moog"),
)  # fmt: skip
_COMPILED = tuple((instrument, re.compile(pattern)) for instrument, pattern in _PATTERNS)


def recognise(name: str) -> str:
    """The instrument that the name of a track, as files and data sets have it, means.

    Args:
        name: Such as "Acoustic Guitar", "02_BGV-L", "hi-hat" or "female singer".

    Returns:
        One of `FAMILIES`, "other" for a name that says nothing.

    Example:
        >>> [recognise(name) for name in ("03 Bass Drum", "lead_male_singer", "Main System")]
        ['kick', 'voice', 'other']
    """
    # What stands between letters of a name are digits and signs; a hyphen may stand in hi-hat.
    words = " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().translate(_SIGNS).split())
    return next((instrument for instrument, pattern in _COMPILED if pattern.search(words)), "other")


_SIGNS = {ord(c): " " for c in "0123456789_-.,;:()[]/\\&+#"}

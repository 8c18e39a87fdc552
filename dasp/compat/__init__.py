"""Other libraries' interfaces, computed by dasp: a script moves over by changing one import."""

from __future__ import annotations

__all__: list[str] = []

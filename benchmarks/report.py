"""What was measured, as JSON, with the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

import dasp
from benchmarks.peers import Peer
from benchmarks.row import Row
from benchmarks.tables import SCHEMA
from benchmarks.targets import Verdict


def environment() -> dict[str, Any]:
    """The machine and the versions."""
    commit, dirty = _commit()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        **dasp.info(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """The commit of this checkout and whether files differ from it; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
    try:
        return git("rev-parse", "HEAD"), dirty
    except subprocess.CalledProcessError:  # Nothing is committed yet.
        return None, dirty


def document(
    rows: Iterable[Row],
    found: Iterable[Verdict],
    peers: Iterable[Peer],
    environment: dict[str, Any],
    run: dict[str, Any],
) -> dict[str, Any]:
    """Everything, as it is written to the JSON file; `run` says how it was called."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run,
        "environment": environment,
        "peers": [{"name": peer.name, "version": peer.version, "status": peer.status} for peer in peers],
        "rows": [row.record() for row in rows],
        "targets": [verdict.record() for verdict in found],
    }
    return content


def _rounded(value: Any) -> Any:
    """Floats with four digits, which is more than any measurement here repeats."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _text(content: dict[str, Any]) -> str:
    """JSON with each item of a list on a line of its own, so that a new run changes few lines and they can be read."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(item, allow_nan=False)}" for item in value)
            text = f"[\n{lines}\n ]" if value else "[]"
        else:
            text = json.dumps(value, indent=1, allow_nan=False).replace("\n", "\n ")
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes all or nothing: an interrupted run leaves the file that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(_text({name: _rounded(value) for name, value in content.items()}))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

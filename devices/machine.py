"""What a measurement depends on: the processor and the versions of what runs on it."""

from __future__ import annotations

import platform
from pathlib import Path


def conditions_of(backend: str, versions: str, threads: int) -> dict[str, str]:
    """Facts that must be the same for two measurements to belong into one table."""
    return {
        "device": processor(),
        "backend": backend,
        "threads": str(threads),
        "batch": "1",
        "versions": versions,
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system tells it."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown"

"""Where a number comes from: the command, the commit and the machine that produced it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """command: as typed; commit: of the running code; machine: processor, cores, load, torch; date: UTC, ISO 8601."""

    command: str
    commit: str
    machine: str
    date: str

    @classmethod
    def here(cls, command: str | None = None) -> Provenance:
        """Of this process, now. `command` replaces what the process was started with."""
        typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(command or typed, commit(), machine(), datetime.now(UTC).isoformat(timespec="seconds"))


def commit() -> str:
    """Twelve digits of the checked-out commit, and "(modified)" when tracked files differ; else the version."""
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    tracked = _git(folder, "ls-files", "--", Path(__file__).name)
    if not head or not tracked:  # an installed package, or one that lies inside somebody else's repository
        return f"wam {_version('wam')}"
    return f"{head} (modified)" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head


def machine() -> str:
    """One line: processor, cores, load, operating system, python, torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    system = f"{platform.system()} {platform.machine()}"
    software = f"python {platform.python_version()}, torch {_version('torch')}"
    return f"{_processor()}, {cores} cores{load}; {system}; {software}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

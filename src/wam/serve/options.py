"""Checks of a server's options, made before its model is loaded."""

from __future__ import annotations


def at_least(least: int, **options: int) -> None:
    """Raises ValueError naming the first option, as the command line spells it, that is smaller."""
    for name, found in options.items():
        if not found >= least:
            raise ValueError(f"{_spelled(name)}: found {found}, expected at least {least}")


def positive(**options: float) -> None:
    """Raises ValueError naming the first option, as the command line spells it, that is not above zero."""
    for name, found in options.items():
        if not found > 0:
            raise ValueError(f"{_spelled(name)}: found {found:g}, expected more than 0")


def a_port(**options: int) -> None:
    """Raises ValueError naming the first option, as the command line spells it, that is no port."""
    for name, found in options.items():
        if not 0 <= found < 2**16:
            raise ValueError(f"{_spelled(name)}: found {found}, expected a port, 1 to 65535, or 0 for any free one")


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"

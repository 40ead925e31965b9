"""A draft as a YAML file for a person to go through: a comment above every field that was guessed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from wam.robot.draft import Draft

WIDTH = 118


def commented_yaml(draft: Draft, source: str, episodes: int) -> str:
    """The text of the file; `load_embodiment` reads it back as `draft.embodiment`."""
    head = (
        f"Drafted by `wam robot new` from {source} ({episodes} episodes). Go through every line that says 'guess' and "
        f"correct it; then run `wam data lint {source} --embodiment THIS_FILE --page page.html` and look at the page."
    )
    return "\n".join([*_comment(head), *_fields(draft), ""])


def _fields(draft: Draft) -> Iterator[str]:
    robot = draft.embodiment.to_dict()
    said = {name: getattr(draft.embodiment, name) for name in ("prompt_template", "lower_case") if name not in robot}
    measured = {"statistics": robot.pop("statistics")} if "statistics" in robot else {}
    for field, value in {**robot, **said, **measured}.items():
        if field in draft.remarks:
            yield from _comment(draft.remarks[field])
        if field not in ("state", "action") or not value:
            yield _plain({field: value})
            continue
        yield f"{field}:"
        for part in value:
            if (remark := draft.remarks.get(f"{field}.{part['name']}")) is not None:
                yield from _comment(remark, indent="  ")
            yield f"  - {_plain(part, flow=True)}"


def _comment(text: str, indent: str = "") -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def _plain(value: dict[str, Any], flow: bool = False) -> str:
    """One field as block YAML with lists in one line, or a part as one line."""
    style = True if flow else None if any(isinstance(entry, list | dict) for entry in value.values()) else False
    width = 10**9 if flow else WIDTH
    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=style, width=width)).strip()

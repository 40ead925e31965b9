"""The README.md of a checkpoint: what it is, where it comes from, under which licence; for people and for the hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wam.checkpoints.licence import UNKNOWN, Licence

_CARD = """\
---
license: {license}
library_name: wam
pipeline_tag: robotics
tags: [world-action-model, robotics, video-diffusion, flow-matching]
{base}---

# {name}

{what}

| component | tensors | parameters | stored as |
|---|---|---|---|
{rows}

Licence of the weights: {licence}. Identity of the transformer: `{identity}`.
{robots}
```python
from wam.checkpoints.load import load_published

model = load_published("path/to/this/folder")
```

`wam inspect FOLDER` says more; `wam convert FOLDER OUT --to original` (or diffusers, dreamzero) gives other layouts.
"""


def model_card(
    *,
    name: str,
    what: str,
    licence: Licence,
    identity: str,
    sizes: Mapping[str, tuple[int, int, str]],
    robots: Collection[str] = (),
    base: str = "",
) -> str:
    """Text of a model card. sizes: component -> tensors, parameters, types.  base: repository of the original."""
    rows = [f"| {part} | {count:,} | {numel:,} | {dtypes} |" for part, (count, numel, dtypes) in sizes.items()]
    known = f"\nIt has statistics of these robots: {', '.join(robots)}.\n" if robots else ""
    return _CARD.format(
        license="other" if licence.name == UNKNOWN or " " in licence.name else licence.name,
        base=f"base_model: {base}\n" if base else "",
        name=name,
        what=what,
        rows="\n".join(rows),
        licence=licence,
        identity=identity,
        robots=known,
    )

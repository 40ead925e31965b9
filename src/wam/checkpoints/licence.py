"""Under which licence weights may be used: what the folder says, else what is known of the published weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
# What the publishers' model cards said in 2026, by our preset. Weights trained from these inherit their terms.
PUBLISHED: Mapping[str, str] = {
    "wan2.1-i2v-14b": "apache-2.0",
    "wan2.2-ti2v-5b": "apache-2.0",
    "wan2.1-t2v-1.3b": "apache-2.0",
    "dreamzero-droid": "cc-by-nc-4.0",
    "dreamzero-agibot": "apache-2.0",
}
_TEXTS = (  # how licence files begin
    (r"Apache License\s+Version 2\.0", "apache-2.0"),
    (r"Attribution-NonCommercial 4\.0|CC[- ]BY[- ]NC[- ]4\.0", "cc-by-nc-4.0"),
    (r"Attribution 4\.0 International|CC[- ]BY[- ]4\.0", "cc-by-4.0"),
    (r"\bMIT License\b", "mit"),
)


@dataclass(frozen=True)
class Licence:
    """name: as model cards spell it, such as "apache-2.0". origin: where that is written."""

    name: str
    origin: str

    @property
    def commercial(self) -> bool | None:
        """Whether it allows commercial use; None when nothing is known."""
        return None if self.name == UNKNOWN else "-nc" not in self.name

    def __str__(self) -> str:
        remark = {True: "", False: ", not for commercial use", None: ", ask whoever made these weights"}[
            self.commercial
        ]
        return f"{self.name}{remark} ({self.origin})"


def licence_of(folder: Path, preset: str | None = None) -> Licence:
    """The model card's, else the licence file's, else the one that the preset's weights were published under."""
    card = folder / "README.md"
    stated = _front_matter(card).get("license")
    if isinstance(stated, str) and stated != "other":
        return Licence(stated.lower(), card.name)
    for file in sorted(folder.glob("LICENSE*")) + sorted(folder.glob("LICENCE*")):
        start = file.read_text(encoding="utf-8", errors="replace")[:4000] if file.is_file() else ""
        found = next((name for pattern, name in _TEXTS if re.search(pattern, start, re.IGNORECASE)), None)
        return Licence(found or f"see {file.name}", file.name)
    if preset is not None and preset in PUBLISHED:
        return Licence(PUBLISHED[preset], f"known for {preset}, not stated in the folder")
    return Licence(UNKNOWN, "neither a model card nor a licence file")


def announce(licence: Licence, of: str) -> None:
    """Tell the user once, through logging, whose terms hold."""
    log.log(logging.INFO if licence.commercial else logging.WARNING, "licence of %s: %s", of, licence)


def _front_matter(card: Path) -> dict[str, object]:
    """The YAML between two lines of dashes at the start of a model card."""
    if not card.is_file():
        return {}
    match = re.match(r"^---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        fields = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}

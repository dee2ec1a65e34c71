"""The licence of a teacher, which binds its students too: what its model card and files say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..records import read_text, read_yaml

# Files of a model folder that say under which terms it may be used.
FILES = re.compile(r"(licen[cs]e|notice|copying|use[-_]?policy|usage[-_]?policy|terms).*", re.I)
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.S)
KEYS = ("license", "license_name", "license_link", "extra_gated_prompt")


@dataclass(frozen=True)
class Licence:
    """Terms of use. entries: of the card's front matter, as the Hub names them. files: to carry
    over. source: whose they are, in words; empty where nothing is known.
    """

    entries: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    source: str = ""

    @property
    def name(self) -> str:
        """The identifier, or the name of a licence that has none; empty where unknown."""
        identifier = self.entries.get("license", "")
        if identifier in ("", "other"):
            return self.entries.get("license_name", identifier)
        return identifier


def read_licence(folder: Path | None, source: str) -> Licence:
    """What a model folder's README.md and licence files say; nothing where there is no folder."""
    if folder is None or not folder.is_dir():
        return Licence()
    entries = {}
    readme = folder / "README.md"
    if readme.is_file():
        for key, value in front_matter(readme).items():
            if key in KEYS and isinstance(value, str | list):
                entries[key] = value if isinstance(value, str) else ", ".join(map(str, value))
    files = tuple(
        sorted(path for path in folder.iterdir() if path.is_file() and FILES.match(path.name))
    )
    return Licence(entries, files, source if entries or files else "")


def front_matter(readme: Path) -> dict[str, object]:
    """The YAML at the head of a model card; empty where there is none that can be read."""
    match = FRONT_MATTER.match(read_text(readme, "model card", 4 * 2**20))
    if match is None:
        return {}
    data = read_yaml(match[1], str(readme), "model card")
    return data if isinstance(data, dict) else {}

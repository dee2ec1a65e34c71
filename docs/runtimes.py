"""Write docs/runtimes.md: which students load where, from the table of runtimes:
`python docs/runtimes.py`.

`python docs/runtimes.py --check` only says whether the page is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.release.full_size import STUDENTS, obstacles  # noqa: E402
from workbench.families import FAMILIES  # noqa: E402
from workbench.families.runtimes import RUNTIMES  # noqa: E402

PAGE = Path(__file__).with_name("runtimes.md")
HEAD = """# Where students load

Written by `python docs/runtimes.py` from `workbench/families/runtimes.py`; a test holds it current. A
number behind an entry is a note below the table.

Each line is a student with fewer blocks and no other change. `tests/release/test_real_loaders.py` writes
its file at full size (a real header, and a hole for the data) and gives it to the loaders themselves: the
package `gguf` and stable-diffusion.cpp (package `inferna` 0.7.0), which agree with this table: the right
model and depth, no tensor missing or of another shape. The column of ComfyUI, and with it ComfyUI-GGUF, was
read in its code; the test that runs its own detection and model classes has not passed yet. Pictures were
not drawn with any of them.

Students with single-stream blocks, without parts or with factored modulation load in diffusers alone, with
the modeling file that lies beside them. `workbench build --fat` writes them out as plain blocks, which load
where this table says, at their teacher's size per block.

"""


def page() -> str:
    """The whole page as Markdown."""
    titles = [f"{row.title} (`--for {name}`)" for name, row in RUNTIMES.items()]
    lines = ["| student | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    notes: list[str] = []
    for student in STUDENTS.values():
        cells = []
        for name, row in RUNTIMES.items():
            reasons = obstacles(student, name)
            cells.append("yes")
            if reasons:
                note = f"{row.title}: {'; '.join(reasons)}."
                notes += [note] if note not in notes else []
                cells[-1] = f"no ({notes.index(note) + 1})"
        lines.append(f"| {student.about} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    others = sorted(set(FAMILIES) - {student.family for student in STUDENTS.values()})
    lines += ["", f"Other families ({', '.join(others)}) load in diffusers alone."]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text() != text:
            raise SystemExit("docs/runtimes.md is stale: run python docs/runtimes.py")
    else:
        PAGE.write_text(text)

"""How dense the code of a package is: `python benchmarks/density.py [FOLDER] [--peers FOLDER..]
[--json]`.

Counts per 1,000 lines of code (blank lines and lines of comments left out), tests left out:
conditional expressions, those of them that hold another, comprehensions, those with several loops
or with another inside, tuple assignments (`a, b = x, y`), uses of `Any`, lines over 100 columns;
and the lines of functions: median, ninth decile, longest. Lower = easier to read. ratio: the
largest of ours over the largest of the peers', over all rows (a peer's 0 counts as 0.5 per 1,000).

PEERS has the counts of three packages that do parts of what this one does and read well: submitit
1.5.4 (jobs), mergekit 0.1.5 (surgery on language models), smalldiffusion 0.5.0 (diffusion models).
They were measured by this script on their wheels of PyPI, unpacked:

    python benchmarks/density.py workbench --peers submitit mergekit smalldiffusion
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLUMNS = 100
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Density:
    """Counts per 1,000 lines of code; lines of functions."""

    conditional: float
    chained: float
    comprehensions: float
    nested: float
    tuple_assignments: float
    any: float
    long_lines: float
    median_function: float
    p90_function: float
    longest_function: float


PEERS = {
    "submitit": Density(7.0, 0.0, 19.3, 0.7, 1.1, 21.1, 29.2, 6, 27, 143),
    "mergekit": Density(6.8, 0.0, 20.6, 0.2, 0.5, 5.3, 3.0, 11, 55, 258),
    "smalldiffusion": Density(10.3, 0.0, 7.4, 0.0, 2.9, 0.0, 11.8, 5, 16, 78),
}
FIELDS = list(Density.__dataclass_fields__)
LEAST = 0.5  # of a peer per 1,000: twice that is 1


def limit(row: str, peers: Mapping[str, Density] = PEERS) -> float:
    """Twice the largest count of the peers; 1 per 1,000 where that is 0."""
    return 2 * max(LEAST, *(getattr(peer, row) for peer in peers.values()))


def source_files(folder: Path) -> Iterator[Path]:
    """The Python files of a package, without its tests."""
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).parts
        if not file.name.startswith(("test_", "conftest")) and not {"test", "tests"} & {*parts}:
            yield file


def measure(folder: Path) -> Density:
    """Counts over all files of a package. Raises SyntaxError for a file that does not parse."""
    lines = 0
    counts: Counter[str] = Counter()
    lengths: list[int] = []
    for file in source_files(folder):
        text = file.read_text(encoding="utf-8")
        lines += code_lines(text)
        counts["long_lines"] += sum(len(line) > COLUMNS for line in text.splitlines())
        for node in ast.walk(ast.parse(text)):
            counts.update(row for row, is_one in COUNTED.items() if is_one(node))
            if isinstance(node, FUNCTIONS):
                lengths.append((node.end_lineno or node.lineno) - node.lineno + 1)
    lengths.sort()
    per_thousand = {row: round(1000 * counts[row] / lines, 1) for row in [*COUNTED, "long_lines"]}
    return Density(
        **per_thousand,
        median_function=lengths[len(lengths) // 2],
        p90_function=lengths[len(lengths) * 9 // 10],
        longest_function=lengths[-1],
    )


def code_lines(text: str) -> int:
    """Lines that are neither blank nor a comment alone."""
    lines = (line.strip() for line in text.splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


# --- what is counted ------------------------------------------------------------------------------


def is_conditional(node: ast.AST) -> bool:
    return isinstance(node, ast.IfExp)


def is_chained(node: ast.AST) -> bool:
    """A conditional expression with another as one of its parts."""
    if not isinstance(node, ast.IfExp):
        return False
    return any(isinstance(part, ast.IfExp) for part in (node.body, node.orelse, node.test))


def is_comprehension(node: ast.AST) -> bool:
    return isinstance(node, COMPREHENSIONS)


def is_nested(node: ast.AST) -> bool:
    """A comprehension with several loops, or with another somewhere inside."""
    if not isinstance(node, COMPREHENSIONS):
        return False
    inner = sum(isinstance(part, COMPREHENSIONS) for part in ast.walk(node)) - 1
    return len(node.generators) > 1 or inner > 0


def is_tuple_assignment(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def is_any(node: ast.AST) -> bool:
    """`Any`, or `typing.Any`."""
    if isinstance(node, ast.Attribute):
        return node.attr == "Any"
    return isinstance(node, ast.Name) and node.id == "Any"


COUNTED: dict[str, Callable[[ast.AST], bool]] = {
    "conditional": is_conditional,
    "chained": is_chained,
    "comprehensions": is_comprehension,
    "nested": is_nested,
    "tuple_assignments": is_tuple_assignment,
    "any": is_any,
}


# --- the table ------------------------------------------------------------------------------------


def table(name: str, ours: Density, peers: Mapping[str, Density]) -> str:
    """Markdown: a row per count, a column per package, and our limit."""
    lines = [
        "| per 1,000 lines of code | " + " | ".join([name, *peers, "limit"]) + " |",
        "|---|" + "---:|" * (len(peers) + 2),
    ]
    for row in FIELDS:
        values = [f"{getattr(density, row):g}" for density in (ours, *peers.values())]
        cells = [row.replace("_", " "), *values, f"{limit(row, peers):g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(ours: Density, peers: Mapping[str, Density] = PEERS) -> dict[str, float]:
    """Row -> our count over the largest of the peers'. At 2 it is at its limit."""
    return {row: round(2 * getattr(ours, row) / limit(row, peers), 2) for row in FIELDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "workbench")
    parser.add_argument("--peers", type=Path, nargs="*", default=[], help="measure these instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ours = measure(arguments.folder)
    peers = {folder.name: measure(folder) for folder in arguments.peers} or PEERS
    if not arguments.json:
        print(table(arguments.folder.name, ours, peers))
        return
    result = {
        "ratio": max(ratios(ours, peers).values()),
        "ratios": ratios(ours, peers),
        "ours": asdict(ours),
        "peers": {name: asdict(density) for name, density in peers.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Seeded changes of a file: of its bytes, and of the data in it."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Path = list[Any]  # of keys and places, from the top
VALUES: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    [[]],
    "",
    "\0",
    "../../etc",
    "x" * 300,
    "ünïcödé 😀",
    -1,
    0,
    1,
    7,
    10**6,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    {"a": 1},
    [1, "a", None],
    list(range(1000)),
)
WHOLE: dict[str, bytes] = {  # files that are nothing but a fault
    "empty": b"",
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "digits": b"1" * 5000,
    "list": b"[1, 2]",
    "null": b"null",
    "text": b'"text"',
    "noise": random.Random(0).randbytes(3000),
    "utf16": '{"a": 1}'.encode("utf-16"),
    "nul": b"\0" * 100,
    "long": b'{"a": "' + b"x" * 10_000_000 + b'"}',
    "rows": b"[" + b"1," * 500_000 + b"1]",
    "lines": b"- a: 1\n" * 1_400_000,
    "aliases": b"a: &a [x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 8)) for n in range(98, 108)
    ),
}


def mutate_bytes(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """(what was done, the new content)."""
    if not content:
        return "empty", b"\0"
    at = draw.randrange(len(content))
    kind = draw.choice(["cut", "flip", "delete", "insert", "repeat"])
    if kind == "cut":
        return f"cut at {at}", content[:at]
    if kind == "flip":
        changed = bytearray(content)
        changed[at] ^= 1 << draw.randrange(8)
        return f"flip at {at}", bytes(changed)
    if kind == "delete":
        return f"delete from {at}", content[:at] + content[at + draw.randrange(1, 40) :]
    if kind == "insert":
        return f"insert at {at}", content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:]
    return f"repeat from {at}", content + content[at:]


def mutate_data(data: Any, draw: random.Random) -> tuple[str, Any]:
    """(what was done, the new data): a value replaced, a key removed, added or renamed."""
    data = copy.deepcopy(data)
    places = list(paths(data, []))
    path = draw.choice(places)
    kind = draw.choice(["value", "value", "value", "remove", "rename", "add"])
    if not path or kind == "value":
        value = draw.choice(VALUES)
        return f"{path} = {value!r:.40}", replaced(data, path, value)
    parent = at_path(data, path[:-1])
    if kind == "remove":
        del parent[path[-1]]
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw.choice(["", "\0", "x" * 300, "unknown"])] = parent.pop(path[-1])
    elif isinstance(parent, dict):
        parent["unknown"] = draw.choice(VALUES)
    else:
        parent.append(draw.choice(VALUES))
    return f"{kind} at {path}", data


def paths(data: Any, path: Path) -> list[Path]:
    """The places of all values, the top one first; of long lists the first twenty only."""
    found = [path]
    if isinstance(data, dict):
        for key, value in data.items():
            found += paths(value, [*path, key])
    elif isinstance(data, list):
        for place, value in enumerate(data[:20]):
            found += paths(value, [*path, place])
    return found


def at_path(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def replaced(data: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    at_path(data, path[:-1])[path[-1]] = value
    return data


def mutation(
    content: bytes, data: Any, write: Callable[[Any], bytes], draw: random.Random
) -> tuple[str, bytes]:
    """One mutation of a file with that content, which holds that data (None: it has no structure)."""
    kind = draw.random()
    if kind < 0.1:
        name = draw.choice(sorted(WHOLE))
        return name, WHOLE[name]
    if kind < 0.4 or data is None:
        return mutate_bytes(content, draw)
    what, changed = mutate_data(data, draw)
    if draw.random() < 0.2:
        more, changed = mutate_data(changed, draw)
        what += f", {more}"
    return what, write(changed)


def as_json(data: Any) -> bytes:
    return json.dumps(data).encode("utf-8", "surrogatepass")

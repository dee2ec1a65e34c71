"""Plan files that a person, an editor or a disk has mangled: one clear line, or a sound plan; never
a traceback.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import drawn
from workbench import cli, models, plans
from workbench.records import BadInput, Plan, Teacher

ROOT = Path(__file__).parents[2]
TEXT = b"""# made by hand
teacher: tiny
family: qwenimage
origin: {rule: amber, keep: 4, protect: {transformer_blocks: [0, 5]}}  # where it came from
stacks:
  transformer_blocks:
    - {blocks: 0}
    - {blocks: [1, 2], init: mean, gain: 2}  # two in one
    - {blocks: 3, stream: single}
    - blocks: [4, 5]
      init: last
      drop: [mlp]
"""
CONFIG = {
    "_class_name": "QwenImageTransformer2DModel",
    "num_layers": 6,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "axes_dims_rope": [4, 6, 6],
    "in_channels": 4,
    "out_channels": 1,
}
NUMBERS = (
    b"-1",
    b"1.5",
    b"2",
    b"99999999999999999999",
    b"9" * 5000,
    b"1e999",
    b".nan",
    b"-.inf",
    b"0x1F",
    b"0b2",
    b"0o9",
    b"1_000",
    b"190:20:30",
    b"2001-99-99",
    b"2001-12-14t21:59:43.10-05:00",
    b"~",
    b"yes",
    b"''",
    b"mean",
    b"single",
    b"text.output",
)
SIGNS = (
    b"[",
    b"]",
    b"{",
    b"}",
    b"{}",
    b"[]",
    b"[[[1]]]",
    b"*a",
    b"&a 1",
    b"<<: *a",
    b"<<: {blocks: 1}",
    b"|\n  x",
    b"@",
    b"`",
    b"%",
    b"? x",
    b": :",
    b"'",
    b'"',
    b'"\\x"',
    b"#",
    b"- ",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n---\n",
    b"\t",
    b"\r",
    b"\r\n",
    b"\n",
)
TAGS = (
    b"!!int x",
    b"!!float y",
    b"!!timestamp z",
    b"!!binary ?",
    b"!!python/object/apply:os.getcwd []",
    b"!!set {a, b}",
    b"!!omap [a: 1]",
)
BYTES = (b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\x00", b"\xff\xfe", b"\xf0\x9f\x92\xa9")
MASSES = (b"{" * 400, b"[" * 1000, b"- " * 400, b"a: " * 50, b"x" * 5000)
VALUES = NUMBERS + SIGNS + TAGS + BYTES + MASSES


def but(old: bytes, new: bytes) -> bytes:
    return TEXT.replace(old, new)


BILLION = b"x: &a [1, 2]\n" + b"".join(
    b"x%d: &%c [%s]\n" % (n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(12)
)
WHOLE = (
    b"",
    b"\n",
    b"null",
    b"[]",
    b"7",
    b"plan",
    b"\xef\xbb\xbf" + TEXT,
    TEXT.decode().encode("utf-16"),
    TEXT * 2,
    b"a: &a [*a]\n",
    b"&a {a: *a}\n",
    b"stacks: &s {transformer_blocks: *s}\n",
    b"origin: &o {again: *o}\n" + but(b"origin", b"# origin"),
    BILLION,
    but(b"{rule: amber", b"&o {again: *o, rule: amber"),
    but(b"keep: 4", b"keep: 2001-12-14"),
    but(b"keep: 4", b"keep: !!binary aGVsbG8="),
    but(b"keep: 4", b"1: 4"),
    but(b"keep: 4", b"keep: " + b"9" * 4000),
    but(b"rule: amber", b"? [1, 2] : amber"),
    but(b"blocks: 0", b"blocks: 0, blocks: 0"),
    but(b"gain: 2", b"gain: .nan"),
    but(b"keep: 4", b"keep: .nan"),
    but(b"teacher: tiny", b'teacher: "\\ud800"'),
    but(b"[1, 2]", b"[1, 999999999999999999]"),
)


def put(text: bytes, one: int, value: bytes) -> bytes:
    at = one % (len(text) + 1)
    return text[:at] + value + text[at:]


def flip(text: bytes, one: int, two: int) -> bytes:
    at = one % max(len(text), 1)
    return text[:at] + bytes(byte ^ 1 << two % 8 for byte in text[at : at + 1]) + text[at + 1 :]


def cut(text: bytes, one: int, two: int) -> bytes:
    at = one % (len(text) + 1)
    return text[:at] + text[at + two % 40 :]


def word(text: bytes, one: int, two: int) -> bytes:
    """Another value in place of a word or a number."""
    words = text.translate(bytes.maketrans(b",[]{}", b"     ")).split() or [b"x"]
    return text.replace(words[one % len(words)], VALUES[two % len(VALUES)], 1)


def number(text: bytes, one: int, two: int) -> bytes:
    """Another number or name in place of a digit: often a sound plan."""
    digits = [at for at, byte in enumerate(text) if byte in b"0123456789"] or [0]
    at = digits[one % len(digits)]
    return text[:at] + NUMBERS[two % len(NUMBERS)] + text[at + 1 :]


def by_line(
    change: Callable[[list[bytes], int, int], list[bytes]],
) -> Callable[[bytes, int, int], bytes]:
    def made(text: bytes, one: int, two: int) -> bytes:
        held = text.splitlines(keepends=True) or [b""]
        return b"".join(change(held, one % len(held), two % len(held)))

    return made


MUTATIONS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "flip": flip,
    "cut": cut,
    "word": word,
    "number": number,
    "byte": lambda text, one, two: put(text, one, bytes([two % 256])),
    "value": lambda text, one, two: put(text, one, VALUES[two % len(VALUES)]),
    "end": lambda text, one, two: text[: one % (len(text) + 1)],
    "drop line": by_line(lambda held, one, two: held[:one] + held[one + 1 :]),
    "double line": by_line(lambda held, one, two: [*held[:two], held[one], *held[two:]]),
    "move line": by_line(
        lambda held, one, two: [
            *(rest := held[:one] + held[one + 1 :])[:two],
            held[one],
            *rest[two:],
        ]
    ),
    "indent": by_line(
        lambda held, one, two: [
            *held[:one],
            b" " * (two % 7) + held[one].lstrip(),
            *held[one + 1 :],
        ]
    ),
    "whole": lambda text, one, two: WHOLE[two % len(WHOLE)],
}
MANGLED = st.lists(
    st.tuples(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 2**12), st.integers(0, 2**12)),
    min_size=1,
    max_size=4,
)


def mangled(changes: list[tuple[str, int, int]]) -> bytes:
    text = TEXT
    for name, one, two in changes:
        text = MUTATIONS[name](text, one, two)
    return text


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def teacher(config: Path) -> Teacher:
    return models.describe(config, str(config))


def told(path: Path, teacher: Teacher) -> str:
    """The one line that refuses the file; empty where it is a sound plan that can be kept."""
    try:
        plan = plans.check(Plan.load(path), teacher)
    except BadInput as error:
        assert str(error).isprintable() and len(str(error)) < 1200, str(error)[:2000]
        return str(error)
    assert plans.plan_info(plan, teacher).parameters > 0 and plan.digest
    plan.save(path.with_name("again.yaml"))
    assert Plan.load(path.with_name("again.yaml")) == plan
    return ""


def test_the_whole_file_is_sound(tmp_path: Path, teacher: Teacher) -> None:
    (tmp_path / "plan.yaml").write_bytes(TEXT)
    assert told(tmp_path / "plan.yaml", teacher) == ""


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_files_that_once_hurt(tmp_path: Path, teacher: Teacher, number: int) -> None:
    (tmp_path / "plan.yaml").write_bytes(WHOLE[number])
    told(tmp_path / "plan.yaml", teacher)


@drawn(1000)
@given(MANGLED)
def test_a_mangled_plan_is_one_clear_line_or_a_sound_plan(
    teacher: Teacher, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.yaml"
    path.write_bytes(mangled(changes))
    told(path, teacher)


def command(path: Path, config: Path, home: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `workbench plan-info`, in this process."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = cli.run(
            ["plan-info", str(path), "--teacher", str(config), "--workspace", str(home), "--json"]
        )
    return code, out.getvalue(), error.getvalue()


@drawn(25)
@given(MANGLED)
def test_the_command_line_says_it_in_one_line_and_exits_2(
    teacher: Teacher,
    config: Path,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, int, int]],
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.yaml"
    path.write_bytes(mangled(changes))
    code, out, error = command(path, config, path.with_name("workspace"))
    refused = told(path, teacher)
    if refused:
        assert (code, out) == (2, "") and error.count("\n") == 1 and refused in error
    else:
        assert code == 0 and json.loads(out)["parameters"] > 0


def test_a_process_of_its_own_says_it_too(config: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_bytes(b"origin: &o {again: *o}\n" + TEXT)
    flags = ["--teacher", str(config), "--workspace", str(tmp_path / "workspace")]
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "plan-info", str(tmp_path / "plan.yaml"), *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr

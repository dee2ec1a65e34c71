"""The model card of a built student: the picture agrees with the plan, and no path of this machine
is told.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.plans.qwen import teacher
from tests.tiny import tiny_qwen_pipeline
from workbench import models, plans, surgery
from workbench.records import Plan, Span

PATH = "transformer_blocks"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_has_every_block_of_teacher_and_student_once_and_a_ribbon_a_span():
    known = teacher(6)
    spans = [
        Span(blocks=(0, 1), init="mean", gain=2.0),
        Span(blocks=(2, 4)),
        Span(blocks=(5, 5), stream="single", drop=("attn",)),
    ]
    drawn = ET.fromstring(
        plans.picture(Plan(teacher="qwen", family="qwenimage", stacks={PATH: spans}), known)
    )
    titles = [title.text or "" for title in drawn.iter(f"{SVG}title")]
    assert [t for t in titles if t.startswith(PATH)] == [
        f"{PATH} {b}: {word}"
        for b, word in enumerate(
            ["several in one", "several in one", "kept", "dropped", "dropped", "kept"]
        )
    ]
    assert [t for t in titles if t.startswith("student")] == [
        "student block 0: of 0 to 1, init mean, gain 2",
        "student block 1: of 2 to 4, init first",
        "student block 2: of 5, single-stream, without attn",
    ]
    assert len(list(drawn.iter(f"{SVG}polygon"))) == len(spans)


def test_a_built_students_card_says_what_it_is_made_of_and_names_no_folder_of_this_machine(
    tmp_path: Path,
):
    folder = tiny_qwen_pipeline(tmp_path / "secret" / "tiny", depth=3)
    known = models.describe(folder, str(folder))
    spans = [Span(blocks=(0, 1), init="mean"), Span(blocks=(2, 2), stream="single")]
    plan = Plan(teacher=str(folder), family="qwenimage", stacks={PATH: spans})
    *_, last = surgery.build(folder, known, plan, tmp_path / "student")
    text = (tmp_path / "student" / "README.md").read_text("utf-8")
    assert (
        "teacher blocks 0 to 1, init mean" in text
        and "trust_remote_code=True" in text
        and "plan.svg" in text
    )
    assert f"{last.result['parameters']:,}" in text
    assert str(tmp_path) not in text and str(tmp_path) not in (
        tmp_path / "student" / "plan.svg"
    ).read_text("utf-8")

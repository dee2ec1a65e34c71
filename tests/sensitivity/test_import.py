"""Published tables: HierarchicalPrune's file where it is at hand, and a small one of the same
shape.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import models, plans
from workbench.records import BadInput, Teacher
from workbench.sensitivity.importing import import_table
from workbench.tasks.import_map import CONFIG, SD35_LARGE_TURBO

REAL = (
    Path(__file__).resolve().parents[3] / "shared" / "data" / "sd35_large_turbo_hpsv2_ablation.json"
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return models.describe(CONFIG, SD35_LARGE_TURBO)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text(
        json.dumps(
            {
                "3<tab>ff": 30.0,
                "3": 20.5,
                "0<tab>w_norm1_context": 31,
                "37<tab>attn": 30.1,
                "37<tab>ff_context": 30.2,
            }
        )
    )
    return path


def test_the_teacher_is_the_published_one(teacher: Teacher) -> None:
    [stack] = teacher.stacks
    assert (teacher.family, stack.depth, teacher.dtype, teacher.fingerprint) == (
        "sd3",
        38,
        "bfloat16",
        "",
    )
    assert stack.block_parameters(0) / 1e6 == pytest.approx(213.00, abs=0.01)
    assert stack.block_parameters(37) / 1e6 == pytest.approx(136.09, abs=0.01)
    # "8.06 B" in OBS-Diff's table
    assert teacher.parameters / 1e9 == pytest.approx(8.057, abs=0.001)


def test_score_is_baseline_minus_value(table: Path, teacher: Teacher) -> None:
    record = import_table(table, teacher, 30.29)
    scores = {(row.edit, row.block): row.score for row in record.rows}
    assert scores == pytest.approx(
        {
            ("drop", 3): 9.79,
            ("drop:mlp", 3): 0.29,
            ("drop:text.modulation", 0): -0.71,
            ("drop:attn", 37): 0.19,
            ("drop:text.mlp", 37): 0.09,
        }
    )
    assert (record.metric, record.direction, record.teacher, record.family) == (
        "hpsv2",
        "higher = keep",
        SD35_LARGE_TURBO,
        "sd3",
    )
    assert record.measured["removal"] == "passthrough" and record.measured["baseline"] == 30.29
    assert (
        "HPSv2" in record.unit
        and record.timesteps == []
        and {row.stack for row in record.rows} == {"transformer_blocks"}
    )


def test_rows_of_what_block_37_has_not_are_kept_and_flagged(table: Path, teacher: Teacher) -> None:
    flags = {(row.edit, row.block): row.flag for row in import_table(table, teacher, 30.29).rows}
    assert flags["drop:text.mlp", 37] == "block 37 has no text.mlp"
    assert "pinned" in flags["drop:attn", 37] and flags["drop:mlp", 3] is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('["31<tab>ff"]', "holds a list"),
        ("{}", "holds nothing"),
        ("{", "is not JSON"),
        ('{"3<tab>ff": NaN}', "nan"),
        ('{"31<tab>ff": "high"}', "31<tab>ff"),
        ('{"thirty-one": 3.0}', "thirty-one"),
        ('{"38<tab>ff": 3.0}', "block 38"),
        ('{"31<tab>gate": 3.0}', "component of attn, ff"),
    ],
)
def test_files_of_another_shape(tmp_path: Path, teacher: Teacher, content: str, says: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(BadInput) as refused:
        import_table(tmp_path / "odd.json", teacher, 30.29)
    assert says in f"{refused.value.found} {refused.value.expected}"


@pytest.mark.skipif(not REAL.is_file(), reason="the published table is not at hand")
def test_the_published_table(teacher: Teacher) -> None:
    record = import_table(REAL, teacher, 30.29)
    raw = json.loads(REAL.read_text())
    assert len(record.rows) == len(raw) == 190
    names = {
        "drop:attn": "attn",
        "drop:mlp": "ff",
        "drop:text.mlp": "ff_context",
        "drop:modulation": "w_norm1",
        "drop:text.modulation": "w_norm1_context",
    }
    assert record.edits and set(record.edits) == set(names)
    for row in record.rows:
        assert row.score == pytest.approx(30.29 - raw[f"{row.block}<tab>{names[row.edit]}"])
    assert [row.block for row in record.rows if row.flag] == [37] * 5
    means = [
        sum(r.score for r in record.rows if r.edit == "drop:text.mlp" and r.block in blocks)
        / len(blocks)
        for blocks in (range(13), range(13, 25), range(25, 38))
    ]
    # averages taken from the table by hand
    assert [30.29 - mean for mean in means] == pytest.approx([29.9, 28.8, 29.9], abs=0.06)
    top = plans.block_scores(record, "drop:modulation", "uniform")
    assert max(top, key=top.__getitem__)[1] < 24, "image modulation is vital before block 24"

"""Teachers and maps with the structure real ones have, made of arithmetic alone: for tests of what
is drawn.
"""

from __future__ import annotations

import json
import math
import random

from workbench.records import Card, Comparison, ModelResult, Row, SensitivityMap, StackInfo, Teacher
from workbench.workspace import jobs
from workbench.workspace.job_files import metrics_file
from workbench.workspace.jobs import Job
from workbench.workspace.store import Store

TIMES = (999.0, 950.0, 800.0, 600.0, 400.0, 200.0, 100.0, 50.0)


def joint_attention(dim: int) -> dict[str, list[int]]:
    """The projections of one attention over image and text."""
    names = ("to_q", "to_k", "to_v", "to_out.0")
    text_names = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    return {f"attn.{name}.weight": [dim, dim] for name in (*names, *text_names)}


def layout(dim: int) -> dict[str, list[int]]:
    """A dual-stream block of Qwen-Image at width `dim`."""
    out = joint_attention(dim)
    for stream in ("img", "txt"):
        out |= {
            f"{stream}_mod.1.weight": [6 * dim, dim],
            f"{stream}_mlp.net.0.proj.weight": [4 * dim, dim],
            f"{stream}_mlp.net.2.weight": [dim, 4 * dim],
        }
    return out


def teacher(depth: int = 24, dim: int = 128, name: str = "synthetic") -> Teacher:
    stack = StackInfo(
        path="transformer_blocks", kind="dual", layouts=[layout(dim)], layout_of=[0] * depth
    )
    return Teacher(
        name=name,
        family="qwenimage",
        class_name="QwenImageTransformer2DModel",
        stacks=[stack],
        outside=11 * dim * dim,
        fingerprint=f"synthetic{depth}",
        config={"num_layers": depth},
    )


def without_modulation(depth: int = 4, dim: int = 64) -> Teacher:
    """A teacher whose blocks share one modulation outside them, as Qwen-Image 2.1's do."""
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out", "img_mlp.out")
    stack = StackInfo(
        path="transformer_blocks",
        kind="single",
        layouts=[{f"{name}.weight": [dim, dim] for name in names}],
        layout_of=[0] * depth,
    )
    return Teacher(
        name="shared modulation",
        family="qwenimage21",
        class_name="QwenImage21Transformer2DModel",
        stacks=[stack],
        outside=11 * dim * dim,
        fingerprint="syntheticshared",
        config={"num_layers": depth},
    )


def sensitivity(
    of: Teacher, edits: tuple[str, ...] = ("drop", "merge"), times: tuple[float, ...] = TIMES
) -> SensitivityMap:
    """High at both ends and for one block in the middle; 20-45 times higher at low noise; merging
    costs less than dropping.
    """
    rng = random.Random(0)
    rows = []
    for stack in of.stacks:
        for block in range(stack.depth):
            ends = 0.2 * math.exp(-block / 1.5) + 0.25 * math.exp(-(stack.depth - 1 - block) / 2.0)
            base = 0.002 + ends + 0.08 * (block == round(stack.depth * 0.75)) + 0.004 * rng.random()
            for edit in edits:
                if edit == "merge" and block == stack.depth - 1:
                    continue
                for time in times:
                    noise = 1 + 30 * math.exp(-time / 150)
                    score = (
                        base
                        * noise
                        * (1 if edit == "drop" else 0.1)
                        * math.exp(rng.gauss(0, 0.15))
                        * 0.3
                    )
                    rows.append(
                        Row(
                            stack=stack.path,
                            block=block,
                            edit=edit,
                            timestep=time,
                            score=score,
                            stderr=score * 0.08,
                        )
                    )
    return SensitivityMap(
        teacher=of.name,
        fingerprint=of.fingerprint,
        family=of.family,
        rows=rows,
        measured={"prompts": 8, "seeds": [0], "guidance": 3.5, "steps": 20},
    )


EDITS = (
    "drop",
    "merge",
    "single",
    "int4",
    "drop:attn",
    "drop:mlp",
    "drop:text.attn",
    "drop:text.mlp",
)
SHARE = {
    "drop": 1.0,
    "merge": 0.1,
    "single": 0.4,
    "int4": 0.02,
    "drop:attn": 0.6,
    "drop:mlp": 0.35,
    "drop:text.attn": 0.08,
    "drop:text.mlp": 0.12,
}


def full(of: Teacher) -> SensitivityMap:
    """A map of every edit, with the stability of the ranking."""
    base = sensitivity(of, ("drop",))
    rng = random.Random(1)
    rows = [
        row.model_copy(
            update={
                "edit": edit,
                "score": (score := row.score * SHARE[edit] * math.exp(rng.gauss(0, 0.3))),
                "stderr": score * 0.08,
            }
        )
        for edit in EDITS
        for row in base.rows
        if not (edit == "merge" and row.block == of.stack(row.stack).depth - 1)
    ]
    told = {
        "drop": {"spearman": 0.98, "low": 0.95, "high": 0.99, "prompts": 8, "stable": True},
        "merge": {"spearman": 0.71, "low": 0.6, "high": 0.8, "prompts": 8, "stable": False},
    }
    return base.model_copy(update={"rows": rows, "measured": base.measured | {"stability": told}})


def flux(dual: int = 19, single: int = 38, dim: int = 64) -> Teacher:
    """A teacher of two stacks, as FLUX.1 has them."""
    joint = joint_attention(dim)
    for norm, feed in (("norm1", "ff"), ("norm1_context", "ff_context")):
        joint |= {
            f"{norm}.linear.weight": [6 * dim, dim],
            f"{feed}.net.0.proj.weight": [4 * dim, dim],
            f"{feed}.net.2.weight": [dim, 4 * dim],
        }
    one = {f"attn.{n}.weight": [dim, dim] for n in ("to_q", "to_k", "to_v")} | {
        "norm.linear.weight": [3 * dim, dim],
        "proj_mlp.weight": [4 * dim, dim],
        "proj_out.weight": [dim, 5 * dim],
    }
    stacks = [
        StackInfo(path="transformer_blocks", kind="dual", layouts=[joint], layout_of=[0] * dual),
        StackInfo(
            path="single_transformer_blocks", kind="single", layouts=[one], layout_of=[0] * single
        ),
    ]
    return Teacher(
        name="black-forest-labs/FLUX.1-a-long-name-that-a-person-might-give@0123456789abcdef",
        family="flux",
        class_name="FluxTransformer2DModel",
        stacks=stacks,
        outside=9 * dim * dim,
        fingerprint="syntheticflux",
    )


def imported(of: Teacher) -> SensitivityMap:
    """A table of another metric, as `import-map` makes them: no timesteps, no errors, flags, scores
    below zero.
    """
    rng = random.Random(2)
    rows = [
        Row(
            stack=of.stacks[0].path,
            block=block,
            edit=f"drop:{part}",
            score=6 * math.exp(-block / 2) * share + rng.gauss(0, 0.12),
            flag="block has no such part"
            if (block, part) == (of.stacks[0].depth - 1, "text.mlp")
            else None,
        )
        for part, share in (("attn", 1.0), ("mlp", 0.7), ("text.attn", 0.5), ("text.mlp", 0.2))
        for block in range(of.stacks[0].depth)
    ]
    return SensitivityMap(
        teacher=of.name,
        fingerprint=of.fingerprint,
        family=of.family,
        metric="hpsv2",
        unit="HPSv2 points lost",
        rows=rows,
        measured={"removal": "passthrough", "source": "a published table", "baseline": 30.29},
    )


def spans(of: Teacher) -> SensitivityMap:
    """A map whose rows cover spans, as CKA's do."""
    path, depth = of.stacks[0].path, of.stacks[0].depth
    rows = [
        Row(stack=path, block=a, last=b, edit="span", score=1 - math.exp(-(b - a) / 6))
        for a in range(depth)
        for b in range(a, depth)
    ]
    return SensitivityMap(
        teacher=of.name,
        fingerprint=of.fingerprint,
        family=of.family,
        metric="cka",
        unit="1 - CKA",
        rows=rows,
    )


def recovery(of: Teacher) -> SensitivityMap:
    """A map of metric recovery: every span of two to four blocks, at two timesteps, before and
    after training.
    """
    rows = [
        Row(
            stack=s.path,
            block=a,
            last=b,
            edit=edit,
            timestep=time,
            stderr=1e-4,
            score=0.01 * (b - a + a % 2) * factor * (2 if time < 500 else 1),
        )
        for edit, factor in (("zero-shot", 5.0), ("recovered", 1.0))
        for s in of.stacks
        for a in range(s.depth)
        for b in range(a + 1, min(a + 4, s.depth))
        for time in (900.0, 100.0)
    ]
    return SensitivityMap(
        teacher=of.name,
        fingerprint=of.fingerprint,
        family=of.family,
        metric="recovery",
        rows=rows,
        measured={"prompts": 40, "training": {"steps": 60}, "shapes": []},
    )


def recoverability(of: Teacher) -> list[dict]:
    """What a distillation measures: two stages, spans of one to four blocks of every stack, some of
    which got nowhere.
    """
    out = []
    for stage, share in (("warm start", 0.3), ("end to end, with a very long name " * 4, 0.02)):
        for stack in of.stacks:
            at = 0
            for number in range(stack.depth):
                length = min(1 + number % 4, stack.depth - at)
                if length < 1:
                    break
                out.append(
                    {
                        "stage": stage,
                        "stack": stack.path,
                        "span": number,
                        "first": at,
                        "last": at + length - 1,
                        "before": 0.02 * 3.0**length,
                        "after": 0.02 * 3.0**length * (share if number % 5 else 0.9),
                    }
                )
                at += length
    return out


def distilled(store: Store, of: Teacher, title: str = "distill student") -> Job:
    """A finished distillation in a workspace, with its student's card."""
    out = store.workspace / "students" / "student"
    spec = {
        "name": "x",
        "stages": [{"name": row} for row in dict.fromkeys(r["stage"] for r in recoverability(of))],
    }
    Card(
        teacher=of.name,
        teacher_fingerprint=of.fingerprint,
        original=of.name,
        original_fingerprint=of.fingerprint,
        plan={},
        spec=spec,
        parameters=1,
        teacher_parameters=2,
        original_parameters=2,
    ).save(out / "card.json")
    job = jobs.submit(store, "distill", {"student": str(out)}, title=title, start=False)
    (job.folder / "result.json").write_text(
        json.dumps({"student": str(out), "recoverability": recoverability(of)})
    )
    with store.db() as db:
        db.execute(
            "UPDATE job SET state = 'done', started = created, ended = created WHERE id = ?",
            (job.id,),
        )
    return jobs.show(store, job.id)


def metrics(steps: int, blocks: int = 0, parts: tuple[str, ...] = (), first: int = 1) -> list[dict]:
    """Lines of a distillation's metrics, with losses of so many blocks, and learning rate and speed
    where it has any.
    """
    rng = random.Random(first)
    lines = []
    for step in range(first, first + steps):
        level = 0.02 + 2 * math.exp(-step / 60)
        names = ["loss", *parts, *(f"loss/transformer_blocks.{block}" for block in range(blocks))]
        values = {
            name: level * math.exp(rng.gauss(0, 0.3)) / (1 + i) for i, name in enumerate(names)
        }
        line = {"step": step, "time": 1.79e9 + 1.7 * step, **values}
        if blocks:
            line |= {"lr": 1e-4 * min(1.0, step / 40), "gradient_norm": 3 * level}
            line |= {"samples_per_second": 3 + rng.random()}
        lines.append(line)
    return lines


def job(store: Store, state: str, lines: list[dict] | None = None, title: str = "distill") -> Job:
    """A job in a workspace that is said to be in this state, with its metrics."""
    made = jobs.submit(store, "info", {"teacher": "demo"}, title=title, start=False)
    write_metrics(made, lines or [])
    with store.db() as db:
        db.execute(
            "UPDATE job SET state = ?, started = created, ended = created WHERE id = ?",
            (state, made.id),
        )
    return jobs.show(store, made.id)


def write_metrics(of: Job, lines: list[dict], attempt: int = 1) -> None:
    with open(metrics_file(of.folder, attempt), "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def comparison() -> Comparison:
    def model(name: str, scale: float) -> ModelResult:
        scores = {
            "overall": 0.62 * scale,
            "low": 0.55 * scale,
            "high": 0.69 * scale,
            "single": 0.9 * scale,
            "two": 0.75 * scale,
            "position": 0.5 * scale,
            "count": 0.62 * scale,
            "text": 0.32 * scale,
        }
        return ModelResult(
            name=name,
            source=name,
            parameters=int(14.2e6 * scale),
            bytes=int(28.4e6 * scale),
            ms_per_step=20 * scale,
            scores={"scenes": scores},
            retention={"scenes": scale},
        )

    return Comparison(
        suite="scenes",
        prompts=["a red circle", "two <b>blue</b> squares ${1+1}"],
        seeds=[0, 1],
        steps=20,
        guidance=3.5,
        size=96,
        models=[model("demo", 1.0), model("student-12", 0.9)],
        images={
            "demo": [f"images/demo-{i}.png" for i in range(4)],
            "student-12": [f"images/student-12-{i}.png" for i in range(4)],
        },
    )

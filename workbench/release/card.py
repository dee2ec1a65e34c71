"""The model card of a release (README.md): what the student is, beside its teacher, and what was
lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined

from ..families import FAMILIES
from ..models.sampling_defaults import Sampling
from ..plans import SAVES, is_factored
from ..plans.describe_span import blocks_in_words, span_words
from ..records import Card, Difference, Plan, Score
from ..records.picture_size import sides
from .evidence import Change, Evidence
from .licence import Licence
from .single_file import SingleFile

STRIP = "pictures.png"


@dataclass(frozen=True)
class Facts:
    """What the card is written from. task: as the Hub names it; code: the modeling file's path,
    empty for a stock class; sampling: None for a transformer alone; strip, drawing: whether there
    are pictures of both models, and one of the plan; dtype: of the stored weights; single: the one
    file for another program than diffusers.
    """

    card: Card
    plan: Plan
    licence: Licence
    evidence: Evidence | None
    task: str
    pipeline: bool
    code: str
    sampling: Sampling | None
    strip: bool
    drawing: bool
    dtype: torch.dtype
    repo: str = ""
    single: SingleFile | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table beside the teacher."""

    label: str
    teacher: str
    student: str


@dataclass(frozen=True)
class Lost:
    """A scorer's categories, what lost most first."""

    scorer: str
    unit: str
    direction: str
    rows: list[Change]


def model_card(facts: Facts) -> str:
    """The text of README.md."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cell
    source = (resources.files("workbench.release") / "card.md.jinja").read_text("utf-8")
    return environment.from_string(source).render(template_values(facts))


def template_values(facts: Facts) -> dict[str, Any]:
    """What the template shows."""
    card, evidence = facts.card, facts.evidence
    original = short_name(card.original)
    is_hub_id = "/" in original
    share = 100 * card.parameters / card.original_parameters
    link = f"`{original}`"
    if is_hub_id:
        link = f"[{original}](https://huggingface.co/{original.partition('@')[0]})"
    trust = "" if card.stock else ", trust_remote_code=True"
    return {
        "card": card,
        "title": f"{original.split('/')[-1]}, {share:.0f} % of its parameters",
        "class_name": FAMILIES[facts.plan.family].transformer,
        "drawing": facts.drawing,
        "task": facts.task,
        "front_matter": front_matter(facts, original if is_hub_id else ""),
        "original_link": link,
        "depths": depths(facts.plan),
        "strip": STRIP if facts.strip else "",
        "captions": evidence.captions() if evidence else [],
        "loader": "DiffusionPipeline" if facts.pipeline else "AutoModel",
        "repo": facts.repo,
        "single": facts.single,
        "trust": trust,
        "call": call(facts),
        "dtype": facts.dtype,
        "code": facts.code,
        "saves": SAVES if is_factored(facts.plan) else "",
        "evidence": evidence,
        "comparison": evidence.comparison if evidence else None,
        "table": list(table(evidence)) if evidence else [],
        "verdicts": list(verdicts(evidence)) if evidence else [],
        "losses": list(losses(evidence)) if evidence else [],
        "rule": facts.plan.origin.get("recipe") or facts.plan.origin.get("rule") or "hand",
        "blocks": list(blocks(facts.plan)),
        "training": list(training(card)),
        "lineage": lineage(card),
        "terms": terms(facts.licence, original),
    }


def cell(text: object) -> str:
    """Text in a line or cell of Markdown: no line breaks, nothing that a table or HTML reads."""
    line = " ".join(str(text).split())
    for sign, shown in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`"), ("[", "\\[")):
        line = line.replace(sign, shown)
    return line


def short_name(source: str) -> str:
    """A Hub id or a bundled teacher as it is; of a folder on this machine only its name."""
    return Path(source).name if Path(source).expanduser().is_absolute() else source


def front_matter(facts: Facts, hub_id: str) -> list[str]:
    """Lines of YAML for the Hub: the licence and the base model."""
    lines = []
    for key, value in facts.licence.entries.items():
        lines.append(f"{key}: {json.dumps(value)}")  # JSON is YAML, whatever the text holds
    if hub_id:
        lines += [f"base_model: {hub_id.partition('@')[0]}", "base_model_relation: finetune"]
    return lines


def depths(plan: Plan) -> list[str]:
    """Blocks of each stack, in words: those of the direct teacher, then the student's."""
    words = []
    for stack, spans in plan.stacks.items():
        words.append(f"{stack}: {spans[-1].last + 1} → {len(spans)} blocks")
    return words


def call(facts: Facts) -> str:
    """The arguments of a call with the settings that the model is meant to have."""
    family = FAMILIES[facts.plan.family]
    sampling = facts.sampling
    if not facts.pipeline or sampling is None or facts.task != "text-to-image":
        return ""
    arguments = ['"a prompt"']
    if family.is_class_conditional:
        arguments = ["class_labels=[0]"]
    arguments.append(f"num_inference_steps={sampling.steps}")
    if family.guidance:
        arguments.append(f"{family.guidance}={sampling.guidance:g}")
    if family.guidance == "true_cfg_scale":
        arguments.append('negative_prompt=" "')
    if not family.is_class_conditional:
        height, width = sides(sampling.size)
        arguments += [f"width={width}", f"height={height}"]
    return ", ".join(arguments)


def table(evidence: Evidence) -> Iterator[Row]:
    """Size, time and scores of both."""
    before, after = evidence.teacher, evidence.student
    yield Row("parameters", f"{before.parameters:,}", f"{after.parameters:,}")
    yield Row("transformer, GB", f"{before.bytes / 1e9:.3g}", f"{after.bytes / 1e9:.3g}")
    if before.ms_per_step > 0:
        share = after.ms_per_step / before.ms_per_step
        yield Row("time per step, measured side by side", "1", f"{share:.2f}")
    for scorer in evidence.scorers():
        old, new = before.scores[scorer], after.scores[scorer]
        yield Row(f"{scorer} ({new.direction})", with_interval(old), with_interval(new))
        retention = after.retention.get(scorer)
        if retention is not None:
            yield Row(f"{scorer}, of the teacher's", "100 %", f"{100 * retention:.1f} %")


def with_interval(score: Score) -> str:
    """A score with its 95 % interval, where it has one."""
    if score.low is None or score.high is None:
        return f"{score.overall:.3f}"
    return f"{score.overall:.3f} ({score.low:.3f} to {score.high:.3f})"


def verdicts(evidence: Evidence) -> Iterator[str]:
    """What the paired difference of each scorer says, a sentence each."""
    for scorer in evidence.scorers():
        difference = evidence.difference(scorer)
        if difference is not None and difference.low is not None:
            yield verdict(scorer, difference, evidence.student.scores[scorer])


def verdict(scorer: str, difference: Difference, score: Score) -> str:
    gain = difference.mean if score.higher_is_better else -difference.mean
    interval = f"{difference.mean:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}"
    if not difference.significant:
        return (
            f"`{scorer}`: the paired difference to the teacher ({interval}) includes 0: these "
            "prompts show no loss and no gain."
        )
    word = "better" if gain > 0 else "worse"
    return f"`{scorer}`: {word} than the teacher, by the paired difference ({interval})."


def losses(evidence: Evidence) -> Iterator[Lost]:
    """Each scorer's categories, for scorers that have several."""
    for scorer in evidence.scorers():
        score = evidence.student.scores[scorer]
        rows = evidence.changes(scorer)
        if len(rows) > 1:
            yield Lost(scorer, score.unit or scorer, score.direction, rows)


def blocks(plan: Plan) -> Iterator[str]:
    """Student blocks that are not plain copies, a line each."""
    for stack, spans in plan.stacks.items():
        for number, span in enumerate(spans):
            if not span.plain:
                made_of = f"teacher {blocks_in_words(span.first, span.last)}"
                yield f"`{stack}` {number}: " + ", ".join([made_of, *span_words(span)])


def training(card: Card) -> Iterator[str]:
    """The distillation in sentences; none where there was none."""
    run = card.metrics.get("distill")
    if not run:
        return
    stages = (card.spec or {}).get("stages", [])
    names = [str(stage.get("name") or stage.get("target")) for stage in stages]
    listed = f" in {len(names)} stage{'' if len(names) == 1 else 's'} ({', '.join(names)})"
    yield f"Distilled for {run.get('steps', 0):,} steps{listed if names else ''}."
    if stages and stages[-1].get("batch"):
        last = stages[-1]
        accumulate = last.get("accumulate") or 1
        yield (
            f"Last stage: batch {last['batch'] * accumulate}, {last.get('optimizer')}, "
            f"learning rate {last.get('lr'):g}."
        )


def lineage(card: Card) -> list[str]:
    """Names from the original teacher to this student's direct teacher."""
    return [short_name(str(link.get("teacher", ""))) for link in card.chain]


def terms(licence: Licence, original: str) -> str:
    """Under which terms the model may be used, in sentences."""
    files = ", ".join(f"[{path.name}]({path.name})" for path in licence.files)
    if not licence.source:
        return (
            f"The licence of {original} was not found when this folder was made. It binds this "
            "model too: look it up before you use or share it."
        )
    name = licence.name or "the terms in its files"
    text = f"Licence: {name}, carried over from {licence.source}."
    link = licence.entries.get("license_link")
    if link:
        text += f" Its text: {link}."
    if files:
        text += f" Files: {files}."
    return text

"""Write docs/at-scale.md: four large models on four machines, by dry runs.

python docs/at_scale.py                      # runs what docs/at-scale.json lacks, then writes the page
python docs/at_scale.py --only qwen-image    # of one model
python docs/at_scale.py --again              # runs all of it again: an hour of one core
python docs/at_scale.py --page               # writes the page from the file alone
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from at_scale_models import MODELS  # noqa: E402
from at_scale_runs import CARDS, PROMPTS, TIMESTEPS, WORKS, encoding, kept, run  # noqa: E402
from at_scale_words import CARD_TITLES, END, HEAD, NOT_ALONE, commands  # noqa: E402

from workbench.distillation.estimate import RESERVE, USED, Devices  # noqa: E402
from workbench.recipes.table import load  # noqa: E402
from workbench.records import yamlfile  # noqa: E402

PAGE = Path(__file__).with_name("at-scale.md")
GB = 1e9
NAMES = {"whole": "teacher whole", "streamed": "teacher streamed"}
FLAGS = {
    "whole": "--placement text-first",
    "streamed": "--placement streamed",
    "int8": "--placement text-first --teacher-weights int8",
    "nf4": "--placement text-first --teacher-weights nf4",
}
NONE = "not run"
ONE_LARGE = "1x80GB"


def page() -> str:
    """The whole page as Markdown, from the kept results alone."""
    results = kept()
    lines = [HEAD, *decision(results)]
    for card in CARDS:
        lines += ["", f"## {CARD_TITLES[card]}", "", *card_section(results, card)]
    return "\n".join([*lines, "", END]) + "\n"


def decision(results: dict[str, Any]) -> list[str]:
    """One row per model and card."""
    columns = ("model", "card", "profile", "one-card: pairs of blocks", "end to end")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for name, model in MODELS.items():
        for card in CARDS:
            cells = [model.title, shown(card), profile_cell(results, name, card)]
            cells += [turns_cell(results, name, card), full_cell(results, name, card)]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def shown(card: str) -> str:
    """`1x24GB` as 1 x 24 GB."""
    count, _, size = card.partition("x")
    return f"{count} x {size.removesuffix('GB')} GB"


# --- profile --------------------------------------------------------------------------------------


def profile_way(results: dict[str, Any], name: str, card: str) -> tuple[str, float, float] | None:
    """The placement, GB at the peak and hours of a scan on one card: the first way that fits."""
    found = results.get(f"{name} profile")
    if found is None:
        return None
    devices = Devices.parse(card)
    size = results[f"{name} sizes"]
    prompts = size["text_encoders"] + size["others"] + RESERVE
    for placement, use in found.items():
        scanned = sum(use["kinds"].values()) + size["others"] + RESERVE
        peak = max(scanned, prompts)
        if peak <= devices.memory:
            model = MODELS[name]
            flops = TIMESTEPS * (use["forward_flops"] + use["edits_flops"])
            flops += model.steps * model.branches * use["forward_flops"]
            seconds = PROMPTS * flops / (USED * devices.peak * devices.count)
            return placement, peak / GB, seconds / 3600
    return None


def profile_cell(results: dict[str, Any], name: str, card: str) -> str:
    if f"{name} profile" not in results:
        return NONE
    way = profile_way(results, name, card)
    if way is None:
        return "does not fit"
    placement, size, hours = way
    return f"{placement}: {size:.1f} GB, {duration(hours)}"


# --- distill --------------------------------------------------------------------------------------


def chosen(results: dict[str, Any], name: str, work: str, card: str) -> dict[str, Any] | None:
    """The answer that fits, while the data are made and while it trains; None where none does."""
    memory = Devices.parse(card).memory
    size = results[f"{name} sizes"]
    for row in results.get(f"{name} {work} {card}", []):
        if row["fits"] and encoding(row["held"], size) <= memory:
            return dict(row)
    return None


def turns_cell(results: dict[str, Any], name: str, card: str) -> str:
    """What `one-card` takes; of eight cards each trains on an eighth of the batch."""
    if f"{name} turns {card}" not in results and card != ONE_LARGE:
        return "not run: each card at most as 1 x 80 GB"
    return cell_of(results, name, "turns", card)


def full_cell(results: dict[str, Any], name: str, card: str) -> str:
    work = "sharded" if Devices.parse(card).count > 1 else "full"
    return cell_of(results, name, work, card)


def cell_of(results: dict[str, Any], name: str, work: str, card: str) -> str:
    tried = results.get(f"{name} {work} {card}")
    if not tried:
        return NONE
    row = chosen(results, name, work, card)
    if row is None and any(each["fits"] for each in tried):
        fitting = next(each for each in tried if each["fits"])
        weights = encoding(fitting["held"], results[f"{name} sizes"]) / GB
        return (
            f"a step fits ({how(fitting, work)}: {fitting['bytes'] / GB:.1f} GB), making the data "
            f"does not: {weights:.1f} GB; other ways were not run"
        )
    if row is None:
        least = min(tried, key=lambda each: each["bytes"])
        return f"does not fit: {least['bytes'] / GB:.1f} GB at the least ({how(least, work)})"
    words = f"{how(row, work)}: {row['bytes'] / GB:.1f} GB"
    if row["host"]:
        words += f" and {row['host'] / GB:.0f} GB of the host"
    return f"{words}, {duration(row['seconds'] / 3600)}"


def how(row: dict[str, Any], work: str) -> str:
    """How the teacher is held and the stage is run."""
    words = "FSDP2" if work == "sharded" else NAMES.get(row["held"], f"teacher in {row['held']}")
    return f"{words}, checkpointed" if row["checkpointing"] else words


def duration(hours: float) -> str:
    if hours < 1:
        return f"{max(hours * 60, 1):.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours:.0f} h"


# --- commands -------------------------------------------------------------------------------------


def card_section(results: dict[str, Any], card: str) -> list[str]:
    """The values of each model, then the commands that use them."""
    lines = ["First the lines of your model:", ""]
    left_out = []
    for name, model in MODELS.items():
        scan = profile_way(results, name, card)
        row = chosen(results, name, "turns", card)
        alone = Devices.parse(card).count == 1
        if row is None and not alone:  # a card has less of each batch than one alone
            row = chosen(results, name, "turns", ONE_LARGE)
        if scan is None or row is None:
            left_out.append(model.title)
            continue
        parts = row["parts"] if alone else 1
        share = load("one-card").distill.stages[0].batch // parts
        teacher = FLAGS[row["held"]] + (" --checkpointing" if row["checkpointing"] else "")
        lines += [
            f"    # {model.title}",
            f"    MODEL={model.hub} DATA={model.data} SCAN='--placement {scan[0]}'",
            f"    TEACHER='{teacher}' BATCH={share} TURNS={parts}",
            "",
        ]
    if left_out:
        lines += [f"{' and '.join(left_out)}: no way that was dry-run fits. {NOT_ALONE}", ""]
    lines += ["Then, in an empty folder:", "", *indented(commands(card, turns_spec()))]
    return lines + full_section(results, card)


def full_section(results: dict[str, Any], card: str) -> list[str]:
    """For which models training end to end fits, and its command."""
    alone = Devices.parse(card).count == 1
    work = "full" if alone else "sharded"
    fitting = {name: chosen(results, name, work, card) for name in MODELS}
    lines = [""]
    for name, row in fitting.items():
        if row is None:
            continue
        options = f"{FLAGS[row['held']]} --checkpointing"
        if not alone:
            options = "--processes 8 --shard --checkpointing"
        recipe = WORKS[work].recipe
        text = spec_text(recipe, row["parts"])
        lines += [
            f"{MODELS[name].title} end to end instead ({row['bytes'] / GB:.1f} GB), as recipe "
            f"`{recipe}`, in turns of what fits:",
            "",
            *indented(f"cat > full.yaml <<END\n{text}\nEND"),
            f"    workbench distill student -o distilled --spec full.yaml --data $DATA {options}",
            "",
        ]
    missing = [MODELS[name].title for name, row in fitting.items() if row is None]
    if missing:
        lines.append(f"End to end does not fit here: {', '.join(missing)}.")
    return lines


def turns_spec() -> str:
    """The stage of `one-card`, with the shell's variables for what a model has room for."""
    text = spec_text("one-card", 4)
    return text.replace("batch: 2", "batch: $BATCH").replace("accumulate: 4", "accumulate: $TURNS")


def spec_text(recipe: str, parts: int) -> str:
    """A recipe's distillation spec, each batch in so many turns."""
    stages = []
    for stage in load(recipe).distill.stages:
        changes = {"batch": stage.batch // parts, "accumulate": stage.accumulate * parts}
        changed = stage.model_copy(update=changes)
        stages.append(changed.model_dump(mode="json", exclude_defaults=True))
    return yamlfile.dump({"name": recipe, "stages": stages}).strip()


def indented(text: str) -> list[str]:
    return [f"    {line}" if line else "" for line in text.strip().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MODELS), default=[])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if not options.page:
        run(options.only, options.again)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()

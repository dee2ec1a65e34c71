"""How each verb's result is printed for people. With --json none of this is used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .console import page

Result = dict[str, Any]
MODEL_COLUMNS = ("name", "parameters", "ms_per_step", "guidance_gap")
REPORT_COLUMNS = ("group", "row", "parameters", "score", "low", "high", "retention", "guidance_gap")


def printer(verb: str, **options: Any) -> Callable[[Result], str]:
    """The function that prints a verb's result; plain facts where the verb has none of its own."""
    return partial(PRINTERS.get(verb, page), **options)


def info(result: Result) -> str:
    parts = []
    for part, parameters in result["parts"].items():
        parts.append({"part": part, "parameters": parameters})
    stacks = []
    for stack in result["stacks"]:
        stacks.append({key: value for key, value in stack.items() if key != "blocks"})
    shown = {**result, "parts": parts, "stacks": stacks}
    found = shown.pop("quantization", None)
    if found is not None:
        shown["quantised"] = (
            f"{found['to']}, {found['bytes'] / 1e6:.1f} MB, {found['ratio']:.3f} of bf16; "
            f"made from {found['source']}"
        )
    return page(shown, {"stacks": [], "parts": []}, hide=("fingerprint",))


def sensitivity_map(result: Result) -> str:
    return page({**result, "rows": len(result["rows"])}, hide=("stability", "estimate"))


def plan(result: Result, spans: bool = False) -> str:
    """A plan's facts; with `spans`, every span with its reason."""
    if not spans:
        return page(plan_facts(result), hide=("spans",))
    rows = [{**span, "blocks": str(span["blocks"])} for span in result["spans"]]
    shown = {**plan_facts(result), "spans": rows}
    return page(shown, {"spans": ["stack", "block", "blocks", "reason"]})


def plan_info(result: Result) -> str:
    return page(plan_facts(result))


def plan_facts(result: Result) -> Result:
    """A plan's facts with free cuts and differences in words."""
    lines = []
    for cut in result["free_cuts"]:
        millions = cut["parameters"] / 1e6
        lines.append(
            f"drop {cut['drop']} of block {cut['block']} of {cut['stack']}: {millions:.2f} M "
            "parameters that no output depends on (workbench plan --free-cuts)"
        )
    facts = {**result, "free_cuts": "; ".join(lines) or "none"}
    facts["predicted_error"] = predicted_error(result)
    facts["predicted_latency"] = f"{result['predicted_latency']:.3g} of the teacher's time per step"
    for name in ("predicted_error_unit", "predicted_error_unknown"):
        facts.pop(name, None)
    if facts.get("predicted_speedup") is None:
        facts.pop("predicted_speedup", None)
    if "difference" in result:
        facts["difference"] = "\n  ".join(["", *result["difference"]]) or "none"
    return facts


def predicted_error(result: Result) -> str:
    """The predicted error with its unit, or why there is none."""
    if result["predicted_error"] is not None:
        return f"{result['predicted_error']:.4g} ({result['predicted_error_unit']})"
    return result["predicted_error_unknown"] or "no sensitivity map of this teacher was used"


def comparison(result: Result) -> str:
    """Models down, scores across."""
    rows = []
    for model in result["models"]:
        row = {key: model.get(key) for key in MODEL_COLUMNS}
        for scorer, score in model["scores"].items():
            row |= score_columns(scorer, score)
            row |= share_columns(scorer, model)
        rows.append(row)
    return page({**result, "models": rows}, {"models": []})


def benchmark(result: Result) -> str:
    """Models with their scores, the layout and how it is scored; of a part, what it sampled."""
    return comparison(result) if "models" in result else page(result)


def score_columns(scorer: str, score: Any) -> Result:
    """One column for the overall score and one for each category."""
    if not isinstance(score, dict):
        return {scorer: score}
    columns = {}
    for name, value in score.items():
        if not isinstance(value, list | dict):
            columns[scorer if name == "overall" else f"{scorer} {name}"] = value
    return columns


def share_columns(scorer: str, model: Result) -> Result:
    """The share of the first model's score with its interval; nothing where there is none."""
    share = model.get("retention", {}).get(scorer)
    interval = model.get("retention_intervals", {}).get(scorer)
    if share is None or interval is None:
        return {}
    low, high = interval
    return {f"{scorer} kept": f"{share:.1%} [{low:.1%}, {high:.1%}]"}


def report(result: Result) -> str:
    rows = []
    for row in result["rows"]:
        rows.append({column: row[column] for column in REPORT_COLUMNS})
    return page({**result, "rows": rows}, {"rows": []})


def release(result: Result) -> str:
    """The folder and its files, and what --push did or would do."""
    facts = {
        **result,
        "files": "\n  ".join(["", *result["files"]]),
        "left_out": ", ".join(result["left_out"]),
    }
    push = facts.pop("push")
    if push is not None and push["uploaded"]:
        facts["uploaded to"] = push["address"]
        facts["Space uploaded to"] = push["space_address"]
    elif push is not None:
        facts["not uploaded"] = f"these files would go to {push['repository']}: add --yes"
    return page({name: value for name, value in facts.items() if value not in (None, "")})


PRINTERS: dict[str, Callable[..., str]] = {
    "info": info,
    "profile": sensitivity_map,
    "import-map": sensitivity_map,
    "plan": plan,
    "plan-info": plan_info,
    "benchmark": benchmark,
    "compare": comparison,
    "demo": comparison,
    "reproduce": report,
    "release": release,
}

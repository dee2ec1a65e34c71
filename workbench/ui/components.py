"""Interactive charts: `gr.HTML` with a constant template; data goes in through props, selections
come out as events.

The template must stay constant (a changed one deletes the canvas) and must never hold user text
(Gradio evaluates it).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gradio as gr
import vl_convert

from ..records import write_atomic

HERE = Path(__file__).parent
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}
# Gradio drops an event while an earlier one of its kind is under way; this runs the last one too.
LAST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
# Lists that change while the page is open. We refuse an unlisted value in one line; Gradio would
# show an alarm.
OPEN: dict[str, Any] = {"allow_custom_value": True}
Answer = Callable[[Any], dict[str, Any]]  # to a question of the browser
VEGA_LITE = "6.4"  # the version Altair 6.3 writes


def script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def bundle() -> Path:
    """Vega and our shared script as one file in the user's cache, written once (about a second)
    and served by the app itself.
    """
    common = script("common.js") + script("edits.js")
    content = f"{version('vl-convert-python')}{VEGA_LITE}{common}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    cache = os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache"
    path = Path(cache) / "dit-workbench" / f"charts-{digest}.js"
    if not path.exists():
        vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
        # inside a function: the bundle's top-level constants would leak into the page
        write_atomic(path, f"(()=>{{{vega}}})();\n{common}")
    return path


def chart(value: Any, template: str, code: str, **props: Any) -> gr.HTML:
    """A component that runs one script of this folder. Plain functions, no subclass: Gradio would
    write a .pyi file beside it.
    """
    gr.set_static_paths([str(bundle().parent)])
    return gr.HTML(
        value,
        html_template=template,
        js_on_load="(async () => {" + script("load.js") + script(code) + "})();",
        bundle=str(bundle()),
        apply_default_css=False,
        **props,
    )


def plan_map(edit: Callable[[Any], dict[str, Any]], **props: Any) -> gr.HTML:
    """The block x timestep map with the plan beneath. Value: {version, plan, selected, teacher,
    window, source}; events `select` and `edited`; `edit` takes a batch of edits and answers with the
    plan after them (edit_stream.py).

    Props: `spec`; `shown` {edit, colour} and `measures` {bars, weights, scales}, which change
    without drawing the map again.
    """
    template = (
        "<div class='map-host' tabindex='0' role='application' aria-label='Sensitivity "
        "map. Arrow keys move, shift extends, Control and A selects all, "
        "K keeps, D drops, M merges, U undoes. The table below offers the same.'></div>"
        "<div class='map-line' role='status' aria-live='polite'></div>"
    )
    return chart(
        {"version": 0, "selected": [], "plan": None},
        template,
        "map.js",
        spec=None,
        shown=None,
        measures=None,
        server_functions=[edit],
        **props,
    )


def block_form(**props: Any) -> gr.HTML:
    """The form of the selected student blocks. Value: {title, fields, parts}; what is set there is
    an edit of the plan (edits.js).
    """
    template = "<div class='form-host wb-blockform'></div>"
    return chart({"title": "", "fields": [], "parts": []}, template, "blockform.js", **props)


CURVE = (
    "<div class='curve-tools' hidden><div class='curve-legend' role='group' aria-label='Lines'></div>"
    "<label><input type='checkbox' class='curve-log'> Logarithmic scale</label>"
    "<label>Smoothing <input type='range' class='curve-smooth' min='0' max='50'></label>"
    "<label>Over <select class='curve-x'><option value='step'>steps</option>"
    "<option value='time'>time</option></select></label></div>"
    "<div class='curve-host'></div><p class='curve-note empty'></p>"
)


def loss_curve(tail: Answer, draw: Answer, **props: Any) -> gr.HTML:
    """A job's curves, live. Value: {job}. `tail` answers the browser with new points, `draw` with
    the chart of the lines that it has (curve_stream.py).
    """
    return chart({"job": None}, CURVE, "curve.js", server_functions=[tail, draw], **props)


def job_list(**props: Any) -> gr.HTML:
    """Jobs under headings (job_words.list_rows). Value: {jobs, selected}; event `select` carries the job's id."""
    return chart(
        {"jobs": [], "selected": None}, "<div class='jobs-host'></div>", "joblist.js", **props
    )


def figure(**props: Any) -> gr.HTML:
    """A chart without interaction; prop `spec`."""
    return chart({}, "<div class='figure-host'></div>", "figure.js", spec=None, **props)


def spec_of(altair_chart: Any | None) -> gr.HTML:
    """The update that shows a chart in a figure; None empties it."""
    if altair_chart is None:
        return gr.HTML(spec=None)
    return gr.HTML(spec=altair_chart.to_dict(validate=False))

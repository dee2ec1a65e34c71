"""The app: three pages over one workspace. Opens without torch, holds no model, survives whatever a
job does (DESIGN section 8).
"""

from __future__ import annotations

import os

# Before gradio is imported: no version check, no telemetry; nothing leaves the machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_RUN_HISTORY", "False")

from pathlib import Path
from typing import Any

import gradio as gr

from ..workspace.store import Store
from .compare_page import ComparePage
from .components import script
from .jobs_page import JobsPage
from .launch_panel import LaunchPanel
from .plan_page import PlanPage

__all__ = ["build", "launch"]

FONTS = ["system-ui", "sans-serif"]  # named fonts would be fetched from Google
THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="zinc",
    font=FONTS,
    font_mono=["ui-monospace", "monospace"],
    spacing_size="sm",
    text_size="sm",
)
DARK = "() => { const dark = document.body.classList.toggle('dark'); localStorage.setItem('workbench-theme', dark ? 'dark' : 'light'); }"


def build(workspace: Path | str) -> gr.Blocks:
    """The app over a workspace, not yet served."""
    store = Store(workspace)
    page, jobs_page, compare = PlanPage(store), JobsPage(store), ComparePage(store)
    panel = LaunchPanel(store, page)
    with gr.Blocks(title="DiT Workbench", analytics_enabled=False, fill_width=True) as demo:
        with gr.Row(elem_classes="wb-bar wb-top"):
            header = gr.HTML(elem_id="header")
            dark = gr.Button("◐", elem_id="dark", size="sm", min_width=40, scale=0)
        with gr.Tabs(elem_id="pages"):
            with gr.Tab("Sensitivity & plan", id="plan"):
                page.build()
                with gr.Row(equal_height=False):
                    with gr.Column(scale=3, min_width=300):
                        panel.build()
                    with gr.Column(scale=2, min_width=300), gr.Accordion("Plan (YAML)", open=True):
                        yaml = gr.Code(
                            language="yaml",
                            elem_id="yaml",
                            interactive=False,
                            max_lines=18,
                            show_label=False,
                        )
            with gr.Tab("Jobs", id="jobs"):
                jobs_page.build()
            with gr.Tab("Compare", id="compare"):
                compare.build()
        dark.click(None, js=DARK)
        demo.load(None, js=script("app.js"))
        page.wire(demo, header, yaml)
        panel.wire(demo, page.timer)
        jobs_page.wire(demo)
        compare.wire(demo)
    return demo


def launch(
    workspace: Path | str,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: Any = None,
    block: bool = True,
) -> Any:
    """Serve the app. `auth`: (user, password) or a list of such pairs. Returns what gradio's launch
    returns.
    """
    demo = build(workspace)
    pictures = Store(workspace).workspace
    print(f"DiT Workbench: http://{host}:{port}  (workspace {pictures})", flush=True)
    return demo.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        prevent_thread_lock=not block,
        theme=THEME,
        css=script("style.css"),
        quiet=True,
        show_error=True,
        share=False,
        inbrowser=False,
        allowed_paths=[str(pictures / name) for name in ("comparisons", "previews")],
    )

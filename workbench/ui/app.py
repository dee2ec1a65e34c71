"""The app's frame: its pages, and how it is served."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from ..workspace.store import Store
from .compare_page import ComparePage
from .components import script
from .jobs_page import JobsPage
from .launch_panel import LaunchPanel
from .plan_page import PlanPage
from .plan_state import PlanState

FONTS = ["system-ui", "sans-serif"]  # named fonts would be fetched from Google
THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="zinc",
    font=FONTS,
    font_mono=["ui-monospace", "monospace"],
    spacing_size="sm",
    text_size="sm",
)
Auth = tuple[str, str]
TOGGLE_DARK = """() => {
  const dark = document.body.classList.toggle('dark');
  localStorage.setItem('workbench-theme', dark ? 'dark' : 'light');
}"""


def build(workspace: Path | str) -> gr.Blocks:
    """The app over a workspace, not yet served."""
    store = Store(workspace)
    state = PlanState(store)
    plan = PlanPage(state)
    launcher = LaunchPanel(state)
    jobs = JobsPage(store)
    compare = ComparePage(store)
    with gr.Blocks(title="DiT Workbench", analytics_enabled=False, fill_width=True) as demo:
        with gr.Row(elem_classes="wb-bar wb-top"):
            state.page_widgets["header"] = gr.HTML(elem_id="header")
            dark = gr.Button("◐", elem_id="dark", size="sm", min_width=40, scale=0)
        with gr.Tabs(elem_id="pages"):
            with gr.Tab("Sensitivity & plan", id="plan"):
                plan.build()
                with gr.Row(equal_height=False):
                    with gr.Column(scale=3, min_width=300):
                        launcher.build()
                    with gr.Column(scale=2, min_width=300), gr.Accordion("Plan (YAML)", open=True):
                        plan.build_yaml()
            with gr.Tab("Jobs", id="jobs"):
                jobs.build()
            with gr.Tab("Compare", id="compare"):
                compare.build()
        dark.click(None, js=TOGGLE_DARK)
        demo.load(None, js=script("app.js"))
        for page in (plan, launcher, jobs, compare):
            page.wire(demo)
    return demo


def launch(
    workspace: Path | str,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: Auth | list[Auth] | None = None,
    block: bool = True,
) -> tuple[object, str, str]:
    """Serve the app. `auth`: (user, password), or a list of such pairs.

    Returns what gradio's launch returns: the server, its local address, its public one.
    """
    demo = build(workspace)
    folder = Store(workspace).workspace
    print(f"DiT Workbench: http://{host}:{port}  (workspace {folder})", flush=True)
    served: tuple[object, str, str] = demo.launch(
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
        allowed_paths=[str(folder / name) for name in ("comparisons", "previews")],
    )
    return served

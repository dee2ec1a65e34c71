"""The app's frame: its pages, and how it is served."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from ..web.guard import Guard
from ..workspace.model_code import refuse_trust
from ..workspace.store import Store
from .access import Access
from .address import PAGES, Address
from .compare_page import ComparePage
from .components import script
from .jobs_page import JobsPage
from .launch_panel import LaunchPanel
from .plan_page import PlanPage
from .plan_state import PlanState
from .pulse import Pulse

FONTS = ["system-ui", "sans-serif"]  # named fonts would be fetched from Google
THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="zinc",
    font=FONTS,
    font_mono=["ui-monospace", "monospace"],
    spacing_size="sm",
    text_size="sm",
).set(  # white on the hue's own shade is too pale to read
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)
Auth = tuple[str, str]
TOGGLE_DARK = """() => {
  const dark = document.body.classList.toggle('dark');
  localStorage.setItem('workbench-theme', dark ? 'dark' : 'light');
}"""


def build(
    workspace: Path | str, folders: Sequence[Path] = (), read_only: bool = False
) -> gr.Blocks:
    """The app over a workspace, not yet served. folders, read_only: see Access."""
    store = Store(workspace)
    access = Access(store, tuple(folders), read_only)
    state = PlanState(store, access)
    plan = PlanPage(state)
    launcher = LaunchPanel(state)
    jobs = JobsPage(store, access)
    compare = ComparePage(store, access)
    address = Address()
    pulse = Pulse(store, access)
    with gr.Blocks(title="DiT Workbench", analytics_enabled=False, fill_width=True) as demo:
        with gr.Row(elem_classes="wb-bar wb-top"):
            state.page_widgets["header"] = gr.HTML(elem_id="header")
            progress = gr.HTML(elem_id="progress")
            dark = gr.Button("◐", elem_id="dark", size="sm", min_width=40, scale=0)
        state.plan_widgets["steps"] = gr.HTML(elem_id="steps")
        address.build()
        pulse.build()
        with gr.Tabs(elem_id="pages"):
            with gr.Tab(PAGES["plan"], id="plan"):
                plan.build()
                with gr.Row(equal_height=False):
                    with gr.Column(scale=3, min_width=300):
                        launcher.build()
                    with gr.Column(scale=2, min_width=300), gr.Accordion("Plan (YAML)", open=True):
                        plan.build_yaml()
            with gr.Tab(PAGES["jobs"], id="jobs"):
                jobs.build()
            with gr.Tab(PAGES["compare"], id="compare"):
                compare.build()
        dark.click(None, js=TOGGLE_DARK)
        demo.load(None, js=script("app.js"))
        launcher.wire(demo, pulse)
        for page in (plan, jobs, compare):
            page.wire(demo, address, pulse)
        show_progress_on(progress, demo)
    rest_when_idle(demo)
    return demo


def show_progress_on(widget: gr.HTML, demo: gr.Blocks) -> None:
    """Let an empty widget bear the loading mark of every event.

    At each event Gradio's page copies all properties of every widget that bears one, to set a mark
    that we hide; by default those are all outputs of all events, charts with their data among them.
    """
    for event in demo.fns.values():
        event.show_progress_on = [widget]


def rest_when_idle(demo: gr.Blocks) -> None:
    """Gradio looks into its queue a thousand times a second, also while no page is open, which takes
    a tenth of a core. Fifty times a second is soon enough for a hand.
    """
    demo._queue.sleep_when_free = 0.02
    demo._queue.progress_update_sleep_when_free = 0.1


def launch(
    workspace: Path | str,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: Auth | list[Auth] | None = None,
    block: bool = True,
    hosts: Sequence[str] = (),
    folders: Sequence[Path] = (),
    read_only: bool = False,
    root_path: str = "",
) -> tuple[object, str, str]:
    """Serve the app. `auth`: (user, password), or a list of such pairs. hosts: further names under
    which it is reached (see Guard). folders, read_only: see Access. root_path: where a proxy has the
    app, as in `/workbench`.

    Returns what gradio's launch returns: the server, its local address, its public one. Side effect:
    code in models' folders never runs in this process or in one that it starts.
    """
    refuse_trust()
    demo = build(workspace, folders, read_only)
    folder = Store(workspace).workspace
    print(f"DiT Workbench: http://{host}:{port}  (workspace {folder})", flush=True)
    if not auth and not is_loopback(host):
        print(open_to_all(host, read_only), file=sys.stderr, flush=True)
    served: tuple[object, str, str] = demo.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        root_path=root_path or None,
        prevent_thread_lock=not block,
        theme=THEME,
        css=script("style.css"),
        quiet=True,
        show_error=True,
        share=False,
        inbrowser=False,
        app_kwargs={"middleware": [Middleware(Guard, hosts=hosts)]},
        allowed_paths=[str(folder / name) for name in ("comparisons", "previews")],
    )
    return served


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that the app listens on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_to_all(host: str, read_only: bool) -> str:
    """A warning that nobody overlooks."""
    may = (
        "see everything in the workspace" if read_only else "run jobs here and change the workspace"
    )
    line = f"WARNING: whoever reaches {host} can {may}. Require a login: --auth USER:PASS"
    rule = "=" * len(line)
    return f"{rule}\n{line}\n{rule}"

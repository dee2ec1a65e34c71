"""A small text-to-image model beside the larger one that it was made of.

The teacher's pictures were drawn beforehand and lie in pictures/; this model draws while you watch.
What differs from model to model (its name, prompts, figures, settings) is in space.json.

To run it on your own machine, in this folder:

    pip install -r requirements.txt gradio
    python app.py                      # MODEL=a-folder-or-hub-id python app.py for other weights
"""

from __future__ import annotations

import html
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:  # ZeroGPU lends a GPU for the length of one call; it must be imported before torch
    import spaces
except ImportError:  # everywhere else
    spaces = None

import gradio as gr
import torch
from diffusers import DiffusionPipeline

HERE = Path(__file__).resolve().parent
SPACE: dict[str, Any] = json.loads((HERE / "space.json").read_text(encoding="utf-8"))
EXAMPLES: list[dict[str, Any]] = SPACE["examples"]  # prompt, pictures {seed: [teacher, student]}
SEEDS: list[str] = [str(seed) for seed in SPACE["seeds"]]
RANDOM = "random"

# --- the model ------------------------------------------------------------------------------------


def load_model() -> Any:
    """The pipeline: from the folder beside this file that MODEL names, else from the Hub."""
    name = os.environ.get("MODEL") or SPACE["model"]
    source = str(HERE / name) if (HERE / name).is_dir() else name
    has_gpu = torch.cuda.is_available()
    loaded = DiffusionPipeline.from_pretrained(
        source,
        dtype=getattr(torch, SPACE["dtype"]) if has_gpu else torch.float32,
        trust_remote_code=SPACE["custom_code"],
    )
    return loaded.to("cuda" if has_gpu else "cpu")


def gpu_seconds(prompt: str, seed: int, steps: int, guidance: float) -> int:
    """How long to borrow a GPU on ZeroGPU: a guess. A visitor whose quota is less than this is
    refused at once, so set it to what your Space really takes.
    """
    return int(10 + steps)


def on_gpu(function: Callable) -> Callable:
    """Run a function on a borrowed GPU on ZeroGPU; elsewhere, as it is."""
    return spaces.GPU(duration=gpu_seconds)(function) if spaces else function


@on_gpu
def draw(
    prompt: str,
    seed: int,
    steps: int,
    guidance: float,
    progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008  (how Gradio wants it)
) -> Any:
    """One picture. The noise depends on the seed alone and is that of the teacher's pictures."""
    return pipe(
        **SPACE["call"],
        prompt=prompt,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        **guidance_arguments(guidance),
    ).images[0]


def guidance_arguments(scale: float) -> dict[str, Any]:
    """The pipeline's arguments for a guidance scale. Where guidance takes a second pass with a
    negative prompt, a scale of 1 or less turns that off.
    """
    settings = SPACE["guidance"]
    for name in ("guider", "ocr_guider"):  # pipelines that keep the scale in a component
        if hasattr(pipe, name):
            getattr(pipe, name).guidance_scale = max(scale, 1.0)
    if settings["negative_prompt"] is None:
        return {settings["argument"]: scale}
    if scale <= 1:
        return {settings["argument"]: settings["off"]}
    return {settings["argument"]: scale, "negative_prompt": settings["negative_prompt"]}


# --- what happens on the page ---------------------------------------------------------------------


def example_of(prompt: str) -> dict[str, Any] | None:
    """The example with this prompt, if it is one."""
    return next((example for example in EXAMPLES if example["prompt"] == prompt), None)


def show_example(prompt: str, seed: str) -> tuple[Any, Any, str]:
    """Both models' pictures of an example, as drawn beforehand. For other prompts and seeds the page
    stays as it is until Draw is pressed.
    """
    example = example_of(prompt)
    if example is None or seed not in example["pictures"]:
        return gr.skip(), gr.skip(), "Press **Draw** to see what this model makes of it."
    teacher, student = (str(HERE / name) for name in example["pictures"][seed])
    return (*shown(pair=(teacher, student)), beforehand(seed))


def beforehand(seed: str) -> str:
    return f"Both drawn beforehand, in {SPACE['steps']} steps, with the same noise (seed {seed})."


def draw_and_show(prompt: str, seed: str, steps: int, guidance: float) -> tuple[Any, Any, str]:
    """Draw with this model; the teacher's picture stands beside it where there is one."""
    prompt = prompt if example_of(prompt) else prompt.strip()
    if not prompt:
        raise gr.Error("Write a prompt, or choose one below.", print_exception=False)
    number = random.randrange(2**31) if seed == RANDOM else int(seed)
    started = time.perf_counter()
    picture = draw(prompt, number, int(steps), float(guidance))
    took = f"Drawn just now in {time.perf_counter() - started:.1f} s, {int(steps)} steps"
    example = example_of(prompt)
    if example is None or seed not in example["pictures"]:
        only = "The teacher's pictures are of the prompts below."
        return (*shown(alone=picture), f"{took}, seed {number}. {only}")
    teacher = str(HERE / example["pictures"][seed][0])
    beside = f"the teacher beforehand, in {SPACE['steps']} steps, with the same noise"
    return (*shown(pair=(teacher, picture)), f"{took}, seed {number}; {beside}.")


def shown(pair: Any = None, alone: Any = None) -> tuple[Any, Any]:
    """The slider with two pictures, or one picture without a teacher's."""
    if pair is None:
        return gr.update(visible=False), gr.update(value=alone, visible=True)
    return gr.update(value=pair, visible=True), gr.update(visible=False)


def choose(seed: str, event: gr.SelectData) -> tuple[Any, ...]:
    """A click on an example: its prompt, a seed that was drawn beforehand, and both pictures."""
    prompt = EXAMPLES[event.index]["prompt"]
    seed = seed if seed in SEEDS else SEEDS[0]
    return prompt, seed, *show_example(prompt, seed)


# --- the page -------------------------------------------------------------------------------------


def header() -> str:
    """Title, one sentence, and the figures that matter most."""
    cards = []
    for figure in SPACE["highlights"]:
        value, about = html.escape(figure["value"]), html.escape(figure["about"])
        cards.append(f"<div class='figure'><b>{value}</b><span>{about}</span></div>")
    title, sentence = html.escape(SPACE["title"]), html.escape(SPACE["sentence"])
    figures = "".join(cards)
    return f"<h1>{title}</h1><p>{sentence}</p><div class='figures'>{figures}</div>"


def cost_table() -> str:
    """Size, time and scores of both models."""
    lines = [[""] + [html.escape(name) for name in SPACE["columns"]]]
    lines += [[html.escape(cell) for cell in row] for row in SPACE["table"]]
    rows = []
    for number, cells in enumerate(lines):
        tag = "td" if number else "th"
        rows.append("<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>")
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in SPACE["notes"])
    return f"<table>{''.join(rows)}</table><ul>{notes}</ul>"


def page() -> gr.Blocks:
    """The whole page."""
    guidance, first = SPACE["guidance"], EXAMPLES[0]
    teacher, student = first["pictures"][SEEDS[0]]
    thumbnails = []
    for example in EXAMPLES:
        thumbnails.append((str(HERE / example["pictures"][SEEDS[0]][1]), example["prompt"]))
    # pictures of visitors are kept for an hour
    with gr.Blocks(title=SPACE["title"], delete_cache=(3600, 3600)) as blocks:
        gr.HTML(header(), elem_id="header")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                slider = gr.ImageSlider(
                    (str(HERE / teacher), str(HERE / student)),
                    label="Left: the teacher. Right: this model",
                    format="png",
                    interactive=False,
                    max_height=620,
                    elem_id="slider",
                )
                alone = gr.Image(label="This model", format="png", visible=False, elem_id="alone")
            with gr.Column(scale=2, min_width=300):
                prompt = gr.Textbox(
                    first["prompt"], label="Prompt", lines=3, max_length=2000, elem_id="prompt"
                )
                seed = gr.Radio([*SEEDS, RANDOM], value=SEEDS[0], label="Seed", elem_id="seed")
                steps = gr.Slider(1, SPACE["most_steps"], SPACE["steps"], step=1, label="Steps")
                scale = gr.Slider(0, 12, guidance["value"], step=0.5, label="Guidance")
                button = gr.Button("Draw", variant="primary", elem_id="draw")
                note = gr.Markdown(beforehand(SEEDS[0]), elem_id="note")
        gr.Markdown("Prompts of the comparison, evenly spread, not chosen by their pictures:")
        gallery = gr.Gallery(
            thumbnails,
            show_label=False,
            columns=6,
            allow_preview=False,
            buttons=[],
            elem_id="gallery",
        )
        gr.HTML(cost_table(), elem_id="costs")
        gr.Markdown(SPACE["about"], elem_id="about")
        pictures = [slider, alone, note]
        inputs = [prompt, seed, steps, scale]
        gallery.select(choose, seed, [prompt, seed, *pictures], show_progress="hidden")
        seed.input(show_example, [prompt, seed], pictures, show_progress="hidden")
        button.click(draw_and_show, inputs, pictures, api_name="draw")
        prompt.submit(draw_and_show, inputs, pictures, api_visibility="private")
    return blocks


pipe = load_model()

if __name__ == "__main__":
    # one picture at a time; more visitors than this are asked to come back later
    page().queue(max_size=24, default_concurrency_limit=1).launch(
        theme=gr.themes.Default(primary_hue="blue", neutral_hue="slate"),
        css_paths=HERE / "style.css",
        allowed_paths=[str(HERE / "pictures")],
        show_error=True,
    )

"""Make the demo teacher from nothing: `python -m workbench.demo.training.train --out DIR`. Stops
and resumes at any time.

Stages: `vae`, `latents` (scenes encoded once), `base` (12 blocks and the text encoder), `grow` (24
blocks). Working files and results lie in DIR: vae/, latents/, base/, grow/ (checkpoint/, pipeline/,
curve.jsonl).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage

from ...records import jsonfile
from ..render import COVER_CLASSES
from . import parallel
from .diffusion import Settings, Trainer, load_checkpoint, train
from .grow import grow
from .latents import MIX, Shards, make_latents, set_statistics
from .models import build_pipeline, build_text_encoder, build_transformer
from .vae import build_vae, train_vae

STAGES = ("vae", "latents", "base", "grow")
MINUTES = {"vae": 9.0, "latents": 0.0, "base": 70.0, "grow": 30.0}  # on two CPU cores
GROWN: dict[str, object] = {
    "lr_matrix": 4e-3,
    "lr_rest": 2e-3,
    "train_text": False,
    "cover_weight": 0.0,
    "decay_from": 0.3,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m workbench.demo.training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--stage", choices=("all", *STAGES), default="all")
    p.add_argument(
        "--minutes", type=float, help="length of a stage, earlier parts of the same run included"
    )
    p.add_argument(
        "--samples", type=int, help="length of base and grow in samples, instead of minutes"
    )
    p.add_argument("--scenes", type=int, default=100_000, help="scenes to encode for training")
    p.add_argument("--processes", type=int, help="one for each core, or one on a GPU, if not given")
    p.add_argument("--device", default="cpu")
    p.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint (else a stage starts anew)",
    )
    p.add_argument(
        "--again",
        action="store_true",
        help="with --resume: start a new schedule from the averaged weights",
    )
    p.add_argument("--batch", type=int, help="samples of one process and step")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of Settings, or a category's share",
    )
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--base", type=Path, help="folder of the run to grow, if not DIR/base")
    p.add_argument("--save-every", type=float, default=2.0, help="minutes between checkpoints")
    p.add_argument(
        "--export-every", type=float, default=10.0, help="minutes between loadable pipelines"
    )
    p.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return p.parse_args(arguments)


def settings_from(
    args: argparse.Namespace, defaults: dict[str, object]
) -> tuple[Settings, dict[str, float]]:
    """Settings and category shares after `--set` and `--batch`."""
    fields = dict(defaults)
    mix = dict(MIX)
    if args.batch:
        fields["batch"] = args.batch
    for pair in args.set:
        name, value = pair.split("=")
        if name in mix:
            mix[name] = float(value)
        else:
            fields[name] = type(getattr(Settings(), name))(jsonfile.parse(value))
    return replace(Settings(), **fields), mix  # type: ignore[arg-type]


def stage_vae(args: argparse.Namespace) -> None:
    rank, _ = parallel.join()
    torch.manual_seed(0)
    vae = build_vae()
    start = time.time()
    for state in train_vae(vae, parallel.clock(args.minutes or MINUTES["vae"]), device=args.device):
        if rank == 0 and state["step"] % 50 == 0:
            print(json.dumps(state | {"minutes": round((time.time() - start) / 60, 2)}), flush=True)
    if rank == 0:
        set_statistics(vae)
        vae.save_pretrained(args.out / "vae")


def stage_latents(args: argparse.Namespace) -> None:
    rank = int(os.environ.get("DEMO_RANK", "0"))
    world = int(os.environ.get("DEMO_WORLD", "1"))
    vae = AutoencoderKLQwenImage.from_pretrained(args.out / "vae")
    for path in make_latents(vae, args.out / "latents", args.scenes, rank, world, args.device):
        print(path.name, flush=True)


def schedule(args: argparse.Namespace, stage: str, spent: float) -> Callable[[int], float]:
    """Progress of a run of given samples or minutes, `spent` minutes of which lie behind; the same
    on every process.
    """
    start = time.time()
    if args.samples:
        return lambda samples: min(1.0, samples / args.samples)
    minutes = args.minutes or MINUTES[stage]
    return lambda samples: parallel.agree(min(1.0, (spent + (time.time() - start) / 60) / minutes))


def make_trainer(args: argparse.Namespace, stage: str) -> tuple[Trainer, dict[str, float]]:
    """A trainer for the stage: new, or grown from the base run's average. A run that resumes
    overwrites its weights.
    """
    defaults: dict[str, object] = {}
    if stage == "grow":
        defaults = GROWN
    settings, mix = settings_from(args, defaults)
    torch.manual_seed(settings.seed)
    transformer = build_transformer(args.layers)
    text_encoder = build_text_encoder()
    if stage == "grow":
        source = Trainer(
            transformer, text_encoder, settings_from(args, {})[0], len(COVER_CLASSES), "cpu"
        )
        load_base(source, args.base or args.out / "base")
        transformer = grow(source.transformer.float())
        text_encoder = source.text_encoder
    return Trainer(transformer, text_encoder, settings, len(COVER_CLASSES), args.device), mix


def load_base(trainer: Trainer, run: Path) -> None:
    """Load the averaged weights of a run into a trainer's models, on one process, in float32."""
    parts = load_checkpoint(run / "checkpoint")
    states: dict[str, dict[str, torch.Tensor]] = {"transformer": {}, "text_encoder": {}}
    for part in parts:
        for name, value in part["optimizer"]["average"].items():
            component, _, key = name.partition(".")
            if component in states:
                states[component][key] = value
    trainer.transformer.float().load_state_dict(states["transformer"], strict=False)
    trainer.text_encoder.float().load_state_dict(states["text_encoder"], strict=False)
    trainer.transformer.load_state_dict(parts[0]["dead"], strict=False)


def export(trainer: Trainer, out: Path, folder: Path) -> None:
    """Write the averaged weights as a loadable pipeline, float32; every process must call this."""
    states = trainer.averaged()
    if parallel.rank_and_world()[0] != 0:
        return
    transformer = build_transformer(len(trainer.transformer.transformer_blocks))
    transformer.load_state_dict(states["transformer"])
    text_encoder = build_text_encoder()
    text_encoder.load_state_dict(states["text_encoder"])
    vae = AutoencoderKLQwenImage.from_pretrained(out / "vae")
    build_pipeline(vae, text_encoder, transformer).save_pretrained(folder)


def stage_train(args: argparse.Namespace, stage: str) -> None:
    rank, _ = parallel.join()
    run = args.out / stage
    checkpoint = run / "checkpoint"
    resume = args.resume and (checkpoint.exists() or checkpoint.with_suffix(".old").exists())
    trainer, mix = make_trainer(args, stage)
    spent = 0.0
    if resume:
        spent = trainer.load(checkpoint)["minutes"]
        if args.again:
            trainer.restart_from_average()
            spent = 0.0
    shards = Shards(args.out / "latents", mix, args.device)
    for event, state in paced(train(trainer, shards, schedule(args, stage, spent)), args, spent):
        if "log" in event and rank == 0:
            log(run / "curve.jsonl", state)
        if "save" in event:
            trainer.save(checkpoint, {"minutes": state["minutes"], "mix": mix})
        if "export" in event:
            export(trainer, args.out, run / "pipeline")


def paced(
    steps: Iterator[dict[str, float]], args: argparse.Namespace, spent: float
) -> Iterator[tuple[set[str], dict[str, float]]]:
    """Steps with what is due after them: "log" (means of 50 steps), "save", "export"; all of them
    after the last.
    """
    start = saved = exported = time.time()
    recent: list[dict[str, float]] = []
    state: dict[str, float] = {}
    for state in steps:
        recent.append(state)
        if state["step"] % 10:
            continue
        now = parallel.agree(time.time())
        due: set[str] = set()
        state |= {"minutes": round(spent + (now - start) / 60, 3)}
        if state["step"] % 50 == 0:
            due.add("log")
            state |= means(recent)
            recent = []
        if now - saved > 60 * args.save_every:
            due.add("save")
            saved = now
        if now - exported > 60 * args.export_every:
            due.add("export")
            exported = now
        yield due, state
    if state:
        if recent:
            state |= means(recent)
        state |= {"minutes": round(spent + (time.time() - start) / 60, 3)}
        yield {"log", "save", "export"}, state


def means(states: list[dict[str, float]]) -> dict[str, float]:
    """Mean losses of some steps."""
    loss = sum(state["loss"] for state in states) / len(states)
    cover = sum(state["cover"] for state in states) / len(states)
    return {"loss": loss, "cover": cover}


def log(path: Path, state: dict[str, float]) -> None:
    """Append a line to the curve, and show it."""
    line = json.dumps({k: round(v, 5) for k, v in state.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def default_processes(device: str, stage: str) -> int:
    """One for each core, or one on a GPU; drawing pictures takes cores in any case."""
    if device == "cpu" or stage == "latents":
        return os.cpu_count() or 1
    return 1


def main(arguments: list[str] | None = None) -> None:
    """Run the chosen stages, each in as many processes as asked."""
    args = parse(arguments)
    if arguments is None:
        arguments = sys.argv[1:]
    stages: tuple[str, ...] = (args.stage,)
    if args.stage == "all":
        stages = STAGES
    for stage in stages:
        processes = args.processes or default_processes(args.device, stage)
        if processes > 1 and not args.worker:
            parallel.run_processes(
                "workbench.demo.training.train",
                [*arguments, "--stage", stage, "--worker"],
                processes,
            )
        elif stage == "vae":
            stage_vae(args)
        elif stage == "latents":
            stage_latents(args)
        else:
            stage_train(args, stage)


if __name__ == "__main__":
    main()

"""What is mutated: the files of a small world, each with who reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny import tiny_qwen_pipeline
from workbench import cli
from workbench.comparison.suite import Suite
from workbench.recipes.table import load_file
from workbench.records import (
    Card,
    Comparison,
    DistillSpec,
    ModelResult,
    Plan,
    Row,
    SensitivityMap,
    Span,
    Teacher,
    yamlfile,
)
from workbench.records.prompts import read_prompts
from workbench.specs import parse_spec
from workbench.tasks.launch import check
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .mutations import as_json

STACK = "transformer_blocks"


@dataclass(frozen=True)
class Target:
    """A file and what reads it. data: what the file holds, None where it has no structure. write:
    data as the file's bytes. read: raises BadInput, or returns an exit code.
    """

    name: str
    file: Path
    data: Any
    write: Callable[[Any], bytes]
    read: Callable[[], int | None]


class World:
    """A teacher, a student's card, a map, a plan, a job and so on in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "workspace"
        self.teacher = tiny_qwen_pipeline(root / "teacher", depth=2)
        self.store = Store(self.workspace)
        self.files = root / "files"
        self.files.mkdir()
        spec = {"teacher": "demo"}
        self.job = jobs.submit(self.store, "info", spec, device="cpu", start=False)

    def command(self, *arguments: object) -> int:
        """The exit code of the command line, in this process."""
        return cli.run([*map(str, arguments), "--workspace", str(self.workspace)])

    def target(
        self,
        name: str,
        file: Path,
        read: Callable[[], Any],
        content: bytes | None = None,
        write: Callable[[Any], bytes] = as_json,
    ) -> Target:
        if content is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        data = None
        if file.suffix in (".json", ".jsonl"):
            data = json.loads(file.read_bytes())
        elif file.suffix == ".yaml":
            data = yamlfile.parse(file.read_text())
        return Target(name, file, data, write, lambda: exit_code(read()))

    def targets(self) -> list[Target]:
        info = ("info", self.teacher)
        return [*self.model_files(info), *self.records(), *self.job_files()]

    def model_files(self, info: tuple[object, ...]) -> list[Target]:
        folder = self.teacher / "transformer"
        [weights] = folder.glob("*.safetensors")
        raw = weights.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        body = raw[8 + length :]

        def with_header(data: Any) -> bytes:
            text = as_json(data)
            return len(text).to_bytes(8, "little") + text + body

        lone = self.files / "config.json"
        shutil.copy(folder / "config.json", lone)
        index = {"metadata": {}, "weight_map": dict.fromkeys(list(header)[1:4], weights.name)}
        other = self.files / "sharded"
        other.mkdir()
        shutil.copy(folder / "config.json", other / "config.json")
        shutil.copy(weights, other / weights.name)
        index_file = other / "diffusion_pytorch_model.safetensors.index.json"

        def compare() -> None:
            models = [str(self.teacher), str(self.teacher)]
            spec = parse_spec("compare", {"models": models}, "test")
            check("compare", spec, self.store, "cpu")

        return [
            self.target("compared model", self.teacher / "model_index.json", compare),
            self.target("compared VAE", self.teacher / "vae" / "config.json", compare),
            self.target(
                "model_index.json", self.teacher / "model_index.json", lambda: self.command(*info)
            ),
            self.target("config.json", folder / "config.json", lambda: self.command(*info)),
            self.target("lone config.json", lone, lambda: self.command("info", lone)),
            Target("safetensors header", weights, header, with_header, lambda: self.command(*info)),
            self.target("index", index_file, lambda: self.command("info", other), as_json(index)),
            self.target(
                "card.json",
                self.teacher / "card.json",
                lambda: self.command(*info),
                as_json(a_card().model_dump(mode="json")),
            ),
        ]

    def calls(self) -> list[list[str]]:
        """Command lines that are refused, or done, with one line."""
        long = "x" * 300
        out = str(self.files / "out")
        teacher = str(self.teacher)
        config = json.loads((self.teacher / "transformer" / "config.json").read_text())
        deep = self.files / "deep.json"
        deep.write_bytes(as_json({**config, "num_layers": 1_000_000}))
        big = self.files / "big.yaml"
        big.write_bytes(b"- a: 1\n" * 1_400_000)
        return [
            ["info", str(deep)],
            ["info", long],
            ["info", "a\0b"],
            ["info", ""],
            ["info", teacher, "--device", "a/b"],
            ["info", teacher, "--device", "cuda:99"],
            ["plan-info", str(big)],
            ["plan-info", long],
            ["distill", teacher, "--spec", str(big)],
            ["distill", teacher, "--minutes", "nan", "-o", out],
            ["plan", teacher, "--rule", "uniform", "--keep", "1", "-o", ""],
            ["plan", teacher, "--rule", "uniform", "--keep", "1", "-o", long],
            ["plan", teacher, "--rule", "uniform", "--keep", "1", "-o", "a\0b"],
            ["plan", teacher, "--rule", "uniform", "--keep", "1", "-o", str(self.files)],
            ["plan", teacher, "--rule", "uniform", "--keep", "9" * 5000],
            ["profile", teacher, "--steps", "1", "--timesteps", "1", "--size", "32", "-o", out],
            ["profile", teacher, "--steps", "0"],
            ["jobs", "show", "a\0b"],
            ["jobs", "show", long],
        ]

    def records(self) -> list[Target]:
        sound = self.files / "sound.yaml"
        plan = a_plan()
        plan.save(sound)
        files = self.files
        map_file = files / "map.json"
        plan_file = files / "plan.yaml"
        spec_file = files / "distill.yaml"
        recipe_file = files / "recipe.yaml"
        recipe = Path(cli.__file__).parents[1] / "recipes" / "workbench.yaml"
        comparison = self.workspace / "comparisons" / "c" / "comparison.json"
        teacher_file = self.workspace / "teachers" / "t.json"
        verb_file = files / "verb.yaml"
        demo = Path(cli.__file__).parents[1] / "demo" / "teacher.json"
        return [
            self.target(
                "map",
                map_file,
                lambda: self.command(
                    "plan",
                    self.teacher,
                    "--rule",
                    "greedy",
                    "--sensitivity",
                    map_file,
                    "--keep",
                    "1",
                    "-o",
                    files / "out.yaml",
                ),
                as_json(a_map().model_dump(mode="json")),
            ),
            self.target(
                "plan",
                plan_file,
                lambda: self.command("plan-info", plan_file),
                sound.read_bytes(),
            ),
            self.target(
                "distill.yaml",
                spec_file,
                lambda: DistillSpec.load(spec_file),
                b"stages:\n  - steps: 10\n    losses: {output: 1}\n    batch: 2\n    lr: 0.0001\n",
            ),
            self.target("recipe", recipe_file, lambda: load_file(recipe_file), recipe.read_bytes()),
            self.target(
                "comparison",
                comparison,
                lambda: [self.store.all_records("comparison"), Comparison.load(comparison)],
                as_json(a_comparison().model_dump(mode="json")),
            ),
            self.target(
                "teacher",
                teacher_file,
                lambda: [self.store.all_records("teacher"), Teacher.load(teacher_file).parameters],
                demo.read_bytes(),
            ),
            self.target(
                "verb spec",
                verb_file,
                lambda: parse_spec("profile", yaml_of(verb_file), str(verb_file)),
                b"teacher: demo\nsampling_steps: 8\nseeds: 1\n",
            ),
            self.target(
                "prompts",
                files / "p.txt",
                lambda: read_prompts(files / "p.txt"),
                b"a fox\n# no\nb\n",
            ),
            self.target(
                "suite",
                files / "s.jsonl",
                lambda: Suite.load(files / "s.jsonl"),
                b'{"prompt": "a fox", "category": "one", "n": 1}',
            ),
        ]

    def job_files(self) -> list[Target]:
        folder = self.job.folder

        def look() -> int:
            jobs.log_tail(self.store, self.job.id)
            jobs.metrics(self.store, self.job.id)
            return self.command("jobs", "show", self.job.id)

        contents = {
            "progress.json": {"step": 1, "total": 3, "message": "", "eta": 1.0, "time": 1.0},
            "result.json": {"parameters": 1},
            "outcome.json": {"state": "done", "error": "", "expected": False},
            "exit.json": -9,
            "metrics.jsonl": {"step": 1, "loss": 0.5},
        }
        targets = []
        for name, data in contents.items():
            targets.append(self.target(name, folder / name, look, as_json(data)))
        row = (folder / "job.json").read_bytes()

        def list_from_folders() -> int:
            self.store.path.unlink(missing_ok=True)
            return self.command("jobs", "list")

        targets.append(self.target("job.json", folder / "job.json", list_from_folders, row))
        return targets


def exit_code(answer: Any) -> int | None:
    return answer if type(answer) is int else None


def yaml_of(file: Path) -> dict[str, Any]:
    from workbench.records import BadInput, read_text, read_yaml

    data = read_yaml(read_text(file, "spec", yamlfile.MOST_BYTES), str(file), "spec")
    if not isinstance(data, dict):
        raise BadInput(f"{file} holds no mapping", "a spec", "fix it")
    return data


def a_plan() -> Plan:
    return Plan(
        teacher="demo",
        family="qwenimage",
        origin={"rule": "uniform"},
        stacks={STACK: [Span(blocks=(place, place)) for place in range(24)]},
    )


def a_map() -> SensitivityMap:
    rows = []
    for block in range(2):
        for timestep in (900, 500, 100):
            score = 0.1 * (block + 1)
            rows.append(Row(stack=STACK, block=block, edit="drop", timestep=timestep, score=score))
    return SensitivityMap(teacher="teacher", fingerprint="", family="qwenimage", rows=rows)


def a_card() -> Card:
    return Card(
        teacher="demo",
        teacher_fingerprint="a",
        original="demo",
        original_fingerprint="a",
        plan=a_plan().model_dump(mode="json"),
        parameters=1000,
        teacher_parameters=2000,
        original_parameters=2000,
    )


def a_comparison() -> Comparison:
    result = ModelResult(
        name="demo",
        source="demo",
        parameters=10,
        bytes=20,
        ms_per_step=1.5,
        scores={},
        retention={},
    )
    return Comparison(
        suite="scenes",
        prompts=["a"],
        seeds=[1],
        steps=2,
        guidance=1.0,
        size=64,
        models=[result],
        images={"demo": ["a.png"]},
    )

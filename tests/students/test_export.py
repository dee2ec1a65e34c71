"""A hybrid student's folder loads where there is no workbench, and survives being saved again
there.
"""

from __future__ import annotations

import ast
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.refusals import refused
from tests.students.conftest import HYBRID
from tests.students.helpers import SINGLE, answer, bare_environment, build, free, plan_of
from tests.tiny import SIZE, tiny_inputs
from tests.tiny_families import family_model
from workbench import models, plans, students, surgery
from workbench.families import FAMILIES
from workbench.models import checkpoints
from workbench.records import Card, Plan, Span
from workbench.students import weights_from_span
from workbench.surgery import export

ALONE = """
import sys
try:
    import workbench
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("workbench is here")
import diffusers, torch
diffusers.utils.logging.disable_progress_bar()
def answer(transformer):
    with torch.no_grad():
        return transformer.eval()(**torch.load(sys.argv[2]))[0]
"""


def alone(code: str, where: Path, *args: str, env: dict[str, str] | None = None) -> str:
    """Run code in a Python that finds no workbench, with tiny_inputs in argv[2]; returns what it
    printed.
    """
    torch.save(tiny_inputs(), where / "inputs.pt")
    home = {
        "HF_HOME": str(where / "home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [str(bare_environment()), "-c", ALONE + code, args[0], str(where / "inputs.pt"), *args[1:]],
        cwd=where,
        text=True,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **home, **(env or {})},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def expected(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return models.load_transformer(folder)(**tiny_inputs())[0]


# --- the folder -----------------------------------------------------------------------------------


def test_what_the_folder_says(student_folder: Path, teacher_folder: Path) -> None:
    config = json.loads((student_folder / "transformer" / "config.json").read_text())
    index = json.loads((student_folder / "model_index.json").read_text())
    assert (
        config["_class_name"] == "HybridQwenImageTransformer2DModel" and config["num_layers"] == 5
    )
    assert config["single_stream_layers"] == [1, 2]
    assert config["removed_parts"] == {
        "transformer_blocks.3": ["text.mlp"],
        "transformer_blocks.4": ["text.output"],
    }
    module = students.module_name("qwenimage")
    assert index["transformer"] == [module, config["_class_name"]] and config["auto_map"][
        "AutoModel"
    ] == ".".join(index["transformer"])
    assert (student_folder / "transformer" / f"{module}.py").read_text() == students.source(
        "qwenimage"
    )
    card = Card.load(student_folder / "card.json")
    assert card.stock is False and card.parameters == plans.parameters(
        HYBRID, models.describe(teacher_folder, "x")
    )
    assert card.parameters == sum(
        p.numel() for p in models.load_transformer(student_folder).parameters()
    )


def test_memory_and_disk_are_one_student(student_folder: Path, teacher_folder: Path) -> None:
    teacher = models.load_transformer(teacher_folder)
    with surgery.applied(teacher, HYBRID), torch.no_grad():
        preview = teacher(**tiny_inputs())[0]
    assert torch.equal(preview, expected(student_folder))
    copy = surgery.student_transformer(teacher, HYBRID)
    assert (
        type(copy)
        is type(models.load_transformer(student_folder))
        is students.student_class("qwenimage")
    )
    with torch.no_grad():
        assert torch.equal(copy(**tiny_inputs())[0], preview)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modeling_file_stands_alone(family: str) -> None:
    """It imports the standard library, torch and diffusers only, by absolute names; and it fits its
    name.
    """
    tree = ast.parse(students.source(family))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level
        if isinstance(node, ast.Import | ast.ImportFrom):
            top = (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(
                "."
            )[0]
            assert top in {*sys.stdlib_module_names, "torch", "diffusers"}
    assert ast.get_docstring(tree) and max(map(len, students.source(family).splitlines())) <= 140
    assert students.source(family).isascii() and "type: ignore" not in students.source(family)


# --- elsewhere ------------------------------------------------------------------------------------

EVERYWHERE = """
from pathlib import Path
folder, out = Path(sys.argv[1]), Path(sys.argv[3])
pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
image = pipe("a red circle", height=32, width=32, num_inference_steps=2, true_cfg_scale=1.0, output_type="pt").images
assert image.isfinite().all()
auto = diffusers.AutoModel.from_pretrained(str(folder / "transformer"), trust_remote_code=True)
assert type(auto).__name__ == "HybridQwenImageTransformer2DModel"
assert torch.equal(answer(pipe.transformer), answer(auto))
torch.save(answer(auto), out / "answer.pt")
try:
    diffusers.DiffusionPipeline.from_pretrained(folder)
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise SystemExit("it ran code without being allowed to")
pipe.save_pretrained(out / "again")
again = diffusers.DiffusionPipeline.from_pretrained(out / "again", trust_remote_code=True)
assert torch.equal(answer(again.transformer), answer(auto))
auto.to(torch.bfloat16).save_pretrained(out / "shards", max_shard_size="100KB")
shards = diffusers.AutoModel.from_pretrained(str(out / "shards"), trust_remote_code=True)
assert shards.dtype == torch.float32 and shards.config.single_stream_layers == [1, 2]
import pickle
assert torch.equal(answer(pickle.loads(pickle.dumps(shards))), answer(shards))
"""


def test_it_loads_without_the_workbench_and_saves_again(
    student_folder: Path, tmp_path: Path
) -> None:
    alone(EVERYWHERE, tmp_path, str(student_folder), str(tmp_path))
    assert torch.equal(torch.load(tmp_path / "answer.pt"), expected(student_folder))
    again = tmp_path / "again"
    assert sorted(p.name for p in (again / "transformer").iterdir()) == sorted(
        p.name for p in (student_folder / "transformer").iterdir()
    )
    assert json.loads((again / "model_index.json").read_text())["transformer"][
        0
    ] == students.module_name("qwenimage")
    assert torch.equal(expected(again), expected(student_folder))
    assert not surgery.repair(again), "nothing to repair"
    models.load_pipeline(again)


FACTORED = """
from pathlib import Path
folder, out = Path(sys.argv[1]), Path(sys.argv[3])
pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
image = pipe("a red circle", height=32, width=32, num_inference_steps=2, true_cfg_scale=1.0, output_type="pt").images
assert image.isfinite().all()
assert pipe.transformer.config.modulation_rank == {f"transformer_blocks.{b}": 4 for b in range(3)}
torch.save(answer(pipe.transformer), out / "answer.pt")
pipe.save_pretrained(out / "again")
"""


def test_a_folder_with_low_rank_modulation_loads_and_saves_in_a_pipeline_elsewhere(
    teacher_folder: Path, tmp_path: Path
) -> None:
    teacher = models.describe(teacher_folder, "tiny")
    spans = [Span(blocks=(0, 1), init="mean", gain=2), Span(blocks=(2, 3)), Span(blocks=(4, 5))]
    plan = HYBRID.model_copy(update={"stacks": {"transformer_blocks": spans}})
    build(teacher_folder, plans.with_modulation(plan, teacher, 4), tmp_path / "student")
    alone(FACTORED, tmp_path, str(tmp_path / "student"), str(tmp_path))
    made = torch.load(tmp_path / "answer.pt")
    assert torch.equal(made, expected(tmp_path / "student"))
    assert torch.equal(made, expected(tmp_path / "again"))


@contextmanager
def mock_hub(folder: Path, repo: str) -> Iterator[str]:
    """A Hub on loopback that holds one repository."""
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    sha = "0" * 40

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self, body: bool = True) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{repo}"):
                siblings = [
                    {"rfilename": name, "size": file.stat().st_size} for name, file in files.items()
                ]
                if "/tree/" in path:
                    data = json.dumps(
                        [
                            {"type": "file", "path": s["rfilename"], "size": s["size"], "oid": "0"}
                            for s in siblings
                        ]
                    ).encode()
                else:
                    data = json.dumps(
                        {
                            "id": repo,
                            "modelId": repo,
                            "sha": sha,
                            "siblings": siblings,
                            "private": False,
                            "tags": [],
                            "downloads": 0,
                            "likes": 0,
                        }
                    ).encode()
                return self.reply(data, "application/json", body)
            name = path.removeprefix(f"/{repo}/resolve/").partition("/")[2]
            if name not in files:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            return self.reply(files[name].read_bytes(), "application/octet-stream", body)

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def reply(self, data: bytes, kind: str, body: bool) -> None:
            self.send_response(200)
            for key, value in {
                "Content-Type": kind,
                "Content-Length": str(len(data)),
                "ETag": f'"{hash(data) & 0xFFFFFFFF:x}"',
                "X-Repo-Commit": sha,
                "Accept-Ranges": "none",
            }.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_it_loads_from_a_hub(student_folder: Path, tmp_path: Path) -> None:
    code = """
pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
torch.save(answer(pipe.transformer), sys.argv[3])
"""
    with mock_hub(student_folder, "someone/hybrid") as url:
        alone(
            code,
            tmp_path,
            "someone/hybrid",
            str(tmp_path / "answer.pt"),
            env={
                "HF_ENDPOINT": url,
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            },
        )
    assert torch.equal(torch.load(tmp_path / "answer.pt"), expected(student_folder))


@pytest.mark.parametrize("name", SINGLE)
def test_every_family_loads_elsewhere(name: str, tmp_path: Path) -> None:
    """In this process as diffusers loads it: from the file in the folder, not from the package."""
    import diffusers

    model = family_model(name)
    model.save_pretrained(tmp_path / "teacher")
    first = free(name)[0]
    plan = plan_of(name, {first: {"stream": "single"}, free(name)[-1]: {"drop": ("text.mlp",)}})
    build(tmp_path / "teacher", plan, tmp_path / "student")
    loaded = diffusers.AutoModel.from_pretrained(
        str(tmp_path / "student"), trust_remote_code=True
    ).eval()
    assert (
        type(loaded) is not students.student_class(name)
        and type(loaded).__name__ == students.student_class(name).__name__
    )
    with surgery.applied(model, plan):
        assert torch.equal(answer(loaded), answer(model))
    assert torch.equal(answer(models.load_transformer(tmp_path / "student")), answer(loaded))


# --- repair, guards -------------------------------------------------------------------------------


def test_a_broken_folder_is_repaired(student_folder: Path, tmp_path: Path) -> None:
    """As diffusers' save_pretrained leaves a folder of custom code that does not look after itself."""
    broken = tmp_path / "broken"
    shutil.copytree(student_folder, broken)
    (broken / "transformer" / f"{students.module_name('qwenimage')}.py").unlink()
    (broken / "transformer" / "modeling_hybrid_qwenimage_0.py").write_text("raise SystemExit")
    config = json.loads((broken / "transformer" / "config.json").read_text())
    (broken / "transformer" / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k != "auto_map"})
    )
    index = json.loads((broken / "model_index.json").read_text())
    index["transformer"][0] = "diffusers_modules.local.modeling_x"
    (broken / "model_index.json").write_text(json.dumps(index))
    assert surgery.repair(broken) and not surgery.repair(broken)
    for file in (
        "model_index.json",
        "transformer/config.json",
        f"transformer/{students.module_name('qwenimage')}.py",
    ):
        text = [(folder / file).read_text() for folder in (broken, student_folder)]
        assert (
            text[0] == text[1]
            if file.endswith(".py")
            else json.loads(text[0]) == json.loads(text[1])
        )
    assert not list((broken / "transformer").glob("*_0.py"))


def test_what_cannot_be_repaired(
    student_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    with refused(found=str(teacher_folder), do="nothing needs repair"):
        surgery.repair(teacher_folder)
    stock = tmp_path / "stock"
    shutil.copytree(student_folder, stock)
    config = json.loads((stock / "transformer" / "config.json").read_text())
    (stock / "transformer" / "config.json").write_text(
        json.dumps(config | {"_class_name": "QwenImageTransformer2DModel"})
    )
    with refused(found=f"{stock}/transformer", expected="HybridQwenImageTransformer2DModel"):
        surgery.repair(stock)
    for load in (
        models.load_transformer,
        models.load_pipeline,
        lambda path: models.describe(path, "x"),
    ):
        with refused(found="config.json", expected="HybridQwenImageTransformer2DModel"):
            load(stock)


def test_our_pipeline_is_the_pipeline(student_folder: Path) -> None:
    pipe = models.load_pipeline(student_folder)
    assert type(pipe).__name__ == "QwenImagePipeline" and type(
        pipe.transformer
    ) is students.student_class("qwenimage")
    image = pipe(
        "a red circle", height=SIZE, width=SIZE, num_inference_steps=2, true_cfg_scale=1.0
    ).images[0]
    assert image.size == (SIZE, SIZE)


# --- fat ------------------------------------------------------------------------------------------


def test_the_fat_form_is_stock_and_the_same(
    student_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline, QwenImageTransformer2DModel

    result = build(teacher_folder, HYBRID, tmp_path / "fat", fat=True)
    assert result["stock"] is True and not list((tmp_path / "fat").rglob("*.py"))
    fat = DiffusionPipeline.from_pretrained(tmp_path / "fat").transformer
    assert type(fat) is QwenImageTransformer2DModel
    with torch.no_grad():
        difference = (fat(**tiny_inputs())[0] - expected(student_folder)).abs().max()
    assert difference < 1e-4
    assert result["parameters"] == sum(p.numel() for p in fat.parameters())


@pytest.mark.parametrize("name", SINGLE)
def test_fat_tensors_are_the_tied_block(name: str) -> None:
    """Single streams and dropped parts written out for the stock class answer as the hybrid block
    does, gain and mean included.
    """
    model, path = family_model(name), FAMILIES[name].dual_stack
    row, index = FAMILIES[name].stack(path), free(name)[0]
    stack = model.get_submodule(path)
    block = stack[index]
    stock = {k: tuple(v.shape) for k, v in block.state_dict().items()}
    for more in ({}, {"drop": ("mlp",)}, {"gain": 2.0}):
        if name == "auraflow" and more.get("drop"):
            continue
        span = Span(blocks=(index, index), stream="single", **more)
        state = {
            k: weights_from_span.fat_tensor(
                k, lambda b, n: stack[b].state_dict()[n], stock, stock, span, row
            )
            for k in stock
        }
        assert {k: tuple(v.shape) for k, v in state.items()} == stock
        with surgery.applied(model, plan_of(name, {index: {"stream": "single", **more}})):
            expected = answer(model)
        held = {k: v.clone() for k, v in block.state_dict().items()}
        block.load_state_dict(state)
        got = answer(model)
        block.load_state_dict(held)
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5), more


# --- a student as a teacher -----------------------------------------------------------------------


def test_a_student_is_described_planned_built_and_cut_again(
    student_folder: Path, tmp_path: Path
) -> None:
    student = models.describe(student_folder, "student")
    assert (
        student.family == "qwenimage"
        and student.parameters == Card.load(student_folder / "card.json").parameters
    )
    [stack] = student.stacks
    assert (
        stack.depth == 5
        and len({stack.layout_of[b] for b in (1, 2)}) == 1
        and len(set(stack.layout_of)) == 4
    )
    again = Plan(
        teacher="student",
        family="qwenimage",
        stacks={
            "transformer_blocks": [
                Span(blocks=(0, 0), stream="single"),
                Span(blocks=(1, 2), init="mean", gain=2),
                Span(blocks=(3, 3), stream="single", drop=("mlp",)),
                Span(blocks=(4, 4), gain=2),
            ]
        },
    )
    plans.check(again, student)
    result = build(student_folder, again, tmp_path / "again")
    config = json.loads((tmp_path / "again" / "transformer" / "config.json").read_text())
    assert config["single_stream_layers"] == [0, 1, 2]
    assert config["removed_parts"] == {
        "transformer_blocks.2": ["mlp"],
        "transformer_blocks.3": ["text.output"],
    }
    loaded = models.load_transformer(tmp_path / "again")
    assert (
        result["parameters"]
        == plans.parameters(again, student)
        == sum(p.numel() for p in loaded.parameters())
    )
    teacher = models.load_transformer(student_folder)
    with surgery.applied(teacher, again), torch.no_grad():
        assert torch.equal(teacher(**tiny_inputs())[0], loaded(**tiny_inputs())[0])
    build(student_folder, plans.identity(student), tmp_path / "same")
    assert torch.equal(expected(tmp_path / "same"), expected(student_folder))
    assert checkpoints.fingerprint(tmp_path / "same" / "transformer") == checkpoints.fingerprint(
        student_folder / "transformer"
    )


def test_a_depth_cut_that_leaves_no_custom_block_is_stock(
    student_folder: Path, tmp_path: Path
) -> None:
    plan = Plan(
        teacher="student", family="qwenimage", stacks={"transformer_blocks": [Span(blocks=(0, 4))]}
    )
    result = build(student_folder, plan, tmp_path / "stock")
    assert result["stock"] is True and not list((tmp_path / "stock").rglob("*.py"))
    config = json.loads((tmp_path / "stock" / "transformer" / "config.json").read_text())
    assert config["_class_name"] == "QwenImageTransformer2DModel" and not {
        "auto_map",
        *export.CUSTOM,
    } & set(config)
    assert json.loads((tmp_path / "stock" / "model_index.json").read_text())["transformer"] == [
        "diffusers",
        config["_class_name"],
    ]
    from diffusers import DiffusionPipeline, QwenImageTransformer2DModel

    stock, teacher = (
        DiffusionPipeline.from_pretrained(tmp_path / "stock").transformer,
        models.load_transformer(student_folder),
    )
    with surgery.applied(teacher, plan), torch.no_grad():
        assert type(teacher) is type(stock) is QwenImageTransformer2DModel
        assert torch.equal(teacher(**tiny_inputs())[0], stock(**tiny_inputs())[0])
    assert type(teacher) is students.student_class("qwenimage")


def test_what_a_students_blocks_cannot(student_folder: Path) -> None:
    student = models.describe(student_folder, "student")
    kept = [Span(blocks=(b, b)) for b in range(5)]
    text = {"drop": ("text.mlp",)}
    for block, more, value in (
        (1, text, "[1]: part 'text.mlp'"),
        (3, text, "[3]: part 'text.mlp'"),
        (1, {"stream": "dual"}, "[1]: stream dual"),
    ):
        spans = [Span(blocks=(b, b), **more) if b == block else kept[b] for b in range(5)]
        with refused(found=value):
            plans.check(
                Plan(teacher="s", family="qwenimage", stacks={"transformer_blocks": spans}), student
            )
    with refused(found="[0-1]: block 1", do="first, last or middle"):
        plans.check(
            Plan(
                teacher="s",
                family="qwenimage",
                stacks={"transformer_blocks": [Span(blocks=(0, 1), init="mean"), *kept[2:]]},
            ),
            student,
        )

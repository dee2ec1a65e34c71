"""What a build promises whatever happens to it: killed, out of space, on a failing disk, from any
kind of folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.refusals import refused
from tests.surgery.test_surgery import built
from tests.tiny_teacher import MIXED, plan_of
from workbench import models, plans, surgery
from workbench.models import checkpoints, file_io
from workbench.records import BadInput, Plan, Teacher
from workbench.surgery import on_disk

OTHER = plan_of({"blocks": [0, 2]}, {"blocks": [3, 5], "init": "mean"})


def tree(folder: Path) -> dict[str, str]:
    """Every file with a digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def steps(doomed: int | None, seen: list[int]) -> pytest.MonkeyPatch:
    """Count what a build asks of the system; before the request number `doomed` this process kills
    itself.
    """
    patch = pytest.MonkeyPatch()

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(seen) == doomed:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(1)
            return real(*args, **kwargs)

        return call

    for module, names in (
        (os, ("preadv", "fsync", "link", "rename", "replace", "mkdir", "unlink", "rmdir")),
        (file_io, ("exchange",)),
    ):
        for name in names:
            patch.setattr(module, name, counted(getattr(module, name)))
    return patch


def requests(folder: Path, teacher: Teacher, plan: Plan, out: Path) -> int:
    seen: list[int] = []
    patch = steps(None, seen)
    try:
        built(folder, teacher, plan, out)
    finally:
        patch.undo()
    return len(seen)


def killed(folder: Path, teacher: Teacher, plan: Plan, out: Path, moment: int) -> None:
    """Build in a child process that dies by kill -9 before the request of that number."""
    child = os.fork()
    if child == 0:
        steps(moment, [])
        built(folder, teacher, plan, out)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (
        "the build was over before its moment"
    )


@pytest.mark.parametrize("older", [False, True])
def test_a_killed_build_leaves_the_old_or_the_new_never_a_part(
    folder: Path, teacher: Teacher, tmp_path: Path, older: bool
) -> None:
    plan, out = plan_of(*MIXED), tmp_path / "out"
    built(folder, teacher, plan, tmp_path / "whole")
    built(folder, teacher, OTHER, tmp_path / "before")
    whole, before = tree(tmp_path / "whole"), tree(tmp_path / "before")

    def ready() -> None:
        for path in (out, *tmp_path.glob(".out.*")):
            shutil.rmtree(path, ignore_errors=True)
        if older:
            shutil.copytree(tmp_path / "before", out)

    ready()
    count = requests(folder, teacher, plan, out)
    moments = sorted(
        {*range(0, count, max(count // 12, 1)), *range(count - 40, count, 3), count - 2, count - 1}
    )
    found = set()
    for moment in moments:
        ready()
        killed(folder, teacher, plan, out, moment)
        held = tree(out) if out.exists() else {}
        assert held in (whole, before if older else {}), (
            f"killed before request {moment} of {count}"
        )
        found.add("new" if held == whole else "old")
    assert found == {"old", "new"}, "both sides of the moment were tried"
    built(folder, teacher, plan, out)
    # and it swept up
    assert tree(out) == whole and sorted(p.name for p in tmp_path.iterdir()) == [
        "before",
        "out",
        "whole",
    ]


def test_without_an_exchange_of_names_the_old_student_stands_aside(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(folder, teacher, OTHER, tmp_path / "out")
    old = tree(tmp_path / "out")
    monkeypatch.setattr(file_io, "exchange", lambda one, two: False)
    built(folder, teacher, plan_of(*MIXED), tmp_path / "out")
    assert tree(tmp_path / "out") != old and [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("harm", ["byte", "tensor", "header"])
def test_what_the_disk_garbled_is_never_published(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    finish = on_disk.export.finish

    def garble(written: Path, *args: Any) -> dict[str, Any]:
        file = written / f"{checkpoints.STEM}.safetensors"
        data = bytearray(file.read_bytes())
        if harm == "byte":
            data[-7] ^= 1
        elif harm == "tensor":
            data[-2000:-1000], data[-1000:] = data[-1000:], data[-2000:-1000]
        else:
            data[12] ^= 1
        file.write_bytes(data)
        return finish(written, *args)

    monkeypatch.setattr(on_disk.export, "finish", garble)
    with pytest.raises((OSError, BadInput), match=r"failing|header|announced"):
        built(folder, teacher, plan_of(*MIXED), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_told_in_one_line(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.Writer, "_settle", full)
    with refused(found=str(tmp_path / "out"), do="free space"):
        built(folder, teacher, plan_of(*MIXED), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_space_a_build_needs_is_its_bytes(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte less than the weights take is refused before anything is written; with a MiB to
    spare it is built.
    """
    weights = sum(
        info.bytes for info in checkpoints.headers(models.transformer_folder(folder)).values()
    )
    usage = shutil.disk_usage(tmp_path)
    for free, fits in ((weights - 1, False), (weights + 2**20, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        if fits:
            built(folder, teacher, plans.identity(teacher), tmp_path / "out")
        else:
            with refused(found=str(tmp_path / "out"), expected="GiB"):
                next(
                    iter(surgery.build(folder, teacher, plans.identity(teacher), tmp_path / "out"))
                )
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_dtype_and_bytes_are_kept_from_shards(folder: Path, tmp_path: Path, dtype: str) -> None:
    models.load_transformer(folder, dtype=dtype).save_pretrained(
        tmp_path / "sharded", max_shard_size="100KB"
    )
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    teacher = models.describe(tmp_path / "sharded", "sharded")
    built(
        tmp_path / "sharded",
        teacher,
        plan_of(*({"blocks": b} for b in range(3)), {"blocks": [3, 5]}),
        tmp_path / "out",
    )
    with (
        checkpoints.Reader(tmp_path / "sharded") as before,
        checkpoints.Reader(tmp_path / "out") as after,
    ):
        assert {info.torch_dtype for info in after.tensors.values()} == {models.parse_dtype(dtype)}
        assert all(after.raw(name) == before.raw(name) for name in after.tensors)
    assert (tmp_path / "out" / "card.json").is_file() and not list(
        (tmp_path / "out").glob("*.index.json")
    )


def test_mixed_dtypes_are_kept_each(folder: Path, tmp_path: Path) -> None:
    """As in checkpoints that keep some tensors in float32."""
    model = models.load_transformer(folder, dtype="bf16")
    model.transformer_blocks[2].img_mlp.net[2].weight.data = (
        model.transformer_blocks[2].img_mlp.net[2].weight.data.float()
    )
    model.save_pretrained(tmp_path / "mixed")
    teacher = models.describe(tmp_path / "mixed", "mixed")
    built(
        tmp_path / "mixed",
        teacher,
        plan_of({"blocks": [0, 1], "init": "last"}, {"blocks": 2}, {"blocks": [3, 5]}),
        tmp_path / "out",
    )
    held = checkpoints.headers(tmp_path / "out")
    assert {name for name, info in held.items() if info.torch_dtype == torch.float32} == {
        "transformer_blocks.1.img_mlp.net.2.weight"
    }


def test_a_teacher_in_a_hub_cache(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    """There every file is a symbolic link to a blob. The student holds hard links to the blobs, and
    no symbolic ones.
    """
    snapshot, blobs = (
        tmp_path / "models--x--tiny" / "snapshots" / "abc",
        tmp_path / "models--x--tiny" / "blobs",
    )
    blobs.mkdir(parents=True)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        blob = blobs / hashlib.sha256(str(path).encode()).hexdigest()
        shutil.copy(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    built(snapshot, models.describe(snapshot, "x/tiny"), plan_of(*MIXED), tmp_path / "out")
    built(folder, teacher, plan_of(*MIXED), tmp_path / "plain")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    assert os.path.samefile(
        tmp_path / "out" / "vae" / "config.json", snapshot / "vae" / "config.json"
    )
    one, two = tree(tmp_path / "out"), tree(tmp_path / "plain")
    named = ("card.json", "README.md")  # they tell the teacher's name
    assert {n: d for n, d in one.items() if n not in named} == {
        n: d for n, d in two.items() if n not in named
    }

"""`workbench release`: find the student's comparison and its teacher's licence, then write and
perhaps upload the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..families.runtimes import RUNTIMES
from ..models import is_pipeline, transformer_folder
from ..models.hub import Unreachable
from ..models.quantized.stored import check_unquantized
from ..records import BadInput, Comparison, Plan, Progress
from ..release import Evidence, Licence, push, read_licence
from ..release import release as write_release
from ..release.evidence import check_evidence, evidence_of
from ..release.folder import Release, check_free, is_release_of, written
from ..release.private import check_private
from ..release.push import check_repo_name, check_upload
from ..release.single_file import SingleFile, check_single_file
from ..release.space import check_space, space_folder, write_space
from ..specs import ReleaseSpec
from .context import Context
from .resolve import Model, resolve


def release(spec: ReleaseSpec, context: Context) -> Iterator[Progress]:
    """Write the folder and the Space, then upload them if asked to. Result: release, files, bytes,
    left_out, license, comparison, space, push {repository, address, space_address, uploaded}.

    A folder that was released before from the same student is uploaded as it lies there, with what
    a person has changed in its card.
    """
    order = order_of(spec, context)
    print_notes(order)
    if spec.out is None:
        out = context.store.out("release", order.student.name)
    else:
        out = Path(spec.out).absolute()
    if is_ready(spec, order, out):
        check_private(out, *order.private)
        done = Progress(step=1, total=1, message="as it is", result=written(out, []))
    else:
        for progress in write_release(order, out):
            if progress.result is None:
                yield progress
            else:
                done = progress
    space = space_folder(out) if spec.space else None
    if space is not None and is_space_ready(spec, space):
        check_private(space, *order.private)
    elif space is not None:
        yield done.model_copy(update={"result": None, "message": "writing the Space"})
        write_space(order, out, space)
    pushed = None
    if spec.push:
        yield done.model_copy(update={"result": None, "message": f"uploading to {spec.push}"})
        pushed = pushed_to(out, space, spec)
    result = {
        "release": str(out),
        **done.result,
        "license": order.licence.name or None,
        "comparison": str(order.evidence.folder) if order.evidence else None,
        "space": str(space) if space else None,
        "push": pushed,
    }
    yield done.model_copy(update={"result": result})


def check_release(spec: ReleaseSpec, context: Context) -> None:
    """The student, the comparison, the output and the repository's name."""
    order = order_of(spec, context)
    if spec.out:
        out = Path(spec.out).absolute()
        if not is_ready(spec, order, out):
            check_free(out)
    if order.single is not None:
        check_single_file(order.single)
    if spec.space and order.single is not None:
        raise BadInput(
            f"--space with --for {spec.runtime}",
            "a release for diffusers, which a Space loads",
            "leave out one of them",
        )
    if spec.space:
        check_space(order, space_to_write(spec))
    if spec.push is None and (spec.yes or spec.public or spec.replace):
        raise BadInput(
            "--yes, --public or --replace without --push", "--push REPO", "name the repository"
        )
    if spec.push is not None:
        check_repo_name(spec.push)
    if spec.push is not None and spec.yes:
        check_upload(spec.push, spec.replace)
        if spec.space:
            check_upload(spec.push, spec.replace, "space")


def is_ready(spec: ReleaseSpec, order: Release, out: Path) -> bool:
    """Whether there is only the upload left to do."""
    return spec.push is not None and spec.yes and is_release_of(order, out)


def is_space_ready(spec: ReleaseSpec, space: Path) -> bool:
    """Whether a Space was written and looked at before, so that it is only to be uploaded."""
    return spec.push is not None and spec.yes and (space / "space.json").is_file()


def space_to_write(spec: ReleaseSpec) -> Path | None:
    """The folder that the Space will be written to, which must be free; None where it lies there
    already, or will be chosen.
    """
    if spec.out is None:
        return None
    space = space_folder(Path(spec.out).absolute())
    return None if is_space_ready(spec, space) else space


def print_notes(order: Release) -> None:
    """What a person should know before the folder is given away."""
    if order.evidence is None:
        note(f"{order.student.name} has not been compared with its teacher: the card will say so")
    if not order.licence.source:
        note("the teacher's licence was not found: add --license")


def pushed_to(out: Path, space: Path | None, spec: ReleaseSpec) -> dict[str, object]:
    """Upload, or say what would be. The model comes first: the Space loads it."""
    assert spec.push is not None
    done: dict[str, object] = {"repository": spec.push, "address": None, "space_address": None}
    if spec.yes:
        send = partial(push, repo=spec.push, public=spec.public, replace=spec.replace)
        done["address"] = send(out)
        if space is not None:
            done["space_address"] = send(space, kind="space")
    return {**done, "uploaded": spec.yes}


def order_of(spec: ReleaseSpec, context: Context) -> Release:
    """What to release. Raises BadInput for what is not a student of ours."""
    model = resolve(spec.student, context.store)
    if model.card is None:
        raise BadInput(
            f"{spec.student} has no card.json",
            "a student that `workbench build` or `workbench distill` wrote",
            "name its folder",
        )
    check_unquantized(transformer_folder(model.folder), model.name, "release")
    plan_file = model.folder / "plan.yaml"
    plan = Plan.load(plan_file) if plan_file.is_file() else Plan.parse(model.card.plan, "card.json")
    return Release(
        student=model.folder,
        card=model.card,
        plan=plan,
        licence=licence_of(model, spec.license, context),
        evidence=evidence(model, spec.comparison, context),
        sampling=model.sampling if is_pipeline(model.folder) else None,
        private=(context.store.workspace.resolve(),),
        repo=spec.push or "",
        single=single_file(spec, model),
    )


def single_file(spec: ReleaseSpec, model: Model) -> SingleFile | None:
    """The one file that --for asks for; None for diffusers' folder."""
    if RUNTIMES[spec.runtime].form == "folder":
        return None
    return SingleFile(
        transformer=transformer_folder(model.folder),
        runtime=spec.runtime,
        weights=spec.gguf_weights.upper(),
        name=model.folder.name,
    )


def evidence(model: Model, comparison: str | None, context: Context) -> Evidence | None:
    """The comparison that was named, or the newest of the workspace that has the student and was
    made after it; None where there is none.
    """
    if comparison is not None:
        entry = context.store.find("comparison", comparison)
        path = Path(entry.path) if entry else Path(comparison)
        return check_evidence(path, model.folder)
    for entry in context.store.records("comparison"):
        folder = Path(entry.path)
        file = folder / "comparison.json"
        if file.stat().st_mtime < (model.folder / "card.json").stat().st_mtime:
            continue
        found = evidence_of(Comparison.load(file), folder, model.folder)
        if found is not None:
            return found
    return None


def licence_of(model: Model, identifier: str | None, context: Context) -> Licence:
    """The teacher's licence: from its folder or the Hub's cache, else from the student's own; the
    identifier that was given wins.
    """
    licence = Licence()
    assert model.card is not None
    if model.bundled:
        return Licence({"license": "apache-2.0"}, (), "the bundled teacher of DiT Workbench")
    for source, folder in licence_sources(model, context):
        if not licence.source:
            licence = read_licence(folder, source)
    if identifier:
        entries = {**licence.entries, "license": identifier}
        source = licence.source or "the command that made this folder"
        return replace(licence, entries=entries, source=source)
    return licence


def licence_sources(model: Model, context: Context) -> Iterator[tuple[str, Path | None]]:
    """(whose, folder) to look for a licence in."""
    assert model.card is not None
    for name in dict.fromkeys([model.card.original, model.card.teacher]):
        try:
            teacher = resolve(name, context.store, weights=False)
        except (BadInput, Unreachable):  # it has moved
            continue
        if teacher.path is not None:
            folder = teacher.path if teacher.path.is_dir() else teacher.path.parent
            yield Path(name).name if Path(name).is_absolute() else name, folder
    yield "the student's folder", model.folder


def note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)

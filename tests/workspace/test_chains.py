"""Chains: one link after the other, held behind one that failed, one row of the list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.cli.main import run
from workbench.records import BadInput
from workbench.specs import VerbSpec, parse_spec
from workbench.workspace import chains, jobs
from workbench.workspace.store import Store

from .conftest import wait_for


def counts(tmp_path: Path, *first: dict) -> list[VerbSpec]:
    """Links that count, each of which names the output of the one before as its input."""
    specs = []
    for number, data in enumerate(first):
        data = {"diary": str(tmp_path / "diary"), "out": str(tmp_path / f"{number}.txt"), **data}
        if number:
            data["prompts"] = str(tmp_path / f"{number - 1}.txt")
        specs.append(parse_spec("count", data))
    return specs


def test_links_run_one_after_the_other(store: Store, tmp_path: Path):
    made = chains.submit(store, counts(tmp_path, {"steps": 3}, {"steps": 2}, {"steps": 1}))
    assert [job.follows for job in made] == ["", made[0].id, made[1].id]
    assert made[2].error == f"waits for {made[1].id}"
    wait_for(store, made[2].id, "done", "failed", seconds=90)
    chain = chains.find(store, made[0].chain)
    assert (chain.state, chain.step, chain.total, chain.error) == ("done", 3, 3, "")
    lines = (tmp_path / "diary").read_text().splitlines()
    order = [line.split(" ", 1)[1] for line in lines]
    assert order == [f"{word} {job.id}" for job in made for word in ("start", "end")]


def test_a_failed_link_holds_the_rest_until_it_is_done(store: Store, tmp_path: Path):
    made = chains.submit(store, counts(tmp_path, {"steps": 3, "die_at": 2}, {"steps": 1}))
    wait_for(store, made[0].id, "failed", seconds=60)
    other = jobs.submit(store, "count", {"steps": 1})  # not of the chain: it need not wait
    wait_for(store, other.id, "done", seconds=60)
    held = jobs.show(store, made[1].id)
    assert (held.state, held.error) == ("queued", f"held: it follows {made[0].id}, which is failed")
    chain = chains.find(store, made[0].chain)
    assert (chain.state, chain.step) == ("failed", 0)
    assert chain.error.startswith(f"{made[0].id}: killed by SIGKILL")
    chains.apply(store, chain.id, "resume")
    wait_for(store, made[1].id, "done", seconds=60)


def test_a_chain_is_one_row_that_unfolds(store: Store, tmp_path: Path, capsys):
    made = chains.submit(store, counts(tmp_path, {}, {}), start=False)
    jobs.submit(store, "count", {}, start=False)
    where = ["--workspace", str(store.workspace)]
    for job in made:
        jobs.pause(store, job.id)
    jobs.pause(store, "3")
    capsys.readouterr()
    assert run(["jobs", *where]) == 0
    [single, chain] = capsys.readouterr().out.strip().splitlines()[2:]
    assert single.startswith("0003-count") and chain.startswith("c1")
    assert run(["jobs", "show", "c1", *where]) == 0
    rows = capsys.readouterr().out.strip().splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["c1", "0001-count", "0002-count"]
    assert run(["jobs", "cancel", "c1", "--json", *where]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [job["state"] for job in facts["jobs"]] == ["cancelled", "cancelled"]
    assert run(["jobs", "show", "c9", *where]) == 2


def test_outputs_are_reserved_when_the_chain_is_queued(store: Store, tmp_path: Path):
    specs = counts(tmp_path, {}, {})
    [first, second] = chains.submit(store, specs, start=False)
    for path, owner in (("0.txt", first), ("1.txt", second)):
        with pytest.raises(BadInput, match=f"reserved for job {owner.id}"):
            jobs.submit(store, "count", {"out": str(tmp_path / path)}, start=False)
    with pytest.raises(BadInput, match="reserved for job"):
        chains.submit(store, specs, start=False)
    assert len(jobs.list_jobs(store)) == 2


def test_two_links_of_one_output_leave_no_chain(store: Store, tmp_path: Path):
    specs = counts(tmp_path, {}, {"out": str(tmp_path / "0.txt")})
    with pytest.raises(BadInput, match="reserved for job"):
        chains.submit(store, specs, start=False)
    assert [job.state for job in jobs.list_jobs(store)] == ["cancelled"]


def test_links_take_what_the_links_before_them_write(store: Store, tmp_path: Path):
    data = {"name": "small", "profile": {"seeds": 1}, "plan": {"keep": 12, "rule": "amber"}}
    data |= {"build": None, "distill": {"recipe": "koala"}, "compare": {"out": "cmp"}}
    chain = chains.ChainFile.parse(data, "chain.yaml")
    profile, plan, build, distill, compare = [
        spec.model_dump() for spec in chains.specs_of(chain, store, tmp_path)
    ]
    assert profile["teacher"] == plan["teacher"] == "demo"
    assert plan["sensitivity"] == distill["sensitivity"] == profile["out"]
    assert build["plan"] == plan["out"]
    assert distill["student"] == build["out"] != distill["out"]
    assert compare["models"] == ["demo", distill["out"]]
    assert compare["out"] == str(tmp_path / "cmp")
    assert profile["out"] == str(store.workspace / "sensitivity" / "small.json")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"plan": {"keep": 12}}, "chain of 1 links"),
        ({"plan": {"keep": 12}, "build": {"plain": True}}, "unknown key plain"),
        ({"plan": {"keep": 12}, "destill": {}}, "unknown key destill"),
        ({"build": {}, "distill": {}}, "build of the chain without plan"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_in_one_line(
    data: dict, line: str, store: Store, tmp_path: Path
):
    with pytest.raises(BadInput, match=line) as error:
        chains.specs_of(chains.ChainFile.parse(data, "chain.yaml"), store, tmp_path)
    assert "\n" not in str(error.value)

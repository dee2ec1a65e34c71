"""A study on disk and its server: what a browser gets says nothing, a vote counts once, a kill loses
none.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from workbench.cli import run
from workbench.records import BadInput, Study, Vote
from workbench.study import create, votes
from workbench.study.booth import Booth
from workbench.study.create import Design
from workbench.study.export import votes_csv
from workbench.study.results import results_of
from workbench.study.secrets import Codes
from workbench.web.raters import RaterPages

from . import studies

GREY = (120, 130, 140)
RED = (200, 60, 60)
ROOT = Path(__file__).parents[2]


def made(tmp_path: Path, colours=(GREY, RED), name: str = "study", **options) -> Path:
    source = studies.with_pictures(tmp_path / f"{name}-cmp", colours, prompts=3, seeds=1)
    out = tmp_path / name
    list(create.create([source], Design(**{"kind": "pairs", "raters": 4, **options}), out))
    return out


def client_of(booth: Booth) -> TestClient:
    return TestClient(RaterPages(booth).app(), base_url="http://localhost")


def begun(booth: Booth) -> TestClient:
    client = client_of(booth)
    client.get(f"/join/{booth.codes.open_link()}")
    assert client.post("/begin", json={}).json()["begun"]
    return client


ANSWERS = {
    "pairs": {"choice": "a"},
    "abx": {"choice": "b"},
    "ratings": {"quality": 2, "alignment": 3},
}


def transcript(booth: Booth) -> list[object]:
    """All that a browser gets in a whole session: addresses, headers, texts, pixels and lengths."""
    received: list[object] = []
    client = client_of(booth)

    def keep(answer) -> None:
        headers = {name: text for name, text in answer.headers.items() if name != "set-cookie"}
        content: object = answer.content
        if headers.get("content-type") == "image/png":
            image = Image.open(io.BytesIO(answer.content))
            assert image.info == {} and image.size == (24, 24)
            content = (len(answer.content), image.convert("RGB").tobytes())
        received.append((str(answer.url), answer.status_code, headers, content))

    client.get(f"/join/{booth.codes.open_link()}")
    for path in ("/", "/raters.js", "/raters.css", "/state"):
        keep(client.get(path))
    keep(client.post("/begin", json={}))
    for position in range(len(booth.sheet(0))):
        for slot in booth.slots():
            keep(client.get(f"/picture/{position}/{slot}"))
        keep(client.post("/vote", json={"position": position, **ANSWERS[booth.study.kind]}))
    received.append(sorted(client.cookies.keys()))
    return received


@pytest.mark.parametrize("kind", ["pairs", "ratings", "abx"])
def test_what_a_browser_gets_is_the_same_whichever_model_is_where(tmp_path: Path, kind: str):
    """The models' pictures are equal here, so all else that could differ would give them away."""
    sessions = []
    for number in range(3):
        folder = made(tmp_path, (GREY, GREY), f"{kind}{number}", kind=kind, checks=0)
        study = Study.load(folder / "study.json")
        if number:  # the same order of rows, the models exchanged in each of them
            items = [item.model_copy(update={"models": item.models[::-1]}) for item in study.items]
            study = study.model_copy(update={"items": items})
        if number == 2:  # and other names
            text = study.model_dump_json().replace("student-a", "x").replace("teacher", "y")
            study = Study.model_validate_json(text)
        study.save(folder / "study.json")
        (folder / "secret").write_text("s" * 64)
        sessions.append(transcript(Booth(folder)))
    assert sessions[0] == sessions[1] == sessions[2]


def test_no_name_of_a_model_is_sent_and_all_pictures_have_one_length(tmp_path: Path):
    booth = Booth(made(tmp_path))
    received = transcript(booth)
    lengths = set()
    for _, _, _, content in received[:-1]:
        if isinstance(content, tuple):
            lengths.add(content[0])
    assert lengths == {booth.study.picture_bytes}
    text = str(received)
    for secret in ("teacher", "student", "damaged", str(tmp_path), booth.codes.secret):
        assert secret not in text


def test_equal_pictures_are_other_bytes_each_time(tmp_path: Path):
    booth = Booth(made(tmp_path, kind="abx", checks=0))
    client = begun(booth)
    shown = [client.get(f"/picture/0/{slot}").content for slot in ("a", "b", "x", "x")]
    assert len(set(shown)) == 4


def test_a_second_vote_is_refused_and_a_reload_goes_on(tmp_path: Path):
    booth = Booth(made(tmp_path))
    client = begun(booth)
    assert client.post("/vote", json={"position": 0, "choice": "a"}).json()["position"] == 1
    again = client.post("/vote", json={"position": 0, "choice": "b"})
    assert again.status_code == 409
    assert "a second vote on item 1" in again.json()["error"] and "\n" not in again.text
    assert client.post("/vote", json={"position": 3, "choice": "b"}).status_code == 409
    assert client.post("/vote", json={"position": 1, "choice": "x"}).status_code == 409
    assert client.get("/state").json()["position"] == 1
    assert client.get("/picture/0/a").status_code == 404  # it is over
    assert client.get("/picture/1/a").status_code == client.get("/picture/2/a").status_code == 200
    assert client.get("/picture/3/a").status_code == 404  # it is not there yet
    assert votes.read(booth.folder).votes[0, 0].choice == "a"


def test_only_the_link_opens_the_study_and_there_is_nothing_else(tmp_path: Path):
    booth = Booth(made(tmp_path, raters=1))
    stranger = client_of(booth)
    for path in ("/", "/state", "/join/x", "/as/x", "/picture/0/a", "/study.json", "/docs"):
        assert stranger.get(path).status_code == 404, path
    assert stranger.post("/begin", json={}).status_code == 404
    assert stranger.get("/state", headers={"host": "evil.example"}).status_code == 403
    foreign = stranger.post("/vote", json={}, headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403
    assert not booth.box.ballots.seats
    begun(booth)
    late = client_of(booth)
    late.get(f"/join/{booth.codes.open_link()}")
    assert late.post("/begin", json={}).status_code == 409
    invited = client_of(booth)  # another browser of the same rater
    invited.get(f"/as/{booth.codes.rater(0)}")
    assert invited.get("/state").json()["begun"]


def test_invited_raters_only(tmp_path: Path):
    booth = Booth(made(tmp_path, invited_only=True))
    client = client_of(booth)
    assert client.get(f"/join/{booth.codes.open_link()}").status_code == 404
    assert client.get(f"/as/{booth.codes.rater(2)}").status_code == 200
    client.post("/begin", json={})
    assert list(booth.box.ballots.seats) == [2]


def test_two_processes_do_not_serve_one_study(tmp_path: Path):
    folder = made(tmp_path)
    booth = Booth(folder)
    with pytest.raises(BadInput) as error:
        Booth(folder)
    assert "another process" in error.value.found
    booth.close()
    Booth(folder).close()


def test_half_a_line_of_a_killed_process_costs_nothing(tmp_path: Path):
    folder = made(tmp_path)
    booth = Booth(folder)
    begun(booth).post("/vote", json={"position": 0, "choice": "tie"})
    booth.close()
    with open(folder / "votes.jsonl", "ab") as file:
        file.write(b'{"event": "vote", "rater": 0, "posi')
    booth = Booth(folder)
    assert booth.place(0).position == 1
    booth.vote(0, {"position": 1, "choice": "a"})
    booth.close()
    ballots = votes.read(folder)
    assert sorted(ballots.votes) == [(0, 0), (0, 1)] and ballots.unread == 1
    assert results_of(folder).unread == 1


def test_votes_survive_kill_9_of_the_server(tmp_path: Path):
    folder = made(tmp_path)
    code = Codes(folder).rater(0)
    serve = (
        "import sys, pathlib; from workbench.web.raters import serve; "
        "serve(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]))"
    )
    for turn in range(2):
        port = free_port()
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", serve, str(folder), str(port)], env=env)
        try:
            if not turn:
                ask(port, code, "begin", {})
            state = ask(port, code, "vote", {"position": turn, "choice": "b"})
            assert state["position"] == turn + 1
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    assert sorted(votes.read(folder).votes) == [(0, 0), (0, 1)]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ask(port: int, code: str, path: str, body: dict[str, object]) -> dict[str, object]:
    """One request of a rater, as soon as the server answers."""
    url = f"http://127.0.0.1:{port}/{path}"
    headers = {"cookie": f"rater={code}"}
    until = time.monotonic() + 120
    while True:
        try:
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_the_export_says_what_was_shown_and_chosen(tmp_path: Path):
    folder = made(tmp_path)
    booth = Booth(folder)
    client = begun(booth)
    for position in range(3):
        client.post("/vote", json={"position": position, "choice": "a", "seconds": 1.5})
    rows = list(csv.DictReader(io.StringIO(votes_csv(folder))))
    assert len(rows) == 3
    for row, shown in zip(rows, booth.sheet(0), strict=False):
        assert (row["left"], row["right"]) == (shown.slots["a"], shown.slots["b"])
        assert row["chosen"] == row["left"] and row["seconds"] == "1.5"
        assert row["prompt"] == booth.study.rows[shown.item.row].prompt
        assert (row["passed"] != "") == shown.check


def test_from_a_comparison_to_results_on_the_command_line(tmp_path: Path, capsys):
    source = studies.with_pictures(tmp_path / "cmp", (GREY, RED), prompts=3, seeds=1)
    place = ["--workspace", str(tmp_path / "ws")]
    assert run(["study", "create", str(source.folder), "--kind", "abx", "--json", *place]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["study"])
    assert folder == (tmp_path / "ws/studies/cmp-abx").resolve()
    booth = Booth(folder)
    for rater in range(2):
        booth.begin(booth.codes.rater(rater))
        for position, shown in enumerate(booth.sheet(rater)):
            booth.vote(rater, {"position": position, **studies.looks(shown)})
    booth.close()
    assert run(["study", "results", "cmp-abx", "--json", *place]) == 0
    line = json.loads(capsys.readouterr().out)["abx"][0]
    assert (line["correct"], line["votes"]) == (6, 6) and line["p_value"] == pytest.approx(1 / 64)
    assert run(["study", "results", str(folder), *place]) == 0
    assert "6 of 6 correct" in capsys.readouterr().out
    assert run(["study", "export", str(folder), "--csv", *place]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * (3 + 3)
    assert run(["study", "links", str(folder), *place]) == 0
    assert len(set(capsys.readouterr().out.split())) == 20
    assert run(["study", "create", str(source.folder), "-o", str(folder), *place]) == 2
    assert run(["study", "results", "nothing", *place]) == 2
    assert "no study nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer", [{}, {"position": True}, {"position": 0}, {"position": 0, "choice": ["a"]}]
)
def test_answers_that_are_none_are_refused(tmp_path: Path, answer: dict[str, object]):
    booth = Booth(made(tmp_path))
    client = begun(booth)
    assert client.post("/vote", json=answer).status_code == 409
    assert client.post("/vote", content=b"x").status_code == 409
    assert client.post("/vote", content=b"[]").status_code == 409
    assert not booth.box.ballots.votes


def test_a_vote_is_one_line_that_is_read_back(tmp_path: Path):
    vote = Vote(rater=0, position=1, item=2, slots={"one": "m"}, quality=5, alignment=1, time=2.0)
    assert votes.parsed(vote.model_dump_json(exclude_none=True).encode()) == vote


def test_comparisons_of_other_prompts_and_missing_pictures_are_refused(tmp_path: Path):
    one = studies.with_pictures(tmp_path / "one", (GREY, RED), prompts=3, seeds=1)
    two = studies.with_pictures(tmp_path / "two", (GREY, RED), prompts=4, seeds=1)
    with pytest.raises(BadInput) as error:
        list(create.create([one, two], Design("pairs"), tmp_path / "out"))
    assert "other prompts" in error.value.found
    (one.folder / one.comparison.images["teacher"][0]).unlink()
    with pytest.raises(BadInput) as error:
        list(create.create([one], Design("pairs"), tmp_path / "out"))
    assert "is missing" in error.value.found
    assert not (tmp_path / "out").exists()

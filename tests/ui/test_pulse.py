"""What an open page asks the app (pulse.py): tokens that change with what is on disk, and only then."""

from __future__ import annotations

import pytest

from workbench.ui import catalogue, draft, pulse
from workbench.ui.access import Access
from workbench.ui.pulse import Pulse
from workbench.workspace import jobs
from workbench.workspace.store import Store

from . import synthetic

ASKED = {"open": ["plan", "students", "jobs", "compare"], "teacher": "demo", "job": ""}


@pytest.fixture
def asked(store: Store) -> Pulse:
    return Pulse(store, Access(store, read_only=True))


def test_nothing_new_on_disk_gives_the_same_answer(asked: Pulse):
    assert asked.news(ASKED) == asked.news(ASKED)


def test_a_new_record_is_news_for_the_pages_that_list_it(asked: Pulse, store: Store):
    before = asked.news(ASKED)["tokens"]
    synthetic.teacher(3, name="new").save(store.workspace / "teachers" / "new.json")
    after = asked.news(ASKED)["tokens"]
    changed = {area for area in after if after[area] != before[area]}
    assert changed == {"plan", "compare"}


def test_the_state_of_a_job_is_news_on_every_page(asked: Pulse, store: Store):
    elsewhere = {**ASKED, "open": ["plan"]}
    before = asked.news(elsewhere)["tokens"]
    job = jobs.submit(store, "distill", {"student": "x"}, title="job", start=False)
    queued = asked.news(elsewhere)["tokens"]
    assert queued["jobs"] != before["jobs"] and queued["plan"] == before["plan"]
    jobs.cancel(store, job.id)
    assert asked.news(elsewhere)["tokens"]["jobs"] != queued["jobs"]


def test_a_longer_log_is_news_where_its_job_is_shown(asked: Pulse, store: Store):
    job = jobs.submit(store, "distill", {"student": "x"}, title="job", start=False)
    jobs.cancel(store, job.id)
    shown, other = {**ASKED, "job": job.id}, {**ASKED, "job": "0000"}
    before = asked.news(shown)["tokens"]["jobs"], asked.news(other)["tokens"]["jobs"]
    with open(job.folder / "log.txt", "a") as log:
        log.write("a line\n")
    after = asked.news(shown)["tokens"]["jobs"], asked.news(other)["tokens"]["jobs"]
    assert before[0] != after[0] and before[1] == after[1]


def test_the_times_of_a_waiting_job_are_news_as_the_clock_goes(
    asked: Pulse, store: Store, monkeypatch: pytest.MonkeyPatch
):
    job = jobs.submit(store, "distill", {"student": "x"}, title="job", start=False)
    tokens = set()
    for now in (1e9, 1e9 + 1, 1e9 + 6):
        monkeypatch.setattr(pulse.time, "time", lambda now=now: now)
        tokens.add(asked.jobs_token(job.id))
    assert len(tokens) == 2


def test_the_version_is_that_of_the_plan_on_disk(asked: Pulse, store: Store):
    assert asked.news(ASKED)["version"] == 0
    teacher = catalogue.teacher(store, "demo")
    draft.change(store.workspace, teacher, 0, lambda current: current)
    version = draft.load(store.workspace, teacher).version
    assert asked.news(ASKED)["version"] == version != 0


@pytest.mark.parametrize(
    "sent", [None, [], "x", {"open": 3}, {"open": ["/etc"], "teacher": "/etc"}]
)
def test_whatever_is_sent_is_answered(asked: Pulse, sent: object):
    answer = asked.news(sent)
    assert set(answer["tokens"]) == {"jobs"} and answer["version"] is None

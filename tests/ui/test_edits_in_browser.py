"""Edits in a real browser, at the speed of a hand: none lost, none reordered, none that nobody made."""

from __future__ import annotations

import random
import time

import pytest

from workbench import plans
from workbench.plans.editing import marks
from workbench.records import BadInput, Plan
from workbench.ui import draft
from workbench.ui.components import script
from workbench.ui.draft import Draft
from workbench.ui.text import count

from . import synthetic
from .conftest import App
from .driving import HOST, clean, click, fresh, painted, places, ready, says, until

pytestmark = pytest.mark.browser
PATH = "transformer_blocks"
TEACHER = synthetic.teacher(24)
LATENCY = 300  # ms, of a slow network
KEYS = {"k": "keep", "d": "drop", "m": "merge", "u": "undo"}


def on_disk(app: App) -> Draft:
    return draft.load(app.workspace, TEACHER)


def by_engine(current: Draft, block: int, verb: str) -> Draft:
    """One edit as the engine makes it; a refused one changes nothing."""
    try:
        if verb == "undo":
            return current.back()
        return current.edited(marks.edit(current.plan, TEACHER, {PATH: [block]}, verb))
    except BadInput:
        return current


def marks_of(plan: Plan) -> list[str]:
    """The mark of every teacher block, from the plan's spans alone."""
    out = ["drop"] * TEACHER.stack(PATH).depth
    for span in plan.stacks[PATH]:
        for block in span.source:
            out[block] = "merge" if len(span.source) > 1 else "keep"
    return out


def all_saved(tab) -> None:
    until(lambda: tab.page.locator(HOST).get_attribute("data-waiting") == "0", 90)


def students(tab) -> list[str]:
    rows = tab.page.evaluate("document.querySelector('#heat .map-host').view.data('student')")
    return [row["made of"] for row in rows]


def test_a_hundred_edits_at_twenty_a_second_none_lost_none_reordered(app: App, open_tab):
    """By mouse and keyboard: a block is clicked, a key is pressed, and on to the next."""
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    network = tab.context.new_cdp_session(tab.page)
    network.send("Network.enable")
    conditions = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", {**conditions, "latency": LATENCY})
    where = places(tab, list(range(24)))
    chance = random.Random(LATENCY)
    expected = on_disk(app)
    start = time.monotonic()
    for number in range(100):
        block = chance.randrange(24)
        key = chance.choice("kdmddmu")
        tab.page.mouse.click(*where[block])
        tab.page.keyboard.press(key)
        expected = by_engine(expected, block, KEYS[key])
        time.sleep(max(0.0, start + (number + 1) / 20 - time.monotonic()))
    all_saved(tab)
    plan = expected.plan
    assert on_disk(app).plan.stacks == plan.stacks
    assert painted(tab) == marks_of(plan)
    assert len(students(tab)) == len(plan.stacks[PATH])
    info = plans.plan_info(plan, TEACHER)
    says(tab, "#budget", count(info.parameters))
    tab.reload()
    ready(tab)
    assert painted(tab) == marks_of(plan)
    clean(tab)


def test_opening_a_field_and_leaving_it_writes_nothing_and_setting_it_is_one_step(
    app: App, open_tab
):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    click(tab, 4)
    tab.page.keyboard.press("m")
    gain = tab.page.locator("#hand-gain input")
    until(lambda: gain.is_enabled() and gain.input_value() == "length")
    chosen = tab.page.locator("#hand-stream input:checked")
    other = tab.page.locator("#hand-stream input:not(:checked)").first
    assert chosen.screenshot() != other.screenshot(), "which one is set is visible"
    all_saved(tab)
    before = on_disk(app)
    for field in ("#hand-gain input", "#hand-init select", "#hand-modulation select"):
        tab.page.locator(field).click()
        tab.page.keyboard.press("Escape")
    click(tab, 9)
    says(tab, "#chosen", "1 selected: 9")
    assert on_disk(app) == before
    tab.page.keyboard.press("d")
    until(lambda: painted(tab)[9] == "drop")
    click(tab, 4)
    until(lambda: gain.input_value() == "length")
    gain.fill("1.5")
    gain.press("Enter")
    says(tab, "#yaml", "gain: 1.5")
    tab.page.keyboard.press("u")
    says(tab, "#yaml", "gain: 2")
    assert painted(tab)[9] == "drop"
    clean(tab)


def test_clicks_ranges_keys_and_what_is_offered_instead_of_a_refused_edit(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    selected = tab.page.locator(HOST)
    keys = tab.page.keyboard

    def chosen() -> str:
        return selected.get_attribute("data-selected")

    click(tab, 4)
    click(tab, 7, "Shift")
    assert chosen() == "4,5,6,7"
    click(tab, 6, "Control")
    click(tab, 9, "Control")
    assert chosen() == "4,5,7,9"
    keys.press("m")
    until(lambda: painted(tab)[4:10] == ["merge", "merge", *["keep"] * 4])
    tab.page.locator("#hand-stream").get_by_text("single").click()
    says(tab, "#yaml", "stream: single")
    keys.press("d")  # the focus is on a radio
    until(lambda: painted(tab)[4] == "drop")
    keys.press("Control+z")
    until(lambda: painted(tab)[4] == "merge")
    keys.press("Control+Shift+z")
    until(lambda: painted(tab)[4] == "drop")
    tab.page.locator("#reset").click()
    until(lambda: set(painted(tab)) == {"keep"})
    keys.press("Control+a")
    assert len(chosen().split(",")) == 24
    keys.press("d")
    says(tab, "#heat .map-line", "No block of transformer_blocks is kept")
    tab.page.get_by_role("button", name="Drop 1-23").click()
    until(lambda: painted(tab) == ["keep", *["drop"] * 23])
    all_saved(tab)
    assert len(on_disk(app).plan.stacks[PATH]) == 1
    assert tab.page.locator("#heat .map-line").inner_text() == ""
    clean(tab)


def test_two_windows_edit_one_plan_and_nothing_is_lost(app: App, open_tab):
    fresh(app)
    one, two = open_tab(app.url), open_tab(app.url)
    ready(one), ready(two)
    for block in (3, 8, 14):
        for tab, at in ((one, block), (two, block + 2)):
            click(tab, at)
            tab.page.keyboard.press("d")
    all_saved(one), all_saved(two)
    dropped = [3, 5, 8, 10, 14, 16]
    for tab in (one, two):
        until(lambda tab=tab: [i for i in range(24) if painted(tab)[i] == "drop"] == dropped)
    assert [i for i, mark in enumerate(marks_of(on_disk(app).plan)) if mark == "drop"] == dropped
    click(one, 20)
    one.page.locator("#mark-drop").click()
    until(lambda: painted(two)[20] == "drop")
    says(two, "#heat .map-line", "another window")
    clean(one), clean(two)


FAKE = """async () => {
  const log = [], storage = new Map();
  const kept = {getItem: name => storage.get(name) ?? null, setItem: (name, value) => storage.set(name, value)};
  let calls = 0;
  const send = async batch => {
    calls += 1;
    await new Promise(done => setTimeout(done, 5));
    if (calls % 3 === 0) throw new Error('no network');
    log.push(...batch.edits.map(edit => edit.verb));
    return calls % 3 === 1 ? {version: calls} : undefined;  // applied, but the answer was lost
  };
  const make = () => new workbench.EditStream({send, confirmed() {}, changed() {}, storage: kept, pause: 1});
  const stream = make();
  for (let i = 0; i < 20; i++) { stream.push({verb: String(i), teacher: 'a'}); if (i % 4 === 0) await new Promise(done => setTimeout(done, 3)); }
  await stream.settled();
  const first = [...new Set(log)], numbers = stream.number, left = JSON.parse(storage.get('workbench-edits'));
  storage.set('workbench-edits', JSON.stringify([{verb: 'of the page before', number: 7, window: 'w', teacher: 'a'}]));
  log.length = 0;
  const next = make();
  next.push({verb: 'new', teacher: 'a'});
  await next.settled();
  return {first, numbers, left, then: [...new Set(log)]};
}"""


def test_the_stream_keeps_its_order_through_lost_answers_and_reloads(chromium):
    """The script alone, against a server that fails two times in three."""
    page = chromium.new_page()
    page.goto("about:blank")
    page.evaluate("window.workbench = {}")
    page.add_script_tag(content=script("edits.js"))
    result = page.evaluate(FAKE)
    page.close()
    assert result["first"] == [str(number) for number in range(20)]
    assert result["numbers"] == 20 and result["left"] == []
    assert result["then"] == ["of the page before", "new"]

"""The page of jobs in a browser: its curves."""

from __future__ import annotations

import shutil

from workbench.workspace.store import Store

from . import synthetic
from .conftest import App
from .driving import clean, picture, points, says, until

# Of what is drawn: the names of the lines with the steps of each, and the number of cells.
DRAWN = """() => {
  const lines = {}, cells = [];
  const walk = item => {
    const row = item.datum;
    if (item.mark?.marktype === 'line' && row?.name) (lines[row.name] ??= new Set()).add(row.step);
    if (item.mark?.marktype === 'rect' && row?.loss && row?.start !== undefined) cells.push(row.name);
    for (const child of item.items || []) walk(child);
  };
  const view = document.querySelector('#curve .curve-host')?.result?.view;
  if (view) walk(view.scenegraph().root);
  const steps = Object.entries(lines).map(([name, of]) => [name, [...of].sort((a, b) => a - b)]);
  const x = view?.scale('concat_0_x')?.type;
  return {lines: Object.fromEntries(steps), blocks: new Set(cells).size, x};
}"""


def drawn(tab) -> dict:
    return tab.page.evaluate(DRAWN)


def test_curves_of_a_run_with_many_losses_live_and_resumed(app: App, open_tab):
    """Lines for the whole, cells for blocks; a hidden line goes; new points come, and those that a
    resumed run takes back go.
    """
    store = Store(app.workspace)
    lines = synthetic.metrics(40, 14, ("feature", "output"))
    job = synthetic.job(store, "paused", lines, "fourteen losses, and a very long name " * 4)
    plain = synthetic.job(store, "done", synthetic.metrics(300), "one loss")
    tab = open_tab(f"{app.url}?tab=jobs&job={job.id}", viewport={"width": 1300, "height": 1000})
    until(lambda: tab.page.locator(f"#jobs [data-job='{plain.id}']").count() == 1)
    headings = tab.page.locator("#jobs .job-heading").all_inner_texts()
    assert headings[-2:] == ["Paused", "Ended, the newest first"]
    names = ["feature", "gradient_norm", "loss", "lr", "output", "samples_per_second"]
    until(lambda: sorted(drawn(tab)["lines"]) == names)
    assert drawn(tab)["blocks"] == 14
    legend = tab.page.locator("#curve .curve-legend button")
    assert legend.all_inner_texts() == ["loss", "feature", "output"]
    picture(tab, "curves-light.png")
    legend.nth(1).click()
    until(lambda: "feature" not in drawn(tab)["lines"])
    tab.page.locator("#curve .curve-x").select_option("time")
    synthetic.write_metrics(job, synthetic.metrics(5, 14, ("feature", "output"), first=41))
    until(lambda: drawn(tab)["lines"].get("loss") == list(range(1, 46)))
    until(lambda: drawn(tab)["x"] == "time")
    picture(tab, "curves-time.png")
    assert "feature" not in drawn(tab)["lines"]
    synthetic.write_metrics(job, synthetic.metrics(3, 14, ("feature", "output"), first=20), 2)
    until(lambda: drawn(tab)["lines"].get("loss") == list(range(1, 23)))
    assert points(tab) == 22
    tab.page.set_viewport_size({"width": 700, "height": 1000})
    tab.page.locator("#dark").click()
    tab.page.locator("#curve .curve-x").select_option("step")
    until(lambda: drawn(tab)["blocks"] == 14 and drawn(tab)["x"] == "linear")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 700
    picture(tab, "curves-dark.png")
    tab.page.locator(f"#jobs [data-job='{plain.id}']").click()
    until(lambda: list(drawn(tab)["lines"]) == ["loss"] and points(tab) == 300)
    says(tab, "#job-head", "one loss")
    assert drawn(tab)["blocks"] == 0 and legend.count() == 0
    picture(tab, "curve-of-one.png")
    clean(tab)
    for each in (job, plain):  # other tests look at this workspace, too
        shutil.rmtree(each.folder)


def test_the_selected_job_is_in_view_below_a_long_queue(app: App, open_tab):
    """And the list stays where a person has scrolled it when it is drawn again."""
    store = Store(app.workspace)
    made = [synthetic.job(store, "paused", title="below the queue")]
    made += [synthetic.job(store, "queued", title=f"number {n}, " * 9) for n in range(40)]
    with store.db() as db:  # no worker here takes them
        db.execute("UPDATE job SET device = 'elsewhere' WHERE state = 'queued'")
    tab = open_tab(f"{app.url}?tab=jobs&job={made[0].id}", viewport={"width": 700, "height": 1000})
    chosen = tab.page.locator("#jobs .job-row.chosen")
    until(lambda: chosen.count() == 1 and "below" in chosen.inner_text())
    queued = [row.get_attribute("data-job") for row in tab.page.locator("#jobs .job-row").all()]
    assert {job.id for job in made} <= set(queued)
    host = tab.page.locator("#jobs .jobs-host")
    box, row = host.bounding_box(), chosen.bounding_box()
    assert box["y"] <= row["y"] and row["y"] + row["height"] <= box["y"] + box["height"] + 1
    host.evaluate("host => host.scrollTop = 200")
    with store.db() as db:
        db.execute("UPDATE job SET state = 'done' WHERE id = ?", (made[-1].id,))
    says(tab, f"#jobs [data-job='{made[-1].id}']", "done")
    assert abs(host.evaluate("host => host.scrollTop") - 200) < 2
    clean(tab)
    for each in made:
        shutil.rmtree(each.folder)

"""Pictures and figures of docs/sensitivity.md from the maps that ship with the bundled teachers:
`python docs/maps.py [--print]`.

The maps were measured by `workbench profile demo --edits .. -o demo.json` as docs/sensitivity.md
says, and put into the package by `--ship demo.json demo-12.json`. `--metrics influence.json
cka.json image.json` compares the order of blocks with maps of other metrics.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import altair as alt
import numpy as np
from PIL import Image
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import plans  # noqa: E402
from workbench.records import Row, SensitivityMap, write_atomic  # noqa: E402

MAPS = {"demo": "sensitivity.json", "demo-12": "sensitivity-12.json"}
LEAST = 1e-5  # smaller shares are drawn as this


def bundled(name: str) -> SensitivityMap:
    return SensitivityMap.load(ROOT / "workbench" / "demo" / MAPS[name])


def order_of(record: SensitivityMap, edit: str, weighting: str = "normalised") -> dict[int, float]:
    """Block -> its score, mean over timesteps."""
    return {
        block: score for (_, block), score in plans.block_scores(record, edit, weighting).items()
    }


def correlation(one: dict[int, float], other: dict[int, float]) -> float:
    """Spearman's, over the blocks that both have."""
    both = sorted(one.keys() & other.keys())
    result = stats.spearmanr([one[block] for block in both], [other[block] for block in both])
    return float(result.statistic)


def picture(record: SensitivityMap, path: Path) -> None:
    """One small heatmap per edit, all on one logarithmic scale."""
    rows = [
        {
            "edit": row.edit,
            "block": row.block,
            "timestep": f"{row.timestep:.0f}",
            "score": max(row.score, LEAST),
        }
        for row in record.rows
        if row.timestep is not None
    ]
    times = [f"{time:.0f}" for time in record.timesteps]
    scale = alt.Scale(type="log", scheme="viridis", domain=[1e-4, 1], clamp=True)
    cells = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("block:O", title="block", axis=alt.Axis(labelOverlap=True, labelAngle=0)),
            y=alt.Y("timestep:O", sort=times, title="timestep"),
            color=alt.Color(
                "score:Q",
                scale=scale,
                title=["share of the", "prediction that", "changes; higher", "= keep"],
                legend=alt.Legend(format=".0e"),
            ),
        )
    )
    chart = cells.properties(width=230, height=90).facet(
        facet=alt.Facet("edit:N", sort=record.edits, title=None), columns=3
    )
    chart.save(path, scale_factor=1.3)
    Image.open(path).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def table(record: SensitivityMap) -> str:
    """Per edit: means at most and least noise, the blocks that may go first, and how like the order
    of `drop` it is.
    """
    drop = order_of(record, "drop")
    lines = [
        "| edit | most noise | least noise | least sensitive | most sensitive | order like "
        "`drop` |",
        "|---|---|---|---|---|---|",
    ]
    for edit in record.edits:
        scores = order_of(record, edit)
        ranked = sorted(scores, key=lambda block: scores[block])
        noisy = mean_score(record, edit, record.timesteps[0])
        clean = mean_score(record, edit, record.timesteps[-1])
        most, like = "", ""
        if len(ranked) >= 3:
            most = " ".join(map(str, ranked[:-4:-1]))
            like = f"{correlation(scores, drop):.2f}"
        least = " ".join(map(str, ranked[:4]))
        lines.append(f"| `{edit}` | {noisy:.2g} | {clean:.2g} | {least} | {most} | {like} |")
    return "\n".join(lines)


def mean_score(record: SensitivityMap, edit: str, timestep: float) -> float:
    """Mean over blocks."""
    rows = [row for row in record.rows if row.edit == edit and row.timestep == timestep]
    return float(np.mean([row.score for row in rows]))


def merged_not_dropped(record: SensitivityMap) -> str:
    """Where merging a block with its neighbour costs less than dropping it, by timestep."""
    score = {(row.edit, row.block, row.timestep): row.score for row in record.rows}
    blocks = sorted({row.block for row in record.rows if row.edit == "merge"})
    times_cheaper = dict.fromkeys(blocks, 0)
    shares = []
    for time in record.timesteps:
        cheaper = [b for b in blocks if score["merge", b, time] < score["drop", b, time]]
        shares.append(f"{time:.0f}: {len(cheaper)}/{len(blocks)}")
        for block in cheaper:
            times_cheaper[block] += 1
    changing = [b for b, count in times_cheaper.items() if 0 < count < len(record.timesteps)]
    return (
        f"merge cheaper than drop, blocks at each timestep: {', '.join(shares)}; "
        f"blocks where it depends on the timestep: {changing}"
    )


def compared(others: list[Path]) -> str:
    """Spearman of other metrics' orders with that of the same teacher's prediction."""
    out = []
    for path in others:
        other = SensitivityMap.load(path)
        drop = order_of(bundled(other.teacher), "drop")
        if other.metric == "cka":
            own = {row.block: 1 - row.score for row in other.rows if row.last == row.block}
        else:
            own = order_of(other, "drop")
        ranked = sorted(own, key=own.__getitem__)
        like = correlation(drop, own)
        out.append(
            f"{other.teacher}, {other.metric} ({other.unit}): {like:.2f}; least "
            f"{ranked[:4]}, most {ranked[:-5:-1]}"
        )
    return "\n".join(out)


def ship(record: SensitivityMap) -> Path:
    """Put a measured map into the package, one row a line, without what is null, five digits (three
    of a standard error).
    """
    data = record.model_dump(mode="json", exclude={"rows"})
    rows = [json.dumps(shortened(row), separators=(",", ":")) for row in record.rows]
    text = (
        json.dumps(data, separators=(",", ":"))[:-1] + ',"rows":[\n' + ",\n".join(rows) + "\n]}\n"
    )
    return write_atomic(ROOT / "workbench" / "demo" / MAPS[record.teacher], text)


def shortened(row: Row) -> dict[str, str | float]:
    """A row's fields without what is null, five digits (three of a standard error)."""
    data = row.model_dump(mode="json", exclude_none=True)
    data["score"] = float(f"{row.score:.5g}")
    if row.stderr is not None:
        data["stderr"] = float(f"{row.stderr:.3g}")
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--print", action="store_true", help="the figures alone, no pictures")
    parser.add_argument("--metrics", type=Path, nargs="*", default=[], help="maps of other metrics")
    parser.add_argument(
        "--ship", type=Path, nargs="*", default=[], help="measured maps that become the package's"
    )
    given = parser.parse_args()
    for path in given.ship:
        print(ship(SensitivityMap.load(path)))
    for name in MAPS:
        record = bundled(name)
        print(f"{name}\n{table(record)}\n{merged_not_dropped(record)}\n{record.trust}\n")
        if not given.print:
            picture(record, ROOT / "docs" / "images" / f"map-{name}.png")
    if given.metrics:
        print(compared(given.metrics))


if __name__ == "__main__":
    main()

"""Results of the official scorers: their files, read into values per picture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...records import BadInput, jsonfile, read_text
from ...records.text_rows import table_rows
from ..text_recall import recall
from .base import Scored, field, number_field, objects, read_json, unlike, whole_field
from .prompt_files import numbered
from .values import Result, Values

WHAT = "results"
Place = tuple[int, int]  # numbers of the prompt and of its picture
DPG_LINE = re.compile(r"(.+?\.(?:png|jpg|webp))((?:, [-+.\deE]+)+)")


def geneval(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """results.jsonl of evaluate_images.py: {filename, correct, ..}; the mean of the tags' means."""
    values: dict[Place, float] = {}
    for path in files:
        for row in objects(path, WHAT):
            name = Path(str(field(row, "filename", path)))
            place = (number_of(name.parent.parent.name, path), number_of(name.stem, path))
            if not isinstance(field(row, "correct", path), bool):
                raise unlike(row, "correct", path, "true or false")
            values[place] = float(row.values["correct"])
    unit = "share of correct pictures"
    return {"GenEval": in_order(values, run, files, unit=unit, passes=True)}


def geneval2(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """score_lists.json of evaluation.py: for each prompt the scores of its atoms. The geometric mean
    of a prompt's atoms tells about prompts, the arithmetic one about atoms.
    """
    lists = read_json(one(files), WHAT)
    if not isinstance(lists, list) or len(lists) != len(run.items):
        count = len(lists) if isinstance(lists, list) else "no list of"
        raise unfit(files, f"{count} prompts", f"a list of scores for each of {len(run.items)}")
    geometric, arithmetic = {}, {}
    for number, scores in enumerate(lists):
        if not isinstance(scores, list) or not scores or not all(map(is_number, scores)):
            raise unfit(files, f"prompt {number} without scores", "a list of numbers")
        logarithms = [math.log(max(float(score), 1e-12)) for score in scores]
        geometric[number, 0] = math.exp(sum(logarithms) / len(scores))
        arithmetic[number, 0] = sum(scores) / len(scores)
    return {
        "Soft-TIFA GM": in_order(geometric, run, files, unit="of a prompt's atoms", plain=True),
        "Soft-TIFA AM": in_order(arithmetic, run, files, unit="of a prompt's atoms", plain=True),
    }


def dpg(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """The results of compute_dpg_bench.py: lines of a picture's path, a score for each quarter of
    the grid, and their mean.
    """
    numbers = {item["id"]: number for number, item in enumerate(run.items)}
    values: dict[Place, float] = {}
    for path in files:
        for line in read_text(path, WHAT).split("\n"):
            match = DPG_LINE.fullmatch(line.strip())
            name = Path(match[1]).name.split(".")[0] if match else ""
            if not match or name not in numbers:
                continue
            scores = numbers_of(match[2], path)
            for seed, score in enumerate(scores[:-1]):  # the last one is their mean
                values[numbers[name], seed] = score
    unit = "share of questions answered yes"
    return {"DPG-Bench": in_order(values, run, files, unit=unit, plain=True)}


def numbers_of(text: str, path: Path) -> list[float]:
    """The numbers of a line. Raises BadInput for anything else between its commas."""
    try:
        return [float(part) for part in text.strip(", ").split(", ")]
    except ValueError:
        raise unfit([path], f"the line {text.strip(', '):.60}", "numbers") from None


def longtext(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """results_chunk*.jsonl of evaluate_text_reward.py: {image, ocr_gt, ocr_results}. The score is a
    ratio of sums: words (characters in Chinese) that were read, of those asked for.
    """
    numbers = {item["id"]: number for number, item in enumerate(run.items)}
    values: dict[Place, float] = {}
    totals: dict[Place, float] = {}
    for path in files:
        for row in objects(path, WHAT):
            name, _, seed = Path(str(field(row, "image", path))).stem.partition("_")
            number = numbers.get(number_of(name, path))
            if number is None:
                raise unfit(files, f"picture {name}", "pictures named by the ids of the prompts")
            text = " ".join(run.items[number]["text"])
            found, asked = recall(text, str(row.values.get("ocr_results") or ""))
            place = (number, number_of(seed or "1", path) - 1)
            totals[place] = asked
            values[place] = found / max(1, asked)
    weights = [totals.get(place, 0.0) for place in places_of(run)]
    unit = "share of words (Chinese: characters) that Qwen2.5-VL reads"
    return {"LongText": in_order(values, run, files, unit=unit, weights=weights)}


def compbench(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """vqa_result.json of each category, in its annotation folder: {question_id, answer}; the mean of
    the categories' means. A folder stands for all such files in it.
    """
    found: dict[str, dict[int, float]] = {}
    for category, path in result_of_each_category(files, run).items():
        answers: dict[int, float] = {}
        for row in objects(path, WHAT):
            question = whole_field(row, "question_id", path)
            answers[question] = number_field(row, "answer", path)
        found[category] = answers
    values: dict[Place, float] = {}
    counts: dict[str, int] = {}
    for place in places_of(run):
        category = run.items[place[0]]["category"]
        count = counts.get(category, 0)
        counts[category] = count + 1
        if count in found.get(category, {}):
            values[place] = found[category][count]
    return {"T2I-CompBench": in_order(values, run, files, unit="of each category's own scorer")}


def result_of_each_category(files: Sequence[Path], run: Scored) -> dict[str, Path]:
    """The file that scores a category: 3_in_1's where there is one, since the other files beside it
    are what that is made of. Raises BadInput for two others.
    """
    results: dict[str, Path] = {}
    for path in expanded(files, "**/annotation_*/vqa_result.json"):
        category = category_of(path, run)
        other = results.get(category, path)
        whole = [file for file in (other, path) if file.parent.name == "annotation_3_in_1"]
        if other != path and not whole:
            names = f"{other.parent.name} and {path.parent.name}"
            raise unfit([path], f"{names} both score {category}", "one result for a category")
        results[category] = whole[0] if whole else path
    return results


def category_of(path: Path, run: Scored) -> str:
    """The category whose folder a results file lies in. Raises BadInput where it lies in none."""
    categories = {item["category"] for item in run.items}
    for folder in path.absolute().parents:
        if folder.name in categories:
            return folder.name
    raise unfit([path], "no folder of a category above it", ", ".join(sorted(categories)))


def unigen(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """The CSV of *_eval.py: index, testpoint, result_json, img_path; the split is known
    by the folder of the pictures or the name of the file. Dimensions are shares of their checkpoints.
    """
    ids = {(item["split"], item["id"]): number for number, item in enumerate(run.items)}
    splits = {item["split"] for item in run.items}
    values: dict[Place, float] = {}
    points: dict[str, dict[Place, list[float]]] = {}
    for path in files:
        _, rows = table_rows(str(path), read_text(path, WHAT))
        for row in rows:
            picture = Path(str(field(row, "img_path", path)))
            split = split_of(picture, path, splits)
            name, _, seed = picture.stem.rpartition("_")
            number = ids.get((split, number_of(name, path)))
            if number is None:
                raise unfit(files, f"picture {picture.name} of {split}", "one of the prompts' ids")
            place = (number, number_of(seed, path))
            scores = checkpoints(row.values.get("result_json"), path, row.line)
            values[place] = sum(scores.values()) / len(scores)
            for point, score in scores.items():
                dimension = point.split("#")[0].split("-")[0].strip()
                points.setdefault(dimension, {}).setdefault(place, []).append(score)
    items = numbered(run.items, run.seeds)
    groups = {name: dimension_values(found, run, items) for name, found in points.items()}
    unit = "share of a picture's checkpoints; dimensions: of all their checkpoints"
    return {"UniGenBench": in_order(values, run, files, unit=unit, plain=True, groups=groups)}


def dimension_values(
    found: Mapping[Place, Sequence[float]], run: Scored, items: Sequence[Any]
) -> Values:
    """One dimension's checkpoints: a ratio of sums over the pictures that have any."""
    own = sorted(found)
    return Values(
        values=[sum(found[place]) / len(found[place]) for place in own],
        items=[{**items[place[0] * run.seeds], "category": ""} for place in own],
        weights=[float(len(found[place])) for place in own],
    )


def checkpoints(text: Any, path: Path, line: int) -> dict[str, float]:
    """Checkpoint -> 0 or 1, of one picture. A checkpoint that comes twice is numbered."""
    try:
        data = jsonfile.parse(str(text))
        names, scores = data["testpoint"], data["score"]
        pairs = list(zip(names, map(float, scores), strict=True))
    except (jsonfile.JSONError, KeyError, TypeError, ValueError):
        pairs = []
    if not pairs:
        expected = "result_json with testpoint and score"
        raise BadInput(f"{path} line {line}: {text!s:.60}", expected, "check the file")
    result: dict[str, float] = {}
    for number, (name, score) in enumerate(pairs):
        key = f"{name}#{number}" if name in result else str(name)
        result[key] = score
    return result


def split_of(picture: Path, results: Path, splits: set[str]) -> str:
    """en, en_long, zh or zh_long: from the picture's folders, else from the results' name."""
    for folder in picture.parents:
        if folder.name in splits:
            return folder.name
    for split in sorted(splits, key=len, reverse=True):
        if results.stem.endswith(f"_{split}"):
            return split
    if len(splits) == 1:
        return min(splits)
    raise unfit([results], f"picture {picture}", f"a folder {' or '.join(sorted(splits))} in it")


def listed(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """{"scores": [..]} of any scorer, a number per picture in the order of MODEL.jsonl."""
    data = read_json(one(files), WHAT)
    scores = data.get("scores") if isinstance(data, dict) else None
    count = len(run.items) * run.seeds
    if not isinstance(scores, list) or not all(map(is_number, scores)) or len(scores) != count:
        given = len(scores) if isinstance(scores, list) else "no"
        raise unfit(files, f"{given} scores", f'{{"scores": [..]}} with {count} numbers')
    label = str(data.get("name") or one(files).stem)
    direction = str(data.get("direction") or "higher = better")
    values = [float(score) for score in scores]
    items = numbered(run.items, run.seeds)
    unit = str(data.get("unit") or "")
    return {label: Values(values, items, unit=unit, direction=direction)}


# --- shared ---------------------------------------------------------------------------------------


def in_order(
    values: Mapping[Place, float], run: Scored, files: Sequence[Path], **more: Any
) -> Values:
    """Values in the order of the pictures. Raises BadInput where a picture has none."""
    places = places_of(run)
    lacking = [place for place in places if place not in values]
    if lacking:
        number, seed = lacking[0]
        raise unfit(
            files,
            f"no result for {len(lacking)} of {len(places)} pictures, the first: picture {seed} of "
            f"prompt {number}, {run.items[number]['prompt']:.60}",
            "results of every picture",
        )
    strange = [place for place in places if not math.isfinite(values[place])]
    if strange:
        raise unfit(files, f"a result that is not finite, of prompt {strange[0][0]}", "numbers")
    return Values([values[place] for place in places], numbered(run.items, run.seeds), **more)


def places_of(run: Scored) -> list[Place]:
    places = []
    for number in range(len(run.items)):
        places += [(number, seed) for seed in range(run.seeds)]
    return places


def expanded(files: Iterable[Path], pattern: str) -> list[Path]:
    """Files, with what a pattern finds in each folder."""
    result: list[Path] = []
    for path in files:
        result += sorted(path.glob(pattern)) if path.is_dir() else [path]
    return result


def one(files: Sequence[Path]) -> Path:
    """The only file. Raises BadInput for more."""
    if len(files) != 1:
        raise unfit(files, f"{len(files)} files of one model", "one file")
    return files[0]


def number_of(text: str, path: Path) -> int:
    """The number that a picture's name has. Raises BadInput for none."""
    if not text.isdecimal():
        raise unfit([path], f"the picture name {text}", "a number, as in the layout")
    return int(text)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def unfit(files: Sequence[Path], what: str, expected: str) -> BadInput:
    names = ", ".join(path.name for path in files)
    return BadInput(f"results {names}: {what}", expected, "score the layout's pictures again")

"""The JSON schema of plan files, for editors and other programs: docs/plan.schema.json is made by

    python -m workbench.plans.schema > docs/plan.schema.json

Draft 7, which every YAML editor reads. It has the names of families, parts and inits; whether the
spans are a partition is for `plan-info` to check.
"""

from __future__ import annotations

import json
from typing import Any

from ..families import FAMILIES
from ..records import Plan


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    of_plan = Plan.model_json_schema(ref_template="#/definitions/{model}")
    of_plan["definitions"] = of_plan.pop("$defs")
    drop = of_plan["definitions"]["Span"]["properties"]["drop"]
    drop["items"] = {"enum": part_names()}
    drop["uniqueItems"] = True
    family = of_plan["properties"]["family"]
    of_plan["properties"]["family"] = {**family, "enum": list(FAMILIES)}
    for described in (of_plan, of_plan["definitions"]["Span"]):  # docstrings: on one line
        described["description"] = " ".join(described["description"].split())
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return {**draft, **of_plan, "title": "DiT Workbench plan"}


def part_names() -> list[str]:
    """The parts of all families, each once."""
    names: dict[str, None] = {}
    for family in FAMILIES.values():
        for row in family.stacks:
            names |= dict.fromkeys(row.parts)
    return list(names)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))

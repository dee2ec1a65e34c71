"""The JSON schema of plan files, for editors and other programs: docs/plan.schema.json is made by

    python -m workbench.plans.schema > docs/plan.schema.json

Draft 7, which every YAML editor reads. It knows the words (families, parts, inits); whether the
spans are a partition is for `plan-info`.
"""

from __future__ import annotations

import json
from typing import Any

from ..families import FAMILIES
from ..records import Plan


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    made = Plan.model_json_schema(ref_template="#/definitions/{model}")
    made["definitions"] = made.pop("$defs")
    span = made["definitions"]["Span"]["properties"]
    parts = {
        part: None for family in FAMILIES.values() for row in family.stacks for part in row.parts
    }
    span["drop"]["items"] = {"enum": list(parts)}
    span["drop"]["uniqueItems"] = True
    made["properties"]["family"] = {**made["properties"]["family"], "enum": list(FAMILIES)}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **made,
        "title": "DiT Workbench plan",
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))

"""The JSON schema of distill.yaml, for editors and other programs. To write it:

    python -m workbench.records.distill_schema > docs/distill.schema.json

Draft 7, which every YAML editor reads. Which losses are registered is for `distill` to check.
"""

from __future__ import annotations

import json
from typing import Any

from .distillation import DistillSpec


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    body = DistillSpec.model_json_schema(ref_template="#/definitions/{model}")
    definitions = body["$defs"]
    kinds = definitions["Timesteps"]["properties"]["kind"]["enum"]
    timesteps = definitions["Stage"]["properties"]["timesteps"]
    definitions["Stage"]["properties"]["timesteps"] = {
        "anyOf": [{"$ref": "#/definitions/Timesteps"}, {"enum": kinds}],
        "description": timesteps["description"],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "DiT Workbench distillation spec",
        "description": body["description"],
        "type": "object",
        "definitions": definitions,
        "properties": body["properties"],
        "required": body["required"],
        "additionalProperties": False,
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))

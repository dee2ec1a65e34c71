"""Altair imports jsonschema, whose check of one format (IRI) builds a grammar when it is imported: two
thirds of the app's start. No chart has an IRI to check, so that module is not imported.
"""

from __future__ import annotations

import sys

GRAMMAR = "rfc3987_syntax"

if "jsonschema" not in sys.modules and GRAMMAR not in sys.modules:
    sys.modules[GRAMMAR] = None  # type: ignore[assignment]  # jsonschema goes on without it
    try:
        import jsonschema as _jsonschema  # noqa: F401
    finally:
        del sys.modules[GRAMMAR]

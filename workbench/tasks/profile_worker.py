"""One process of a scan: it measures its share of the calls, all gather, the first writes the map.

`workbench profile --processes N` starts N of them here. On several machines it runs under any
launcher: `accelerate launch --num_machines 2 .. -m workbench.tasks.profile_worker REQUEST.json`.
Not `accelerate launch --cpu`: that starts one process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from ..plugins import load_plugin
from ..records import BadInput, jsonfile, write_atomic
from ..specs import ProfileSpec
from ..workspace.store import Store
from .context import Context
from .profile import profile
from .profile_shards import Share, die_with_parent


def main() -> int:
    """One process of the scan."""
    die_with_parent()
    request = jsonfile.read_object(Path(sys.argv[1]), "request")
    state = PartialState(cpu=request["device"] == "cpu")
    share = Share(state.process_index, state.num_processes, gather_object)
    context = Context(Store(request["workspace"]), str(state.device), resume=request["resume"])
    reply: dict[str, Any] = {"result": None, "refused": None, "estimate": ""}
    try:
        for file in request["spec"].get("plugins", []):
            load_plugin(file)
        spec = ProfileSpec.parse(request["spec"])
        for progress in profile(spec, context, share):
            if progress.message.startswith("estimate"):
                reply["estimate"] = reply["estimate"] or progress.message
            if progress.result is not None:
                reply["result"] = progress.result
    except BadInput as error:
        reply["refused"] = [error.found, error.expected, error.do]
    if state.is_main_process or reply["refused"]:
        write_atomic(Path(request["answer"]), json.dumps(reply))
    # A process that refuses does not wait for the others in a gather: the launcher ends them.
    return 2 if reply["refused"] else 0


if __name__ == "__main__":
    sys.exit(main())

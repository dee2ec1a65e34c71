"""Plugin files: Python files of the user's that register rows when they are loaded."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ..records import BadInput, check_regular

VARIABLE = "WORKBENCH_PLUGINS"  # paths, separated as in $PATH; child processes inherit it
_loaded: list[Path] = []


def load_plugin(path: Path | str) -> None:
    """Run a plugin file once. Its calls of `workbench.register` add rows to this process's tables.

    Raises BadInput where the file is missing or its code fails.
    """
    file = Path(path).expanduser().resolve()
    if file in _loaded:
        return
    check_regular(file, "plugin")
    if not file.is_file():
        raise BadInput(f"plugin {file} does not exist", "a Python file", "check the path")
    module_name = f"workbench_plugin_{file.stem}_{abs(hash(file)):x}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise BadInput(f"plugin {file}", "a file that ends in .py", "rename it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BadInput:
        raise
    except Exception as error:
        del sys.modules[module_name]
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"plugin {file} fails ({reason})", "a file that runs", "fix it") from error
    _loaded.append(file)


def load_from_environment() -> None:
    """Load the plugin files that $WORKBENCH_PLUGINS names."""
    for path in os.environ.get(VARIABLE, "").split(os.pathsep):
        if path:
            load_plugin(path)


def loaded_plugins() -> list[str]:
    """The plugin files of this process, for a job's spec: its own process loads them again."""
    return [str(path) for path in _loaded]

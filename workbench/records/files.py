"""Files: read with a clear error, written so that a reader never sees half of one."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BadInput

MOST_BYTES = 2**30  # of a text: a metadata.jsonl of five million captions; no checkpoint
NOT_REGULAR = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def write_atomic(path: Path, text: str) -> Path:
    """Write text to a temporary file beside `path`, then rename it over `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
    return path


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write to; it is renamed over `path` where that went well.

    Drafts of writers that were killed are removed.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(path.parent, glob.escape(path.name))
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def sweep_drafts(folder: Path, names: str) -> None:
    """Remove `.NAME.PID` where no process of that number runs: files and folders that killed writers
    left. names: a glob pattern for NAME.
    """
    for stale in folder.glob(f".{names}.*"):
        pid = stale.name.rpartition(".")[2]
        if not pid.isdecimal() or is_running(int(pid)):
            continue
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name where the file system allows it, else a copy. Returns whether it
    was copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)  # resolve: a Hub cache holds symbolic links
    except OSError:
        shutil.copy2(source, target)
        return True
    return False


def check_regular(path: Path, what: str) -> None:
    """Raises BadInput for a folder, a pipe, a socket and a device: reading one may never end.

    A path without a file is left to whoever opens it.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    for is_kind, kind in NOT_REGULAR.items():
        if is_kind(mode):
            raise BadInput(f"{what} {path} is {kind}", "a regular file", "check the path")


def read_text(path: Path, what: str, most: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file; `what` names the kind of file in the error.

    most: bytes. Raises BadInput where the file is missing, unreadable, no regular file, longer or
    not UTF-8.
    """
    path = Path(path)
    check_regular(path, what)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            long = size > most  # of 40 GB nothing is read
            data = b"" if long else file.read(size + 1)  # takes as much memory at once
            if len(data) > size:  # of /proc, where files say 0, or one that grows
                data += file.read(most - size)
    except FileNotFoundError:
        raise BadInput(
            f"{what} {path} does not exist", "a readable file", "check the path"
        ) from None
    except OSError as error:
        found = f"{what} {path} cannot be read ({error.strerror})"
        raise BadInput(found, "a readable file", "check the path") from None
    except ValueError as error:  # a name with a NUL in it
        found = f"{what} {str(path)!r} is not a path ({error})"
        raise BadInput(found, "a readable file", "check the path") from None
    if long or len(data) > most:
        found = f"{what} {path} has more than {most} bytes"
        raise BadInput(found, f"a {what} of at most {most} bytes", "check that it is one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"{what} {path} is not UTF-8 (byte {error.start})"
        raise BadInput(found, "UTF-8 text", "convert the file") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")

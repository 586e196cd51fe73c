"""A folder that is whole or not there: filled beside its place under another name, then moved onto it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from onnxlrp.errors import OnnxLrpError, Problem, RunError


def refuse_filled(folder: Path, force: bool, written: Sequence[str]) -> None:
    """Raise `OnnxLrpError` where `folder` cannot be written: it is a file, or holds something. With `force` it may hold
    what an earlier export wrote, files whose paths in it match `written`, and nothing else: that would be lost."""
    elsewhere = "choose another -o"
    try:
        if folder.exists() and not folder.is_dir():
            raise OnnxLrpError(Problem(str(folder), "is a file, not a folder", elsewhere))
        if folder.is_symlink() and not folder.exists():
            raise OnnxLrpError(Problem(str(folder), "is a link that leads nowhere", elsewhere))
        if not force and folder.is_dir() and any(folder.iterdir()):
            raise OnnxLrpError(Problem(str(folder), "is not empty", "choose another, or replace it with --force"))
        if folder.is_dir() and (other := _other(folder, written)) is not None:
            reason = "was not written by onnxlrp, and --force would delete it"
            raise OnnxLrpError(Problem(str(other), reason, "move it away, or choose another -o"))
        if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise OnnxLrpError(Problem(str(folder), "is the folder you are in, or one around it", "name a new one"))
    except OSError as error:
        raise OnnxLrpError(Problem(str(folder), f"cannot be written ({error.strerror})", elsewhere)) from None


def _other(folder: Path, written: Sequence[str]) -> Path | None:
    """A file that an export did not write, if there is one."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    known = [PurePath(pattern) for pattern in written]
    return next((file for file in files if not any(_matches(file.relative_to(folder), k) for k in known)), None)


def _matches(file: PurePath, pattern: PurePath) -> bool:
    return len(file.parts) == len(pattern.parts) and file.match(str(pattern))


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to be filled in the block; it takes the place of `folder` when the block ends well.

    What was there before goes only once the new one is complete; a link is followed. Raises `OnnxLrpError` where it
    cannot be made, and `RunError` where writing fails, with nothing left behind.
    """
    place = Path(os.path.realpath(folder))
    made = _made(place.parent, folder)
    staged: Path | None = None
    try:
        staged = Path(tempfile.mkdtemp(prefix=f".{place.name[:32]}.", suffix=".part", dir=place.parent))
        mask = os.umask(0)
        os.umask(mask)
        staged.chmod(0o777 & ~mask)  # mkdtemp makes folders for their owner alone
        yield staged
        _put(staged, place)
    except RunError as error:  # of whoever wrote into the block: the user knows the place, not what stands in for it
        problems = (replace(p, node=p.node.replace(str(staged), str(folder))) for p in error.problems)
        raise RunError(*problems) from None
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise RunError(Problem(str(folder), reason, "check permissions and free space, or choose another -o")) from None
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)
        for parent in reversed(made):  # those that are still empty: it did not come to a result
            with contextlib.suppress(OSError):
                parent.rmdir()


def _made(parent: Path, folder: Path) -> list[Path]:
    """Make `parent` with what is above it; returns those that were not there, the outermost first."""
    missing = [p for p in (parent, *parent.parents) if not p.exists()][::-1]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = Problem(str(folder), f"cannot be made ({error.strerror})", "choose another -o")
        raise OnnxLrpError(problem) from None
    return missing


def _put(staged: Path, place: Path) -> None:
    """Move the folder `staged` to `place`; what is there is put aside first, and back where the move fails."""
    if not place.exists():
        staged.rename(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name[:32]}.", suffix=".old", dir=place.parent))
    old = aside / place.name
    place.rename(old)
    try:
        staged.rename(place)
    except OSError:
        old.rename(place)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)

"""What is said where a file of a run can't be read: which one, what is wrong with it, and what makes it anew."""

import contextlib
import errno
from collections.abc import Generator
from pathlib import Path

from pydantic import ValidationError

from plad.errors import PladError, RunDirError
from plad.rundir.writing import write_error

AGAIN = "plad run CONFIG makes it again"
DELETE = f"delete it, then {AGAIN}"


@contextlib.contextmanager
def reading(
    file: Path,
    fix: str = DELETE,
    *,
    what: str = "is damaged",
    line: int | None = None,
    kind: type[PladError] = RunDirError,
) -> Generator[None]:
    """A block that reads a file; whatever the file does to it is one error that names it.

    Args:
        fix: the way out, which works when it is followed to the letter.
        what: how the message begins.
        line: that is being read.
        kind: of the error.
    """
    where = str(file) if line is None else f"{file}:{line}"
    try:
        yield
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise kind(f"{what} ({place + ': ' if place else ''}{first['msg']})", where=where, fix=fix) from None
    except UnicodeDecodeError:
        raise kind(f"{what} (not UTF-8 text)", where=where, fix=fix) from None
    except OSError as e:
        if e.errno == errno.ENOENT:
            what = "is missing" if file.absolute().parent.is_dir() else "its folder is no longer there"
            raise kind(what, where=where, fix=AGAIN) from None
        raise write_error(e, file) or e from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        words = " ".join(str(e).split())[:200] or type(e).__name__
        raise kind(f"{what} ({words})", where=where, fix=fix) from None

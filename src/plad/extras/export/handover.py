"""What is asked to be handed over of which run, and where it is put."""

from dataclasses import dataclass
from pathlib import Path

from plad.errors import RunDirError
from plad.rundir.atomic import is_complete, verify_dir


@dataclass(frozen=True, slots=True)
class Handover:
    """A run to hand over.

    Attributes:
        out: where to; None for a place in RUN/export.
        repo: `owner/name` on the hub; made where it doesn't exist, and public if that is wished.
    """

    run: Path
    out: Path | None = None
    repo: str | None = None
    public: bool = False

    def place(self, default: str, *, folder: bool = False) -> Path:
        """Where to write.

        Raises:
            RunDirError: it exists.
        """
        out = self.out or self.run / "export" / default
        if out.is_file() or out.is_symlink() or (out.is_dir() and (not folder or any(out.iterdir()))):
            raise RunDirError("exists; nothing is overwritten", where=str(out), fix="give another --out")
        return out

    def student(self) -> Path:
        """The folder of the distilled student.

        Raises:
            RunDirError: there is none yet, or it is damaged.
        """
        student = self.run / "student"
        if not is_complete(student):
            raise RunDirError("no student yet", where=str(self.run), fix="plad distill CONFIG makes it")
        verify_dir(student)
        return student

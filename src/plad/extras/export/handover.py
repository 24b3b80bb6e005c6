"""What is asked to be handed over of which run, and where it is put."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plad.errors import RunDirError

if TYPE_CHECKING:
    from plad.config.models import PromptSection
    from plad.policy.prompt import PromptFormat


@dataclass(frozen=True, slots=True)
class Handover:
    """A run to hand over.

    Attributes:
        out: where to; None for a place in RUN/export.
        repo: `owner/name` on the hub; made where it doesn't exist, and public if that is wished.
        dtype: of the student's weights; None for the one they have.
        dry_run: only say what would be uploaded.
    """

    run: Path
    out: Path | None = None
    repo: str | None = None
    public: bool = False
    dtype: str | None = None
    dry_run: bool = False

    def place(self, default: str, *, folder: bool = False) -> Path:
        """Where to write.

        Raises:
            RunDirError: it exists.
        """
        return self.free(self.out or self.run / "export" / default, folder=folder)

    def free(self, out: Path, *, folder: bool = False) -> Path:
        """A place, which must not be taken.

        Raises:
            RunDirError: it exists.
        """
        if out.is_file() or out.is_symlink() or (out.is_dir() and (not folder or any(out.iterdir()))):
            raise RunDirError("exists; nothing is overwritten", where=str(out), fix="give another --out")
        return out

    def student(self) -> Path:
        """The folder of the distilled student.

        Raises:
            RunDirError: there is none yet, or it is damaged.
        """
        from plad.rundir.atomic import is_complete, verify_dir

        student = self.run / "student"
        if not is_complete(student):
            raise RunDirError("no student yet", where=str(self.run), fix="plad distill CONFIG makes it")
        verify_dir(student)
        return student

    def max_new_tokens(self) -> int:
        """Most tokens of an answer, as the evaluation had it; the default where the run doesn't say."""
        known = self._settings()
        named = (known.get(stage, {}).get("max_new_tokens") for stage in ("evaluate", "generate"))
        from plad.config.pairs import GenerateSection

        return next(filter(None, named), GenerateSection().max_new_tokens)

    def prompt_section(self) -> "PromptSection":
        """The student's prompt format as the run's config has it."""
        from plad.config.models import PromptSection

        return PromptSection.model_validate(self._settings().get("student", {}).get("prompt", {}))

    def _settings(self) -> dict[str, dict[str, Any]]:
        """As the run has them, whatever version wrote them; none where they are gone."""
        file = self.run / "config.resolved.json"
        if not file.is_file():
            return {}
        from plad.rundir.reading import reading

        with reading(file, "plad run CONFIG writes it again"):
            known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return {name: dict(known.get(name) or {}) for name in ("student", "generate", "evaluate")}

    def prompt_format(self) -> "PromptFormat":
        """How the student of the run, distilled or not yet, reads a prompt.

        Raises:
            RunDirError: there is no student of any stage.
        """
        from plad.policy.folder import folder_format
        from plad.rundir.atomic import is_complete

        for folder in (self.run / "student", self.run / "sft/student"):
            if is_complete(folder):
                return folder_format(folder, self.prompt_section())
        raise RunDirError("no student, whose tokenizer is needed", where=str(self.run), fix="plad sft CONFIG")

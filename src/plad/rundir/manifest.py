"""manifest.json: what a run is, and what its finished stages were made from and counted."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from plad.errors import RunDirError
from plad.rundir.reading import reading

SCHEMA = 1
FILE = "manifest.json"
FINGERPRINTS = 2  # by what a model's files say; 1, in runs of plad 0.1.0: by their bytes
LEDGER = "generations.sqlite"


class StageRecord(BaseModel):
    """A finished stage.

    Attributes:
        fingerprint: of `inputs`, all that the stage depends on.
        counts: what it counted.
        finished: when, in UTC.
        files: that it made, with their sizes; 0 of one that is written again later.
        made: fingerprint of the models among them.
        taken_from: the run that had made it.
    """

    model_config = ConfigDict(extra="allow")

    fingerprint: str = ""
    inputs: dict[str, JsonValue] = {}
    counts: dict[str, JsonValue] = {}
    seconds: float = 0.0
    finished: str = ""
    files: dict[str, int] = {}
    made: str = ""
    taken_from: str | None = None


class Stopped(BaseModel):
    """A stage that ended without being finished.

    Attributes:
        at: when, in UTC.
        why: the message; empty where somebody stopped it.
    """

    model_config = ConfigDict(extra="allow")

    stage: str
    at: str
    why: str = ""

    def to_json(self) -> Mapping[str, object]:
        """As it stands in the file."""
        return self.model_dump(mode="json")


class Manifest(BaseModel):
    """The manifest of a run.

    Attributes:
        id: the run's own name, by which a ledger that several share tells who got an answer.
        versions: what it is made with.
        ledger: the file of its answers, where that is outside the run directory.
        cleaning: stages whose files are being deleted.
        fingerprints: how it names models.
        stopped: where the last command ended, if it did not reach its end; a process that was killed says nothing.
    """

    model_config = ConfigDict(extra="allow", serialize_by_alias=True, validate_by_name=True)

    format: int = Field(default=SCHEMA, alias="schema")
    stages: dict[str, StageRecord] = {}
    id: str = ""
    versions: dict[str, str] = {}
    ledger: str | None = None
    cleaning: list[str] = []
    fingerprints: int = 1
    stopped: Stopped | None = None

    def ledger_file(self, run: Path) -> Path:
        """The file of the answers of the run in `run`."""
        return Path(self.ledger or run / LEDGER)

    @property
    def owner(self) -> str | None:
        """Whose answers are the run's, in a ledger that it shares; None where all are."""
        return None if self.ledger is None else self.id

    def counts(self, stage: str) -> dict[str, JsonValue]:
        """What a stage counted; nothing where it is not finished."""
        return self.stages[stage].counts if stage in self.stages else {}

    def to_json(self) -> Mapping[str, object]:
        """As it stands in the file."""
        return self.model_dump(mode="json", exclude_defaults=True) | {
            "schema": self.format,
            "stages": {name: record.model_dump(mode="json", exclude_none=True) for name, record in self.stages.items()},
            "id": self.id,
        }


def read_manifest(path: Path) -> Manifest:
    """The manifest of a run directory, for readers that don't lock it.

    Raises:
        RunDirError: there is none, or it is damaged or of another schema.
    """
    file = path / FILE
    if not file.exists():
        raise RunDirError("not a run directory (no manifest.json)", where=str(path), fix="plad run CONFIG makes one")
    fix = f"put back a copy\nor run.dir=NEW generate.ledger={path / LEDGER} starts anew with the answers of this one"
    with reading(file, fix, what="damaged manifest"):
        content: JsonValue = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
        written_by = content.get("schema")
        if written_by == SCHEMA:
            return Manifest.model_validate(content)
    raise RunDirError(
        f"written by another version of plad (schema {written_by}, this one reads {SCHEMA})",
        where=str(path),
        fix="use that version, or start a new run.dir",
    )

"""Answers of a run's systems to prompts that somebody types; nothing of them is recorded in the run."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from plad.answers.engine import Engine
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Question, Sampling
from plad.answers.reply import Reply
from plad.config.root import Config
from plad.errors import ConfigError
from plad.pipeline.engines import engine_for
from plad.pipeline.resources import Resources
from plad.records import STUDENT, STUDENT_SFT, TEACHER, Example
from plad.report.console import panel
from plad.rundir.config_files import read_config
from plad.rundir.directory import RunDir
from plad.rundir.manifest import read_manifest

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class SystemReply:
    """What a system answered."""

    system: str
    reply: Reply

    def to_json(self) -> Mapping[str, object]:
        """All but token ids, of which there is the number."""
        r = self.reply
        return {
            "system": self.system,
            "text": r.text,
            "outcome": str(r.outcome),
            "tokens": r.completion_tokens,
            "seconds": round(r.seconds, 3),
            "cost": r.cost,
            "message": r.message,
        }

    @property
    def heading(self) -> str:
        """The system, how its answer ended, and what it took."""
        r = self.reply
        cost = "" if r.cost is None else f", {r.cost:.4g} USD"
        return f"{self.system}: {r.outcome}, {r.completion_tokens} tokens, {r.seconds:.1f} s{cost}"


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with what each system answered."""

    prompt: str
    replies: Sequence[SystemReply]

    def panel(self) -> "RenderableType":
        """The answers side by side."""
        return panel("", [("", [(r.heading, r.reply.text or r.reply.message or "") for r in self.replies])])


@dataclass(frozen=True)
class OpenSystems:
    """Systems that are loaded.

    Attributes:
        seed: of the first prompt; each further one has the next.
    """

    engines: Mapping[str, Engine[Any]]
    sampling: Sampling
    seed: int

    def answer(self, prompt: str, number: int = 0) -> Answered:
        """What every system answers to a prompt, written as a row of the data is."""
        example = Example(f"prompt {number}", prompt)
        return Answered(prompt, [SystemReply(s, self._reply(s, engine, example)) for s, engine in self.engines.items()])

    def _reply(self, system: str, engine: Engine[Any], example: Example) -> Reply:
        replies: list[Reply] = []

        def record(_: Question[object], reply: Reply) -> None:
            replies.append(reply)

        asked = AnswerSet(system, "", self.sampling, self.seed).questions(
            example, engine.encode(example), engine.spec()
        )
        engine.answer(asked, self.sampling, record)  # of one question there is one reply
        (reply,) = replies
        return reply


def answering(run: Path) -> list[str]:
    """The systems of a run that can be asked: the teacher, and those whose weights are there."""
    folders = {STUDENT: run / "student", STUDENT_SFT: run / "sft/student"}
    folders |= {folder.name: folder for folder in sorted(run.glob("baselines/*")) if folder.is_dir()}
    return [*(name for name, folder in folders.items() if folder.is_dir()), TEACHER]


@contextmanager
def open_systems(
    run: Path, systems: Sequence[str], temperature: float = 0.0, max_new_tokens: int | None = None
) -> Generator[OpenSystems]:
    """Load systems of a run.

    Args:
        temperature: 0 is greedy.
        max_new_tokens: most tokens of an answer. Default: as the run's evaluation had it.

    Raises:
        PladError: not a run, no such system, or its model, key or file can't be used.
    """
    manifest, config = read_manifest(run), read_config(run)
    known = answering(run)
    if unknown := [name for name in systems if name not in known]:
        raise ConfigError(f"no system {unknown[0]!r} in this run", where="--system", fix=f"one of {', '.join(known)}")
    sampling = Sampling(temperature, max_new_tokens or config.evaluation_max_new_tokens)
    with TemporaryDirectory() as aside, Ledger(Path(aside) / "asked.sqlite") as ledger:
        resources = Resources(_quick(config), RunDir(run, manifest), Path())
        yield OpenSystems({s: engine_for(resources, s, ledger) for s in systems}, sampling, config.run.seed)


def _quick(config: Config) -> Config:
    """One answer at once: slots for more would only take memory."""
    return config.model_copy(update={"generate": config.generate.model_copy(update={"slots": 1})})

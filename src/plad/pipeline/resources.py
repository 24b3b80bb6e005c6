"""What a run has for its stages: its settings with places resolved, its rows, its models."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from plad.answers.engine import engine_kind
from plad.config.base import Role
from plad.config.judges import JudgeSection
from plad.config.models import ModelSection, StudentSection, TeacherSection
from plad.config.objectives import AnyObjective
from plad.config.root import Config
from plad.data.formats import iter_examples_jsonl, read_examples_jsonl
from plad.data.sources import locate, source_fingerprint
from plad.data.split import nested_share
from plad.judges.base import JudgeKind, kind_of
from plad.policy.fingerprint import folder_fingerprint, model_fingerprint
from plad.policy.resolve import locate_model
from plad.records import Example
from plad.rundir.atomic import verify_dir
from plad.rundir.directory import RunDir
from plad.rundir.fingerprint import fingerprint
from plad.rundir.manifest import FINGERPRINTS

if TYPE_CHECKING:
    from plad.policy.load import Policy

M = TypeVar("M", bound=ModelSection)


@dataclass(frozen=True, slots=True)
class Resources:
    """A run's own.

    Attributes:
        base: relative model and data paths start here.
        verify: the command line's function for a verifiable judge.
    """

    config: Config
    run: RunDir
    base: Path
    skip_invalid: bool = False
    verify: str | None = None

    @property
    def teacher(self) -> TeacherSection:
        """The teacher's section, a relative model path resolved against the config's folder."""
        return self._located(self.config.teacher)

    @property
    def student(self) -> StudentSection:
        """The student's section in the same way."""
        return self._located(self.config.student)

    def policy_section(self, role: Role) -> TeacherSection | StudentSection:
        """The section of either."""
        return self.teacher if role == "teacher" else self.student

    def _located(self, section: M) -> M:
        local = not isinstance(section, TeacherSection) or section.local
        place = locate_model(section.model, self.base, section.revision) if local else locate(section.model, self.base)
        return section.model_copy(update={"model": place})

    def judge_sections(self) -> list[JudgeKind]:
        """The config's judges, relative model paths resolved against the config's folder."""
        return [self._judge(j) for j in self.config.evaluate.judges]

    def scorer_section(self) -> JudgeKind | None:
        """The scorer of pairs in the same way; None where it has nothing to do."""
        pairs = self.config.pairs
        return self._judge(pairs.scorer) if pairs.scorer is not None and pairs.scores else None

    def _judge(self, section: JudgeSection) -> JudgeKind:
        return kind_of(section.placed(self.base, self.verify))

    def examples(self, split: str) -> list[Example]:
        """The rows of a split, as the data stage wrote them; of the distillation half the share in use."""
        rows = read_examples_jsonl(self.run / f"data/{split}.jsonl")
        if split != "distill":
            return rows
        return nested_share(rows, self.config.generate.share, self.config.run.seed, "distill")

    def stream(self, split: str) -> Iterator[Example]:
        """`examples` one by one, without holding them all where every row is in use."""
        if split == "distill" and self.config.generate.share < 1:
            return iter(self.examples(split))
        return iter_examples_jsonl(self.run / f"data/{split}.jsonl")


def fine_tuned(resources: Resources, role: Role, *, dtype: str | None = None) -> "Policy":
    """The fine-tuned policy, its adapter merged, in the given type or its section's."""
    from plad.policy.load import load_policy

    section = resources.policy_section(role)
    if dtype is not None:
        section = section.model_copy(update={"dtype": dtype})
    if role == "teacher" and not resources.config.teacher.sft:
        return load_policy(section)
    verify_dir(resources.run / f"sft/{role}")
    return load_policy(section, folder=resources.run / f"sft/{role}")


def weights(resources: Resources, system: str) -> str:
    """Fingerprint of the weights behind a system's answers."""
    return weights_names(resources, system)[0]


def weights_names(resources: Resources, system: str) -> tuple[str, ...]:
    """The fingerprint by which this run names the weights, then the one by which runs of other versions know them."""
    teacher = resources.config.teacher
    if system == "teacher" and not teacher.local:
        return (fingerprint(engine_kind(teacher.engine).source(teacher, resources.base)),)
    if system == "teacher" and not teacher.sft:
        name = model_fingerprint(resources.teacher.model, teacher.revision)
    else:
        places = {"teacher": "sft/teacher", "student_sft": "sft/student", "student": "student"}
        between = f"checkpoints/rounds/{system}" if system.startswith("student_round_") else f"baselines/{system}"
        name = folder_fingerprint(resources.run / places.get(system, between))
    names = (str(name), name.former)
    return names if resources.run.manifest.fingerprints == FINGERPRINTS else names[::-1]


def text_files(resources: Resources, objective: AnyObjective) -> dict[str, dict[str, str]]:
    """What the files hold that an objective reads, as something that the student depends on."""
    files = [documents.file for o in objective.alternatives if (documents := o.needs.documents) is not None]
    return {"texts": {file: source_fingerprint(file, resources.base) for file in files}} if files else {}

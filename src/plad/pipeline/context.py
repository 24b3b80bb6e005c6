"""What every stage gets, and what several of them ask for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plad.config.engines import FileEngine, OpenAIEngine
from plad.config.judges import JudgeSection
from plad.config.models import ModelSection
from plad.config.objectives import AnyObjective
from plad.config.root import Config
from plad.data.sources import locate
from plad.judges.base import JudgeKind, kind_of
from plad.records import Example
from plad.rundir.directory import RunDir, fingerprint, verify_dir


@dataclass(frozen=True, slots=True)
class Context:
    """What every stage gets."""

    config: Config
    run: RunDir
    base: Path  # relative model and data paths start here
    skip_invalid: bool = False
    verify: str | None = None  # the command line's function for a verifiable judge
    depends: Mapping[str, Any] = field(default_factory=dict)  # all that the running stage depends on

    def policy_section(self, role: str) -> Any:
        """The config of a policy, a relative model path resolved against the config's folder."""
        section: ModelSection = getattr(self.config, role)
        return section.model_copy(update={"model": locate(section.model, self.base)})

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
        from plad.data.formats import read_examples_jsonl
        from plad.data.split import nested_share

        rows = read_examples_jsonl(self.run / f"data/{split}.jsonl")
        if split != "distill":
            return rows
        return nested_share(rows, self.config.generate.share, self.config.run.seed, "distill")

    def stream(self, split: str) -> Iterator[Example]:
        """`examples` one by one, without holding them all where every row is in use."""
        from plad.data.formats import iter_examples_jsonl

        if split == "distill" and self.config.generate.share < 1:
            return iter(self.examples(split))
        return iter_examples_jsonl(self.run / f"data/{split}.jsonl")


def fine_tuned(ctx: Context, role: str, *, dtype: str | None = None) -> Any:
    """The fine-tuned policy, its adapter merged, in the given type or its section's."""
    from plad.policy.load import load_policy

    section = ctx.policy_section(role)
    if dtype is not None:
        section = section.model_copy(update={"dtype": dtype})
    if role == "teacher" and not ctx.config.teacher.sft:
        return load_policy(section)
    verify_dir(ctx.run / f"sft/{role}")
    return load_policy(section, folder=ctx.run / f"sft/{role}")


def weights(ctx: Context, system: str) -> str:
    """Fingerprint of the weights behind a system's answers."""
    from plad.policy.fingerprint import folder_fingerprint, model_fingerprint

    if system == "teacher" and not ctx.config.teacher.local:
        return fingerprint(teacher_source(ctx))
    if system == "teacher" and not ctx.config.teacher.sft:
        section = ctx.policy_section("teacher")
        return model_fingerprint(section.model, section.revision)
    places = {"teacher": "sft/teacher", "student_sft": "sft/student", "student": "student"}
    between = f"checkpoints/rounds/{system}" if system.startswith("student_round_") else f"baselines/{system}"
    place = places.get(system, between)
    return folder_fingerprint(ctx.run / place)


def text_files(ctx: Context, objective: AnyObjective) -> dict[str, Any]:
    """What the files hold that an objective reads, as something that the student depends on."""
    from plad.data.sources import source_fingerprint

    files = [documents.file for o in objective.alternatives if (documents := o.needs.documents) is not None]
    return {"texts": {file: source_fingerprint(file, ctx.base) for file in files}} if files else {}


def teacher_source(ctx: Context) -> dict[str, Any]:
    """What a teacher is whose weights are not here: a model behind an endpoint, or a file of answers."""
    from plad.data.sources import source_fingerprint

    teacher = ctx.config.teacher
    if isinstance(teacher.engine, FileEngine):
        columns = teacher.engine.columns.model_dump()
        return {"type": "file", "file": source_fingerprint(teacher.engine.path, ctx.base), "columns": columns}
    assert isinstance(teacher.engine, OpenAIEngine)
    prompt = teacher.prompt.model_dump(include={"template", "system"})
    return {**teacher.engine.shaping(), "model": teacher.model, "revision": teacher.revision, "prompt": prompt}

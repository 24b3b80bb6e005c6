"""Which answers a run asks for, stage by stage, and which verdicts of LLM judges. Pure functions of config and data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plad.config.judges import LlmJudge
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.split import nested_share
from plad.records import Example


@dataclass(frozen=True, slots=True)
class Asking:
    """Answers of one system to rows of one split.

    Attributes:
        split: or `calibration`, for the test rows that it is measured on.
        samples: answers a row.
        kept: they go through the ledger; answers while training don't.
    """

    stage: str
    system: str
    split: str
    rows: Sequence[Example]
    samples: int
    max_new_tokens: int
    temperature: float
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Judging:
    """Comparisons by an LLM judge, each asked in both orders.

    Attributes:
        place: where the config names the judge.
        each: comparisons a row.
        answer_tokens: most tokens of the answers that meet.
    """

    stage: str
    place: str
    judge: LlmJudge
    split: str
    rows: Sequence[Example]
    each: int
    answer_tokens: int


def distill_rows(config: Config, prepared: Prepared) -> list[Example]:
    """The distillation prompts in use."""
    return nested_share(prepared.distill, config.generate.share, config.run.seed, "distill")


def askings(config: Config, prepared: Prepared) -> Iterator[Asking]:
    """All answers of a run that goes through, in the order of the stages; rounds may stop earlier than counted."""
    g, distill = config.generate, distill_rows(config, prepared)
    yield from _validating(config, prepared, "sft", int(config.teacher.sft), config.sft.validation)
    yield Asking("generate", "student_sft", "distill", distill, config.student_samples, g.max_new_tokens, g.temperature)
    yield Asking("generate", "teacher", "distill", distill, g.samples, g.max_new_tokens, g.temperature)
    yield from _validating(config, prepared, "distill", students(config), config.distill.validation)
    yield from _rounds(config, prepared, distill)
    yield from _validating(config, prepared, "baselines", len(config.methods), config.distill.validation)
    yield from _evaluating(config, prepared)


def students(config: Config) -> int:
    """How many students the stage distill trains: candidates in the first round, one in each further one."""
    return len(config.distill.objective.alternatives) + config.distill.rounds - 1


def _validating(config: Config, prepared: Prepared, stage: str, policies: int, settings: object) -> Iterator[Asking]:
    """Answers while policies train: never kept, and of models in this process."""
    times = policies * getattr(settings, "evaluations", 0)
    rows = prepared.validation[: getattr(settings, "rows", 0)]
    if times and rows:
        most, temperature = config.evaluation_max_new_tokens, config.evaluate.temperature
        yield Asking(stage, "validation", "validation", rows, times, most, temperature, kept=False)


def _rounds(config: Config, prepared: Prepared, distill: Sequence[Example]) -> Iterator[Asking]:
    """New answers of the student, and the meetings of both after every round."""
    g = config.generate
    if config.distill.rounds == 1:
        return
    met = prepared.validation[: config.distill.validation.rows]
    for n in range(config.distill.rounds + 1):
        system = f"student_round_{n}" if n else "student_sft"
        yield Asking("distill", system, "validation", met, 1, g.max_new_tokens, g.temperature)
        if 0 < n < config.distill.rounds:
            yield Asking("distill", system, "distill", distill, config.student_samples, g.max_new_tokens, g.temperature)
    yield Asking("distill", "teacher", "validation", met, 1, g.max_new_tokens, g.temperature)


def _evaluating(config: Config, prepared: Prepared) -> Iterator[Asking]:
    e, rows, most = config.evaluate, prepared.test[: config.evaluate.limit], config.evaluation_max_new_tokens
    for system in systems(config):
        yield Asking("evaluate", system, "test", rows, 1, most, e.temperature)
    c = e.calibration
    if c is None:
        return
    by_default = c.samples if config.teacher.local else 0
    teacher = by_default if c.teacher_samples is None else c.teacher_samples
    for system, samples in (("student_sft", c.samples), ("teacher", teacher)):
        if samples:
            yield Asking("evaluate", system, "calibration", rows[: c.rows], samples, most, c.temperature)


def systems(config: Config) -> list[str]:
    """Everybody who answers the test rows."""
    return ["teacher", "student_sft", "student", *(m.name for m in config.methods)]


def judgings(config: Config, prepared: Prepared) -> Iterator[Judging]:
    """All comparisons that LLM judges are asked for, in the order of the stages."""
    distill, judges = distill_rows(config, prepared), config.evaluate.judges
    most, answer = config.evaluation_max_new_tokens, config.generate.max_new_tokens
    each = config.generate.samples * config.student_samples
    first = judges[0] if judges and isinstance(judges[0], LlmJudge) else None
    place = "evaluate.judges.0"
    rows = prepared.validation

    def validating(stage: str, policies: int, settings: object) -> Iterator[Judging]:
        times = policies * getattr(settings, "evaluations", 0)
        if first is not None and times and rows:
            yield Judging(stage, place, first, "validation", rows[: getattr(settings, "rows", 0)], times, most)

    yield from validating("sft", int(config.teacher.sft), config.sft.validation)
    if isinstance(config.pairs.scorer, LlmJudge) and config.pairs.scores:
        looked_at = nested_share(distill, config.pairs.real_share, config.run.seed, "real preferences")
        yield Judging("pair", "pairs.scorer", config.pairs.scorer, "distill", looked_at, each, answer)
    yield from validating("distill", students(config), config.distill.validation)
    if config.distill.rounds > 1 and first is not None:
        met = rows[: config.distill.validation.rows]
        yield Judging("distill", place, first, "validation", met, config.distill.rounds + 1, answer)
    yield from validating("baselines", len(config.methods), config.distill.validation)
    test = prepared.test[: config.evaluate.limit]
    for i, judge in enumerate(judges):
        if isinstance(judge, LlmJudge):
            at = f"evaluate.judges.{i}"
            yield Judging("evaluate", at, judge, "test", test, len(systems(config)), most)
            yield Judging("evaluate", at, judge, "distill", distill, each, answer)

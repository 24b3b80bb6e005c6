"""Which answers a run asks for, stage by stage, and which verdicts of LLM judges. Pure functions of config and data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.split import nested_share
from plad.judges.base import Asked, kind_of
from plad.records import Example


@dataclass(frozen=True, slots=True)
class AnswerRequests:
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
class VerdictRequests:
    """Comparisons by a judge that asks a model.

    Attributes:
        place: where the config names the judge.
        asked: what one comparison asks.
        each: comparisons a row.
        answer_tokens: most tokens of the compared answers.
    """

    stage: str
    place: str
    asked: Asked
    split: str
    rows: Sequence[Example]
    each: int
    answer_tokens: int


def distill_rows(config: Config, prepared: Prepared) -> list[Example]:
    """The distillation prompts in use."""
    return nested_share(prepared.distill, config.generate.share, config.run.seed, "distill")


def _validated(config: Config, prepared: Prepared) -> dict[str, tuple[Sequence[Example], int]]:
    """Rows on which the models of each stage are validated while they train, and how often."""
    models = {
        "sft": int(config.teacher.sft),
        "distill": len(config.distill.objective.alternatives) + config.distill.rounds - 1,
        "baselines": len(config.methods),
    }
    settings = {stage: config.sft.validation if stage == "sft" else config.distill.validation for stage in models}
    pace = {stage: settings[stage].evaluations for stage in models}
    times = {stage: n * (pace[stage] + 1) if pace[stage] else 0 for stage, n in models.items()}  # once before training
    return {s: (prepared.validation[: settings[s].rows], n) for s, n in times.items() if n and prepared.validation}


def answer_requests(config: Config, prepared: Prepared) -> Iterator[AnswerRequests]:
    """All answers of a run that goes through, in the order of the stages; rounds may stop earlier than counted."""
    g, distill = config.generate, distill_rows(config, prepared)
    validated = _validated(config, prepared)

    def validation(stage: str) -> Iterator[AnswerRequests]:
        for rows, times in [validated[stage]] if stage in validated else []:
            most, temperature = config.evaluation_max_new_tokens, config.evaluate.temperature
            yield AnswerRequests(stage, "validation", "validation", rows, times, most, temperature, kept=False)

    def generated(stage: str, system: str, samples: int) -> AnswerRequests:
        return AnswerRequests(stage, system, "distill", distill, samples, g.max_new_tokens, g.temperature)

    yield from validation("sft")
    yield generated("generate", "student_sft", config.student_samples)
    yield generated("generate", "teacher", g.samples)
    yield from validation("distill")
    if config.distill.rounds > 1:
        rows = prepared.validation[: config.distill.validation.rows]
        for n in range(config.distill.rounds + 1):
            system = f"student_round_{n}" if n else "student_sft"
            yield AnswerRequests("distill", system, "validation", rows, 1, g.max_new_tokens, g.temperature)
            if 0 < n < config.distill.rounds:
                yield generated("distill", system, config.student_samples)
        yield AnswerRequests("distill", "teacher", "validation", rows, 1, g.max_new_tokens, g.temperature)
    yield from validation("baselines")
    yield from _evaluated(config, prepared)


def _evaluated(config: Config, prepared: Prepared) -> Iterator[AnswerRequests]:
    e, rows, most = config.evaluate, prepared.test[: config.evaluate.limit], config.evaluation_max_new_tokens
    for system in _systems(config):
        yield AnswerRequests("evaluate", system, "test", rows, 1, most, e.temperature)
    c = e.calibration
    if c is None:
        return
    by_default = c.samples if config.teacher.local else 0
    teacher = by_default if c.teacher_samples is None else c.teacher_samples
    for system, samples in (("student_sft", c.samples), ("teacher", teacher)):
        if samples:
            yield AnswerRequests("evaluate", system, "calibration", rows[: c.rows], samples, most, c.temperature)


def _systems(config: Config) -> list[str]:
    """Everybody who answers the test rows."""
    return ["teacher", "student_sft", "student", *(m.name for m in config.methods)]


def verdict_requests(config: Config, prepared: Prepared) -> Iterator[VerdictRequests]:
    """All comparisons that judges ask a model for, in the order of the stages."""
    distill, judges = distill_rows(config, prepared), config.evaluate.judges
    most, answer = config.evaluation_max_new_tokens, config.generate.max_new_tokens
    each = config.generate.samples * config.student_samples
    scorer = config.pairs.scorer if config.pairs.scores else None
    scorer_asks = None if scorer is None else kind_of(scorer).asked
    first = kind_of(judges[0]).asked if judges else None
    validated = _validated(config, prepared) if first is not None else {}

    def validation(stage: str) -> Iterator[VerdictRequests]:
        if first is not None and stage in validated:
            yield VerdictRequests(stage, "evaluate.judges.0", first, "validation", *validated[stage], most)

    yield from validation("sft")
    if scorer_asks is not None:
        scored = nested_share(distill, config.pairs.real_share, config.run.seed, "real preferences")
        yield VerdictRequests("pair", "pairs.scorer", scorer_asks, "distill", scored, each, answer)
    yield from validation("distill")
    if config.distill.rounds > 1 and first is not None:
        rows = prepared.validation[: config.distill.validation.rows]
        rounds = config.distill.rounds + 1
        yield VerdictRequests("distill", "evaluate.judges.0", first, "validation", rows, rounds, answer)
    yield from validation("baselines")
    test = prepared.test[: config.evaluate.limit]
    for i, judge in enumerate(judges):
        asked = kind_of(judge).asked
        if asked is not None:
            at = f"evaluate.judges.{i}"
            yield VerdictRequests("evaluate", at, asked, "test", test, len(_systems(config)), most)
            yield VerdictRequests("evaluate", at, asked, "distill", distill, each, answer)

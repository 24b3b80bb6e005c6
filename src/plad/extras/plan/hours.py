"""Seconds of the stages on this machine, from rates of its models. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from plad.config.base import ROLES, Role
from plad.config.models import TrainSettings
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.extras.plan.price import Line
from plad.extras.plan.requests import distill_rows
from plad.extras.plan.tokens import Counter, mean_target
from plad.records import Example


@dataclass(frozen=True, slots=True)
class ModelRate:
    """Seconds of a model on this machine.

    Attributes:
        prompt, answer: a token of a prompt, and one of an answer where `slots` are sampled at once.
        train: a token that is trained on; None where it was not timed.
        step: an optimizer's step.
    """

    prompt: float
    answer: float
    slots: int
    train: float | None = None
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """A stage's training of one model: tokens of all passes, and steps."""

    stage: str
    role: Role
    tokens: float
    steps: int


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds of a stage; None where the rate is not known."""

    stage: str
    training: float | None
    answers: float | None

    @property
    def total(self) -> float | None:
        """Of both."""
        return None if self.training is None or self.answers is None else self.training + self.answers


def computed_by(line: Line) -> Role | None:
    """Whose answers are computed on this machine."""
    if line.place is not None or not line.new or not line.completion_tokens:
        return None
    return "teacher" if line.system == "teacher" or (line.stage, line.split) == ("sft", "validation") else "student"


def trainings(
    config: Config, prepared: Prepared, counters: Mapping[str, Counter], done: Iterable[str]
) -> Iterator[PlannedTraining]:
    """What is still to be trained: every prompt with all its texts, once an epoch; no pair is taken to be dropped."""
    done = set(done)
    if "sft" not in done:
        for role in ROLES:
            if role == "student" or config.teacher.sft:
                counter = counters["teacher" if role == "teacher" else "student_sft"]
                rows = [e for e in prepared.sft if e.target is not None]
                tokens = sum(counter.prompt(e) + counter.completion(e.target or "") for e in rows)
                yield _training("sft", role, config.sft.settings(role), tokens, len(rows))
    rows, counter = distill_rows(config, prepared), counters["student_sft"]
    times = {
        "distill": len(config.distill.objective.alternatives) + config.distill.rounds - 1,
        "baselines": len(config.methods),
    }
    each = _length(rows, counter, config) * (config.generate.samples + config.student_samples)
    tokens = sum(counter.prompt(e) + each for e in rows) if set(times) - done else 0
    for stage, n in times.items():
        if n and stage not in done:
            one = _training(stage, "student", config.distill, tokens, len(rows))
            yield PlannedTraining(stage, "student", n * one.tokens, n * one.steps)


def _length(rows: Sequence[Example], counter: Counter, config: Config) -> float:
    most = config.generate.max_new_tokens
    return min(mean_target(rows, counter) or most, most)


def _training(stage: str, role: Role, settings: TrainSettings, tokens: float, rows: int) -> PlannedTraining:
    batch = settings.batch_size * settings.gradient_accumulation_steps
    return PlannedTraining(stage, role, tokens * settings.epochs, round(-(-rows // batch) * settings.epochs))


def stage_times(
    lines: Sequence[Line], trainings: Sequence[PlannedTraining], rates: Mapping[Role, ModelRate]
) -> Iterator[StageTime]:
    """Seconds of every stage that has something to do here, in the order of the stages."""
    work: list[tuple[Line, Role]] = [(line, role) for line in lines if (role := computed_by(line)) is not None]
    order = ("sft", "generate", "distill", "baselines", "evaluate")
    for stage in (s for s in order if any(t.stage == s for t in trainings) or any(w.stage == s for w, _ in work)):
        training = [_train_seconds(t, rates.get(t.role)) for t in trainings if t.stage == stage]
        answers = [_answer_seconds(line, rates.get(role)) for line, role in work if line.stage == stage]
        yield StageTime(stage, _sum(training), _sum(answers))


def _train_seconds(t: PlannedTraining, rate: ModelRate | None) -> float | None:
    return None if rate is None or rate.train is None else t.tokens * rate.train + t.steps * rate.step


def _answer_seconds(line: Line, rate: ModelRate | None) -> float | None:
    return None if rate is None else line.read_tokens * rate.prompt + line.completion_tokens * rate.answer


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [p for p in parts if p is not None]
    return sum(known) if len(known) == len(parts) else None

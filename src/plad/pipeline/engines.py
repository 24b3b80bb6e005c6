"""Who answers for each system, and the ledger that the answers go into."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from plad.answers.engine import Engine, EngineResources, LimitedEngine, engine_kind
from plad.answers.fill import fill as fill_ledger
from plad.answers.fill import recorded
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.answers.reply import is_other_model
from plad.errors import PartialResultError
from plad.judges.base import JudgeResources
from plad.pipeline.resources import Resources, fine_tuned, weights
from plad.progress import track
from plad.records import Example, Generation, Outcome
from plad.rundir.atomic import verify_dir
from plad.sampling.transformers import Transformers

if TYPE_CHECKING:
    from plad.policy.load import Policy


def open_ledger(ctx: Resources) -> Ledger:
    """The run's ledger, for writing."""
    return Ledger(ctx.run.ledger, run=ctx.run.id)


def judge_resources(ctx: Resources) -> JudgeResources:
    """What the run lends its judges: questions go through its ledger, within its budget."""
    return JudgeResources(ctx.config.evaluate.stemmer, ctx.config.run.seed, ctx.config.budget, lambda: open_ledger(ctx))


def check_teacher(ctx: Resources) -> None:
    """Find out at once whether the teacher can be asked at all: packages, key, file.

    Raises:
        PladError: it can't.
    """
    engine = engine_kind(ctx.config.teacher.engine)
    engine.require()
    if not engine.local:
        engine.open(_resources(ctx, None))


def engine_for(ctx: Resources, system: str, ledger: Ledger) -> Engine[Any]:
    """The engine that answers for a system.

    Args:
        ledger: knows what the run has spent so far.

    Raises:
        PladError: its model, tokenizer or file can't be used.
    """
    if system == "teacher":
        return engine_kind(ctx.config.teacher.engine).open(_resources(ctx, ledger))
    return sampler(ctx, system, policy_of(ctx, system))


def policy_of(ctx: Resources, system: str) -> "Policy":
    """The model of a system whose weights the run has made."""
    from plad.policy.load import load_policy

    if system == "student_sft":
        return fine_tuned(ctx, "student")
    folder = ctx.run / ("student" if system == "student" else f"baselines/{system}")
    verify_dir(folder)
    return load_policy(ctx.config.student, folder=folder)


def sampler(ctx: Resources, system: str, policy: "Policy") -> Transformers:
    """The engine of a policy that is loaded."""
    return Transformers(policy, weights(ctx, system), ctx.config.generate.slots)


def _resources(ctx: Resources, ledger: Ledger | None) -> EngineResources:
    teacher = ctx.teacher if ctx.config.teacher.local else ctx.config.teacher
    folder = ctx.run / "sft/teacher" if teacher.sft else None
    if folder is not None:
        verify_dir(folder)
    return EngineResources(
        *(teacher, ctx.base, weights(ctx, "teacher"), folder),
        *(ctx.config.generate.slots, ctx.config.budget, ledger),
    )


def missing_answers(engine: Engine[Any], rows: list[Example]) -> str | None:
    """Why an engine can't answer some prompts: a file that lacks them. None where it can try."""
    if not isinstance(engine, LimitedEngine) or not (n := engine.lacking(rows)):
        return None
    return f"{n:,} of {len(rows):,} prompts have no answer in {engine.name}"


def answer_set(ctx: Resources, system: str, sampling: Sampling) -> AnswerSet:
    """The answers of one of the run's systems."""
    return AnswerSet(system, weights(ctx, system), sampling, ctx.config.run.seed)


def fill(
    ctx: Resources, engine: Engine[Any], rows: Iterable[Example], total: int, answers: AnswerSet, ledger: Ledger
) -> dict[str, int]:
    """Let an engine answer rows into the ledger, with progress; returns the number of answers by outcome.

    Raises:
        PartialResultError: more of them are missing than `generate.max_failed` allows.
    """
    with track(f"{answers.system} answers", total * answers.sampling.samples, "answers") as progress:
        counts = fill_ledger(engine, rows, answers, ledger, progress)
    _require_enough(ctx, answers.system, counts, ledger)
    return counts


def _require_enough(ctx: Resources, system: str, counts: dict[str, int], ledger: Ledger) -> None:
    failed = {str(o): counts[o] for o in (Outcome.FAILED, Outcome.BAD_REQUEST) if counts.get(o)}
    total, share = sum(counts.values()), ctx.config.generate.max_failed
    if sum(failed.values()) <= share * total:
        return
    outcomes = "; ".join(f"{n:,} {name}" for name, n in failed.items())
    message = next(iter(ledger.messages(system)), "")
    raise PartialResultError(
        f"{sum(failed.values()):,} of {total:,} answers of {system} are missing ({outcomes})"
        + (f"; most often: {message}" if message else ""),
        where=f"generate.max_failed={share:g}",
        fix="the same command asks again for those that failed; all others are kept\n"
        f"plad ledger {ctx.run.path} shows what the provider said\n"
        "or raise generate.max_failed, and go on without them",
    )


def served_by_others(ctx: Resources, ledger: Ledger) -> list[str]:
    """A line for each model that answered in place of the one that was asked for."""
    asked = ctx.config.teacher.model
    if ctx.config.teacher.local:
        return []
    return [
        f"{n:,} answers of the teacher were served by {name}, not by {asked}"
        for name, n in ledger.served("teacher", ctx.run.id).items()
        if is_other_model(asked, name)
    ]


def recorded_on_distill(resources: Resources, system: str, samples: int) -> dict[str, list[Generation]]:
    """Recorded answers on D by example, from the ledger alone: no model is loaded."""
    sampling = Sampling(resources.config.generate.temperature, resources.config.generate.max_new_tokens, samples)
    with open_ledger(resources) as ledger:
        return recorded(resources.examples("distill"), answer_set(resources, system, sampling), ledger)

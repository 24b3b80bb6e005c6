"""Who answers for each system, and the ledger that the answers go into."""

from typing import Any

from plad.answers.fill import fill as fill_ledger
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.engines import FileEngine, OpenAIEngine, VllmEngine
from plad.data.sources import locate
from plad.errors import PartialResultError
from plad.judges.base import JudgeResources
from plad.pipeline.resources import Resources, fine_tuned, weights
from plad.progress import track
from plad.records import Example, Outcome
from plad.rundir.atomic import verify_dir


def open_ledger(ctx: Resources) -> Any:
    """The run's ledger, for writing."""
    return Ledger(ctx.run.ledger, run=ctx.run.id)


def judge_resources(ctx: Resources) -> JudgeResources:
    """What the run lends its judges: questions go through its ledger, within its budget."""
    return JudgeResources(ctx.config.evaluate.stemmer, ctx.config.run.seed, ctx.config.budget, lambda: open_ledger(ctx))


def check_teacher(ctx: Resources) -> None:
    """Find out at once whether a teacher elsewhere can be asked at all: packages, key, file.

    Raises:
        PladError: it can't.
    """
    section = ctx.config.teacher.engine
    if isinstance(section, OpenAIEngine):
        from plad.remote.transport import api_key, require_client

        require_client()
        api_key(section)
    if isinstance(section, VllmEngine):
        from plad.sampling.vllm import require_vllm

        require_vllm()
    if not ctx.config.teacher.local:
        _teacher(ctx, None)


def engine_for(ctx: Resources, system: str, ledger: Any) -> Any:
    """The engine that answers for a system.

    Args:
        ledger: knows what the run has spent so far.

    Raises:
        PladError: its model, tokenizer or file can't be used.
    """
    from plad.policy.load import load_policy
    from plad.policy.resolve import resolve_model

    if system == "teacher" and not ctx.config.teacher.local:
        return _teacher(ctx, ledger)
    section = ctx.teacher
    if system == "teacher" and isinstance(section.engine, VllmEngine):
        from plad.sampling.vllm import load_vllm

        folder = ctx.run / "sft/teacher" if section.sft else resolve_model(section.model, section.revision)
        return load_vllm(section, section.engine, folder, weights(ctx, "teacher"))
    from plad.sampling.local import Transformers

    if system in ("teacher", "student_sft"):
        policy = fine_tuned(ctx, "teacher" if system == "teacher" else "student")
    else:
        folder = ctx.run / ("student" if system == "student" else f"baselines/{system}")
        verify_dir(folder)
        policy = load_policy(ctx.config.student, folder=folder)
    return Transformers(policy, weights(ctx, system), ctx.config.generate.slots)


def budget_of(ctx: Resources, ledger: Any) -> Any:
    """The run's budget, with what it has spent so far."""
    from plad.remote.budget import Budget

    return Budget.of(ctx.config.budget, *ledger.spent(ctx.run.id))


def _teacher(ctx: Resources, ledger: Any) -> Any:
    """The engine of a teacher whose weights are not here; without a ledger it is only looked at."""
    teacher = ctx.config.teacher
    if isinstance(teacher.engine, FileEngine):
        from plad.answers.file import read_answers_file

        return read_answers_file(teacher.engine, weights(ctx, "teacher"), ctx.base)
    assert isinstance(teacher.engine, OpenAIEngine)
    from plad.remote.engine import OpenAI

    tokenizer = None
    if teacher.engine.tokenizer is not None:
        from plad.policy.folder import load_tokenizer
        from plad.policy.resolve import resolve_tokenizer

        tokenizer = load_tokenizer(resolve_tokenizer(locate(teacher.engine.tokenizer, ctx.base)))
    more: dict[str, Any] = {}
    if ledger is not None:
        from plad.remote.jobs import Jobs

        more = {"budget": budget_of(ctx, ledger), "jobs": Jobs(ledger, teacher.engine.base_url, "teacher")}
    return OpenAI(teacher.engine, teacher.model, teacher.prompt, teacher.revision, tokenizer, **more)


def missing_answers(engine: Any, rows: list[Example]) -> str | None:
    """Why an engine can't answer some prompts: a file that lacks them. None where it can try."""
    lacking = getattr(engine, "lacking", None)
    n = lacking(rows) if lacking is not None else 0
    return f"{n:,} of {len(rows):,} prompts have no answer in {engine.name}" if n else None


def answer_set(ctx: Resources, system: str, sampling: Sampling) -> AnswerSet:
    """The answers of one of the run's systems."""
    return AnswerSet(system, weights(ctx, system), sampling, ctx.config.run.seed)


def fill(ctx: Resources, engine: Any, rows: Any, total: int, answers: AnswerSet, ledger: Any) -> dict[str, int]:
    """Let an engine answer rows into the ledger, with progress; returns the number of answers by outcome.

    Raises:
        PartialResultError: more of them are missing than `generate.max_failed` allows.
    """
    with track(f"{answers.system} answers", total * answers.sampling.samples, "answers") as progress:
        counts = fill_ledger(engine, rows, answers, ledger, progress)
    _require_enough(ctx, answers.system, counts, ledger)
    return counts


def _require_enough(ctx: Resources, system: str, counts: dict[str, int], ledger: Any) -> None:
    failed = {str(o): counts[o] for o in (Outcome.FAILED, Outcome.BAD_REQUEST) if counts.get(o)}
    total, share = sum(counts.values()), ctx.config.generate.max_failed
    if sum(failed.values()) <= share * total:
        return
    said = "; ".join(f"{n:,} {name}" for name, n in failed.items())
    messages = ledger.messages(system)
    raise PartialResultError(
        f"{sum(failed.values()):,} of {total:,} answers of {system} are missing ({said})"
        + (f"; the latest: {messages[0]}" if messages else ""),
        where=f"generate.max_failed={share:g}",
        fix="the same command asks again for those that failed; all others are kept\n"
        f"plad ledger {ctx.run.path} shows what the provider said\n"
        "or raise generate.max_failed, and go on without them",
    )


def served_by_others(ctx: Resources, ledger: Any) -> list[str]:
    """A line for each model that answered in place of the one that was asked for."""
    from plad.answers.reply import is_other_model

    asked = ctx.config.teacher.model
    if ctx.config.teacher.local:
        return []
    served = ledger.served("teacher", ctx.run.id)
    return [
        f"{n:,} answers of the teacher were served by {name}, not by {asked}"
        for name, n in served.items()
        if is_other_model(asked, name)
    ]

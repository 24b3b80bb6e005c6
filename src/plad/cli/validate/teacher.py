"""What `plad validate` finds out about a teacher whose weights are not here."""

from pathlib import Path

from plad.config.engines import FileEngine, OpenAIEngine
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.split import nested_share
from plad.errors import DataError, Findings, PladError
from plad.records import Example


def check_teacher(findings: Findings, config: Config, base: Path, prepared: Prepared | None, *, online: bool) -> None:
    """Check the packages and the key, or the file, that a teacher needs.

    Args:
        online: send it one request.
    """
    teacher = config.teacher
    engine = teacher.engine
    try:
        if isinstance(engine, FileEngine):
            _check_answers(findings, config, engine, base, prepared)
        elif isinstance(engine, OpenAIEngine):
            from plad.remote.transport import api_key, require_client

            require_client()
            api_key(engine)
            how = ", in batches" if engine.mode == "batch" else ""
            findings.add("ok", "teacher", f"{teacher.model} at {engine.base_url}, api {engine.api}{how}")
            if online:
                _ask_once(findings, config, engine, prepared)
            else:
                findings.not_checked.append(
                    f"teacher {teacher.model}: that {engine.base_url} serves it (--online sends one request)"
                )
    except PladError as e:
        inside = e.where in type(engine).model_fields
        where = f"teacher.engine.{e.where}" if inside else e.where or "teacher.engine"
        findings.fail("teacher", [type(e)(e.what, where=where, fix=e.fix)])


def _check_answers(
    findings: Findings, config: Config, engine: FileEngine, base: Path, prepared: Prepared | None
) -> None:
    from plad.answers.file import read_answers_file

    answers = read_answers_file(engine, "", base)
    findings.add("ok", "teacher", f"answers in {engine.path}")
    if prepared is None:
        return
    distill = nested_share(prepared.distill, config.generate.share, config.run.seed, "distill")
    lacking, total = answers.lacking(distill), len(distill)
    if lacking > config.generate.max_failed * total:
        raise DataError(
            f"{lacking} of {total} distillation prompts have no answer",
            where=engine.path,
            fix="add a row with each prompt (or its id) and text\nor allow them to be missing: generate.max_failed",
        )
    if lacking:
        findings.add("note", "teacher", f"{lacking} of {total} distillation prompts have no answer")
    lacking, total = answers.lacking(prepared.test), len(prepared.test)
    if lacking:
        findings.add(
            "note", "teacher", f"{lacking} of {total} test rows have no answer: it is left out of the evaluation"
        )


def _ask_once(findings: Findings, config: Config, engine: OpenAIEngine, prepared: Prepared | None) -> None:
    from plad.remote.engine import OpenAI
    from plad.remote.probe import probe

    teacher = config.teacher
    example = prepared.distill[0] if prepared else Example("probe", "Say yes.")
    seen = probe(OpenAI(engine, teacher.model, teacher.prompt, teacher.revision), example)
    context = f"context {seen.context:,} tokens" if seen.context else "it doesn't tell its context"
    findings.add(
        "ok" if seen.reply.text else "note",
        "teacher: online",
        f"served by {seen.reply.model or teacher.model}, {context}, {seen.reply.seconds:.1f} s for "
        f"{seen.reply.prompt_tokens} + {seen.reply.completion_tokens} tokens, outcome {seen.reply.outcome}"
        + (f" ({seen.reply.message})" if seen.reply.message else ""),
    )
    if seen.context and prepared is not None:
        findings.not_checked.append("teacher: whether all prompts fit its context (name engine.tokenizer and context)")

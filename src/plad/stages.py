"""What each stage does: reads artifacts of the run directory, writes artifacts, returns counts.

Heavy imports stand inside the functions, so that a run whose stages are all done starts at once.
"""

import gc
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plad.config import (
    ROLES,
    Config,
    LoraSection,
    ModelSection,
    PruneInit,
    RankObjective,
    Role,
    SftObjective,
    TrainSettings,
)
from plad.errors import DataError
from plad.paths import locate
from plad.records import Example, Generation
from plad.rundir import RunDir, atomic_dir, fingerprint, is_complete, verify_dir, write_json

log = logging.getLogger("plad")

SPLITS = ("sft", "distill", "validation", "test")
PROBE_PAIRS = 16  # pairs on which log-probabilities are watched while distilling


@dataclass(frozen=True, slots=True)
class Context:
    """What every stage gets."""

    config: Config
    run: RunDir
    base: Path  # relative model and data paths start here
    skip_invalid: bool = False
    depends: Mapping[str, Any] = field(default_factory=dict)  # all that the running stage depends on

    def policy_section(self, role: str) -> Any:
        """The config of a policy, a relative model path resolved against the config's folder."""
        section: ModelSection = getattr(self.config, role)
        return section.model_copy(update={"model": locate(section.model, self.base)})

    def examples(self, split: str) -> list[Example]:
        """The rows of a split, as the data stage wrote them."""
        from plad.data.formats import read_examples_jsonl

        return read_examples_jsonl(self.run / f"data/{split}.jsonl")


# -- data ---------------------------------------------------------------------------------------------


def data(ctx: Context) -> dict[str, Any]:
    from plad.data.formats import write_examples_jsonl
    from plad.data.prepare import prepare

    prepared = prepare(ctx.config, base=ctx.base, skip_invalid=ctx.skip_invalid)
    for split in SPLITS:
        write_examples_jsonl(ctx.run / f"data/{split}.jsonl", getattr(prepared, split))
    return prepared.counts


# -- sft ----------------------------------------------------------------------------------------------


def _signature(ctx: Context, role: str) -> str:
    return fingerprint([ctx.depends["data"], ctx.depends[role]])


def _sign(ctx: Context, folder: Path, role: str) -> None:
    """Leave in a folder what it was made from, for a stage that is interrupted between its two halves."""
    write_json(folder / "made_from.json", _signature(ctx, role))


def _made_already(ctx: Context, folder: Path, role: str) -> bool:
    if not is_complete(folder):
        return False
    verify_dir(folder)
    if json.loads((folder / "made_from.json").read_text()) == _signature(ctx, role):
        return True
    log.info("%s was made with other settings: making it again", folder)
    return False


def _start_policy(ctx: Context, role: str, influence_prompts: list[Example]) -> Any:
    """The policy that fine-tuning starts from, without an adapter; a pruned one is kept on disk."""
    from plad.policy.load import load_policy, save_policy
    from plad.policy.prune import prune_layers

    section = ctx.policy_section(role)
    init = getattr(section, "init", None)
    if not isinstance(init, PruneInit):
        return load_policy(section)
    folder = ctx.run / "sft/student_base"
    if not _made_already(ctx, folder, role):
        whole = load_policy(section)
        sample = influence_prompts[: init.prompts]
        pruned = prune_layers(whole, init.layers, [e.prompt for e in sample])
        with atomic_dir(folder) as staging:
            save_policy(pruned, staging)
            _sign(ctx, staging, role)
        del whole, pruned
    return load_policy(section, folder=folder)


def _trainable(policy: Any, lora: LoraSection | None, settings: TrainSettings, seed: int) -> Any:
    """The policy with a fresh adapter, drawn from the run's seed, or with the weights to train unfrozen."""
    from transformers import set_seed

    from plad.policy.load import attach, freeze_embeddings

    if lora is not None:
        set_seed(seed)
        return attach(policy, lora)
    if settings.freeze_embeddings:
        freeze_embeddings(policy)
    return policy


def _fine_tune(ctx: Context, role: Role) -> dict[str, Any]:
    from plad.policy.load import save_policy
    from plad.train.groups import keep_fitting, sft_groups
    from plad.train.run import train_policy

    cfg, run = ctx.config, ctx.run
    folder = run / f"sft/{role}"
    if _made_already(ctx, folder, role):
        return {"reused": True}
    rows = ctx.examples("sft")
    settings = cfg.sft.settings(role)
    policy = _start_policy(ctx, role, rows)
    for note in policy.notes:
        log.info("%s: %s", role, note)
    lora = cfg.lora_for(settings, getattr(cfg, role))
    encoded = keep_fitting(sft_groups(rows, policy.prompt), settings.max_length or policy.context)
    _require_groups(encoded.groups, encoded.counts(), f"sft.{role}")
    policy = _trainable(policy, lora, settings, cfg.run.seed)
    counts = train_policy(
        policy,
        encoded.groups,
        settings,
        SftObjective(),
        stage=f"sft/{role}",
        folder=run / f"checkpoints/sft-{role}",
        metrics_file=run / "metrics.jsonl",
        emit=run.append_metrics,
        seed=cfg.run.seed,
    )
    with atomic_dir(folder) as staging:
        save_policy(policy, staging)
        _sign(ctx, staging, role)
    run.drop(f"checkpoints/sft-{role}")
    return {**counts, **encoded.counts()}


def _require_groups(groups: list[Any], counts: Mapping[str, Any], where: str) -> None:
    if not groups:
        raise DataError(
            f"no rows left to train on: {dict(counts)}", where=where, fix="raise max_length\nor give shorter rows"
        )


def sft(ctx: Context) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    for role in ROLES:
        if role == "teacher" and not ctx.config.teacher.sft:
            continue
        counts[role] = _fine_tune(ctx, role)
        gc.collect()
    return counts


def sft_policy(ctx: Context, role: str) -> Any:
    """The fine-tuned policy, its adapter merged."""
    from plad.policy.load import load_policy

    section = ctx.policy_section(role)
    if role == "teacher" and not ctx.config.teacher.sft:
        return load_policy(section)
    return load_policy(section, folder=ctx.run / f"sft/{role}")


# -- generate and pair --------------------------------------------------------------------------------


def weights(ctx: Context, system: str) -> str:
    """Fingerprint of the weights behind a system's answers."""
    from plad.policy.fingerprint import folder_fingerprint, model_fingerprint

    if system == "teacher" and not ctx.config.teacher.sft:
        section = ctx.policy_section("teacher")
        return model_fingerprint(section.model, section.revision)
    place = {"teacher": "sft/teacher", "student_sft": "sft/student", "student": "student"}[system]
    return folder_fingerprint(ctx.run / place)


def _answer(
    ctx: Context, policy: Any, rows: list[Example], system: str, sampling: Any, ledger: Any
) -> list[Generation]:
    """Answers through the ledger, with progress."""
    from plad.generate.engine import answer
    from plad.progress import track

    with track(f"{system} answers", len(rows) * sampling.samples, "answers") as progress:
        return answer(
            policy,
            rows,
            system=system,
            weights=weights(ctx, system),
            sampling=sampling,
            seed=ctx.config.run.seed,
            slots=ctx.config.generate.slots,
            ledger=ledger,
            progress=progress,
        )


def generate(ctx: Context) -> dict[str, Any]:
    from plad.generate.engine import Sampling
    from plad.generate.ledger import Ledger

    cfg = ctx.config
    rows = ctx.examples("distill")
    counts: dict[str, Any] = {}
    with Ledger(ctx.run / "generations.sqlite") as ledger:
        for system, role, samples in (
            ("student_sft", "student", cfg.student_samples),
            ("teacher", "teacher", cfg.generate.samples),
        ):
            policy = sft_policy(ctx, role)
            sampling = Sampling(cfg.generate.temperature, cfg.generate.max_new_tokens, samples)
            counts[system] = _outcomes(_answer(ctx, policy, rows, system, sampling, ledger))
            del policy
            gc.collect()
    return counts


def _outcomes(answers: list[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for generation in answers:
        counts[str(generation.outcome)] = counts.get(str(generation.outcome), 0) + 1
    return counts


def _recorded(ctx: Context, system: str, samples: int) -> dict[str, list[Any]]:
    """Recorded answers on D by example, from the ledger alone: no model is loaded."""
    from plad.generate.engine import Sampling, recorded
    from plad.generate.ledger import Ledger

    cfg = ctx.config
    with Ledger(ctx.run / "generations.sqlite") as ledger:
        return recorded(
            ctx.examples("distill"),
            system=system,
            weights=weights(ctx, system),
            sampling=Sampling(cfg.generate.temperature, cfg.generate.max_new_tokens, samples),
            seed=cfg.run.seed,
            ledger=ledger,
        )


def pair(ctx: Context) -> dict[str, Any]:
    """Recorded answers -> pairs.parquet (Eq. 3)."""
    from plad.data.formats import write_pairs_parquet
    from plad.pairs import build_pairs

    cfg = ctx.config
    pairs, counts = build_pairs(
        ctx.examples("distill"),
        _recorded(ctx, "teacher", cfg.generate.samples),
        _recorded(ctx, "student_sft", cfg.student_samples),
        cfg.pairs.drop,
    )
    if not pairs:
        raise DataError(
            f"every pair was dropped: {counts}", where="pairs.drop", fix="look at `plad show RUN generations`"
        )
    write_pairs_parquet(ctx.run / "pairs.parquet", pairs)
    return counts


# -- distill ------------------------------------------------------------------------------------------


def _validator(ctx: Context, policy: Any, probe: list[Any]) -> Any:
    """Figures of the student's current weights on validation rows and on a few fixed pairs."""
    from plad.evaluate.quick import quick_figures
    from plad.generate.engine import Sampling, answer
    from plad.generate.ledger import Ledger
    from plad.judges import load_judge
    from plad.scoring.score import choose_route
    from plad.train.validation import probe_logps

    cfg = ctx.config
    rows = ctx.examples("validation")[: cfg.distill.validation.rows]
    stemmer = cfg.evaluate.stemmer
    judge = load_judge(cfg.evaluate.judges[0], stemmer=stemmer) if cfg.evaluate.judges else None
    figures = quick_figures(rows, judge, stemmer=stemmer, seed=cfg.run.seed)
    sampling = Sampling(cfg.evaluate.temperature, cfg.evaluation_max_new_tokens)
    route = choose_route(policy.model)

    def validate() -> dict[str, Any]:
        with Ledger(":memory:") as ledger:
            answers = answer(
                policy,
                rows,
                system="validation",
                weights="current",
                sampling=sampling,
                seed=cfg.run.seed,
                slots=cfg.generate.slots,
                ledger=ledger,
            )
        return figures(answers) | probe_logps(policy.model, probe, route)

    return validate


def distill(ctx: Context) -> dict[str, Any]:
    """Train the student on the pairs; keep its best weights by validation; write student/."""
    from plad.data.formats import read_pairs_parquet
    from plad.pairs import chosen_groups, pair_groups
    from plad.policy.load import merge_lora, save_policy
    from plad.train.groups import keep_fitting
    from plad.train.run import train_policy
    from plad.train.validation import KeepBest

    cfg, run = ctx.config, ctx.run
    settings = cfg.distill
    pairs = read_pairs_parquet(run / "pairs.parquet")
    policy = sft_policy(ctx, "student")
    limit = settings.max_length or policy.context
    ranked = keep_fitting(pair_groups(pairs, policy.prompt), limit)
    _require_groups(ranked.groups, ranked.counts(), "distill")
    is_rank = isinstance(settings.objective, RankObjective)
    encoded = ranked if is_rank else keep_fitting(chosen_groups(pairs, policy.prompt), limit)
    lora = cfg.lora_for(settings, cfg.student)
    policy = _trainable(policy, lora, settings, cfg.run.seed)
    validated = settings.validation.evaluations > 0 and bool(ctx.examples("validation"))
    keep = KeepBest(
        policy.model,
        _validator(ctx, policy, ranked.groups[:PROBE_PAIRS]) if validated else dict,
        lambda row: run.append_metrics({"stage": "distill", **row}),
        evaluations=settings.validation.evaluations if validated else 0,
        folder=run / "checkpoints/distill-best",
    )
    counts = train_policy(
        policy,
        encoded.groups,
        settings,
        settings.objective,
        stage="distill",
        folder=run / "checkpoints/distill",
        metrics_file=run / "metrics.jsonl",
        emit=run.append_metrics,
        seed=cfg.run.seed,
        callbacks=[keep] if validated else [],
    )
    counts |= encoded.counts()
    if validated:
        counts["best"] = keep.restore() if settings.validation.keep == "best" else keep.best()
    policy = merge_lora(policy)
    with atomic_dir(run / "student") as staging:
        save_policy(policy, staging)
        (staging / "README.md").write_text(_card(ctx), encoding="utf-8")
    run.drop("checkpoints/distill")
    run.drop("checkpoints/distill-best")
    return counts


def _card(ctx: Context) -> str:
    from plad.report.card import card_text

    metrics = ctx.run / "eval/metrics.json"
    return card_text(ctx.config, ctx.run.manifest, json.loads(metrics.read_text()) if metrics.is_file() else None)


# -- evaluate and report ------------------------------------------------------------------------------


def _test_answers(ctx: Context, rows: list[Example]) -> dict[str, dict[str, Generation]]:
    """The answers of teacher, SFT student and distilled student on the test rows, through the ledger."""
    from plad.generate.engine import Sampling
    from plad.generate.ledger import Ledger
    from plad.policy.load import load_policy

    cfg = ctx.config
    sampling = Sampling(cfg.evaluate.temperature, cfg.evaluation_max_new_tokens, 1)
    answers: dict[str, dict[str, Generation]] = {}
    with Ledger(ctx.run / "generations.sqlite") as ledger:
        for system in ("teacher", "student_sft", "student"):
            if system == "student":
                policy = load_policy(cfg.student, folder=ctx.run / "student")
            else:
                policy = sft_policy(ctx, "teacher" if system == "teacher" else "student")
            given = _answer(ctx, policy, rows, system, sampling, ledger)
            answers[system] = {g.example_id: g for g in given}
            del policy
            gc.collect()
    return answers


def evaluate(ctx: Context) -> dict[str, Any]:
    """Score target, teacher, SFT student and distilled student on the test rows."""
    from plad.evaluate.files import write_answers, write_judgements
    from plad.evaluate.run import evaluate_systems
    from plad.judges import load_judges

    cfg, run = ctx.config, ctx.run
    rows = ctx.examples("test")[: cfg.evaluate.limit]
    answers = _test_answers(ctx, rows)
    judges = load_judges(cfg.evaluate.judges, stemmer=cfg.evaluate.stemmer)
    metrics, judgements = evaluate_systems(
        rows,
        answers,
        judges,
        bootstrap=cfg.evaluate.bootstrap,
        seed=cfg.run.seed,
        stemmer=cfg.evaluate.stemmer,
        rouge=cfg.evaluate.rouge,
    )
    rates, more = _teacher_against_student(ctx, judges)
    metrics["teacher_student_win_rate"] = rates
    write_answers(run / "eval/answers.jsonl", rows, answers)
    write_judgements(run / "eval/judgements.parquet", [*judgements, *more])
    write_json(run / "eval/metrics.json", metrics)
    return {"rows": len(rows), "judgements": len(judgements) + len(more)}


def _teacher_against_student(ctx: Context, judges: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """The teacher-student win rate on D: every student answer meets the teacher answer it was paired with."""
    from plad.evaluate.winrate import judge_pairs

    cfg = ctx.config
    teacher = _recorded(ctx, "teacher", cfg.generate.samples)
    student = _recorded(ctx, "student_sft", cfg.student_samples)
    met = [
        (example, teacher[example.id][g.sample % cfg.generate.samples].text, g.text)
        for example in ctx.examples("distill")
        for g in student[example.id]
    ]
    examples, chosen, rejected = (list(column) for column in zip(*met, strict=True))
    return judge_pairs(examples, chosen, rejected, judges, bootstrap=cfg.evaluate.bootstrap, seed=cfg.run.seed)


def report(ctx: Context) -> dict[str, Any]:
    """Write the page, its Markdown twin, and the student's card with results."""
    from plad.report.page import render_report
    from plad.rundir import write_text

    render_report(ctx.run.path)
    write_text(ctx.run / "student/README.md", _card(ctx))
    return {}

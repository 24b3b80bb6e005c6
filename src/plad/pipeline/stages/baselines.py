"""Train what the student is compared with: each method from the same fine-tuned student, on the same prompts."""

import gc
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TypeVar, cast

from plad.config.objectives import ObjectiveSection
from plad.data.formats import read_pairs_parquet
from plad.evaluate.metrics import Cost
from plad.pairs.groups import by_example
from plad.pipeline.inputs import lora_inputs, validation_inputs
from plad.pipeline.resources import Resources, fine_tuned, text_files
from plad.pipeline.stage import Counts, Inputs, following
from plad.pipeline.stages.rounds import RoundsCounts, training_of_round
from plad.pipeline.students.student import StudentCounts, StudentJob, train_and_keep
from plad.rundir.directory import RunDir
from plad.rundir.fingerprint import as_json

log = logging.getLogger("plad")

T = TypeVar("T")


def inputs(resources: Resources) -> Inputs:
    """The methods and their settings, apart from each other: what is trained stays when only the list changes."""
    config = resources.config
    if not config.evaluate.baselines:
        return {"methods": {}}
    return {
        "settings": config.distill.shaping(apart=("lora", "validation", "objective", "rounds")),
        "lora": lora_inputs(resources, config.distill, "student"),
        "validation": validation_inputs(resources, config.distill.validation),
        "methods": {
            m.name: m.objective.model_dump(mode="json") | text_files(resources, m.objective)
            for m in config.evaluate.baselines
        },
    }


def run(resources: Resources, inputs: Inputs) -> Counts:
    """The fine-tuned student and pairs.parquet -> baselines/NAME/, one folder a method.

    A folder is used again as long as what it was made from is the same: after an interruption, and when a method is
    added to the list.
    """
    config, run_dir = resources.config, resources.run
    counts: dict[str, object] = {}
    file = run_dir / "pairs.parquet"
    pairs = read_pairs_parquet(file) if config.methods else []
    shared = {k: v for k, v in inputs.items() if k not in ("distill", "methods")}
    shared["pair"] = run_dir.fingerprint("pair")
    for method in config.evaluate.baselines:
        if method not in config.methods:
            log.info("baseline %s is what the student itself is trained with: not trained again", method.name)
            counts[method.name] = {"same_as": "student"}
            continue
        settings = config.distill.model_copy(update={"objective": method.objective, "rounds": 1})
        depends = shared | text_files(resources, method.objective)
        job = StudentJob(resources, depends, f"baselines/{method.name}", settings, pairs, file)
        start = partial(fine_tuned, resources, "student")
        counts[method.name] = train_and_keep(job, start, run_dir / "baselines" / method.name)
        gc.collect()
    return counts


def reopen_for_methods(run: RunDir, depends: Inputs) -> bool:
    """Count this stage and those after it as not done where the list of methods is all that has changed.

    What they made is kept: methods that were trained are used again, and evaluation and report are written anew.

    Returns:
        Whether it was so.
    """
    before, now = run.inputs("baselines"), as_json(depends)
    if before is None or before["methods"] == now["methods"]:
        return False
    if before["methods"] and now["methods"] and _beside_methods(before) != _beside_methods(now):
        return False
    run.forget(following("baselines"))
    return True


def _beside_methods(inputs: Inputs) -> Inputs:
    return {k: v for k, v in inputs.items() if k != "methods"}


def costs(resources: Resources) -> dict[str, Cost]:
    """What the student and every baseline cost."""
    config, run_dir = resources.config, resources.run
    student = cast(RoundsCounts, run_dir.counts("distill"))
    result = {"student": cost_of(_trainings(run_dir, student), _sampled_between(run_dir, student))}
    if config.methods:
        trained = run_dir.counts("baselines")
        result |= {m.name: cost_of([cast(StudentCounts, trained[m.name])]) for m in config.methods}
    trained_with = {"student": config.distill.objective, **{m.name: m.objective for m in config.methods}}
    targets = [(e.target or "").strip() for e in resources.examples("distill")]
    read = {s: any(reads_targets(o, targets) for o in made.alternatives) for s, made in trained_with.items()}
    return {s: cost.model_copy(update={"targets": read[s]}) for s, cost in result.items()}


def reads_targets(objective: ObjectiveSection, targets: Sequence[str]) -> bool:
    """Whether human targets enter what an objective trains on: as texts, or as what candidates are compared with."""
    needs = objective.needs
    texts = "never" if needs.logits is None else needs.logits.texts.targets
    compared = needs.similarity is not None and needs.similarity.reference == "target"
    return any(targets) and (compared or texts == "always" or (texts == "if_complete" and all(targets)))


def _trainings(run: RunDir, counts: RoundsCounts) -> list[StudentCounts]:
    """Counts of the trainings that led to the student, one after another; empty ones where they are not known."""
    kept = counts.get("kept_round", 0)
    return [training_of_round(run, n) for n in range(1, kept + 1)] or [counts]


def _sampled_between(run: RunDir, counts: RoundsCounts) -> int:
    """Tokens of the answers that the student gave between these trainings."""
    tokens = 0
    for n in range(2, counts.get("kept_round", 0) + 1):
        file = run / f"rounds/{n}/pairs.parquet"
        pairs = read_pairs_parquet(file) if file.is_file() else []
        for of_prompt in by_example(pairs).values():
            answers = {ids for pair in of_prompt for ids in (pair.chosen_token_ids, pair.rejected_token_ids)}
            tokens += sum(map(len, answers))
    return tokens


def cost_of(trainings: Sequence[StudentCounts], sampled: int = 0) -> Cost:
    """Costs of trainings of one student after another, each with the warm-up before it.

    Args:
        trainings: their counts.
        sampled: tokens that were sampled between them.
    """
    parts = [part for counts in trainings for part in (counts.get("sft"), counts) if part is not None]
    samples = [part.get("samples") or dict[str, int]() for part in parts]
    steps, peaks = _known(p.get("steps") for p in parts), _known(p.get("peak_memory") for p in parts)
    prompts = _known(s.get("prompts", part.get("prompts")) for s, part in zip(samples, parts, strict=True))
    seconds = _known(p.get("train_seconds") for p in parts)
    cached = trainings[0].get("tokens_cached")
    return Cost(
        updates=sum(steps) if steps else None,
        prompts=max(prompts) if prompts else None,
        seconds=round(sum(seconds) + sum(p.get("teacher_seconds", 0) for p in parts), 1) if seconds else None,
        peak_memory=max(peaks) if peaks else None,
        tokens_cached=cached,
        tokens_fresh=None if cached is None else sampled + sum(s.get("tokens", 0) for s in samples),
    )


def _known(values: Iterable[T | None]) -> list[T] | None:
    """All values; None where one was not counted."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return known if len(known) == len(listed) else None

"""Sample teacher and student on D, through the ledger."""

import gc
import logging

from plad.answers.question import Sampling
from plad.pipeline.engines import answer_set, engine_for, fill, open_ledger
from plad.pipeline.inputs import ready_teacher_inputs
from plad.pipeline.resources import Resources
from plad.pipeline.stage import Counts, Inputs
from plad.records import Outcome

log = logging.getLogger("plad")


def inputs(resources: Resources) -> Inputs:
    """How both are sampled; the teacher, where it is not fine-tuned."""
    return {"generate": resources.config.generate.shaping()} | ready_teacher_inputs(resources)


def run(resources: Resources, inputs: Inputs) -> Counts:
    """D -> answers of teacher and student in the ledger (Algorithm 1, step 2)."""
    config = resources.config
    total = sum(1 for _ in resources.stream("distill"))
    counts: dict[str, dict[str, int]] = {}
    with open_ledger(resources) as ledger:
        for system, samples in (("student_sft", config.student_samples), ("teacher", config.generate.samples)):
            sampling = Sampling(config.generate.temperature, config.generate.max_new_tokens, samples)
            engine = engine_for(resources, system, ledger)
            counts[system] = fill(
                resources, engine, resources.stream("distill"), total, answer_set(resources, system, sampling), ledger
            )
            _warn_if_cut_off(system, counts[system])
            del engine
            gc.collect()
    return counts


def _warn_if_cut_off(system: str, outcomes: dict[str, int]) -> None:
    cut, total = outcomes.get(Outcome.TRUNCATED, 0), sum(outcomes.values())
    if cut > total / 4:
        log.warning(
            "%d of %d answers of %s were cut off: raise generate.max_new_tokens, or fine-tune longer so that they end",
            *(cut, total, system),
        )

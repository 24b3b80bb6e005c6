"""Train the student on the pairs."""

from plad.data.formats import read_pairs_parquet
from plad.pipeline.inputs import lora_inputs, validation_inputs
from plad.pipeline.resources import Resources, fine_tuned, text_files
from plad.pipeline.stage import Counts, Inputs
from plad.pipeline.stages.rounds import in_rounds
from plad.pipeline.students.auto import distilled
from plad.pipeline.students.student import StudentJob
from plad.policy.load import save_policy
from plad.report.page import not_fatal, write_card
from plad.report.parts.run_facts import read_facts
from plad.rundir.atomic import atomic_dir


def inputs(resources: Resources) -> Inputs:
    """Objective and settings of training, the files it reads, and how the best weights are chosen."""
    settings = resources.config.distill
    return {
        "distill": settings.shaping(apart=("lora", "validation")) | text_files(resources, settings.objective),
        "lora": lora_inputs(resources, settings, "student"),
        "validation": validation_inputs(resources, settings.validation),
    }


def run(resources: Resources, inputs: Inputs) -> Counts:
    """The fine-tuned student and pairs.parquet -> student/."""
    file = resources.run / "pairs.parquet"
    job = StudentJob(resources, inputs, "distill", resources.config.distill, read_pairs_parquet(file), file)
    if job.settings.rounds > 1:
        policy, counts = in_rounds(job)
    else:
        policy, counts = distilled(job, lambda: fine_tuned(resources, "student"))
    with atomic_dir(resources.run / "student") as staging:
        save_policy(policy, staging)
    with not_fatal("the student's card", resources.run.path):
        write_card(resources.run.path, read_facts(resources.run.path), resources.config)
    return counts

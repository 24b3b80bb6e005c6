"""Read, check and split the data."""

from plad.data.formats import write_examples_jsonl
from plad.data.prepare import data_fingerprint, prepare
from plad.pipeline.resources import Resources
from plad.pipeline.stage import Counts, Inputs

SPLITS = ("sft", "distill", "validation", "test")


def inputs(resources: Resources) -> Inputs:
    """Settings and files."""
    return {
        "data": resources.config.data.model_dump(mode="json"),
        "files": data_fingerprint(resources.config, resources.base),
        "seed": resources.config.run.seed,
        "skip_invalid": resources.skip_invalid,
    }


def run(resources: Resources, inputs: Inputs) -> Counts:
    """Data files -> data/{sft,distill,validation,test}.jsonl."""
    prepared = prepare(resources.config, base=resources.base, skip_invalid=resources.skip_invalid)
    for split in SPLITS:
        write_examples_jsonl(resources.run / f"data/{split}.jsonl", getattr(prepared, split))
    return prepared.counts

"""Read, check and split the data."""

from typing import Any

from plad.pipeline.context import Context

SPLITS = ("sft", "distill", "validation", "test")


def data(ctx: Context) -> dict[str, Any]:
    """Data files -> data/{sft,distill,validation,test}.jsonl."""
    from plad.data.formats import write_examples_jsonl
    from plad.data.prepare import prepare

    prepared = prepare(ctx.config, base=ctx.base, skip_invalid=ctx.skip_invalid)
    for split in SPLITS:
        write_examples_jsonl(ctx.run / f"data/{split}.jsonl", getattr(prepared, split))
    return prepared.counts

"""Whether the validation answers of a fine-tuned policy end: told before anything is built on them."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.base import Role
from plad.pipeline.finished import made_from
from plad.pipeline.keys import limit_key
from plad.pipeline.resources import Resources
from plad.pipeline.students.validation import checkpoints
from plad.policy.load import Policy
from plad.records import Example
from plad.rundir.atomic import is_complete
from plad.sampling.transformers import Transformers
from plad.train.checkpoints import checkpoints as finished_checkpoints
from plad.train.checkpoints import trained_with
from plad.train.validation import Validation

log = logging.getLogger("plad")

FEW = 0.5  # a smaller share of answers that end is warned of
CHECKED = 16  # validation rows that a policy answers which is not validated while it trains
MOST = 0.9  # share of the targets that the advised limit holds
TEACHER = "sft/teacher"


def limit_of(resources: Resources) -> int:
    """Most tokens of a validation answer of the teacher's fine-tuning.

    The one that it was begun or done with, unless the user names another: a default that follows
    `generate.max_new_tokens` is no reason to train again.
    """
    config = resources.config
    if config.evaluate.max_new_tokens is not None:
        return config.evaluate.max_new_tokens
    known = _dig(resources.run.inputs("sft"), "teacher", "validation", "max_new_tokens")
    if resources.run.inputs("sft") is None:
        folder, begun = resources.run / TEACHER, finished_checkpoints(checkpoints(resources, TEACHER))
        if is_complete(folder):
            known = _dig(made_from(folder).counts, "validated", "max_new_tokens")
        if known is None and begun:
            known = _dig(trained_with(begun[-1]), "teacher", "validation", "max_new_tokens")
    return known if isinstance(known, int) else config.evaluation_max_new_tokens


def with_limit(resources: Resources) -> Resources:
    """The same, with the limit that validation has in the teacher's fine-tuning."""
    evaluate = resources.config.evaluate.model_copy(update={"max_new_tokens": limit_of(resources)})
    return replace(resources, config=resources.config.model_copy(update={"evaluate": evaluate}))


def told_kept(resources: Resources) -> None:
    """Say in the log where fine-tuning keeps a limit that has become another."""
    config, limit = resources.config, limit_of(resources)
    if config.teacher.sft and config.sft.validation.evaluations and limit != config.evaluation_max_new_tokens:
        log.info(
            "sft: kept; the teacher's weights were chosen by answers of at most %d tokens, and generate.max_new_tokens "
            "is %d now (--clean sft chooses them anew)",
            *(limit, config.evaluation_max_new_tokens),
        )


def validated(
    resources: Resources, role: Role, policy: Policy, kept: Validation | None = None
) -> dict[str, dict[str, int]]:
    """How many validation answers of a fine-tuned policy end within the limit, as counts; a warning where few do.

    Args:
        kept: what validation found while it was trained; else it answers a few rows here.
    """
    config = resources.config
    rows = resources.examples("validation")[: config.sft.validation.rows]
    if not config.sft.validation.evaluations or not rows:
        return {}
    limit = config.evaluation_max_new_tokens if kept is None else limit_of(resources)
    if kept is None:
        rows = rows[:CHECKED]
    end = _ended(resources, policy, rows) if kept is None else round(kept["validation"]["ended"] * len(rows))
    told = f"sft/{role}: {end or 'none'} of {len(rows)} validation answers end{'s' * (end < 2)} within {limit} tokens"
    if end >= FEW * len(rows):
        log.info(told)
    else:
        sizes = sorted(len(policy.prompt.encode_completion(row.target)) for row in rows if row.target)
        wanted = sizes[math.ceil(MOST * len(sizes)) - 1] if sizes else 0
        log.warning("%s: %s", told, _advice(limit, wanted, limit_key(config)))
    return {"validated": {"answers": len(rows), "ended": end, "max_new_tokens": limit}}


def _ended(resources: Resources, policy: Policy, rows: Sequence[Example]) -> int:
    config = resources.config
    sampling = Sampling(config.evaluate.temperature, config.evaluation_max_new_tokens)
    asked = AnswerSet("validation", "current", sampling, config.run.seed)
    with Ledger(":memory:") as ledger:
        given = answer(Transformers(policy, asked.weights, config.generate.slots), rows, asked, ledger)
    return sum(bool(g.token_ids) and g.token_ids[-1] in policy.eos_ids for g in given)


def _advice(limit: int, wanted: int, key: str) -> str:
    """Whether the limit is too short for the targets, or the policy has not learnt to end."""
    if wanted > limit:
        return f"raise {key} to {wanted} or more, which {MOST:.0%} of their targets need; what is fine-tuned is kept"
    return f"fine-tune longer (sft.epochs): {MOST:.0%} of their targets have at most {wanted} tokens"


def _dig(value: object, *names: str) -> object:
    for name in names:
        value = cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None
    return value

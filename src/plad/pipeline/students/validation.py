"""Choosing a policy's checkpoint on validation rows while it trains."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.models import DistillSection, ValidationSection
from plad.evaluate.winrate import quick_figures
from plad.judges.measure import Measure, of_weights
from plad.pairs.groups import pair_groups
from plad.pipeline.engines import judge_resources, open_ledger
from plad.pipeline.resources import Resources
from plad.policy.load import Policy
from plad.records import Example, Pair, pair_id
from plad.sampling.transformers import Transformers
from plad.scoring.layout import Group
from plad.train.groups import keep_fitting
from plad.train.measure import weights_digest
from plad.train.validation import Figures, KeepBest, told

log = logging.getLogger("plad")

WATCHED = 16  # validation prompts whose texts' log-probabilities are watched while training


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses the weights of a training run.

    Attributes:
        callback: of the trainer.
        measure: what decides.
        best: whether the best weights are kept, or the last.
    """

    callback: KeepBest
    measure: Measure
    best: bool

    def finish(self) -> dict[str, object]:
        """The validation of the weights that are kept, and what chose them, as counts; the best are put back in."""
        kept = self.callback.finish("best" if self.best else "last")
        by = f"by {self.measure.words}" if self.best else "the last"
        if kept is not None:
            log.info("%s: kept step %d, %s; %s", self.callback.stage, kept["step"], by, told(kept["validation"]))
        counts: dict[str, object] = {"best": kept}
        return counts | ({"chosen_by": self.measure.words} if self.best else {})


def measure_of(resources: Resources, validation: ValidationSection) -> Measure:
    """What decides on the validation rows."""
    return of_weights(resources.judge_sections(), resources.examples("validation")[: validation.rows])


def keep_best(
    resources: Resources,
    stage: str,
    validation: ValidationSection,
    policy: Policy,
    probe: Callable[[], Figures] = dict,
    *,
    watched: bool = False,
) -> Chooser | None:
    """Validates and keeps the best weights; None where there is nothing to do.

    Args:
        stage: name of the training run in the log.
        probe: further figures of the current weights.
        watched: whether signs of collapse are looked for.
    """
    rows = resources.examples("validation")[: validation.rows]
    if not validation.evaluations or not rows:
        return None
    figures, measure = figures_of(resources, policy, rows), of_weights(resources.judge_sections(), rows)
    best = validation.keep == "best" and measure.name != "none"
    if best:
        level = logging.WARNING if measure.likeness else logging.INFO
        log.log(level, "%s: the best weights are those of highest %s, on %d rows", stage, measure.words, len(rows))
    callback = KeepBest(
        policy.model,
        lambda: figures() | probe(),
        resources.run.log,
        stage,
        evaluations=validation.evaluations,
        folder=checkpoints(resources, stage, "-best"),
        patience=validation.patience if best else None,
        watched=watched,
        warn=lambda sentence: log.warning("%s: %s", stage, sentence),
    )
    return Chooser(callback, measure, best)


def checkpoints(resources: Resources, stage: str, suffix: str = "") -> Path:
    """Where a training run keeps its checkpoints; what else it keeps until its stage is done has a suffix."""
    return resources.run / "checkpoints" / f"{stage.replace('/', '-')}{suffix}"


def watched_groups(resources: Resources, settings: DistillSection, policy: Policy) -> list[Group]:
    """A few validation prompts, each with its target and what the policy answers now; none where nothing validates.

    While the policy is trained, log-probabilities and order of these two texts show what happens to prompts that it is
    not trained on.
    """
    rows = [row for row in resources.examples("validation") if (row.target or "").strip()][:WATCHED]
    if not settings.validation.evaluations or not rows:
        return []
    generate = resources.config.generate
    with open_ledger(resources) as ledger:
        sampling = Sampling(generate.temperature, generate.max_new_tokens)
        asked = AnswerSet("watched", weights_digest(policy.model), sampling, resources.config.run.seed)
        answers = answer(Transformers(policy, asked.weights, generate.slots), rows, asked, ledger)
    pairs = [
        Pair(pair_id(row.id), row.prompt, row.target or "", answer.text, "target", "watched", answer.token_ids)
        for row, answer in zip(rows, answers, strict=True)
        if answer.text.strip() not in ("", (row.target or "").strip())
    ]
    return keep_fitting(pair_groups(pairs, policy.prompt), policy, settings.max_length).groups


def figures_of(resources: Resources, policy: Policy, rows: Sequence[Example]) -> Callable[[], Figures]:
    """A function that lets the policy, as it is, answer the rows, and measures the answers by what decides."""
    config = resources.config
    judges = resources.judge_sections()
    judged = of_weights(judges, rows).name == "win_rate"
    judge = judges[0].open(judge_resources(resources)) if judged else None
    measure = quick_figures(rows, judge, stemmer=config.evaluate.stemmer, seed=config.run.seed)
    sampling = Sampling(config.evaluate.temperature, config.evaluation_max_new_tokens)
    asked = AnswerSet("validation", "current", sampling, config.run.seed)

    def figures() -> Figures:
        with Ledger(":memory:") as ledger:
            return measure(answer(Transformers(policy, asked.weights, config.generate.slots), rows, asked, ledger))

    return figures

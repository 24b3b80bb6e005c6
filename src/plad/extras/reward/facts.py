"""What is known of a reward model: reward.json beside it, typed, its card, and what the command prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from plad.evaluate.metrics import Estimate, Figures, ReliabilityBin
from plad.rundir.atomic import write_json, write_text

FILE = "reward.json"


class PreferenceFacts(Figures):
    """Rows that were read, and those left out.

    Attributes:
        identical: rows with two equal answers.
        skipped: rows that can't be used.
        prompts_held_out_too: rows to train on whose prompt is held out.
        held_out: rows to measure with.
    """

    rows: int
    identical: int
    skipped: int
    ties: int
    prompts_held_out_too: int
    held_out: int


class Training(Figures):
    """A training run; `curve` has a row of figures every few steps."""

    pairs: int
    too_long: int
    steps: int
    seconds: float
    curve: list[dict[str, int | float]]


class HeldOut(Figures):
    """How well a scoring judge orders preferences.

    Attributes:
        accuracy: over prompts; equal scores count half.
        ties: equal scores.
        truncated: inputs that were cut off.
        margin: mean difference in score.
        reliability, ece: calibration of P(chosen is better) = sigmoid(difference).
    """

    accuracy: Estimate
    pairs: int
    ties: int
    truncated: int
    margin: float
    reliability: tuple[ReliabilityBin, ...]
    ece: Estimate


class Input(Figures):
    """What the model reads; longer inputs than `max_length` tokens are cut."""

    input: str
    max_length: int | None


class RewardFacts(Figures):
    """The contents of reward.json; `key` is the fingerprint of all the model depends on."""

    key: str
    model: str
    settings: dict[str, JsonValue]
    data: PreferenceFacts
    training: Training
    held_out: HeldOut
    judge: Input

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The facts beside a reward model."""
        return cls.model_validate_json((folder / FILE).read_bytes())

    def write(self, folder: Path, name: str) -> None:
        """Write them, and the card."""
        write_json(folder / FILE, self.to_json())
        write_text(folder / "README.md", card(self, name))


def summary(facts: RewardFacts) -> Iterator[str]:
    """Accuracy and calibration on held-out preferences, a line each."""
    data, held = facts.data, facts.held_out
    left_out = {
        "with equal answers": data.identical,
        "unusable": data.skipped,
        "ties": data.ties,
        "with a held-out prompt": data.prompts_held_out_too,
        "too long": facts.training.too_long,
    }
    left = ", ".join(f"{n} {words}" for words, n in left_out.items() if n)
    yield f"trained on {facts.training.pairs:,} preferences" + (f" (left out: {left})" if left else "")
    cut = f"; {held.truncated} inputs cut off" if held.truncated else ""
    yield (
        f"held-out accuracy {percent(held.accuracy)} over {held.accuracy.n:,} prompts, {held.pairs:,} preferences, "
        f"{held.ties} equal scores{cut}"
    )
    yield f"calibration error {percent(held.ece)}: what sigmoid(difference in score) says against what people say"
    for row in held.reliability:
        if row.confidence is not None and row.pairs:
            yield f"  it says {100 * row.confidence:5.1f} %: right in {percent(row)} of {row.pairs:,} preferences"


def percent(e: Estimate | ReliabilityBin) -> str:
    """`50.0 % [40.0, 60.0]`; a dash for what has no value."""
    if e.value is None:
        return "-"
    value = f"{100 * e.value:.1f} %"
    return value if e.low is None or e.high is None else f"{value} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def card(facts: RewardFacts, name: str) -> str:
    """README.md of a reward model: what it is, how good, how it is used, what to mind."""
    read = facts.judge
    lines = "\n".join(f"- {line.strip()}" for line in summary(facts))
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [plad, reward-model]
---

# {name}

A reward model trained by plad from `{facts.model}`: its one output scores an answer to a prompt, the higher the
better. Only differences between answers to one prompt mean something.

{lines}

Intervals are 95 %, over the held-out prompts.

```yaml
evaluate: {{judges: [{{type: reward, model: path/to/{name}}}]}}   # as a judge
pairs: {{scorer: {{type: reward, model: path/to/{name}}}, real_share: 1.0}}   # as a scorer of pairs
```

It takes its input as `{read.input}`, at most {read.max_length or "any number of"} tokens, longer ones cut. It
learnt the taste of whoever labelled the preferences, length and style included, and knows nothing of truth or safety.
"""

"""The card beside a reward model, and what the command prints of it."""

from collections.abc import Iterator, Mapping
from typing import Any


def summary(facts: Mapping[str, Any]) -> Iterator[str]:
    """Accuracy and calibration on held-out preferences, a line each."""
    data, training, held = facts["data"], facts["training"], facts["held_out"]
    a = held["accuracy"]
    left = [f"{data[k]} {words}" for k, words in _LEFT_OUT.items() if data.get(k)]
    left += [f"{training['too_long']} too long"] if training["too_long"] else []
    yield f"trained on {training['pairs']:,} preferences" + (f" (left out: {', '.join(left)})" if left else "")
    cut = f"; {held['truncated']} inputs cut off" if held["truncated"] else ""
    yield (
        f"held-out accuracy {_percent(a)} over {a['n']:,} prompts, {held['pairs']:,} preferences, "
        f"{held['ties']} equal scores{cut}"
    )
    yield f"calibration error {_percent(held['ece'])}: what sigmoid(difference in score) says against what people say"
    for row in held["reliability"]:
        if row["pairs"]:
            yield (
                f"  it says {100 * row['confidence']:5.1f} %: right in {_percent(row)} of {row['pairs']:,} preferences"
            )


_LEFT_OUT = {
    "identical": "with equal answers",
    "skipped": "unusable",
    "ties": "ties",
    "prompts_held_out_too": "with a held-out prompt",
}


def _percent(e: Mapping[str, Any]) -> str:
    if e["low"] is None:
        return f"{100 * e['value']:.1f} %"
    return f"{100 * e['value']:.1f} % [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"


def card(facts: Mapping[str, Any], name: str) -> str:
    """README.md of a reward model: what it is, how good, how it is used, what to mind."""
    judge = facts["judge"]
    lines = "\n".join(f"- {line.strip()}" for line in summary(facts))
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [plad, reward-model]
---

# {name}

A reward model trained by plad from `{facts["model"]}`: its one output scores an answer to a prompt, the higher the
better. Only differences between answers to one prompt mean something.

{lines}

Intervals are 95 %, over the held-out prompts.

```yaml
evaluate: {{judges: [{{type: reward, model: path/to/{name}}}]}}   # as a judge
pairs: {{scorer: {{type: reward, model: path/to/{name}}}, real_share: 1.0}}   # as a scorer of pairs
```

It takes its input as `{judge["input"]}`, at most {judge["max_length"] or "any number of"} tokens, longer ones cut. It
learnt the taste of whoever labelled the preferences, length and style included, and knows nothing of truth or safety.
"""

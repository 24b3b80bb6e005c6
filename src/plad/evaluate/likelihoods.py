"""Several texts to each prompt, and how likely a model finds them."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.likelihood_calibration import RankedTexts
from plad.judges.base import ScoringJudge
from plad.records import Example, Generation, Outcome

log = logging.getLogger("plad")


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A text to a prompt.

    Attributes:
        token_ids: as the model itself sampled it; None where somebody else wrote it.
    """

    text: str
    token_ids: tuple[int, ...] | None = None


def gather(
    examples: Sequence[Example], own: Mapping[str, Sequence[Generation]], others: Mapping[str, Sequence[Generation]]
) -> tuple[dict[str, list[ScoredText]], dict[str, int]]:
    """The different finished texts to each prompt.

    Args:
        own: example id -> what the model to be measured sampled itself.
        others: example id -> what others wrote.

    Returns:
        Example id -> at least two texts; and counts of texts that ended otherwise, that are there already (`same_text`)
        and of prompts without two of them (`alone`).
    """
    texts: dict[str, list[ScoredText]] = {}
    left_out: Counter[str] = Counter()
    for example in examples:
        found: dict[str, ScoredText] = {}
        sides = ((own, True), (others, False))
        for g, ours in [(g, ours) for side, ours in sides for g in side.get(example.id, ())]:
            if g.outcome is not Outcome.OK:
                left_out[str(g.outcome)] += 1
            elif g.text in found:
                left_out["same_text"] += 1
            else:
                found[g.text] = ScoredText(g.text, g.token_ids if ours else None)
        if len(found) > 1:
            texts[example.id] = list(found.values())
        else:
            left_out["alone"] += 1
    return texts, dict(left_out)


def likelihoods(
    policy: Any, examples: Sequence[Example], texts: Mapping[str, Sequence[ScoredText]], *, max_tokens: int | None
) -> dict[str, NDArray[np.float64]]:
    """Log-probability a token, end of sequence included, of every text under a policy, by example.

    Args:
        max_tokens: most tokens in one forward pass; None for one prompt a pass.

    Returns:
        Prompts that don't fit the policy's context are missing.

    Raises:
        PolicyError: no way of scoring gives what the plain forward gives.
    """
    import torch

    from plad.scoring.layout import Group, pack
    from plad.scoring.score import checked_route, score
    from plad.train.groups import keep_fitting, longest

    groups = [
        Group(
            e.id,
            tuple(policy.prompt.encode_prompt(e.prompt)),
            tuple(t.token_ids or tuple(policy.prompt.encode_completion(t.text)) for t in texts[e.id]),
        )
        for e in examples
        if e.id in texts
    ]
    groups = keep_fitting(groups, policy, None).groups
    if not groups:
        return {}
    route = checked_route(policy.model, longest(groups), log.warning)
    by_example: dict[str, NDArray[np.float64]] = {}
    policy.model.eval()
    with torch.no_grad():
        for row in pack(groups, max_tokens):
            means = score(policy.model, row, route=route).means().double().cpu().numpy()
            ends = np.cumsum([len(g.completions) for g in row])[:-1]
            by_example.update((g.id, m) for g, m in zip(row, np.split(means, ends), strict=True))
    return by_example


def judged(
    judge: ScoringJudge,
    examples: Sequence[Example],
    texts: Mapping[str, Sequence[ScoredText]],
    likelihood: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> dict[str, list[RankedTexts]]:
    """Likelihood and quality of every text, by model; texts that the judge can't judge are left out.

    Args:
        likelihood: model -> example id -> [K].

    Returns:
        Model -> the prompts that every model could score, in order.
    """
    rows = [e for e in examples if all(e.id in by_id for by_id in likelihood.values())]
    flat = [(e, t.text) for e in rows for t in texts[e.id]]
    scores = judge.score([e for e, _ in flat], [t for _, t in flat], [e.references for e, _ in flat]) if flat else []
    quality = np.array([np.nan if s is None else s for s in scores], dtype=np.float64)
    out: dict[str, list[RankedTexts]] = {model: [] for model in likelihood}
    start = 0
    for e in rows:
        own = quality[start : start + len(texts[e.id])]
        start += len(own)
        known = np.isfinite(own)
        mine = np.array([t.token_ids is not None for t in texts[e.id]])[known]
        for model, by_id in likelihood.items():
            out[model].append(RankedTexts(by_id[e.id][known], own[known], None if mine.all() else mine))
    return out

"""Preferences as others write them, brought into one shape: a prompt and two answers.

Whole conversations (TRL's implicit prompt, UltraFeedback binarized): {"chosen": [..., {"role": "assistant", ...}],
"rejected": [...]}. Completions with scores (UltraFeedback): {"instruction": ..., "completions": [{"response",
"overall_score"}, ...]}. A question (DPO JSONL): {"question" or "instruction": ..., "chosen", "rejected"}, perhaps
with "system".
"""

import math
from typing import Any

from plad.config.data import PreferenceColumns

_PROMPTS = ("question", "instruction")
_SCORES = ("overall_score", "fine-grained_score", "score")


def plain_preference(row: dict[str, Any], columns: PreferenceColumns) -> dict[str, Any]:
    """A row with a prompt and two answers; a row that has this shape already comes back as it is.

    Raises:
        ValueError: it is of none of the shapes; says what was expected.
    """
    if columns.chosen not in row and isinstance(row.get("completions"), list):
        row = {**row, **_best_and_worst(row["completions"], columns)}
    row = _whole_conversations(row, columns)
    if columns.prompt not in row:
        name = next((n for n in _PROMPTS if isinstance(row.get(n), str)), None)
        if name is not None:
            more = f"\n\n{row['input']}" if isinstance(row.get("input"), str) and row["input"].strip() else ""
            row = {**row, columns.prompt: row[name] + more}
    system, prompt = row.get("system"), row.get(columns.prompt)
    if isinstance(system, str) and system.strip() and isinstance(prompt, str):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        row = {**row, columns.prompt: messages}
    return row


def _best_and_worst(completions: list[Any], columns: PreferenceColumns) -> dict[str, Any]:
    """The answers of highest and of lowest score; equal scores are a tie."""
    scored = [(score, c["response"]) for c in completions if isinstance(c, dict) and "response" in c
              for score in [_score(c)] if score is not None]  # fmt: skip
    if len(scored) < 2:
        raise ValueError(f"completions: {len(scored)} with a response and a score ({', '.join(_SCORES)}); expected two")
    best, worst = max(scored, key=lambda s: s[0]), min(reversed(scored), key=lambda s: s[0])
    return {columns.chosen: best[1], columns.rejected: worst[1], columns.tie: best[0] == worst[0]}


def _score(completion: dict[str, Any]) -> float | None:
    for name in _SCORES:
        try:
            value = float(completion[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return None


def _whole_conversations(row: dict[str, Any], columns: PreferenceColumns) -> dict[str, Any]:
    """Two conversations that differ in their last message: what comes before it is the prompt."""
    chosen, rejected = row.get(columns.chosen), row.get(columns.rejected)
    if not (isinstance(chosen, list) and isinstance(rejected, list) and len(chosen) > 1 and len(rejected) > 1):
        return row
    if chosen[:-1] != rejected[:-1]:
        raise ValueError(
            f"{columns.chosen} and {columns.rejected} are conversations that differ before their last message"
        )
    given = row.get(columns.prompt)
    if isinstance(given, str):
        asked = next((m.get("content") for m in reversed(chosen[:-1]) if isinstance(m, dict)), None)
        if asked != given:
            raise ValueError(f"{columns.prompt} is not what the conversations were asked")
    return {**row, columns.prompt: chosen[:-1], columns.chosen: chosen[-1:], columns.rejected: rejected[-1:]}

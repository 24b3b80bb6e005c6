"""Rows as others write them, brought into one shape.

Dialogues written as one text, as in Anthropic's HH data: ``\\n\\nHuman: ...\\n\\nAssistant: ...``; the last answer is
the target, all before it the prompt.

Preferences. Whole conversations (TRL's implicit prompt, UltraFeedback binarized): {"chosen": [..., {"role":
"assistant", ...}], "rejected": [...]}. Completions with scores (UltraFeedback): {"instruction": ..., "completions":
[{"response", "overall_score"}, ...]}. A question (DPO JSONL): {"question" or "instruction": ..., "chosen",
"rejected"}, perhaps with "system".
"""

import math
import re
from typing import Literal

from pydantic import JsonValue

from plad.config.pairs import PreferenceColumns
from plad.records import Message, Prompt
from plad.text import is_blank

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_PROMPTS = ("question", "instruction")
_SCORES = ("overall_score", "fine-grained_score", "score")


def split_dialogue(text: str, prompt: Literal["text", "messages"]) -> tuple[Prompt, str]:
    """The prompt of a dialogue and its last answer, without outer white space.

    Args:
        text: begins with the human's turn and ends with the assistant's; blank lines in front don't matter.
        prompt: text: as it stands, up to and with the last ``Assistant:``; messages: one for each turn.
    """
    pieces = _TURN.split(f"\n\n{text.lstrip()}")
    turns = list(zip(pieces[1::2], pieces[2::2], strict=True))  # (speaker, words)
    if pieces[0].strip() or not turns or turns[0][0] != "Human":
        raise ValueError("a dialogue that doesn't begin with 'Human:'")
    if turns[-1][0] != "Assistant" or len(turns) == 1:
        raise ValueError("a dialogue that doesn't end with an answer of 'Assistant:'")
    *before, (_, answer) = turns
    if is_blank(answer):
        raise ValueError("a dialogue whose last answer is blank")
    if prompt == "text":
        context = "".join(f"\n\n{speaker}:{words}" for speaker, words in before)
        return f"{context.strip()}\n\nAssistant:", answer.strip()
    return _messages(before), answer.strip()


def _messages(turns: list[tuple[str, str]]) -> tuple[Message, ...]:
    """One message for each turn; speakers take turns, and the human speaks first and last."""
    for i, (speaker, words) in enumerate(turns):
        if speaker != ("Human", "Assistant")[i % 2]:
            raise ValueError(f"a dialogue in which '{speaker}:' speaks twice in a row")
        if is_blank(words):
            raise ValueError("a dialogue with a blank turn")
    if turns[-1][0] != "Human":
        raise ValueError("a dialogue in which 'Assistant:' speaks twice in a row")
    return tuple(Message(role=_ROLES[speaker], content=words.strip()) for speaker, words in turns)


def plain_preference(row: dict[str, JsonValue], columns: PreferenceColumns) -> dict[str, JsonValue]:
    """A row with a prompt and two answers; a row that has this shape already comes back as it is."""
    completions = row.get("completions")
    if columns.chosen not in row and isinstance(completions, list):
        row = {**row, **_best_and_worst(completions, columns)}
    row = _whole_conversations(row, columns)
    if columns.prompt not in row:
        question = next((text for name in _PROMPTS if (text := _text(row, name)) is not None), None)
        if question is not None:
            more = _text(row, "input") or ""
            row = {**row, columns.prompt: f"{question}\n\n{more}" if more.strip() else question}
    system, prompt = _text(row, "system"), _text(row, columns.prompt)
    if system and system.strip() and prompt is not None:
        messages: JsonValue = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        row = {**row, columns.prompt: messages}
    return row


def _text(row: dict[str, JsonValue], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) else None


def _best_and_worst(completions: list[JsonValue], columns: PreferenceColumns) -> dict[str, JsonValue]:
    """The answers of highest and of lowest score; equal scores are a tie."""
    answers = [(_score(c), c["response"]) for c in completions if isinstance(c, dict) and "response" in c]
    scored = [(score, response) for score, response in answers if score is not None]
    if len(scored) < 2:
        raise ValueError(f"completions: {len(scored)} with a response and a score ({', '.join(_SCORES)}); expected two")
    best, worst = max(scored, key=lambda s: s[0]), min(reversed(scored), key=lambda s: s[0])
    return {columns.chosen: best[1], columns.rejected: worst[1], columns.tie: best[0] == worst[0]}


def _score(completion: dict[str, JsonValue]) -> float | None:
    for name in _SCORES:
        given = completion.get(name)
        try:
            value = float(given) if isinstance(given, str | int | float) else math.nan
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return None


def _whole_conversations(row: dict[str, JsonValue], columns: PreferenceColumns) -> dict[str, JsonValue]:
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

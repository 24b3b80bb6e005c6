"""Dialogues written as one text, as in Anthropic's HH data: ``\\n\\nHuman: ...\\n\\nAssistant: ...``.

The last answer is the target, all before it the prompt.
"""

import re
from typing import Literal

from plad.records import Message, Prompt

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def split_dialogue(text: str, prompt: Literal["text", "messages"]) -> tuple[Prompt, str]:
    """The prompt of a dialogue and its last answer.

    Args:
        text: begins with the human's turn and ends with the assistant's; blank lines in front don't matter.
        prompt: text: as it stands, up to and with the last ``Assistant:``; messages: one for each turn.

    Returns:
        (prompt, answer without outer white space).

    Raises:
        ValueError: it is no such dialogue.
    """
    pieces = _TURN.split(f"\n\n{text.lstrip()}")
    turns = list(zip(pieces[1::2], pieces[2::2], strict=True))  # (speaker, what is said)
    if pieces[0].strip() or not turns or turns[0][0] != "Human":
        raise ValueError("a dialogue that doesn't begin with 'Human:'")
    if turns[-1][0] != "Assistant" or len(turns) == 1:
        raise ValueError("a dialogue that doesn't end with an answer of 'Assistant:'")
    *before, (_, answer) = turns
    if not answer.strip():
        raise ValueError("a dialogue whose last answer is blank")
    if prompt == "text":
        whole = "".join(f"\n\n{speaker}:{said}" for speaker, said in before)
        return f"{whole.strip()}\n\nAssistant:", answer.strip()
    return _messages(before), answer.strip()


def _messages(turns: list[tuple[str, str]]) -> tuple[Message, ...]:
    """One message for each turn; speakers take turns, and the human speaks first and last."""
    for i, (speaker, said) in enumerate(turns):
        if speaker != ("Human", "Assistant")[i % 2]:
            raise ValueError(f"a dialogue in which '{speaker}:' speaks twice in a row")
        if not said.strip():
            raise ValueError("a dialogue with a blank turn")
    if turns[-1][0] != "Human":
        raise ValueError("a dialogue in which 'Assistant:' speaks twice in a row")
    return tuple(Message(role=_ROLES[speaker], content=said.strip()) for speaker, said in turns)

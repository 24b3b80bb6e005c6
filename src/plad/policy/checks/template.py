"""Chat templates are programs that come with a model: whether one ends is tried in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from plad.errors import PolicyError
from plad.records import Message, Prompt

CPU_S = 10  # of all trials; sound templates take milliseconds
_WALL_S = 120  # of a machine that is busy otherwise
_TRIED = 4  # longest prompts, and as many with the most messages
_CHILD = """
import json, resource, sys
from contextlib import suppress
from transformers.utils.chat_template_utils import render_jinja_template
given = json.load(sys.stdin)
used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
resource.setrlimit(resource.RLIMIT_CPU, (used + given["cpu_s"], used + given["cpu_s"]))
with suppress(ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_AS, (given["bytes"], given["bytes"]))
try:
    render_jinja_template(
        given["conversations"], chat_template=given["template"], add_generation_prompt=True, **given["tokens"]
    )
except MemoryError:
    sys.exit(9)
except Exception:
    pass  # said where it is used
"""
_CHILD_BYTES = 8 * 2**30


def check_template(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], where: str) -> None:
    """Render the prompts that ask most of a tokenizer's chat template, with bounds on time and memory.

    Raises:
        PolicyError: it passes them.
    """
    template: Any = getattr(tokenizer, "chat_template", None)
    if not template:
        return
    if not isinstance(template, str):
        template = tokenizer.get_chat_template()  # pyright: ignore[reportUnknownMemberType]  # typed in part
    conversations = list(_conversations(prompts))
    given: dict[str, Any] = {"conversations": conversations, "template": template, "cpu_s": CPU_S}
    given |= {"bytes": _CHILD_BYTES, "tokens": {k: str(v) for k, v in tokenizer.special_tokens_map.items()}}
    child = [sys.executable, "-c", _CHILD]
    try:
        text = json.dumps(given)
        code = subprocess.run(
            child, input=text, text=True, capture_output=True, timeout=_WALL_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code < 0 or code == 9:
        bound = f"{_CHILD_BYTES / 2**30:.0f} GiB of memory" if code == 9 else f"{CPU_S} s of processor time"
        raise PolicyError(
            f"the chat template takes more than {bound} for {len(conversations)} prompts",
            where=where,
            fix="repair the template (chat_template.jinja or tokenizer_config.json): do its loops end?\n"
            "or don't use it: prompt.template, or prompt.format: plain",
        )


def _conversations(prompts: Iterable[Prompt]) -> Iterable[list[Message]]:
    """A turn as the end token is found by, and the prompts."""
    yield [Message(role="user", content="a"), Message(role="assistant", content="b")]
    asked = [[Message(role="user", content=p)] if isinstance(p, str) else list(p) for p in prompts]
    longest = sorted(asked, key=lambda messages: -sum(len(m["content"]) for m in messages))[:_TRIED]
    yield from longest
    yield from (m for m in sorted(asked, key=lambda messages: -len(messages))[:_TRIED] if m not in longest)

"""Names, numbers, and texts that a model or a file wrote, as a reader sees them."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from plad.evaluate.metrics import Estimate, LengthBin, ReliabilityBin

NAMES = {
    "target": "Human target",
    "teacher": "Teacher",
    "student_sft": "SFT student",
    "student": "Distilled student",
}
METHODS = {
    "seqkd": "SeqKD",
    "kd": "Standard KD",
    "f_distill": "f-distill",
    "minillm": "MiniLLM",
    "gkd": "GKD",
    "distillm": "DistiLLM",
    "rank": "PLaD, rank",
    "margin": "PLaD, margin",
}
METRICS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "words": "Words",
}
DASH = "–"
_OPEN_TO_TEXT = "\n\t"


def system_name(system: str) -> str:
    """The reader's name of a system or a method: `f_distill-js` is `f-distill, js`; others keep their own."""
    kind, _, choice = system.partition("-")
    if kind in METHODS:
        return f"{METHODS[kind]}, {harmless(choice)}" if choice else METHODS[kind]
    return NAMES.get(system) or harmless(system)


def order_systems(systems: Iterable[str]) -> list[str]:
    """Target and teacher first, then the student before and after, then further systems."""
    order = list(NAMES)
    return sorted(systems, key=lambda s: order.index(s) if s in order else len(order))


def number(value: float | None, *, scale: float = 1.0, digits: int = 1, sign: bool = False) -> str:
    """A number for people, with a true minus sign; a dash for None."""
    if value is None:
        return DASH
    text = f"{value * scale:+,.{digits}f}" if sign else f"{value * scale:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")  # neither +0.0 nor -0.0
    return text.replace("-", "−")


def interval(
    e: Estimate | LengthBin | ReliabilityBin, *, scale: float = 1.0, digits: int = 1, sign: bool = False
) -> str:
    """`low to high`, or an empty string where there is no interval."""
    return span(e.low, e.high, scale=scale, digits=digits, sign=sign)


def span(low: float | None, high: float | None, *, scale: float = 1.0, digits: int = 1, sign: bool = False) -> str:
    """`low to high`, or an empty string where one of them is missing."""
    if low is None or high is None:
        return ""
    return " to ".join(number(x, scale=scale, digits=digits, sign=sign) for x in (low, high))


def p_value(p: float | None) -> str:
    """`p = 0.012`, never `p = 0.000`."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def bin_name(given: LengthBin) -> str:
    """`up to 20 words`, `21 to 30 words`, `over 40 words`."""
    above, to = given.words_above, given.words_to
    if above is None:
        return "any length" if to is None else f"up to {to:,} words"
    return f"over {above:,} words" if to is None else f"{above + 1:,} to {to:,} words"


def duration(seconds: float) -> str:
    """Seconds as `2 h 5 min`, `3 min 20 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def harmless(text: str) -> str:
    """`text` with every control character made visible.

    Escape sequences show as `␛[31m`, direction overrides as `‹U+202E›`, so that nothing in a model's text moves,
    hides or colours what a reader sees.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _OPEN_TO_TEXT else _picture(c) for c in text.replace("\r\n", "\n"))


def _picture(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(char) == "Zs" or char in "\u200c\u200d\ufeff\u00ad":
        return char  # spaces, and joiners that scripts need
    return f"‹U+{code:04X}›"


def flatten(value: Mapping[str, JsonValue], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of nested settings as (`a.b`, value)."""
    leaves: list[tuple[str, str]] = []
    for key, v in value.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(v, Mapping) and v:
            leaves += flatten(v, name)
        elif isinstance(v, float):
            leaves.append((name, f"{v:.6g}"))
        elif isinstance(v, Sequence) and not isinstance(v, str):
            for i, item in enumerate(v):
                leaves += flatten(item, f"{name}.{i}") if isinstance(item, Mapping) else [(f"{name}.{i}", str(item))]
        else:
            leaves.append((name, "none" if v is None else str(v)))
    return leaves

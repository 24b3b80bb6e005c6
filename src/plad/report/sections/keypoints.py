"""Which words of an answer are key points of the references, redundant, or unsupported.

A rule over words that anyone can check, not a judgement of meaning: a paraphrase counts as unsupported, and a wrong
statement made of the prompt's own words does not.

Source: PLaD, Figure 5 and appendix A.4 (there marked by hand).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category

from plad.judges.rouge import UnicodeTokenizer, is_unspaced

SHARED, REDUNDANT, UNSUPPORTED = "g", "y", "r"
_FUNCTION_WORDS = frozenset(
    """a about above after again against all also although am an and any are aren as at be because been before being
    below between both but by can cannot could couldn did didn do does doesn doing don down during each either else
    ever few for from further get gets got had hadn has hasn have haven having he hence her here hers herself him
    himself his how however i if in instead into is isn it its itself just let like ll may me might more most much must
    my myself neither no nor not now of off often on once one only or other our ours ourselves out over own per quite
    rather re really s same several shall she should so some such t than that the their theirs them themselves then
    there therefore these they this those though through thus to too under until up upon us ve very via was wasn we
    well were weren what when where whereas whether which while who whom whose why will with within without won would
    wouldn yet you your yours yourself yourselves""".split()  # noqa: SIM905
)
_TOKENIZER = UnicodeTokenizer(stemmer=True)
_BETWEEN = 3  # function words that two marked words may have between them and still be one


@dataclass(frozen=True, slots=True)
class Word:
    """A word where it stands.

    Attributes:
        start, end: in characters of the text.
        keys: what it is compared by; empty for a function word.
    """

    start: int
    end: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Marked:
    """A text with its marks.

    Attributes:
        runs: the text in pieces: those at even places unmarked, those at odd places led by the letter of their mark.
        counts: content words by mark.
        content: content words in all.
    """

    runs: tuple[str, ...]
    counts: dict[str, int]
    content: int


@lru_cache(maxsize=65_536)
def _keys(word: str) -> tuple[str, ...]:
    plain = word.casefold()
    if plain in _FUNCTION_WORDS or (len(word) < 3 and not any(c.isdigit() for c in word)):
        return ()
    return tuple(_TOKENIZER.tokenize(word))


def _spans(text: str) -> Iterable[tuple[int, int]]:
    start = -1
    for i, c in enumerate(text):
        if start >= 0 and (c.isalnum() or category(c)[0] == "M") and not is_unspaced(c):
            continue
        if start >= 0:
            yield start, i
        start = i if c.isalnum() else -1
        if start >= 0 and is_unspaced(c):
            yield i, i + 1
            start = -1
    if start >= 0:
        yield start, len(text)


def words(text: str) -> list[Word]:
    """The words of a text in order; characters of unspaced scripts are compared by the pairs they stand in."""
    spans = list(_spans(text))
    found: list[Word] = []
    for n, (start, end) in enumerate(spans):
        if not is_unspaced(text[start]):
            found.append(Word(start, end, _keys(text[start:end])))
            continue
        joined = (spans[n - 1 : n] if n else []) + spans[n + 1 : n + 2]
        pairs = [text[min(s, start) : max(e, end)] for s, e in joined if is_unspaced(text[s]) and start in (e, s - 1)]
        found.append(Word(start, end, tuple(pairs)))
    return found


def counts(text: str) -> Counter[str]:
    """How often a text says each key."""
    return Counter(key for word in words(text) for key in word.keys)


def runs(text: str, marks: Sequence[tuple[Word, str]]) -> tuple[str, ...]:
    """Cut a text into pieces; equal marks with nothing but function words of one line between them become one.

    Args:
        marks: every word in order, each with the letter of its mark or "".
    """
    pieces: list[tuple[int, int, str]] = []
    between = 0
    for word, mark in marks:
        if not mark:
            between = between + 1 if not word.keys else _BETWEEN + 1
            continue
        last = pieces[-1] if pieces else None
        if last and last[2] == mark and between <= _BETWEEN and not _ends(text[last[1] : word.start]):
            pieces[-1] = (last[0], word.end, mark)
        else:
            pieces.append((word.start, word.end, mark))
        between = 0
    out: list[str] = []
    at = 0
    for start, end, mark in pieces:
        out += [text[at:start], mark + text[start:end]]
        at = end
    return (*out, text[at:])


def _ends(gap: str) -> bool:
    return any(c in gap for c in ".,!?;:\n。，！？")


def mark_shared(text: str, other: Counter[str]) -> Marked:
    """Mark what another text says, as in a prompt or a target."""
    marks = [(w, SHARED if any(k in other for k in w.keys) else "") for w in words(text)]
    return _marked(text, marks)


def mark_answer(
    text: str, prompt: Counter[str], references: Sequence[Counter[str]], *, grounded: bool = True
) -> Marked:
    """Mark an answer by the rule that a page states beside its examples (`web/examples.html`).

    Args:
        prompt, references: keys of the prompt and of every reference.
        grounded: whether an answer of this task draws on the prompt; else nothing is called unsupported, and only
            repetition redundant.
    """
    most: Counter[str] = Counter()
    for reference in references:
        most |= reference
    said: Counter[str] = Counter()
    marks: list[tuple[Word, str]] = []
    for word in words(text):
        said.update(word.keys)
        marks.append((word, _mark(word.keys, said, most, prompt, grounded) if word.keys and references else ""))
    return _marked(text, marks)


def _mark(keys: tuple[str, ...], said: Counter[str], most: Counter[str], prompt: Counter[str], grounded: bool) -> str:
    if any(k in most for k in keys):
        return SHARED if any(0 < said[k] <= most[k] for k in keys) else REDUNDANT
    if not grounded:
        return ""
    return REDUNDANT if any(k in prompt for k in keys) else UNSUPPORTED


def _marked(text: str, marks: list[tuple[Word, str]]) -> Marked:
    found = Counter(mark for _, mark in marks if mark)
    return Marked(runs(text, marks), dict(found), sum(bool(w.keys) for w, _ in marks))


def share_in(texts: Iterable[tuple[Counter[str], Counter[str]]]) -> float | None:
    """Share of the first texts' keys that stand in the second ones; None without keys.

    It says whether a task's targets draw on their prompts, and how far the rule errs on text that people wrote.
    """
    found = total = 0
    for ours, theirs in texts:
        total += len(ours)
        found += len(ours.keys() & theirs.keys())
    return found / total if total else None

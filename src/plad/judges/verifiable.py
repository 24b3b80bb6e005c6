"""The verifiable judge: is the answer right? A rule compares it with the row's references, or a function says so."""

import importlib
import importlib.util
import unicodedata
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import regex
from pydantic import Field, JsonValue, PrivateAttr, model_validator

from plad.errors import ConfigError, DataError, Findings, PladError
from plad.judges.base import JudgeKind, JudgeResources
from plad.records import Example, Prompt
from plad.rundir.fingerprint import file_sha256

Verify = Callable[[Prompt, str, Sequence[str]], Any]
"""A user's function: (prompt, answer, references) -> True or 1, False or 0, or None where it can't say."""

PATTERN_S = 2.0  # seconds after which a pattern is taken for one that never ends
_SPACES = regex.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # thin spaces between thousands
_CURRENCY = regex.compile(r"(?<=-)\p{Sc}(?=[\d.])")  # -$3 is -3
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d{1,100}(?!\d))"
_POINT = r"\.\d{1,100}(?!\d)"
_EXPONENT = r"(?:[eE][-+]?\d{1,3}(?![\d.]))?"
_NUMBER = regex.compile(
    rf"(?<![\w.])-?(?:{_WHOLE}(?:/[1-9]\d{{0,99}}(?![\d./])|(?:{_POINT})?{_EXPONENT})|{_POINT}{_EXPONENT})"
)


def final_part(text: str, markers: Sequence[str]) -> tuple[str, bool]:
    """What stands behind the last marker, and whether there is one; a marker doesn't start inside a word."""
    found = [
        m
        for marker in markers
        for m in regex.finditer(
            rf"(?<!\w){regex.escape(marker)}" if marker[:1].isalnum() else regex.escape(marker), text
        )
    ]
    if not found:
        return text, False
    last = max(found, key=lambda m: m.end())
    return text[last.end() :], True


def final_number(text: str, markers: Sequence[str]) -> Fraction | None:
    """The number a text ends up with: the first one behind the last marker, or without a marker the last one.

    Signs of currency and units around a number are passed over; thousands may be separated by commas or thin spaces;
    3/4 is a number. None where there is none.
    """
    part, marked = final_part(_SPACES.sub("", text), markers)
    plain = unicodedata.normalize("NFKC", part).replace("\u2212", "-")
    numbers = _NUMBER.findall(_CURRENCY.sub("", plain))
    if not numbers:
        return None
    return Fraction(numbers[0 if marked else -1].replace(",", ""))


def _plain(text: str, ignore_case: bool) -> str:
    words = " ".join(unicodedata.normalize("NFKC", text).split())
    return words.casefold() if ignore_case else words


def final_match(text: str, pattern: str, ignore_case: bool) -> str | None:
    """What a pattern finds last in a text: its first group, or all of it.

    Raises:
        ConfigError: the pattern takes too long.
    """
    flags = regex.IGNORECASE if ignore_case else 0
    try:
        every = list(regex.finditer(pattern, text, flags=flags, timeout=PATTERN_S))
    except TimeoutError:
        raise ConfigError(
            f"takes over {PATTERN_S:g} s on one text of {len(text):,} characters",
            where=f"pattern {pattern}",
            fix="write it without repeats inside repeats, such as (a+)+",
        ) from None
    if not every:
        return None
    group = every[-1].group(1 if every[-1].re.groups else 0)
    return None if group is None else _plain(group, ignore_case)


def load_function(spec: str) -> Verify:
    """The function that `module:function` or `file.py:function` names.

    Importing runs the module's code, so the name comes from the person at the command line and never from a file.

    Raises:
        ConfigError: there is no such function.
    """
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise ConfigError("is not module:function or file.py:function", where=f"--verify {spec}")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as e:
        raise ConfigError(
            f"can't be imported ({type(e).__name__}: {e})",
            where=f"--verify {spec}",
            fix="name a file: checks.py:verify",
        ) from e
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{place} has no function {name}", where=f"--verify {spec}")
    return function


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"plad_verify_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def function_fingerprint(spec: str) -> dict[str, str]:
    """What a function is: its name and the hash of the file that holds it.

    Raises:
        ConfigError: there is no such file or module.
    """
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        file: str | None = place
    else:
        try:
            found = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            found = None
        file = found.origin if found else None
    if file is None or not Path(file).is_file():
        raise ConfigError("no such file or module", where=f"--verify {spec}", fix="name a file: checks.py:verify")
    return {"function": name, "sha256": file_sha256(Path(file))}


class VerifiableJudge(JudgeKind):
    """Scores an answer 1 where it is right and 0 where it is not, by a rule instead of an opinion."""

    type: Literal["verifiable"] = "verifiable"
    match: Literal["number", "exact", "regex", "function"] = Field(
        default="number",
        description="What must agree with a reference. number: the first number after the last of `markers`, without a "
        "marker the last number. exact: the whole text, or what stands after the last marker. regex: what `pattern` "
        "finds last. function: a Python function named by --verify on the command line, never here.",
    )
    markers: tuple[str, ...] = Field(
        default=("####", "A:"), description="What a final answer stands behind, in answers and references (GSM8K)."
    )
    pattern: str | None = Field(
        default=None, description="Regular expression for regex: its first group, or all of it, is the answer."
    )
    tolerance: float = Field(
        default=1e-6, ge=0, lt=1, description="Largest difference of two equal numbers, as a share of the reference."
    )
    ignore_case: bool = Field(default=True, description="For exact and regex.")
    _function: str | None = PrivateAttr(default=None)

    title: ClassVar[str] = "Check of the final answer"

    @model_validator(mode="after")
    def _pattern_where_it_is_used(self) -> "VerifiableJudge":
        if (self.match == "regex") != (self.pattern is not None):
            raise ValueError("match: regex and pattern belong together")
        if self.pattern is not None:
            try:
                regex.compile(self.pattern)
            except regex.error as e:
                raise ValueError(f"pattern is not a regular expression: {e}") from None
        return self

    @property
    def function(self) -> str | None:
        """`module:function` or `file.py:function`, from the command line."""
        return self._function

    @property
    def takes_function(self) -> bool:
        """Whether --verify names what it calls."""
        return self.match == "function"

    def placed(self, base: Path, function: str | None = None) -> "VerifiableJudge":
        """With the command line's function, where it needs one."""
        section = self.model_copy()
        section._function = function if self.takes_function else None
        return section

    def require(self) -> None:
        """Check that there is a function where one is needed, and that its file exists.

        Raises:
            ConfigError: it doesn't.
        """
        if not self.takes_function:
            return
        if self.function is None:
            raise ConfigError(
                "match: function needs a function, and a config never names code",
                where="verifiable judge",
                fix="--verify checks.py:function on the command line\nor --verify module:function",
            )
        function_fingerprint(self.function)

    def inputs(self) -> dict[str, JsonValue]:
        """The settings, and what the function's file holds."""
        return {**self.shaping(), **({} if self.function is None else function_fingerprint(self.function))}

    def able(self, rows: Sequence[Example], *, against_target: bool) -> int:
        """Rows whose references hold something to compare; of a function, which is not called, all that have any."""
        if self.takes_function:
            return sum(bool(e.references) for e in rows)
        scores = VerifiableScorer(self).score(rows, [""] * len(rows), [])
        return sum(score is not None for score in scores)

    def check(self, findings: Findings, place: str, rows: Sequence[Example] | None, *, against_target: bool) -> None:
        """Whether the function is there, or how many rows have something to compare; its code is not run."""
        try:
            self.require()
            if self.takes_function:
                findings.add("ok", place, f"verifiable: {self.function}")
                findings.not_checked.append(f"{place}: what {self.function} does; it was not imported")
            elif rows is not None:
                able = self.able(rows, against_target=against_target)
                what = f"{able} of {len(rows)} rows have a reference with something to compare"
                if not able:
                    raise ConfigError(what, where=place, fix="another match, markers or pattern")
                findings.add("ok" if able == len(rows) else "note", place, f"verifiable: {what}")
        except PladError as e:
            findings.fail(place, [e])

    def open(self, resources: JudgeResources) -> "VerifiableScorer":
        """Import the function, where it needs one.

        Raises:
            ConfigError: there is none.
        """
        return VerifiableScorer(self)


class VerifiableScorer:
    """Scores an answer 1 where it is right, 0 where it is wrong.

    The truth is in the row's own references, the target among them: they are read from the examples. A row whose
    references hold nothing to compare with is unjudged; an answer that holds nothing is wrong.

    Raises:
        ConfigError: `match: function` without a function.
    """

    name = "verifiable"

    def __init__(self, section: VerifiableJudge) -> None:
        self._section = section
        self._verify: Verify | None = None
        section.require()
        if section.function is not None:
            self._verify = load_function(section.function)

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """1.0 or 0.0 a text; None where the row can't be judged. `references` are not read: see the class.

        Raises:
            DataError: the user's function failed, or returned something else.
        """
        judge = self._by_rule if self._verify is None else self._by_function
        return [judge(example, text) for example, text in zip(examples, texts, strict=True)]

    def describe(self) -> dict[str, JsonValue]:
        """What a reader must know to trust the scores."""
        s = self._section
        facts: dict[str, dict[str, JsonValue]] = {
            "number": {"markers": list(s.markers), "tolerance": s.tolerance},
            "exact": {"markers": list(s.markers), "ignore_case": s.ignore_case},
            "regex": {"pattern": s.pattern, "ignore_case": s.ignore_case},
            "function": {"function": s.function},
        }
        rule = "1 where an answer agrees with a reference of its row, else 0; two right or two wrong answers tie"
        return {"type": "verifiable", "match": s.match, **facts[s.match], "rule": rule}

    def _by_rule(self, example: Example, text: str) -> float | None:
        wanted = [w for r in example.references if (w := self._final(r)) is not None]
        if not wanted:
            return None
        given = self._final(text)
        return float(given is not None and any(self._agree(given, w) for w in wanted))

    def _final(self, text: str) -> Any:
        s = self._section
        if s.match == "number":
            return final_number(text, s.markers)
        if s.match == "exact":
            return _plain(final_part(text, s.markers)[0], s.ignore_case) or None
        assert s.pattern is not None
        return final_match(text, s.pattern, s.ignore_case)

    def _agree(self, given: Any, wanted: Any) -> bool:
        if self._section.match == "number":
            return abs(given - wanted) <= Fraction(self._section.tolerance) * abs(wanted)
        return given == wanted

    def _by_function(self, example: Example, text: str) -> float | None:
        assert self._verify is not None
        where = f"--verify {self._section.function}, row {example.id}"
        try:
            said = self._verify(example.prompt, text, example.references)
        except Exception as e:
            raise DataError(f"the function failed ({type(e).__name__}: {e})", where=where) from e
        if said is None:
            return None
        if not isinstance(said, bool | int | float) or said not in (0, 1):
            raise DataError(f"the function returned {said!r}", where=where, fix="return True, False or None")
        return float(said)

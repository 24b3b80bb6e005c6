"""Every error plad raises on purpose.

    PladError                 exit code 2 unless a subclass says otherwise
    ├── ConfigError           a setting is wrong: unknown key, bad value, conflict
    ├── DataError             a data file or row is wrong
    │   ├── BadRowsError      rows that can't be used, each with its place (plad.data.rows)
    │   └── NoPairsError      every pair was dropped
    ├── RunDirError           a run directory is locked, stale, foreign or damaged
    ├── PolicyError           a model, tokenizer or adapter can't be used as asked
    ├── TrainingError         training can't go on (damaged checkpoint, or one of other settings)
    │   └── DivergedError     the loss or the gradient is not finite
    ├── ProblemsError         several problems reported as one error
    ├── MissingExtraError     an optional dependency is not installed
    ├── ProviderError         exit code 3: a provider refused (key, quota, unknown model)
    ├── PartialResultError    exit code 4: finished, with more failures than allowed
    ├── BudgetError           exit code 4: stopped before the budget is passed; the same command continues
    └── Interrupted           exit code 130: stopped by the user; the same command continues

A message says what happened, where (file:line or key), and the way out. `Findings` gathers what checks before a run
find: errors, and what is worth a line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal


class PladError(Exception):
    """Base of all plad errors.

    Args:
        what: one sentence saying what is wrong.
        where: ``file:line``, a config key, or a path.
        fix: the way out, one line per alternative.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        if not self.fix:
            return head
        ways = "\n".join(f"  -> {line}" for line in self.fix.splitlines())
        return f"{head}\n{ways}"


class ConfigError(PladError):
    """A setting is wrong."""


class DataError(PladError):
    """A data file or row is wrong."""


class NoPairsError(DataError):
    """Every pair was dropped."""


class RunDirError(PladError):
    """A run directory is locked, stale, foreign or damaged."""


class PolicyError(PladError):
    """A model, tokenizer or adapter can't be used as asked."""


class TrainingError(PladError):
    """Training can't go on."""


class DivergedError(TrainingError):
    """The loss or the gradient is not finite: other settings may help."""


class MissingExtraError(PladError):
    """An optional dependency is not installed."""


class ProviderError(PladError):
    """A provider refused the request for a reason that retrying can't cure."""

    exit_code = 3


class PartialResultError(PladError):
    """The stage finished with more failures than allowed."""

    exit_code = 4


class BudgetError(PladError):
    """Stopped before the budget is passed; the same command continues once it is raised."""

    exit_code = 4


class Interrupted(PladError):  # noqa: N818
    """Stopped by the user; the same command continues."""

    exit_code = 130


class ProblemsError(PladError):
    """All problems of a check that goes on after the first; each keeps its own place and way out."""

    def __init__(self, problems: Sequence[PladError]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{len(problems)} problems", *map(str, problems)]))


def join(problems: Sequence[PladError]) -> PladError:
    """One error that says what all of them say; a single problem is itself."""
    flat = [p for problem in problems for p in (problem.problems if isinstance(problem, ProblemsError) else [problem])]
    return flat[0] if len(flat) == 1 else ProblemsError(flat)


State = Literal["ok", "note", "warn", "error", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check: what was looked at, how it is, and the details."""

    state: State
    what: str
    detail: str


@dataclass
class Findings:
    """Everything that checks before a run find.

    Attributes:
        not_checked: what stayed out of reach, with the reason.
    """

    lines: list[Finding] = field(default_factory=list[Finding])
    problems: list[PladError] = field(default_factory=list[PladError])
    not_checked: list[str] = field(default_factory=list[str])

    def add(self, state: State, what: str, detail: str) -> None:
        """Add a line."""
        self.lines.append(Finding(state, what, detail))

    @property
    def warnings(self) -> int:
        """How many lines warn."""
        return sum(line.state == "warn" for line in self.lines)

    def fail(self, what: str, problems: Iterable[PladError]) -> None:
        """Add problems, and a line that counts them."""
        flat = [q for p in problems for q in (p.problems if isinstance(p, ProblemsError) else (p,))]
        self.problems += flat
        self.add("error", what, f"{len(flat)} problem{'s' * (len(flat) != 1)}, below")

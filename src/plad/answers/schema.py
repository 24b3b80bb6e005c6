"""The tables and rows of the ledger, and how a file of an earlier version becomes one of this."""

from dataclasses import dataclass
from typing import Any, TypedDict

from plad.answers.reply import MOST_TOKENS

FIRST = (
    """
CREATE TABLE generations (
    key TEXT PRIMARY KEY,
    system TEXT NOT NULL,
    example_id TEXT NOT NULL,
    sample INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    text TEXT NOT NULL,
    token_ids TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    created TEXT NOT NULL,
    spec TEXT NOT NULL
)
""",
    "CREATE TABLE asked (ask TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID",
)
SECOND = (
    "ALTER TABLE generations ADD COLUMN engine TEXT NOT NULL DEFAULT 'transformers'",
    "ALTER TABLE generations ADD COLUMN run TEXT",  # the run that got it
    "ALTER TABLE generations ADD COLUMN model TEXT",  # as the provider names what served it
    "ALTER TABLE generations ADD COLUMN cost REAL",  # US dollars; null where no price is known
    "ALTER TABLE generations ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0",  # token counts are a guess
    "ALTER TABLE generations ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE generations ADD COLUMN lost INTEGER NOT NULL DEFAULT 0",  # attempts that may be billed for nothing
    "ALTER TABLE generations ADD COLUMN message TEXT",  # what the provider said
    "CREATE TABLE batches (batch TEXT PRIMARY KEY, key TEXT NOT NULL, counts TEXT NOT NULL) WITHOUT ROWID",
)
THIRD = (
    # what was handed to a provider's batch API and is not collected yet
    "CREATE TABLE jobs (job TEXT PRIMARY KEY, run TEXT, endpoint TEXT NOT NULL, file TEXT, batch TEXT, "
    "created TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE job_lines (job TEXT NOT NULL, line INTEGER NOT NULL, key TEXT NOT NULL, ask TEXT NOT NULL, "
    "system TEXT NOT NULL, example_id TEXT NOT NULL, sample INTEGER NOT NULL, spec TEXT NOT NULL, "
    "PRIMARY KEY (job, line)) WITHOUT ROWID",
)
FOURTH = ("ALTER TABLE generations ADD COLUMN checksum TEXT",)  # null in rows that were recorded without one
STEPS = (FIRST, SECOND, THIRD, FOURTH)  # from each schema to the next
SCHEMA = len(STEPS)
READABLE = 2  # the first whose answers can be read as they are


class Recorded(TypedDict):
    """Every column of an answer, as it stands in the file."""

    key: str
    system: str
    example_id: str
    sample: int
    outcome: str
    text: str
    token_ids: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    created: str
    spec: str
    engine: str
    run: str | None
    model: str | None
    cost: float | None
    estimated: int
    attempts: int
    lost: int
    message: str | None


class AnswerSums(TypedDict):
    """Answers of one system by one engine and served model that ended in one way; `usd` is None without a price."""

    system: str
    engine: str
    model: str | None
    outcome: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    estimated: int
    usd: float | None
    attempts: int
    lost: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Purchase:
    """What came from a provider for one system and served model in one second.

    Attributes:
        usd: None where no price is known.
        estimated: answers whose tokens the provider did not count.
        lost: requests that brought no answer.
        unpriced: answers without a price.
    """

    system: str
    model: str | None
    created: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    estimated: int
    usd: float | None
    lost: int
    unpriced: int


def counted(tokens: str) -> str:
    """A column of tokens for a sum; an earlier version recorded whatever a server said, and a sum may overflow."""
    return f"MIN({tokens}, {MOST_TOKENS})"


_SUMMED = {
    "answers": "COUNT(*)",
    "prompt_tokens": f"SUM({counted('prompt_tokens')})",
    "completion_tokens": f"SUM({counted('completion_tokens')})",
    "estimated": "SUM(estimated)",
    "usd": "SUM(cost)",
    "attempts": "SUM(attempts)",
    "lost": "SUM(lost)",
    "seconds": "AVG(seconds)",
    "unpriced": "SUM(cost IS NULL)",
}
COLUMNS = tuple(Recorded.__annotations__)


def select(row: type[Any]) -> str:
    """The columns of a typed row, as SELECT names them."""
    return ", ".join(f"{_SUMMED[name]} AS {name}" if name in _SUMMED else name for name in row.__annotations__)

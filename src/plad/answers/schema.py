"""The tables of the ledger, and how a file of an earlier version becomes one of this."""

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
STEPS = (FIRST, SECOND, THIRD)  # from each schema to the next
SCHEMA = len(STEPS)
READABLE = 2  # the first whose answers can be read as they are

PAID = ("openai",)  # engines whose tokens somebody charges for
SUMMARY = {
    "system": "system",
    "engine": "engine",
    "model": "model",
    "outcome": "outcome",
    "answers": "COUNT(*)",
    "prompt_tokens": "SUM(prompt_tokens)",
    "completion_tokens": "SUM(completion_tokens)",
    "estimated": "SUM(estimated)",
    "usd": "SUM(cost)",
    "attempts": "SUM(attempts)",
    "lost": "SUM(lost)",
    "seconds": "AVG(seconds)",
}
PAID_COLUMNS = {k: SUMMARY[k] for k in ("system", "model")} | {
    "created": "created",
    **{k: SUMMARY[k] for k in ("answers", "prompt_tokens", "completion_tokens", "estimated", "usd", "lost")},
    "unpriced": "SUM(cost IS NULL)",
}

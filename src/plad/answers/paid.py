"""What the ledger holds that somebody charges for."""

from plad.answers.ledger import Ledger, of_run
from plad.answers.schema import Purchase, counted, select
from plad.config.engines import EngineSection


def is_paid(engine: str) -> bool:
    """Whether somebody charges for the answers of engines of a type; not where nobody knows the type any more."""
    kind = EngineSection.named(engine)
    return kind is not None and kind.paid


def spent(ledger: Ledger, run: str) -> tuple[float, int]:
    """US dollars and tokens that a run has taken from providers."""
    query = (
        f"SELECT engine, COALESCE(SUM(cost), 0.0), SUM({counted('prompt_tokens')} + {counted('completion_tokens')}) "
        "FROM generations WHERE run = ? GROUP BY engine"
    )
    rows = [(usd, tokens) for engine, usd, tokens in ledger.read(query, (run,)) if is_paid(engine)]
    return sum((usd for usd, _ in rows), 0.0), sum(tokens for _, tokens in rows)


def purchases(ledger: Ledger, run: str | None = None) -> list[Purchase]:
    """What came from providers, by system, served model and the second in which it came.

    Args:
        run: only answers that this run got.
    """
    engines = [name for (name,) in ledger.read("SELECT DISTINCT engine FROM generations", ()) if is_paid(name)]
    where, values = of_run(run)
    query = (
        f"SELECT {select(Purchase)} FROM generations {where} AND engine IN ({','.join('?' * len(engines))}) "
        "GROUP BY system, model, created ORDER BY created, system, model"
    )
    return [Purchase(**row) for row in ledger.rows_of(query, (*values, *engines))]

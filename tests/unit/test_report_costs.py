"""Time and money on the page: what providers were paid, by whom and by stage."""

from pathlib import Path
from typing import Any

from plad.report.parts.run_facts import RunFacts, read_facts
from plad.report.sections.costs import about_paid, cost_of, counts_table, paid_table, stages_table
from plad.rundir.atomic import write_json
from tests.support.written_runs import BILL, manifest, write_bill


def facts(tmp_path: Path, rows: Any = BILL, **more: Any) -> RunFacts:
    write_json(tmp_path / "manifest.json", {**manifest(), **more})
    write_bill(tmp_path, rows)
    return read_facts(tmp_path)


def test_an_answer_counts_to_the_first_stage_that_ended_after_it_came(tmp_path: Path) -> None:
    """Sampling ended at 07:30 and evaluation at 08:20; what came at 09:00 belongs to a stage that isn't finished."""
    found = facts(tmp_path, (*BILL, ("teacher", "2026-11-24T09:00:00Z", 100, 10, 2.5)))
    table = stages_table(found)
    assert table is not None
    assert table.columns == ("Stage", "Time", "Cost")
    assert {row[0].text: row[2].text for row in table.rows} == {
        "data": "",
        "sft": "",
        "generate": "$0.0021",
        "pair": "",
        "distill": "",
        "evaluate": "$0.0102",
        "not finished": "$2.50",
        "all": "$2.51",
    }


def test_who_was_paid_for_how_much(tmp_path: Path) -> None:
    found = facts(tmp_path)
    table = paid_table(found)
    assert table is not None
    assert [[c.text for c in row] for row in table.rows] == [
        ["Teacher (big-1)", "2", "400", "79", "$0.0021"],
        ["judge opinion-7b (big-1)", "1", "700", "60", "$0.0102"],
        ["all", "3", "1,100", "139", "$0.0123"],
    ]
    assert about_paid(found) == (
        "An answer counts to the first stage that ended after it came. No price is known for 1 of 3 answers."
    )
    assert cost_of(found) == "$0.0123"


def test_a_run_without_a_provider_has_times_only(tmp_path: Path) -> None:
    found = facts(tmp_path, ())
    table = stages_table(found)
    assert table is not None
    assert table.columns == ("Stage", "Time")
    assert paid_table(found) is None
    assert (about_paid(found), cost_of(found)) == ("", "–")


def test_of_a_shared_ledger_only_the_runs_own_answers_count(tmp_path: Path) -> None:
    write_bill(tmp_path)
    write_json(tmp_path / "manifest.json", {**manifest(), "id": "mine", "ledger": str(tmp_path / "generations.sqlite")})
    assert read_facts(tmp_path).paid == ()


def test_a_provider_whose_ledger_is_gone_is_said(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", manifest())
    write_json(tmp_path / "config.resolved.json", {"teacher": {"engine": {"type": "openai"}}})
    assert "readable ledger of answers" in read_facts(tmp_path).missing
    write_json(tmp_path / "config.resolved.json", {"teacher": {"engine": {"type": "transformers"}}})
    assert "readable ledger of answers" not in read_facts(tmp_path).missing
    (tmp_path / "generations.sqlite").write_text("no database at all, but a text that is long enough" * 20)
    assert read_facts(tmp_path).paid == ()


def test_what_a_stage_did_not_find_is_not_listed(tmp_path: Path) -> None:
    table = counts_table(facts(tmp_path))
    assert table is not None
    counted = {row[0].text: row[1].text for row in table.rows}
    assert counted["data"] == "sft 120, distill 118, validation 40, test 60, skipped.train 2"

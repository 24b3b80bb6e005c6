"""Tables that fit a terminal, and curves as one line."""

from pathlib import Path

import pytest

from plad.report.parts.blocks import Cell, Table
from plad.report.terminal import fit, sparkline
from tests.support.command import call, lines_fit
from tests.support.written_runs import BAD, EXAMPLES, FAIR, GOOD, write_full_run


def table(columns: int, width: int) -> Table:
    names = ("System", *(f"c{i}" for i in range(columns)))
    return Table("t", names, (tuple(Cell("x" * width) for _ in names),))


def test_a_wide_table_becomes_several_that_share_their_first_column() -> None:
    """Columns of 20 with gaps of 3: 20 + 2 * 23 = 66 fit into 78, a third would need 89."""
    parts = fit(table(5, 20), 80)
    assert [p.columns for p in parts] == [("System", "c0", "c1"), ("System", "c2", "c3"), ("System", "c4")]
    assert all(len(row) == len(p.columns) for p in parts for row in p.rows)


def test_names_of_columns_are_broken_and_figures_are_not() -> None:
    """Cells of 30 and of 6: 10 + 33 + 9 = 52 fit because `Cut off long` may stand on three lines."""
    cells = (Cell("x" * 10), Cell("y" * 30), Cell("0.0 %"))
    (part,) = fit(Table("t", ("System", "A", "Cut off long"), (cells,)), 56)
    assert part.columns == ("System", "A", "Cut\noff\nlong")


def test_a_column_wider_than_all_stands_alone() -> None:
    assert [p.columns for p in fit(table(2, 90), 80)] == [("System", "c0"), ("System", "c1")]


def test_tables_of_words_stay_whole() -> None:
    words = Table("t", ("a", "b"), ((Cell("x" * 90), Cell("y" * 90)),), words=True)
    assert fit(words, 80) == [words]


@pytest.mark.parametrize(
    ("values", "shown"),
    [([0.0, 1.0], "▁█"), ([3.0, 2.0, 1.0], "█▅▁"), ([5.0, 5.0], "▁▁"), ([1.0], "▁")],
)
def test_sparklines(values: list[float], shown: str) -> None:
    assert sparkline(values) == shown


def test_long_curves_are_averaged() -> None:
    assert sparkline([0.0, 2.0, 3.0, 5.0], width=2) == "▁█"
    assert len(sparkline([float(i) for i in range(83)])) == 20


def test_every_part_of_the_page_stands_in_the_terminal(tmp_path: Path) -> None:
    answers = {"teacher": GOOD, "student_sft": BAD, "student": FAIR, "seqkd": FAIR[::-1]}
    write_full_run(tmp_path / "run", EXAMPLES, answers)
    code, out, err = call("report", tmp_path / "run", "--terminal")
    assert (code, err) == (0, "")
    assert lines_fit(out)
    parts = (
        "Calibration of likelihoods",
        "Kendall's tau",
        "Confidence and how often it is right",
        "what each method cost",
        "What the answers are made of",
        "Rounds",
        "From rows to pairs",
        "What providers were paid for",
        "The judges",
        "Cohen's kappa",
        "Distilled student: the share of answers that end fell",
    )
    assert [part for part in parts if part not in out] == []

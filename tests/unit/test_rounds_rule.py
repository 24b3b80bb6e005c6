"""When rounds end and which is kept, with numbers a reader can check by hand."""

from typing import Any

import pytest

from plad.config.models import DistillSection
from plad.config.objectives import AutoObjective
from plad.objectives.plad import RankObjective
from plad.objectives.preference import DpoObjective
from plad.objectives.sft import SftObjective
from plad.pipeline.stages.rounds import best_round, later_settings, stop_reason


def rounds(*figures: tuple[float, float], rouge: float = 0.2) -> list[dict[str, Any]]:
    """(win rate, low end of the teacher's win rate) of the start and of every round."""
    return [
        {"validation": {"win_rate": rate, "rougeL": rouge}, "teacher_student": {"n": 50, "low": low}}
        for rate, low in figures
    ]


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ([(0.30, 0.60)], None),
        ([(0.30, 0.60), (0.40, 0.55)], None),
        ([(0.30, 0.60), (0.40, 0.55), (0.45, 0.51)], None),
        ([(0.30, 0.60), (0.40, 0.55), (0.40, 0.55)], "the validation win rate no longer rises"),
        ([(0.30, 0.60), (0.40, 0.55), (0.39, 0.45)], "the validation win rate no longer rises"),
        ([(0.30, 0.60), (0.29, 0.60)], "the validation win rate no longer rises"),
        ([(0.30, 0.60), (0.40, 0.50)], "the teacher is no longer favoured"),
        ([(0.30, 0.60), (0.40, 0.49)], "the teacher is no longer favoured"),
    ],
    ids=[
        "start",
        "rose",
        "rose twice",
        "equal",
        "fell",
        "below the start",
        "interval touches half",
        "interval has half",
    ],
)
def test_rounds_end_where_nothing_is_gained_or_the_teacher_is_level(
    figures: list[tuple[float, float]], reason: str | None
) -> None:
    assert stop_reason(rounds(*figures)) == reason


def test_rouge_decides_between_equal_win_rates_and_a_blind_judge_stops_nothing() -> None:
    found = rounds((0.30, 0.60), (0.40, 0.55)) + rounds((0.40, 0.55), rouge=0.21)
    assert stop_reason(found) is None
    assert best_round(found) == 2
    blind = rounds((0.30, 0.60), (0.40, 0.55))
    blind[-1]["teacher_student"] = {"n": 0, "low": None}
    assert stop_reason(blind) is None


def test_the_best_round_is_kept_the_first_of_equals_and_never_the_start() -> None:
    assert best_round(rounds((0.5, 0.6), (0.3, 0.6))) == 1
    assert best_round(rounds((0.3, 0.6), (0.4, 0.6), (0.4, 0.6))) == 1
    assert best_round(rounds((0.3, 0.6), (0.4, 0.6), (0.5, 0.6), (0.45, 0.6))) == 2


def test_later_rounds_take_the_chosen_objective_and_need_no_warm_up() -> None:
    auto = AutoObjective(candidates=(SftObjective(), RankObjective(beta=0.1, sft_epochs=2.0)))
    later = later_settings(DistillSection(objective=auto), {"chosen": "rank"})
    assert later.objective == RankObjective(beta=0.1)
    assert later_settings(later, {}) == later
    assert later_settings(DistillSection(objective=DpoObjective(sft_epochs=1)), {}).objective == DpoObjective()

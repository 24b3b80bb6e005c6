"""Agreement of judges, by hand."""

import json

import numpy as np
import pytest

from plad.evaluate.agreement import agreement, agreements, kappas
from plad.evaluate.stats import Bootstrap
from plad.records import Judgement, Verdict

WIN, TIE, LOSS = Verdict.WIN, Verdict.TIE, Verdict.LOSS
DRAWS = Bootstrap(200)


def test_kappa_by_hand() -> None:
    """Cohen's own kind of table: 20 + 15 of 50 agree, 0.7; chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5; kappa 0.4."""
    assert float(kappas(np.array([[20.0, 5.0], [10.0, 15.0]]))) == pytest.approx(0.4)


def test_agreement_of_two_judges() -> None:
    """WIN WIN, WIN LOSS, LOSS LOSS, TIE TIE: 3 of 4; chance (2 x 1 + 1 x 2 + 1 x 1) / 16; kappa (12 - 5) / (16 - 5)."""
    rows = [("a", WIN, WIN), ("b", WIN, LOSS), ("c", LOSS, LOSS), ("d", TIE, TIE)]
    found = agreement(rows, DRAWS)
    assert (found.same, found.n) == (0.75, 4)
    assert found.kappa == pytest.approx(7 / 11)
    assert found.low <= found.kappa <= found.high


def test_judges_who_toss_coins_do_not_agree() -> None:
    rng = np.random.default_rng(0)
    verdicts = list(Verdict)
    rows = [(str(i), verdicts[a], verdicts[b]) for i, (a, b) in enumerate(rng.integers(0, 3, size=(500, 2)))]
    found = agreement(rows, DRAWS)
    assert found.low < 0 < found.high
    assert agreement([(i, a, a) for i, a, _ in rows], DRAWS).kappa == pytest.approx(1.0)


@pytest.mark.parametrize("rows", [[], [("a", TIE, TIE)], [(str(i), TIE, TIE) for i in range(9)], [("a", WIN, LOSS)]])
def test_all_ties_and_single_rows_give_no_nan(rows: list[tuple[str, Verdict, Verdict]]) -> None:
    json.dumps(agreement(rows, DRAWS).to_json(), allow_nan=False)


def test_only_comparisons_that_both_judged_count() -> None:
    def judged(judge: str, verdicts: dict[str, Verdict]) -> list[Judgement]:
        return [Judgement(i, judge, "student", "target", v, 0.0, 0.0) for i, v in verdicts.items()]

    found = agreements(
        [*judged("j", {"a": WIN, "b": TIE}), *judged("k", {"b": TIE, "c": LOSS}), *judged("l", {})], DRAWS
    )
    assert list(found) == ["j and k"]
    assert (found["j and k"].n, found["j and k"].same, found["j and k"].kappa) == (1, 1.0, None)

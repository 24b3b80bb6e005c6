"""Several seeds: means with intervals over seeds and prompts."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from plad.cli.compare import metrics_of
from plad.evaluate.deciding import decision
from plad.evaluate.metrics import Metrics
from plad.evaluate.seeds import mean_metrics, over_seeds, seed_groups
from plad.records import Example
from plad.report.parts.verdict import verdict
from plad.report.sections.seeds import over_seeds as seeds_section
from tests.support.written_runs import CONFIG, write_run

EXAMPLES = [Example(f"e{i}", f"prompt {i}", ("blue sky", "red sun")) for i in range(4)]


def test_two_seeds_two_prompts_by_hand() -> None:
    """Rows (1, 2) and (3, 6): mean 3; means of seeds 1.5, 4.5; of prompts 2, 4.

    MS_seeds = 2 x 4.5 = 9, MS_prompts = 2 x 2 = 4, rest = -+.5 each: MS = 1. Var = (9 + 4 - 1) / 4 = 3.
    df = 12^2 / (81 + 16 + 1) = 1.469.
    """
    found = over_seeds(np.array([[1.0, 2.0], [3.0, 6.0]]))
    half = t.ppf(0.975, 144 / 98) * 3**0.5
    assert found.value == 3
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    assert (found.n, found.seeds) == (2, 2)
    assert found.sd_seeds == pytest.approx(4.5**0.5)
    assert found.p == pytest.approx(2 * t.sf(3**0.5, 144 / 98))


def test_an_interval_of_a_share_ends_where_the_scale_ends() -> None:
    """Two seeds that disagree about two prompts: the t interval around 0.75 reaches far over 100 %."""
    values = np.array([[1.0, 1.0], [0.5, 0.5]])
    assert over_seeds(values).high > 1
    found = over_seeds(values, bounds=(0.0, 1.0))
    assert (found.low, found.value, found.high) == (0.0, 0.75, 1.0)


def test_p_says_no_difference_as_often_as_it_should() -> None:
    rng = np.random.default_rng(4)
    claimed = 0
    for _ in range(300):
        values = 0.1 * rng.normal(size=(5, 1)) + 0.3 * rng.normal(size=(1, 40)) + 0.3 * rng.normal(size=(5, 40))
        claimed += over_seeds(values).p < 0.05
    assert claimed / 300 < 0.1


def test_equal_seeds_leave_the_prompts_spread() -> None:
    """The same values thrice: no seed effect, no rest; the interval is the t-interval over prompts."""
    row = np.array([0.0, 1.0, 0.5, 1.0, 0.0, 1.0])
    found = over_seeds(np.stack([row, row, row]))
    half = t.ppf(0.975, 5) * row.std(ddof=1) / 6**0.5
    assert (found.low, found.high) == pytest.approx((row.mean() - half, row.mean() + half))
    assert found.sd_seeds == 0


@pytest.mark.parametrize("shape", [(2, 0), (2, 1), (3, 4)])
def test_nothing_that_varies_gives_no_interval_and_no_nan(shape: tuple[int, int]) -> None:
    found = over_seeds(np.ones(shape))
    json.dumps(found.to_json(), allow_nan=False)
    assert found.value == (1.0 if shape[1] else None)
    assert found.low is None


def test_the_interval_covers_the_truth_over_seeds_and_prompts() -> None:
    """Seed sd 0.1, prompt sd 0.3, rest 0.3; 5 seeds, 40 prompts: intervals over prompts alone would miss far more."""
    rng = np.random.default_rng(2)
    covered = too_narrow = 0
    for _ in range(400):
        values = 0.1 * rng.normal(size=(5, 1)) + 0.3 * rng.normal(size=(1, 40)) + 0.3 * rng.normal(size=(5, 40))
        found = over_seeds(values)
        covered += found.low <= 0 <= found.high
        over_prompts = values.mean(0)
        too_narrow += abs(over_prompts.mean()) > 2.02 * over_prompts.std(ddof=1) / 40**0.5
    assert 0.91 <= covered / 400 <= 0.99
    assert too_narrow / 400 > 0.1


def write(path: Path, seed: int, student: list[str], rows: Sequence[Example] = EXAMPLES, **config: object) -> None:
    write_run(
        path,
        rows,
        {"student_sft": ["red sun", "x", "red", "y"], "student": student},
        config={**CONFIG, "run": {"dir": str(path), "seed": seed}, **config},
    )


def test_runs_that_differ_in_more_than_their_seed_stay_apart(tmp_path: Path) -> None:
    for i, extra in enumerate([{}, {}, {"distill": {"epochs": 2}}]):
        write(tmp_path / str(i), i, ["red sun"] * 4, **extra)
    runs = {str(i): tmp_path / str(i) for i in range(3)}
    assert seed_groups(runs) == [["0", "1"]]
    write(tmp_path / "copy", 1, ["red sun"] * 4)
    assert seed_groups({**runs, "3": tmp_path / "copy"}) == [["0", "1"]]  # no third seed
    (tmp_path / "0" / "config.resolved.json").unlink()
    assert seed_groups(runs) == []


def test_mean_over_two_runs_by_hand(tmp_path: Path) -> None:
    """The reference judge against "red sun" and the target "blue sky", which scores 0: 1 where a word is shared.

    Student, first seed: 1 1 1 tie = 0.875; second: 1 tie tie tie = 0.625. SFT in both: 1 tie 1 tie = 0.75.
    """
    write(tmp_path / "a", 0, ["red sun", "sun", "red", "y"])
    write(tmp_path / "b", 1, ["red sun", "x", "z", "y"])
    found = mean_metrics({"a": tmp_path / "a", "b": tmp_path / "b"})
    rate = found.systems["student"].win_rate["reference"]
    assert (rate.value, rate.n, rate.seeds) == (pytest.approx(0.75), 4, 2)
    assert (rate.wins, rate.ties, rate.losses) == (4, 4, 0)
    assert found.systems["student"].words.value == pytest.approx((5 + 5) / 8)
    assert found.systems["student"].rougeL.value == pytest.approx((1 + 2 / 3 + 2 / 3 + 0 + 1) / 8)
    assert (rate.low, rate.high) == (0.0, 1.0)  # two seeds say little
    difference = found.differences["student - student_sft"]
    assert difference.win_rate["reference"].value == pytest.approx(0.0)
    assert difference.words.value == pytest.approx(0.0)
    json.dumps(found.to_json(), allow_nan=False)


def test_with_one_reference_the_seeds_have_a_mean_duel_that_decides(tmp_path: Path) -> None:
    """Student against SFT student ("red sun", "x", "red", "y"), nearer to "red sun": first seed: tie, win, win, tie;
    second: tie, win, tie, tie."""
    rows = [Example(f"e{i}", f"prompt {i}", ("red sun",)) for i in range(4)]
    write(tmp_path / "a", 0, ["red sun", "sun", "red sun", "y"], rows)
    write(tmp_path / "b", 1, ["red sun", "sun", "red", "z"], rows)
    mean = mean_metrics({"a": tmp_path / "a", "b": tmp_path / "b"})
    duel = mean.differences["student - student_sft"].against["reference"]
    assert (duel.wins, duel.ties, duel.losses, duel.n, duel.seeds) == (3, 5, 0, 4, 2)
    points = np.array([[0.5, 1, 1, 0.5], [0.5, 1, 0.5, 0.5]])
    alone = over_seeds(points)
    assert (duel.value, duel.low, duel.high) == pytest.approx((11 / 16, max(0.0, alone.low), min(1.0, alone.high)))
    assert duel.p == pytest.approx(over_seeds(points - 0.5).p)
    single = decision(Metrics.read(tmp_path / "a"))
    assert decision(mean).measure == single.measure
    assert "nearer to the target than the SFT student 68.8 % of the time" in verdict(mean).sentence
    assert "2 seeds" in verdict(mean).sentence
    section = seeds_section([(("a", "b"), mean)])
    assert section is not None
    assert "Distilled student against SFT student, reference" in str(section)
    json.dumps(mean.to_json(), allow_nan=False)


def test_compare_shows_the_mean_beside_the_runs(tmp_path: Path) -> None:
    write(tmp_path / "a", 0, ["red sun"] * 4)
    write(tmp_path / "b", 1, ["x"] * 4)
    found = metrics_of([tmp_path / "a", tmp_path / "b"])
    assert list(found) == ["a", "b", "mean of 2 seeds (a, b)"]
    assert found["mean of 2 seeds (a, b)"].systems["student"].win_rate["reference"].value == 0.75
    assert list(metrics_of([tmp_path / "a"])) == ["a"]

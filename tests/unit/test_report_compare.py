"""The comparison page's figures: paired over the prompts that all runs have."""

import json
from pathlib import Path
from typing import Any

import pytest

from plad.errors import RunDirError
from plad.records import Example
from plad.report.comparison import write_comparison
from plad.rundir.atomic import write_json
from tests.support.command import call
from tests.support.written_runs import BAD, CONFIG, EXAMPLES, FAIR, GOOD, calibrated, page_cases, write_bill, write_run


def make(path: Path, answers: list[str], examples: list[Example] = EXAMPLES, **config: Any) -> Path:
    write_run(path, examples, {"student_sft": BAD[: len(examples)], "student": answers}, config={**CONFIG, **config})
    return path


def page(tmp_path: Path, runs: dict[str, Path]) -> str:
    write_comparison(runs, tmp_path / "out.html")
    return (tmp_path / "out.html").read_text(encoding="utf-8").replace("\u00a0", " ")


def test_every_run_is_measured_against_the_first(tmp_path: Path) -> None:
    """The good run always wins, the bad one always ties (both share nothing with the reference): 50 points."""
    runs = {"base": make(tmp_path / "a", BAD), "good": make(tmp_path / "b", GOOD), "same": make(tmp_path / "c", BAD)}
    html = page(tmp_path, runs)
    assert "good is better than base." in html
    assert "good: +50.0 points (95 % interval" in html
    assert "same: 0.0 points (95 % interval" in html
    assert [name for _, name in page_cases(html)["systems"]] == ["Human target", "base", "good", "same"]
    assert page_cases(html)["cases"][0]["scores"] == [[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("first", "second", "headline"),
    [(GOOD, BAD, "b is worse than a"), (GOOD, GOOD, "No difference that this test can tell from chance")],
)
def test_headlines(tmp_path: Path, first: list[str], second: list[str], headline: str) -> None:
    assert f"{headline}." in page(tmp_path, {"a": make(tmp_path / "a", first), "b": make(tmp_path / "b", second)})


def test_a_judge_of_a_few_rows_decides_no_comparison(tmp_path: Path) -> None:
    """Three of 40 rows have a second reference: the target decides, by ROUGE-L, as on each run's own page."""
    few = [Example(e.id, e.prompt, e.references if i < 3 else e.references[1:]) for i, e in enumerate(EXAMPLES)]
    html = page(tmp_path, {"a": make(tmp_path / "a", GOOD, few), "b": make(tmp_path / "b", BAD, few)})
    assert "The difference in ROUGE-L from a:" in html


def test_only_rows_that_all_runs_have_alike_are_compared(tmp_path: Path) -> None:
    other = [*EXAMPLES[:30], Example("e30", "another prompt", ("t", "r")), Example("new", "p", ("t", "r"))]
    runs = {"a": make(tmp_path / "a", GOOD), "b": make(tmp_path / "b", GOOD[:32], other)}
    html = page(tmp_path, runs)
    assert len(page_cases(html)["cases"]) == 30
    assert "a: 10 of 40 test rows are not in every run" in html
    assert "b: 2 of 32 test rows are not in every run" in html
    assert "over the 30 test prompts that all runs have" in html


def test_settings_that_differ_are_shown_and_places_are_not(tmp_path: Path) -> None:
    runs = {
        "a": make(tmp_path / "a", GOOD, distill={"objective": {"beta": 1.0}}),
        "b": make(tmp_path / "b", FAIR, distill={"objective": {"beta": 0.5}}, run={"dir": "elsewhere", "seed": 0}),
    }
    html = page(tmp_path, runs)
    settings = html.split('id="h-settings"')[1]
    assert "distill.objective.beta" in settings
    assert "run.dir" not in settings
    assert "teacher.model" not in settings


def test_runs_that_differ_in_their_seed_have_a_mean(tmp_path: Path) -> None:
    runs = {f"s{i}": make(tmp_path / f"s{i}", t, run={"dir": f"s{i}", "seed": i}) for i, t in enumerate((GOOD, FAIR))}
    html = page(tmp_path, runs)
    assert "Mean of 2 seeds: s0, s1" in html
    assert "2 seeds: an interval over so few is wide" in html
    assert "Over seeds" in html


def test_runs_that_differ_in_nothing_else_have_one_verdict_over_all_seeds(tmp_path: Path) -> None:
    """The student always wins, its predecessor always ties, whatever the seed: 50 points, which no seed moves."""
    texts = [GOOD[:k] + BAD[k:] for k in (38, 36, 37)]
    runs = {f"s{i}": make(tmp_path / f"s{i}", t, run={"dir": f"s{i}", "seed": i}) for i, t in enumerate(texts)}
    html = page(tmp_path, runs)
    assert "Distillation made the student better." in html
    assert "3 seeds, 40 test prompts, judge: reference" in html
    assert '<div class="mine"><dt>Distilled student</dt>' in html
    runs["other"] = make(tmp_path / "other", GOOD, distill={"epochs": 2})
    assert "Distillation made" not in page(tmp_path, runs).split("</header>")[0]


def test_what_distillation_did_to_likelihoods_stands_beside_the_runs(tmp_path: Path) -> None:
    runs = {"a": make(tmp_path / "a", GOOD), "b": make(tmp_path / "b", FAIR, distill={"epochs": 2})}
    assert "are better texts likelier" not in page(tmp_path, runs)
    for gain, run in zip((4.0, -4.0), runs.values(), strict=True):
        file = run / "eval/metrics.json"
        write_json(file, {**json.loads(file.read_text()), **calibrated(gain)})
    section = page(tmp_path, runs).split('id="h-calibration"')[1].split("</section>")[0]
    assert section.count('<td class="tone better">') == 3
    assert section.count('<td class="tone worse">') == 3


def test_what_providers_were_paid_stands_beside_the_time(tmp_path: Path) -> None:
    runs = {"a": make(tmp_path / "a", GOOD), "b": make(tmp_path / "b", FAIR)}
    assert ">Cost</th>" not in page(tmp_path, runs)
    write_bill(runs["a"])
    html = page(tmp_path, runs)
    assert "<td>$0.0123</td>" in html
    assert ">Cost</th>" in html


def test_what_several_runs_have_alike_stands_once(tmp_path: Path) -> None:
    html = page(tmp_path, {"a": make(tmp_path / "a", GOOD), "b": make(tmp_path / "b", FAIR)})
    assert html.count(">SFT student</th>") == 1
    assert ">SFT student of a</th>" not in html


def test_judges_of_one_name_and_two_rules_are_called_out(tmp_path: Path) -> None:
    runs = {"a": make(tmp_path / "a", GOOD), "b": make(tmp_path / "b", FAIR)}
    file = runs["b"] / "eval/metrics.json"
    metrics = json.loads(file.read_text())
    metrics["method"]["judges"]["reference"]["rule"] = "another"
    write_json(file, metrics)
    assert "judge reference is not the same in all runs" in page(tmp_path, runs)


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    one = make(tmp_path / "a", GOOD)
    with pytest.raises(RunDirError, match="two runs or more"):
        write_comparison({"a": one}, tmp_path / "out.html")
    other = make(tmp_path / "b", ["x"], [Example("z", "p", ("t", "r"))])
    with pytest.raises(RunDirError, match="share no test row"):
        write_comparison({"a": one, "b": other}, tmp_path / "out.html")
    (other / "eval/metrics.json").unlink()
    with pytest.raises(RunDirError, match="no evaluated student"):
        write_comparison({"a": one, "b": other}, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    a, b = make(tmp_path / "x/run", GOOD), make(tmp_path / "y/run", FAIR)
    code, out, err = call("compare", a, b, "--html", tmp_path / "c.html")
    assert (code, out, err) == (0, f"comparison: {tmp_path / 'c.html'}\n", "")
    names = [name for _, name in page_cases((tmp_path / "c.html").read_text())["systems"]]
    assert names == ["Human target", "x/run", "y/run"]  # as much of each path as tells them apart

"""Real preferences through the pair stage: on answers whose truth is known, and through the whole command."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from plad.answers.file import FileEngine
from plad.answers.fill import fill
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.cli.status import read_status
from plad.config.root import Config
from plad.data.formats import read_examples_jsonl, read_pairs_parquet, write_examples_jsonl
from plad.judges.base import JudgeResources
from plad.pipeline.resources import Resources, weights
from plad.pipeline.stages import pair
from plad.records import Example
from plad.report.page import render_report
from plad.rundir.directory import open_run
from tests.support.command import plad
from tests.support.judges import bert
from tests.support.task import write_task

GSM8K = Path(__file__).parents[1] / "data/gsm8k_teacher_student.jsonl.gz"
SCORER = {"type": "verifiable"}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as it is before the pair stage, with a real teacher's and a real student's recorded answers."""
    path = tmp_path_factory.mktemp("gsm8k")
    with gzip.open(GSM8K, "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    examples = [Example(r["id"], r["prompt"], (r["reference"],)) for r in rows]
    open_run(path / "run").close()
    write_examples_jsonl(path / "run/data/distill.jsonl", examples)
    for role in ("teacher", "student"):
        (path / f"run/sft/{role}").mkdir(parents=True)
        (path / f"run/sft/{role}/config.json").write_text(f'{{"role": "{role}"}}')
    with open_run(path / "run") as run, Ledger(run.ledger) as ledger:
        ctx = Resources(config(path / "run"), run, path)
        for system, column in (("teacher", "teacher"), ("student_sft", "student")):
            file = path / f"{column}.jsonl"
            file.write_text("".join(json.dumps({"id": r["id"], "text": r[column]}) + "\n" for r in rows))
            engine = FileEngine(path=str(file)).read(weights(ctx, system), path)
            fill(engine, examples, AnswerSet(system, weights(ctx, system), Sampling(0.7, 64), 0), ledger)
    return path / "run"


def config(run: Path, **pairs: Any) -> Config:
    return Config.model_validate(
        {
            "run": {"dir": run},
            "data": {"train": "x", "test": "y"},
            "teacher": {"model": "t"},
            "student": {"model": "s"},
            "pairs": {"drop": {"identical": False}, **pairs},
        }
    )


def paired(path: Path, **rules: Any) -> dict[str, Any]:
    with open_run(path) as run:
        counts = pair.run(Resources(config(path, **rules), run, path.parent), {})
        run.finish("pair", {}, counts, 1.0)
    return counts


def test_on_gsm8k_the_counts_are_the_truth_and_exactly_the_wrong_pairs_are_swapped(answered: Path) -> None:
    counts = paired(answered, scorer=SCORER, real_share=1.0)
    assert counts["scored"] == {
        "pairs": 1319,
        "teacher_better": 260,
        "student_better": 88,
        "ties": 971,
        "both_right": 198,
        "both_wrong": 773,
        "unjudged": 0,
    }
    assert (counts["swapped"], counts["pairs"]) == (88, 1319)
    wrong = counts["wrong"]
    assert wrong["value"] == pytest.approx(88 / 1319)
    assert wrong["low"] < wrong["value"] < wrong["high"]
    assert sum(b["wrong"] for b in wrong["by_words"].values()) == 88
    assert sum(b["pairs"] for b in wrong["by_words"].values()) == 1319
    pairs = read_pairs_parquet(answered / "pairs.parquet")
    swapped = [p for p in pairs if (p.chosen_source, p.rejected_source) == ("student_sft", "teacher")]
    assert len(swapped) == 88
    assert all(p.values["quality"] == (1.0, 0.0) for p in swapped)


def test_the_same_counts_stand_in_status_show_and_report(answered: Path) -> None:
    paired(answered, scorer=SCORER, real_share=1.0, ties="drop")
    assert "wrong pseudo-pairs, by verifiable: 6.7 [" in plad("status", answered)
    assert read_status(answered).pairs == 260 + 88
    assert "swapped by the scorer" in plad("show", answered, "pairs", "-n", "8")
    qualities = {tuple(pair.values["quality"]) for pair in read_pairs_parquet(answered / "pairs.parquet")}
    assert qualities == {(1.0, 0.0)}
    render_report(answered)
    text = (answered / "report/report.md").read_text()
    for line in ("| Student's answer better | 88 |", "| of them both wrong | 773 |", "| All lengths | 6.7 ("):
        assert line in text
    assert "Real preferences, by verifiable" in (answered / "report/index.html").read_text()


def test_a_share_of_gsm8k_is_real(answered: Path) -> None:
    counts = paired(answered, scorer=SCORER, real_share=0.5)
    assert counts["real_prompts"] == 660 == counts["scored"]["pairs"]
    assert counts["swapped"] == counts["scored"]["student_better"]
    assert 25 < counts["swapped"] < 65


def test_dropping_what_the_scorer_calls_wrong_or_undecided_leaves_the_pairs_that_only_the_teacher_gets_right(
    answered: Path,
) -> None:
    counts = paired(answered, scorer=SCORER, real_share=1.0, ties="drop", confidence={"wrong": "drop"})
    assert (counts["pairs"], counts["dropped_wrong"], counts["dropped_tie"]) == (260, 88, 971)


@pytest.mark.parametrize("kind", ["reference", "reward"])
def test_a_metric_or_a_reward_model_puts_its_better_answer_first(answered: Path, kind: str, tmp_path: Path) -> None:
    """Of the first answers of a twentieth of the prompts, judged again one by one."""
    scorer = {"type": kind}
    if kind == "reward":
        bert(tmp_path / "rm")
        scorer["model"] = str(tmp_path / "rm")
    counts = paired(answered, scorer=scorer, real_share=0.05)
    assert counts["real_prompts"] == 66 == counts["scored"]["pairs"]
    assert 0 < counts["swapped"] == counts["scored"]["student_better"] < 66
    real = [p for p in read_pairs_parquet(answered / "pairs.parquet") if "quality" in p.values]
    assert len(real) == 66
    judge = config(answered, scorer=scorer, real_share=0.05).pairs.scorer.open(JudgeResources())  # type: ignore[arg-type]
    truth = {e.id: e.references for e in read_examples_jsonl(answered / "data/distill.jsonl")}
    rows = [Example(p.id, p.prompt, truth[p.id.partition("#")[0]]) for p in real]
    for side, texts in ((0, [p.chosen for p in real]), (1, [p.rejected for p in real])):
        scores = judge.score(rows, texts, [row.references for row in rows])
        assert scores == pytest.approx([p.values["quality"][side] for p in real], abs=1e-4)
    assert all(p.values["quality"][0] >= p.values["quality"][1] for p in real)


CHECKS = '''
def longer(prompt, answer, references):
    """Right where the answer has an even number of characters: some pairs of every run are swapped."""
    return len(answer) % 2 == 0
'''


def test_a_run_with_a_persons_own_function_several_answers_and_a_share_of_the_prompts(tmp_path: Path) -> None:
    task = write_task(
        tmp_path,
        pairs__scorer={"type": "verifiable", "match": "function"},
        pairs__real_share=1.0,
        generate__samples=2,
        generate__share=0.5,
        distill__batch_size=4,
    )
    (tmp_path / "checks.py").write_text(CHECKS)
    verify = ("--verify", f"{tmp_path}/checks.py:longer")
    assert "--verify checks.py:function" in plad("run", task, code=2)
    assert not (tmp_path / "run/sft").exists()
    assert "pairs.scorer: verifiable:" in plad("validate", task, *verify)
    plad("run", task, "--to", "distill", *verify)
    stages = json.loads((tmp_path / "run/manifest.json").read_text())["stages"]
    assert sum(stages["generate"]["counts"]["teacher"].values()) == 6 * 2
    counts = stages["pair"]["counts"]
    assert counts["scored"]["student_better"] == counts["swapped"] > 0
    assert stages["distill"]["counts"]["groups"] <= 6
    (tmp_path / "checks.py").write_text(CHECKS.replace("== 0", "== 1"))
    printed = plad("run", task, "--to", "distill", *verify, code=2)
    assert "stage pair was made with other settings: pairs.scorer.sha256" in printed

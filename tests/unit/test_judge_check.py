"""A judge against people, on labelled pairs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from plad.cli.app import json_text
from plad.config.pairs import PreferenceColumns
from plad.data.preferences import Preference, read_preferences
from plad.errors import PladError
from plad.evaluate.stats import Bootstrap
from plad.extras.reward.judge_check import PANDALM, check, check_view, data_source, read_judge
from plad.records import Example
from tests.support.command import call
from tests.support.judges import bert, first, honest, read, verdict
from tests.support.servers.scripted import Call, Response, serve

DRAWS = Bootstrap(200)


class Numbers:
    """Scores a text by the number in it; "?" can't be judged."""

    name = "numbers"

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        return [None if t == "?" else float(t.split()[0]) for t in texts]

    def describe(self) -> dict[str, Any]:
        return {"type": "numbers"}


def pairs(*rows: tuple[str, str], tie: Sequence[int] = ()) -> list[Preference]:
    return [Preference(str(i), f"P{i}", a, b, i in tie) for i, (a, b) in enumerate(rows)]


def test_accuracy_by_hand() -> None:
    """Right, wrong, a tie of the judge (half), unjudged, a tie of people that it ties too, and one that it doesn't."""
    rows = pairs(("2 long words", "1"), ("1", "2 a"), ("1", "1 x"), ("?", "1"), ("1", "1 y"), ("1", "3"), tie=(4, 5))
    found = check(Numbers(), rows, DRAWS)
    assert (found.accuracy.value, found.accuracy.n) == (0.5, 3)
    assert (found.rows, found.ties, found.unjudged) == (6, 2, 1)
    assert (found.people_ties, found.tied_too) == (2, 1)
    assert found.longer_wins.value == pytest.approx(1 / 3)
    assert (found.kappa.same, found.kappa.n) == (2 / 5, 5)
    said = "\n".join(check_view(found))
    assert "accuracy     50.0 %" in said
    assert "of 2 ties of people it ties 1" in said


def test_a_perfect_judge_and_its_opposite() -> None:
    rows = pairs(*[("2", "1")] * 40)
    assert check(Numbers(), rows, DRAWS).kappa.kappa == pytest.approx(1.0)
    worst = check(Numbers(), pairs(*[("1", "2")] * 40), DRAWS)
    assert worst.accuracy.value == 0.0
    assert worst.kappa.kappa < -0.9


@pytest.mark.parametrize(
    "rows", [pairs(("1", "1 x")), pairs(("?", "1")), pairs(("1", "2"), tie=(0,)), pairs(*[("1", "1 x")] * 9)]
)
def test_all_ties_one_row_and_nothing_judged_give_no_nan(rows: list[Preference]) -> None:
    found = check(Numbers(), rows, DRAWS)
    assert "NaN" not in json_text(found)
    assert list(check_view(found))


def test_the_shipped_data_and_its_licence() -> None:
    found = read_preferences(data_source(PANDALM), PreferenceColumns())
    assert (len(found.rows), found.skipped) == (842, 0)
    folder = Path(data_source(PANDALM)).parent
    assert "Apache License" in (folder / "LICENSE.txt").read_text()
    assert "PandaLM" in (folder / "NOTICE.txt").read_text()


def test_the_side_of_the_better_answer_is_balanced() -> None:
    """A judge that always takes the first place agrees with people by chance alone."""

    class First:
        name = "first"

        def compare(self, examples: Any, ours: Any, theirs: Any, references: Any) -> Any:
            from plad.judges.base import Comparison
            from plad.records import Verdict

            return [Comparison(Verdict.WIN, 1, 0) for _ in ours]

        def describe(self) -> dict[str, Any]:
            return {"type": "first"}

    rows = read_preferences(data_source(PANDALM), PreferenceColumns()).rows
    found = check(First(), rows, DRAWS)
    assert 0.4 < found.accuracy.value < 0.6
    assert abs(found.kappa.kappa) < 0.1


def test_a_judge_is_a_folder_a_file_or_yaml(tmp_path: Path) -> None:
    assert read_judge(str(tmp_path)).type == "reward"
    (tmp_path / "j.yaml").write_text(yaml.safe_dump({"type": "embedding", "model": "m"}))
    assert read_judge(str(tmp_path / "j.yaml")).type == "embedding"
    assert read_judge("{type: verifiable, match: exact}").match == "exact"
    assert read_judge("reference").type == "reference"
    for text, said in (
        ("nothing", "no such folder or file, and no judge"),
        ("{type: oracle}", "type must be embedding or llm or"),
        ("{type: llm, base_url: http://h/v1, modl: x}", "did you mean model?"),
        ("type: [", "JUDGE:1"),
    ):
        with pytest.raises(PladError) as e:
            read_judge(text)
        assert said in str(e.value)


def test_the_command_on_a_reward_model(tmp_path: Path) -> None:
    bert(tmp_path / "rm")
    code, out, err = call("judge-check", tmp_path / "rm", "pandalm", "--limit", "12")
    assert code == 0, err
    assert "judge rm (reward) on 12 labelled pairs" in out
    assert "accuracy" in out


def wordy(call_: Call) -> Response:
    """The longer answer is better."""
    seen = read(call_)
    a, b = map(len, seen.answers.values())
    return verdict(seen.labels[0 if a > b else 1])


def test_the_command_on_an_llm_judge_keeps_its_replies(tmp_path: Path) -> None:
    ledger = tmp_path / "replies.sqlite"
    with serve(wordy) as server:
        judge = yaml.safe_dump({"type": "llm", "base_url": server.url, "model": "wise", "canary_share": 0.0})
        for _ in range(2):
            code, out, err = call("judge-check", judge, "pandalm", "--limit", "30", "--json", "--ledger", ledger)
            assert code == 0, err
            found = json.loads(out)
            assert (found["rows"], found["accuracy"]["n"]) == (30, 8)  # rows, prompts
            assert found["judge"]["position_bias"]["share"] == 0.0
            assert len(server.calls) == 56  # two pairs stand there twice; the second time nothing is asked
    with serve(first) as server:
        judge = yaml.safe_dump({"type": "llm", "base_url": server.url, "model": "wise", "canary_share": 0.0})
        code, out, err = call("judge-check", judge, "pandalm", "--limit", "10", "--ledger", ledger)
        assert code == 0, err
        assert "order decided 100.0 % of its comparisons (first 10, second 0" in out
        assert "accuracy     50.0 %" in out


def test_a_good_judge_agrees_with_people(tmp_path: Path) -> None:
    rows = [{"prompt": f"P{i}", "chosen": "good", "rejected": "bad"} for i in range(20)]
    data = tmp_path / "p.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with serve(honest) as server:
        judge = yaml.safe_dump({"type": "llm", "base_url": server.url, "model": "wise", "canary_share": 0.0})
        code, out, err = call("judge-check", judge, data, "--ledger", tmp_path / "l.sqlite")
    assert code == 0, err
    assert "accuracy     100.0 %" in out
    assert "kappa        1.00" in out

"""A judge of another package: one class behind an entry point is configured, checked and used like plad's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.command import write_package

MODULE = '''
from typing import ClassVar, Literal

from pydantic import Field

from plad.judges.base import JudgeKind


class ShortJudge(JudgeKind):
    """Prefers the answer that is nearer to a length."""

    type: Literal["short"] = "short"
    words: int = Field(gt=0)

    title: ClassVar[str] = "Nearness to a length"

    def open(self, resources):
        return ShortScorer(self.words)

    def check(self, findings, place, rows, *, against_target):
        findings.add("note" if self.words > 50 else "ok", place, f"short: {self.words} words, {len(rows or ())} rows")


class ShortScorer:
    name = "short"

    def __init__(self, words):
        self.words = words

    def score(self, examples, texts, references):
        return [-float(abs(len(text.split()) - self.words)) for text in texts]

    def describe(self):
        return {"type": "short", "rule": "the answer nearer to a length"}
'''
USE = """
import json, sys
from pathlib import Path

from plad.cli.validate.run import validate
from plad.config.file import load_config
from plad.config.judges import JudgeSection
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.extras.reward.judge_check import read_judge
from plad.judges.base import JudgeResources, kind_of
from plad.records import Example, Generation, Outcome

file = Path(sys.argv[1])
(section,) = load_config(file).evaluate.judges
rows = [Example(str(i), "P", ("one two three",)) for i in range(3)]
answers = {e.id: Generation(e.id, 0, text, (1,), Outcome.OK, 1) for e, text in zip(rows, ("a b", "a", "a b c d e"))}
judge = kind_of(section).open(JudgeResources())
metrics, _ = evaluate_systems(rows, {"student": answers}, [judge], bootstrap=Bootstrap(50))
rate = metrics.systems["student"].win_rate["short"]
line = next(line for line in validate(file).lines if line.what == "evaluate.judges.0")
print(json.dumps({
    "section": section.shaping(),
    "inputs": kind_of(section).inputs(),
    "title": JudgeSection.named("short").title,
    "counts": [rate.wins, rate.ties, rate.losses],
    "rule": metrics.judges["short"].rule,
    "line": [line.state, line.detail],
    "command line": read_judge("{type: short, words: 4}").words,
}))
"""


def test_a_judge_of_another_package_is_one_class_behind_an_entry_point(tmp_path: Path) -> None:
    """Two words are wanted; the target has three: "a b" is nearer, "a" as near, five words are further."""
    package = write_package(tmp_path / "site", "short_judge", MODULE, ("plad.judges", "short", "ShortJudge"))
    for split, n in (("train", 20), ("test", 6)):
        rows = [{"prompt": f"{split} {i}", "completion": f"answer {i}"} for i in range(n)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run: {{dir: {tmp_path / 'run'}}}\ndata: {{train: train.jsonl, test: test.jsonl}}\n"
        "teacher: {model: owner/teacher}\nstudent: {model: owner/student}\n"
        "evaluate: {judges: [{type: short, words: 2}]}\n"
    )
    paths = os.pathsep.join([str(package), *sys.path])
    out = subprocess.run(
        [sys.executable, "-c", USE, str(config)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout.splitlines()[-1]) == {
        "section": {"type": "short", "words": 2},
        "inputs": {"type": "short", "words": 2},
        "title": "Nearness to a length",
        "counts": [1, 1, 1],
        "rule": "the answer nearer to a length",
        "line": ["ok", "short: 2 words, 6 rows"],
        "command line": 4,
    }

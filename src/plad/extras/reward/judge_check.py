"""`plad judge-check JUDGE DATA`: how far a judge agrees with people on labelled pairs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from plad.config.file import parse_as, read_mapping
from plad.config.judges import JudgeSection
from plad.data.preferences import Preference
from plad.errors import ConfigError
from plad.evaluate.agreement import agreement
from plad.evaluate.metrics import Agreement, Estimate
from plad.evaluate.stats import Bootstrap, estimate
from plad.extras.reward.facts import percent
from plad.judges.base import Judge, compare
from plad.judges.facts import JudgeFacts
from plad.judges.reward import RewardJudge
from plad.records import Example, Prompt, Verdict

PANDALM = "pandalm"  # names the data that ships with the package
_WAYS = (
    "a reward model's folder, a YAML file with a judge's section, or the section itself, such as\n"
    "'{type: llm, base_url: http://localhost:8000/v1, model: NAME}'"
)


def read_judge(text: str) -> JudgeSection:
    """The section of a judge: from a model folder, a YAML file, or YAML on the command line.

    Raises:
        PladError: all that is wrong with it.
    """
    path = Path(text)
    if path.is_dir():
        return RewardJudge(model=text)
    name, content = (str(path), path.read_text(encoding="utf-8")) if path.is_file() else ("JUDGE", text)
    if name == "JUDGE" and "type:" not in text and JudgeSection.named(text) is not None:
        content = f"type: {text}"
    if name == "JUDGE" and "type:" not in content:
        raise ConfigError("no such folder or file, and no judge", where=text, fix=_WAYS)
    tag = read_mapping(content, name).get("type")
    kind = JudgeSection.named(str(tag))
    if kind is None:
        raise ConfigError(f"type must be {' or '.join(JudgeSection.kinds())}; got {tag}", where=name, fix=_WAYS)
    return parse_as(kind, content, name)


def data_source(text: str) -> str:
    """DATA as `read_preferences` takes it."""
    shipped = files("plad.extras.demo") / "preferences/pandalm.jsonl.gz"
    return str(shipped) if text == PANDALM else text


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """A judge's verdicts held against people's labels.

    Attributes:
        accuracy: over the prompts where people saw a winner, a judge's tie counting half.
        kappa: over all rows.
        people_ties: and, of them, `tied_too`.
        longer_wins: the accuracy of whoever takes the longer answer.
        judge: its name and what it says of itself.
    """

    rows: int
    accuracy: Estimate
    kappa: Agreement
    ties: int
    unjudged: int
    people_ties: int
    tied_too: int
    longer_wins: Estimate
    judge: Mapping[str, object]


def check(judge: Judge, rows: Sequence[Preference], bootstrap: Bootstrap) -> JudgeCheck:
    """Let a judge compare labelled pairs, and hold its verdicts against the labels.

    The better answer stands on either side, by a hash of the row's id, so that a judge's verdicts and people's have
    something to agree on beyond chance.
    """
    swapped = [hashlib.sha256(f"{bootstrap.seed}:{r.id}".encode()).digest()[0] % 2 == 1 for r in rows]
    examples = [Example(r.id, r.prompt, r.references) for r in rows]
    ours = [r.rejected if s else r.chosen for r, s in zip(rows, swapped, strict=True)]
    theirs = [r.chosen if s else r.rejected for r, s in zip(rows, swapped, strict=True)]
    verdicts = compare(judge, examples, ours, theirs, [r.references for r in rows])
    people = [Verdict.TIE if r.tie else Verdict.LOSS if s else Verdict.WIN for r, s in zip(rows, swapped, strict=True)]
    judged = [(r, p, c.verdict) for r, p, c in zip(rows, people, verdicts, strict=True) if c is not None]

    def accuracy(points: Mapping[Prompt, list[float]]) -> Estimate:
        return estimate(np.array([sum(v) / len(v) for v in points.values()], dtype=np.float64), bootstrap)

    right: dict[Prompt, list[float]] = {}
    longer: dict[Prompt, list[float]] = {}
    for row, label, verdict in judged:
        if label is not Verdict.TIE:
            right.setdefault(row.prompt, []).append(0.5 if verdict is Verdict.TIE else float(verdict is label))
            a, b = len(row.chosen.split()), len(row.rejected.split())
            longer.setdefault(row.prompt, []).append(float(a > b) + 0.5 * (a == b))
    return JudgeCheck(
        rows=len(rows),
        accuracy=accuracy(right),
        kappa=agreement([(str(r.prompt), label, verdict) for r, label, verdict in judged], bootstrap),
        ties=sum(v is Verdict.TIE for _, _, v in judged),
        unjudged=len(rows) - len(judged),
        people_ties=sum(p is Verdict.TIE for _, p, _ in judged),
        tied_too=sum(p is Verdict.TIE and v is Verdict.TIE for _, p, v in judged),
        longer_wins=accuracy(longer),
        judge={"name": judge.name, **judge.describe()},
    )


def check_view(result: JudgeCheck) -> Iterator[str]:
    """What `check` found, in lines."""
    judge, kappa = JudgeFacts.model_validate(result.judge), result.kappa
    yield f"judge {result.judge['name']} ({judge.type}) on {result.rows:,} labelled pairs"
    yield f"accuracy     {percent(result.accuracy)} over {result.accuracy.n:,} prompts, its ties count half"
    value = "not defined" if kappa.kappa is None else f"{kappa.kappa:.2f}"
    if kappa.low is not None and kappa.high is not None:
        value += f" [{kappa.low:.2f}, {kappa.high:.2f}]"
    same = "-" if kappa.same is None else f"{100 * kappa.same:.1f} %"
    yield f"kappa        {value}; the same verdict as people in {same}"
    yield f"longer wins  {percent(result.longer_wins)}: what counting words would reach"
    ties = f"; of {result.people_ties:,} ties of people it ties {result.tied_too:,}" if result.people_ties else ""
    yield f"ties {result.ties:,}, unjudged {result.unjudged:,}{ties}"
    bias = judge.position_bias
    if bias is not None and bias.share is not None:
        yield (
            f"order decided {100 * bias.share:.1f} % of its comparisons (first {bias.prefers_first:,}, "
            f"second {bias.prefers_second:,}, tie in one order {bias.tie_in_one_order:,})"
        )
    for reason, n in judge.unjudged.items():
        yield f"unjudged: {n:,} {reason}"
    if judge.truncated:
        yield f"{judge.truncated:,} of {judge.scored:,} inputs were cut off"

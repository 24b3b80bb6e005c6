"""Run directories as text: what `status`, `show` and `compare` print."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from plad.report.console import panel, table
from plad.text import clean, fold

if TYPE_CHECKING:
    from rich.console import RenderableType

    from plad.cli.validate import Validation
    from plad.extras.sweep.report import Found

Metrics = Mapping[str, Any]


def status_view(status: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    """Stages, counts and versions."""
    rows = []
    now = next((s["stage"] for s in status["stages"] if not s["done"]), None) if status["running"] else None
    for stage in status["stages"]:
        if stage["done"]:
            counts = {k: v for k, v in stage["counts"].items() if k not in ("wrong", "scorer")}
            rows.append((stage["stage"], "done", f"{stage['seconds']:,.1f}", _flat(counts)))
        else:
            rows.append((stage["stage"], "running" if stage["stage"] == now else "pending", "", ""))
    yield table(status["run"], ["stage", "state", "seconds", "counts"], rows, numbers=False)
    if status["running"]:
        yield f"in use by {status['running']}"
    if status["pairs"] is not None:
        yield f"pairs: {status['pairs']:,}"
    yield from _wrong_pairs(next((s["counts"] for s in status["stages"] if s["stage"] == "pair" and s["done"]), {}))
    for system, outcomes in status["generations"].items():
        yield f"answers of {system}: {_flat(outcomes)}"
    if status["latest"]:
        yield fold(f"latest metrics: {_flat(status['latest'])}")
    if status["versions"]:
        yield "versions: " + ", ".join(f"{k} {v}" for k, v in status["versions"].items())


def _wrong_pairs(counts: Mapping[str, Any]) -> Iterator[str]:
    """Share of pseudo-pairs that the scorer calls wrong, overall and by words of the student's answer."""
    wrong = counts.get("wrong")
    if wrong and wrong["n"]:
        share = f"{_interval(wrong, 100)} % of {wrong['pairs']:,} judged pairs"
        yield f"wrong pseudo-pairs, by {counts['scorer']['name']}: {share}"
        yield "  by words: " + ", ".join(f"{k} {_interval(s, 100)} (n {s['n']})" for k, s in wrong["by_words"].items())


def ledger_view(found: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    """Answers by system: outcomes, tokens, cost, attempts, and what providers said."""
    rows = [
        (
            f"{s['system']} ({s['engine']})",
            _flat({k: f"{v:,}" for k, v in s["outcomes"].items()}),
            f"{s['prompt_tokens']:,} + {s['completion_tokens']:,}",
            "-" if s["usd"] is None else f"{s['usd']:.4f}",
            f"{s['attempts']:,}",
            f"{s['seconds']:.2f}",
        )
        for s in found["systems"]
    ]
    columns = ["system (engine)", "answers", "tokens in + out", "US dollars", "requests", "seconds each"]
    yield table(found["run"], columns, rows, numbers=False)
    if found["shared"]:
        yield f"got by this run; the shared ledger {found['ledger']} holds {found['answers_in_ledger']:,} answers"
    for s in found["systems"]:
        name = s["system"]
        if s["models"]:
            yield f"{name} was served by: " + ", ".join(f"{model} {n:,}" for model, n in s["models"].items())
        if s["estimated"]:
            yield f"{name}: tokens of {s['estimated']:,} answers are estimated, the provider counted none"
        if s["lost"]:
            yield f"{name}: {s['lost']:,} requests brought no answer and may be billed all the same"
        for message in s["said"]:
            yield fold(f"{name}, missing: {message}")


def _flat(value: Mapping[str, Any], prefix: str = "", depth: int = 2) -> str:
    """`a 1, b.c 2`: two levels deep, a group of zeros as one."""
    parts = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            zeros = item and all(v == 0 for v in item.values())
            inner = f"{prefix}{key} 0" if zeros else _flat(item, f"{prefix}{key}.", depth - 1)
            parts.append(inner if depth > 1 else "")
        else:
            parts.append(f"{prefix}{key} {item:.4g}" if isinstance(item, float) else f"{prefix}{key} {item}")
    return ", ".join(p for p in parts if p)


def example_view(row: Mapping[str, Any]) -> "RenderableType":
    """One pair, generation or judgement."""
    if "verdict" in row:
        scores = f"{row['score']:.4g} : {row['opponent_score']:.4g}"
        title = f"{row['example_id']}: {row['judge']} says {row['verdict']} ({scores})"
        answers = [(row["system"], row["answer"]), (row["opponent"], row["opponent_answer"])]
        return panel(title, [(name, text if text is not None else "(text not kept)") for name, text in answers])
    prompt = [("prompt", _prompt(row["prompt"]))] if row["prompt"] is not None else []
    if "chosen" in row:
        texts = [(_side(row, index, side), row[side]) for index, side in enumerate(("chosen", "rejected"))]
        swapped = row["chosen_source"] != "teacher" and row["rejected_source"] == "teacher"
        return panel(row["id"] + (": swapped by the scorer" if swapped else ""), [*prompt, *texts])
    title = f"{row['example_id']} sample {row['sample']}: {row['outcome']}, {row['tokens']} tokens"
    return panel(title, [*prompt, (row["system"], row["text"])])


def _side(pair: Mapping[str, Any], index: int, side: str) -> str:
    """`chosen (teacher, similarity 2.5)`: whose text it is, and what was measured of it."""
    measured = [f"{name.replace('_', ' ')} {both[index]:.4g}" for name, both in pair["values"].items()]
    return f"{side} ({', '.join([pair[f'{side}_source'], *measured])})"


def _prompt(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def compare_view(runs: Mapping[str, Metrics]) -> Iterator["RenderableType | str"]:
    """Systems x metrics over runs, with 95 % intervals, and what each student gained."""
    judges = dict.fromkeys(j for m in runs.values() for s in m["systems"].values() for j in s.get("win_rate", {}))
    for judge in judges:
        rows = [
            (*_name(run, system, runs), *_win_rate(s["win_rate"][judge]))
            for run, m in runs.items()
            for system, s in m["systems"].items()
            if judge in s.get("win_rate", {})
        ]
        yield table(f"win rate against the human target, judge {judge} (%)", ["", "value [95 %]", "n", "w/t/l"], rows)
    rows = [
        (*_name(run, system, runs), *(_percent(s.get(m)) for m in ("rouge1", "rouge2", "rougeL")), _words(s), _share(s))
        for run, metrics in runs.items()
        for system, s in metrics["systems"].items()
    ]
    yield table("texts", ["", "ROUGE-1", "ROUGE-2", "ROUGE-L", "words", "cut off"], rows)
    for difference in dict.fromkeys(d for m in runs.values() for d in m.get("differences", {})):
        rows = [
            (f"{run} {metric}" if len(runs) > 1 else metric, *_gain(value, metric))
            for run, m in runs.items()
            for metric, value in _metrics(m.get("differences", {}).get(difference, {}))
        ]
        yield table(f"{difference}, paired over prompts", ["", "value [95 %]", "n", "p"], rows)
    for run, m in runs.items():
        yield from (f"{run}: {warning}" for warning in m.get("warnings", []))


def _name(run: str, system: str, runs: Mapping[str, Metrics]) -> tuple[str]:
    return (f"{run} {system}" if len(runs) > 1 else system,)


def _metrics(difference: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for metric, value in difference.items():
        if metric == "win_rate":
            yield from ((f"win rate, {judge}", v) for judge, v in value.items())
        else:
            yield metric, value


def _interval(e: Mapping[str, Any], scale: float, sign: str = "") -> str:
    if e.get("value") is None:
        return "-"
    text = f"{e['value'] * scale:{sign}.1f}"
    if e.get("low") is None or e.get("high") is None:
        return text
    return f"{text} [{e['low'] * scale:{sign}.1f}, {e['high'] * scale:{sign}.1f}]"


def _win_rate(e: Mapping[str, Any]) -> tuple[str, str, str]:
    return _interval(e, 100), str(e["n"]), f"{e['wins']}/{e['ties']}/{e['losses']}"


def _gain(e: Mapping[str, Any], metric: str) -> tuple[str, str, str]:
    p = e.get("p")
    return _interval(e, 1 if metric == "words" else 100, "+"), str(e.get("n", "")), "" if p is None else f"{p:.3g}"


def _percent(e: Mapping[str, Any] | None) -> str:
    return "-" if e is None or e.get("value") is None else f"{e['value'] * 100:.1f}"


def _words(system: Mapping[str, Any]) -> str:
    value = (system.get("words") or {}).get("value")
    return "-" if value is None else f"{value:.1f}"


def _share(system: Mapping[str, Any]) -> str:
    value = system.get("truncated")
    return "-" if value is None else f"{value:.1%}"


def sweep_view(found: "Found") -> Iterator["RenderableType | str"]:
    """The trials of a sweep, the best, and how to go on with it."""
    rows = [[f"{c.text} [{c.detail}]" if c.detail else c.text for c in row] for row in found.trials.rows]
    yield table(found.trials.title, found.trials.columns, rows)
    yield clean(found.headline)
    yield from (clean(note) for note in found.notes)
    if found.command:
        yield clean(found.command)


def validation_view(found: "Validation") -> Iterator[str]:
    """One line a finding, then what was not checked."""
    for finding in found.findings:
        yield clean(f"{finding.state:<6}{finding.what}: {finding.detail}")
    yield "not checked:"
    for line in found.not_checked:
        yield clean(f"  - {line}")

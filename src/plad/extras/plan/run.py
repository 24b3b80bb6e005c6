"""The plan of a run: what is asked, what it may cost, how long it takes at least, what memory and disk it needs."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plad.answers.fill import count_recorded
from plad.answers.ledger import Ledger
from plad.answers.paid import is_paid, spent
from plad.answers.question import AnswerSet, Sampling
from plad.config.engines import Endpoint
from plad.config.file import load_config
from plad.config.root import Config
from plad.data.prepare import Prepared, prepare
from plad.extras.plan.answers import Asking, Judging, askings, distill_rows, judgings
from plad.extras.plan.lines import Line, budget_stop, wall_times
from plad.extras.plan.sizes import memory_and_disk
from plad.extras.plan.tokens import Counter, by_bytes, counter_of, mean_target, prompt_bytes
from plad.records import Outcome
from plad.rundir.directory import STAGES, RunDir, check_place, ledger_of, read_manifest

_LENGTHS = {Outcome.OK, Outcome.TRUNCATED}  # outcomes whose lengths tell something of further answers


@dataclass
class _Known:
    """What a run that was started has already.

    Attributes:
        done: stages that need nothing more; `changed` was made with other settings.
        spent: US dollars and tokens taken from providers.
        rows: the ledger by system, served model and outcome.
    """

    ledger: Any = None
    ctx: Any = None
    done: set[str] = field(default_factory=set)
    changed: str | None = None
    spent: tuple[float, int] = (0.0, 0)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def mean_completion(self, system: str) -> float | None:
        """Mean tokens of a system's recorded answers."""
        rows = [r for r in self.rows if r["system"] == system and r["outcome"] in _LENGTHS]
        answers = sum(r["answers"] for r in rows)
        return sum(r["completion_tokens"] for r in rows) / answers if answers else None

    def latency(self, system: str) -> float | None:
        """Mean seconds of an answer that a system got over the network."""
        rows = [r for r in self.rows if r["system"] == system and is_paid(r["engine"]) and r["attempts"]]
        answers = sum(r["answers"] for r in rows)
        return sum(r["seconds"] * r["answers"] for r in rows) / answers if answers else None


def plan(path: Path, overrides: Sequence[str] = (), *, skip_invalid: bool = False) -> dict[str, Any]:
    """Plan a run without asking, loading or writing anything.

    Raises:
        PladError: config or data are wrong; all problems in one.
    """
    config = load_config(path, overrides)
    base = path.parent
    prepared = prepare(config, base=base, skip_invalid=skip_invalid)
    check_place(config.run.dir)
    endpoints = dict(config.endpoints())
    with _known(config, base) as known:
        counters = {role: counter_of(config, role, base) for role in ("teacher", "student_sft")}
        lines = [
            *(_answers(a, config, known, counters) for a in askings(config, prepared)),
            *(_verdicts(j, known) for j in judgings(config, prepared)),
        ]
        lines.sort(key=lambda line: STAGES.index(line.stage))
        latency = {place: s for place in endpoints if (s := known.latency(_asked_at(place, config))) is not None}
        found = {
            "run": str(config.run.dir),
            "prompts": _prompts(config, prepared),
            "done": [s for s in STAGES if s in known.done],
            "lines": [_line(line, endpoints) for line in lines],
            "tokens": {name: counter.how for name, counter in counters.items()},
            "usd": _usd(lines, endpoints),
            "unpriced": [p for p, e in endpoints.items() if e.price is None and any(ln.place == p for ln in lines)],
            "spent": {"usd": known.spent[0], "tokens": known.spent[1]},
            "budget": _budget(config, lines, endpoints, known),
            "time": list(wall_times(lines, endpoints, latency)),
            "notes": [known.changed] if known.changed else [],
        }
    answers = sum(line.new for line in lines if line.split != "validation")
    texts = sum(line.completion_tokens for line in lines if line.split != "validation")
    return found | memory_and_disk(config, prepared, base, counters, answers, texts, gpu=_has_gpu())


@contextlib.contextmanager
def _known(config: Config, base: Path) -> Iterator[_Known]:
    """What the run directory and its ledger hold; nothing where neither is there."""
    run = config.run.dir
    manifest = read_manifest(run) if (run / "manifest.json").is_file() else {"stages": {}, "id": ""}
    file = Path(config.generate.ledger).expanduser() if config.generate.ledger else ledger_of(run, {})
    with contextlib.ExitStack() as stack:
        known = _Known()
        from plad.pipeline.context import Context

        known.ctx = Context(config, RunDir(run, manifest), base)
        if manifest["stages"]:
            known.done, known.changed = _done(known.ctx)
        if file.is_file():
            known.ledger = stack.enter_context(Ledger(file, readonly=True))
            known.spent = spent(known.ledger, manifest["id"])
            known.rows = known.ledger.summary()
        yield known


def _done(ctx: Any) -> tuple[set[str], str | None]:
    """The stages that the same command would pass over, and why the next is not one of them."""
    from plad.errors import PladError
    from plad.pipeline.run import inputs

    done: set[str] = set()
    for stage in STAGES:
        try:
            if not ctx.run.is_done(stage, inputs(ctx, stage)):
                return done, None
        except PladError as e:
            return done, e.what
        done.add(stage)
    return done, None


def _prompts(config: Config, prepared: Prepared) -> dict[str, int]:
    used = {"distill": len(distill_rows(config, prepared))}
    return {name: used.get(name, len(getattr(prepared, name))) for name in ("sft", "distill", "validation", "test")}


def _asked_at(place: str, config: Config) -> str:
    """The system whose answers an endpoint gives."""
    if place == "teacher.engine":
        return "teacher"
    judge = config.pairs.scorer if place == "pairs.scorer" else config.evaluate.judges[int(place.rpartition(".")[2])]
    return _judge_name(judge)


def _judge_name(judge: Any) -> str:
    return f"judge {judge.model.rpartition('/')[2]}"


def _answers(a: Asking, config: Config, known: _Known, counters: dict[str, Counter]) -> Line:
    role = "teacher" if a.system == "teacher" or (a.stage == "sft" and not a.kept) else "student_sft"
    counter = counters[role]
    held = _held(a, config, known)
    new = {e.id: a.samples - held.get(e.id, 0) for e in a.rows}
    n = sum(new.values())
    engine = config.teacher.engine
    paid = a.system == "teacher" and engine.paid
    free = a.system == "teacher" and not (engine.paid or engine.local)
    each, basis = _expected(a, known, counter)
    prompt = sum(new[e.id] * counter.prompt(e) for e in a.rows if new[e.id])
    most = prompt if counter.exact else sum(new[e.id] * counter.most(e) for e in a.rows if new[e.id])
    return Line(
        a.stage,
        a.system,
        a.split,
        "teacher.engine" if paid else None,
        a.samples * len(a.rows),
        a.samples * len(a.rows) - n,
        0 if free else prompt,
        0 if free else round(n * each),
        0 if free else most,
        0 if free else n * a.max_new_tokens,
        engine.behind if free else basis,
    )


def _held(a: Asking, config: Config, known: _Known) -> dict[str, int]:
    """Answers to each row that the run would not ask for again."""
    if a.stage in known.done:
        return {e.id: a.samples for e in a.rows}
    weights = _weights(a.system, config, known) if a.kept else None
    if weights is None or known.ledger is None:
        return {}
    sampling = Sampling(a.temperature, a.max_new_tokens, a.samples)
    return count_recorded(a.rows, AnswerSet(a.system, weights, sampling, config.run.seed), known.ledger)


def _weights(system: str, config: Config, known: _Known) -> str | None:
    """Fingerprint of who answers; None where the stage that makes it is not done."""
    made_by = {"teacher": "sft", "student_sft": "sft", "student": "distill"}
    stage = "distill" if system.startswith("student_round_") else made_by.get(system, "baselines")
    ready = system == "teacher" and not config.teacher.sft
    if not ready and stage not in known.done:
        return None
    from plad.errors import PladError
    from plad.pipeline.context import weights

    try:
        return weights(known.ctx, system)
    except PladError:  # a model that isn't there; validate says so
        return None


def _expected(a: Asking, known: _Known, counter: Counter) -> tuple[float, str]:
    """Tokens that an answer is expected to have, and why."""
    mean = known.mean_completion(a.system) if a.kept else None
    if mean is not None:
        return min(mean, a.max_new_tokens), "the ledger"
    target = mean_target(a.rows, counter)
    return (a.max_new_tokens, "max_new_tokens") if target is None else (min(target, a.max_new_tokens), "the targets")


def _verdicts(j: Judging, known: _Known) -> Line:
    """Two questions a comparison: rubric, prompt and both answers."""
    from plad.judges.question import RUBRICS, ask

    done = j.stage in known.done
    questions = 0 if done else 2 * j.each
    counter = by_bytes("")
    rubric = j.judge.rubric or RUBRICS[j.judge.task]
    answer = mean_target(j.rows, counter)
    expected = min(j.answer_tokens if answer is None else answer, j.answer_tokens)
    fixed = len(j.rows) * prompt_bytes(ask("", "", "", rubric=rubric, salt="").messages)
    own = sum(prompt_bytes(e.prompt) for e in j.rows)
    mean = known.mean_completion(_judge_name(j.judge))
    reply = j.judge.max_new_tokens if mean is None else min(mean, j.judge.max_new_tokens)
    total = questions * len(j.rows)
    return Line(
        j.stage,
        _judge_name(j.judge),
        j.split,
        j.place,
        2 * j.each * len(j.rows),
        2 * j.each * len(j.rows) - total,
        round(questions * (fixed + own) / 4 + total * 2 * expected),
        round(total * reply),
        questions * (fixed + own) + total * 2 * j.answer_tokens,
        total * j.judge.max_new_tokens,
        "max_new_tokens" if mean is None else "the ledger",
    )


def _line(line: Line, endpoints: dict[str, Endpoint]) -> dict[str, Any]:
    usd = line.usd(endpoints[line.place]) if line.place else None
    return asdict(line) | {"new": line.new, "usd": usd and usd[0], "most_usd": usd and usd[1]}


def _usd(lines: Sequence[Line], endpoints: dict[str, Endpoint]) -> dict[str, float]:
    found = [usd for line in lines if line.place and (usd := line.usd(endpoints[line.place])) is not None]
    return {"expected": sum(u[0] for u in found), "most": sum(u[1] for u in found)}


def _budget(
    config: Config, lines: Sequence[Line], endpoints: dict[str, Endpoint], known: _Known
) -> dict[str, Any] | None:
    if config.budget is None:
        return None
    found: dict[str, Any] = config.budget.model_dump()
    for name, worst in (("expected", False), ("worst", True)):
        stop = budget_stop(config.budget, lines, endpoints, known.spent, worst=worst)
        found[name] = stop and {
            "limit": stop.limit,
            "stage": stop.line.stage,
            "system": stop.line.system,
            "answers": stop.answers,
            "of": stop.line.new,
        }
    return found


def _has_gpu() -> bool:
    """Whether an NVIDIA GPU is there and not hidden, without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return sys.platform == "linux" and not hidden and any(Path("/dev").glob("nvidia[0-9]*"))

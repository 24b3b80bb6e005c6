"""What was distilled into what, how much smaller and faster it is, against SeqKD, and what to try next."""

from plad.answers.speed import Speed
from plad.config.evaluation import SEQKD
from plad.evaluate.deciding import decision
from plad.evaluate.metrics import Metrics, ModelFacts
from plad.records import STUDENT, TEACHER
from plad.report.parts.blocks import Block, Cell, Code, ReportSection, Table, Text, blocks, group
from plad.report.parts.estimates import evidence
from plad.report.parts.formatting import DASH, flatten, harmless, number, system_name
from plad.report.parts.measures import corrected, difference_of, judges_of
from plad.report.parts.next_steps import next_steps
from plad.report.parts.run_facts import RunFacts
from plad.report.parts.usage import folder_lines, python_lines
from plad.report.parts.verdict import beats
from plad.report.sections.costs import dollars

NOTE = Text(
    "Tokens a second: of the evaluated answers as they were sampled, several at once, on the machine of the run with "
    "whatever else it did; each model counts its own tokens. Seconds an answer: the median, with the answers beside it."
)
PRECISION = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def distilled(facts: RunFacts) -> ReportSection | None:
    """Teacher and student side by side, SeqKD, and what to try next; None before the evaluation."""
    m = facts.metrics
    if m is None or not {TEACHER, STUDENT} & m.systems.keys():
        return None
    steps = next_steps(facts)
    nothing = Text("Nothing in this run's figures asks for a change.", tone="")
    shown = blocks(
        Text(comparison(facts), tone="lead"),
        models_table(facts),
        NOTE,
        against_seqkd(facts, m),
        group("Try next", [Text(step, tone="") for step in steps] or nothing),
        group("Use it", use_it(facts), folded=True),
    )
    return ReportSection("models", "What was distilled", "Models", shown)


def use_it(facts: RunFacts) -> tuple[Block, ...]:
    """Lines to paste in the run's directory; none before there is a student."""
    if facts.max_new_tokens is None or facts.metrics is None or STUDENT not in facts.metrics.systems:
        return ()
    lines = {"Python, with transformers": python_lines("student", facts.max_new_tokens, seq2seq=facts.seq2seq)}
    lines |= folder_lines("student", facts.max_new_tokens, seq2seq=facts.seq2seq)
    words = "In the run's directory; for llama.cpp and Ollama, plad export --to gguf writes the file and says how."
    shown = [block for tool, code in lines.items() for block in (Text(f"{tool}:", "", tone=""), Code(code))]
    return (Text(words, "student/README.md has lines to paste for Python and vLLM.", tone=""), *shown)


def models_table(facts: RunFacts) -> Table:
    """Teacher and student: what they are, how fast, and what their answers cost."""
    paid = any(measured.usd is not None for measured in facts.speeds.values())
    rows = tuple(
        (Cell(system_name(s)), *_model_cells(_model(facts, s)), *_speed_cells(facts.speeds.get(s))[: 3 if paid else 2])
        for s in (TEACHER, STUDENT)
    )
    columns = ("System", "Model", "Parameters", "Layers", "Size on disk", "Tokens a second", "Seconds an answer")
    columns = (*columns, *(("Cost of 1,000 answers",) if paid else ()))
    return Table("What was distilled", columns, rows, mine=system_name(STUDENT))


def comparison(facts: RunFacts) -> str:
    """How many times smaller and faster the student is, as far as both were measured in the same way."""
    teacher, student = (_model(facts, s) for s in (TEACHER, STUDENT))
    parts = [
        _times(teacher.parameters, student.parameters, "fewer parameters", "more parameters"),
        _times(teacher.disk, student.disk, "smaller on disk", "larger on disk"),
    ]
    fast, slow = facts.speeds.get(STUDENT), facts.speeds.get(TEACHER)
    if fast and slow and fast.engine == slow.engine:
        parts += [_times(fast.tokens_a_second, slow.tokens_a_second, "the tokens a second", "fewer tokens a second")]
    known = [part for part in parts if part]
    names = f"{_short(student)}, distilled from {_short(teacher)}"
    return f"{names}: {', '.join(known)}." if known else f"{names}."


def _short(model: ModelFacts) -> str:
    """The name without the folders before it."""
    return harmless(model.name.rstrip("/").rpartition("/")[2])


def _times(more: float | None, less: float | None, up: str, down: str) -> str:
    if not more or not less:
        return ""
    times, word = (more / less, up) if more >= less else (less / more, down)
    return f"{number(times)} times {word}"


def _model(facts: RunFacts, system: str) -> ModelFacts:
    """What is recorded; of earlier versions' runs the name alone."""
    recorded = facts.metrics.models.get(system) if facts.metrics else None
    return recorded or ModelFacts(name=dict(flatten(facts.config)).get(f"{system}.model", "unknown"))


def _model_cells(model: ModelFacts) -> tuple[Cell, ...]:
    dtype = "" if model.dtype is None else PRECISION.get(model.dtype, model.dtype)
    return (
        Cell(_short(model)),
        Cell(DASH if model.parameters is None else f"{number(model.parameters, scale=1e-6)} M"),
        Cell(number(model.layers, digits=0)),
        Cell(DASH) if model.disk is None else Cell(f"{number(model.disk, scale=1e-6, digits=0)} MB", dtype),
    )


def _speed_cells(speed: Speed | None) -> tuple[Cell, ...]:
    if speed is None:
        return (Cell(DASH),) * 3
    rate = speed.tokens_a_second
    asked = f"{speed.answers:,} answers"
    return (
        Cell(DASH, "too quick to measure" if speed.each else "") if rate is None else Cell(number(rate), asked),
        Cell(number(speed.each, digits=2) if speed.each else DASH),
        Cell(dollars(None if speed.usd is None else 1000 * speed.usd / speed.answers)),
    )


def against_seqkd(facts: RunFacts, metrics: Metrics) -> tuple[Block, ...]:
    """How the student stands against the simplest of all methods; or that nobody looked, and how to."""
    if dict(flatten(facts.config)).get("distill.objective.type") == "sft":
        return (Text("The student is SeqKD itself: it was trained on the teacher's answers alone.", tone=""),)
    found, decides = metrics.difference(STUDENT, SEQKD), decision(metrics)
    duel = decides.duel(SEQKD)
    measures = {f"win_rate/{j}": f"win rate by judge {harmless(j)}" for j in judges_of(metrics)} | {"rougeL": "ROUGE-L"}
    known = [
        (name, corrected(e)) for m, name in measures.items() if (e := difference_of(found, m)) and e.value is not None
    ]
    if not known and duel is None:
        text = (
            "Not compared with SeqKD, plain training on the teacher's answers: whether preferences add to it is open."
        )
        command = f"plad compare CONFIG --methods {SEQKD}"
        return Text(f"{text} This trains it beside the student:", f"{text} {command} trains it.", tone=""), Code(
            command
        )
    figures = "; ".join(f"{name} {number(e.value, scale=100, sign=True)} points ({evidence(e)})" for name, e in known)
    won = f"the student {beats(decides, duel, SEQKD)})" if duel else ""
    said = "; ".join(filter(None, (won, figures)))
    return (Text(f"Against SeqKD, plain training on the teacher's answers: {said}.", tone=""),)

"""The model card of a distilled student: README.md of its folder."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from plad.config.models import PruneInit
from plad.config.root import Config
from plad.evaluate.metrics import Estimate, Metrics, SystemFigures
from plad.records import STUDENT
from plad.report.markdown import escape, table_text
from plad.report.parts.formatting import METRICS
from plad.report.parts.measures import TEXT_METRICS, WORDS, judge_settings
from plad.report.parts.run_facts import RunFacts
from plad.report.parts.usage import folder_lines, python_lines
from plad.report.parts.verdict import verdict
from plad.report.sections.calibration import calibration_sentences, calibration_table
from plad.report.sections.distilled import comparison
from plad.report.sections.results import differences_table, results_table
from plad.text import redact


def _method(config: Config) -> str:
    init = config.student.init
    start = f" cut down to {init.layers} layers" if isinstance(init, PruneInit) else ""
    lora = config.lora_for(config.distill, config.student)
    trained = f"LoRA of rank {lora.r}, alpha {lora.alpha:g}, merged afterwards" if lora else "all weights"
    return "\n".join(
        f"- {line}"
        for line in (
            f"Student: {escape(shown_name(config.student.model))}{start}, first fine-tuned on human targets.",
            f"Teacher: {escape(shown_name(config.teacher.model))}{_teacher(config)}.",
            "Pairs: the teacher's answer is preferred to the fine-tuned student's, both sampled at temperature "
            f"{config.generate.temperature:g} with at most {config.generate.max_new_tokens} tokens (PLaD, "
            "arXiv 2406.02886).",
            f"Objective: {config.distill.objective.describe()}.",
            f"Training: {trained}; {config.distill.epochs:g} epoch(s), learning rate "
            f"{config.distill.learning_rate:g}, batch {config.distill.batch_size}, seed {config.run.seed}.",
        )
    )


def _data(config: Config, facts: RunFacts) -> str:
    sentences = [f"Training data: {escape(shown_name(config.data.train))}."]
    if facts.counts("data"):
        sentences.append(f"{facts.data.sft:,} rows for fine-tuning, {facts.data.distill:,} for distillation.")
    if facts.counts("pair"):
        sentences.append(f"{facts.pair.pairs:,} of {facts.pair.candidates:,} sampled pairs were kept.")
    return " ".join(sentences)


def _results(metrics: Metrics | None) -> list[str]:
    if metrics is None:
        return ["Not evaluated yet."]
    v, differences, likelihoods = verdict(metrics), differences_table(metrics), calibration_table(metrics)
    about = "Test set, win rate against the human target and ROUGE F1 in %, with 95 % intervals:"
    parts = [f"**{escape(v.headline)}.** {escape(v.sentence)}", *map(escape, v.notes)]
    parts += [about, table_text(results_table(metrics))]
    if differences is not None:
        parts += ["Paired differences:", table_text(differences)]
    if likelihoods is not None:
        parts += [f"Likelihoods: {escape(' '.join(calibration_sentences(metrics)).strip())}", table_text(likelihoods)]
    return [*parts, "How it was measured:", _evaluated(metrics)]


_LIMITS = """\
- It was trained for one task and one prompt format; on anything else expect little.
- It learnt from its teacher's answers, errors and biases included, and was not checked for safety.
- Judges and ROUGE measure likeness and preference, not truth: check facts before you rely on an answer.
- The figures hold for test data like the training data; the intervals say how sure they are."""


def _use(max_new_tokens: int, *, seq2seq: bool) -> list[str]:
    """Lines to paste, each tool's in a block of its own."""
    blocks = [f"```python\n{python_lines('.', max_new_tokens, seq2seq=seq2seq)}\n```"]
    for tool, commands in folder_lines(".", max_new_tokens, seq2seq=seq2seq).items():
        blocks += [f"{tool}:", f"```sh\n{commands}\n```"]
    return blocks


def _licence(facts: RunFacts) -> str | None:
    """Of the base model, as its card names it."""
    model = facts.metrics.models.get(STUDENT) if facts.metrics else None
    return model.licence if model else None


def _licence_words(licence: str | None) -> str:
    if licence is None:
        return "Not chosen yet: set `license` above, in agreement with the licences of the base model and the data."
    return f"{escape(licence)} is the base model's; whether the data allow it too, their licence says."


def _evaluated(metrics: Metrics) -> str:
    """How the figures were made: every judge with its rule, n, intervals."""
    method = metrics.method
    prompts = f"{metrics.n:,} test prompts; {method.get('interval')}, {method.get('resamples'):,} resamples; one seed"
    return "\n".join(
        f"- {escape(line)}."
        for line in (prompts, *(f"Judge {j}: {_described(d)}" for j, d in judge_settings(metrics).items()))
    )


def _described(judge: Mapping[str, str]) -> str:
    return "; ".join(f"{k} {shown_name(v) if k == 'model' else v}" for k, v in judge.items())


def _teacher(config: Config) -> str:
    if not config.teacher.local:
        return f", as it answers behind {config.teacher.engine.behind}"
    return ", fine-tuned on the same targets" if config.teacher.sft else ", as it is"


def card_text(config: Config, facts: RunFacts, *, seq2seq: bool = False) -> str:
    """The card: what, from what, how, how good, and what to mind.

    Args:
        config: of the run.
        facts: what its stages counted and measured.
        seq2seq: whether the student is an encoder-decoder model.

    Returns:
        Markdown with the hub's YAML front matter. Paths of this machine don't appear in it.
    """
    student, teacher = shown_name(config.student.model), shown_name(config.teacher.model)
    settings = config.student.prompt
    prompt = f"template {settings.template!r}" if settings.template else f"{settings.format} format"
    system = f", system message {settings.system!r}" if settings.system else ""
    parts = [
        _front_matter(config, facts, seq2seq=seq2seq),
        f"# {escape(student)}, distilled from {escape(teacher)}",
        "A small language model for one task, made with plad by preference-based distillation.",
        "## Use",
        "In the model's folder (or with its name on the hub in place of the dot):",
        *_use(config.evaluation_max_new_tokens, seq2seq=seq2seq),
        f"Prompts: {escape(prompt + system)}, which the tokenizer's chat template writes. Answers were evaluated at "
        f"up to {config.evaluation_max_new_tokens} tokens.",
        "## Results",
        *_results(facts.metrics),
        "## Data",
        _data(config, facts),
        "## Method",
        _method(config),
        *([f"Size and speed: {escape(comparison(facts))}"] if facts.metrics else []),
        "## Limits",
        _LIMITS,
        "## Licence",
        f"{_licence_words(_licence(facts))} This model learnt from the answers of {escape(teacher)}: check the "
        "teacher's terms before you publish.",
    ]
    return redact("\n\n".join(parts) + "\n")


def hub_name(name: str) -> str | None:
    """`owner/name` if it can be one; None for folders and files of this machine."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(".") or name.endswith(".gguf"):
        return None
    return None if Path(name).exists() else name


def shown_name(name: str) -> str:
    """A model or data file as a stranger may see it: the hub name, or the last part of a path."""
    return hub_name(name) or Path(name).name or name


def _front_matter(config: Config, facts: RunFacts, *, seq2seq: bool) -> str:
    """The YAML between the card's rules: licence, base model, data, and the student's figures as `model-index`."""
    base, dataset = hub_name(config.student.model), hub_name(config.data.train.partition(":")[0])
    results = _model_index(config, facts.metrics) if facts.metrics else []
    data = ModelCardData(
        license=_licence(facts) or "other",
        library_name="transformers",
        pipeline_tag="text2text-generation" if seq2seq else "text-generation",
        tags=["plad", "distillation", "preference-distillation"],
        base_model=base,
        base_model_relation="finetune" if base else None,
        datasets=[dataset] if dataset else None,
        model_name=shown_name(config.student.model) if results else None,
        eval_results=results or None,
    )
    head = data.to_yaml()  # pyright: ignore[reportUnknownMemberType]  # a parameter has no type
    return f"---\n{redact(head)}\n---"


def _model_index(config: Config, metrics: Metrics) -> list[EvalResult]:
    """The student's figures as the hub reads them."""
    student = metrics.systems.get(STUDENT, SystemFigures())
    figures: list[tuple[str, str, Estimate | None]] = [
        *(("win_rate", f"Win rate against the human target, judge {j}", e) for j, e in student.win_rate.items()),
        *((m.lower(), f"{METRICS[m]} F1", student.metric(m)) for m in TEXT_METRICS if m != WORDS),
    ]
    test = config.data.test.partition(":")[0] if config.data.test else "test"
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=hub_name(test) or "custom",
            dataset_name=shown_name(test),
            dataset_split="test",
            metric_type=kind,
            metric_name=f"{name}, %",
            metric_value=round(100 * e.value, 2),
            metric_args={"n": e.n, **_interval(e)},
        )
        for kind, name, e in figures
        if e is not None and e.value is not None
    ]


def _interval(e: Estimate) -> dict[str, list[float]]:
    if e.low is None or e.high is None:
        return {}
    return {"interval_95": [round(100 * e.low, 2), round(100 * e.high, 2)]}

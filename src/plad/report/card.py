"""The model card of a distilled student: README.md of its folder."""

from collections.abc import Mapping
from typing import Any

from plad.config.models import PruneInit
from plad.config.root import Config
from plad.report.card_metadata import front_matter, shown_name
from plad.report.markdown import escape, table_text
from plad.report.sections.calibration import calibration_said, calibration_table
from plad.report.sections.tables import differences_table, results_table
from plad.report.sections.verdict import verdict
from plad.rundir.manifest import Manifest
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


def _data(config: Config, manifest: Manifest) -> str:
    counts, pairs = manifest.counts("data"), manifest.counts("pair")
    said = [f"Training data: {escape(shown_name(config.data.train))}."]
    if counts:
        said.append(f"{counts['sft']:,} rows for fine-tuning, {counts['distill']:,} for distillation.")
    if pairs:
        said.append(f"{pairs.get('pairs', 0):,} of {pairs.get('candidates', 0):,} sampled pairs were kept.")
    return " ".join(said)


def _results(metrics: Mapping[str, Any] | None) -> list[str]:
    if metrics is None:
        return ["Not evaluated yet."]
    found = verdict(metrics)
    parts = [f"**{escape(found.headline)}.** {escape(found.sentence)}", *(escape(n) for n in found.notes)]
    parts += [
        "Test set, win rate against the human target and ROUGE F1 in %, with 95 % intervals:",
        table_text(results_table(metrics)),
    ]
    if metrics["differences"]:
        parts += ["Paired differences:", table_text(differences_table(metrics))]
    likelihoods = calibration_table(metrics)
    if likelihoods is not None:
        parts += [f"Likelihoods: {escape(' '.join(calibration_said(metrics)))}", table_text(likelihoods)]
    return parts


_LIMITS = """\
- It was trained for one task and one prompt format; on anything else expect little.
- It learnt from its teacher's answers, errors and biases included, and was not checked for safety.
- Judges and ROUGE measure likeness and preference, not truth: check facts before you rely on an answer.
- The figures hold for test data like the training data; the intervals say how sure they are."""

_USE = """\
```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = {auto}.from_pretrained("path/to/this/folder")
```"""


def _evaluated(metrics: Mapping[str, Any]) -> str:
    """How the figures were made: every judge with its rule, n, intervals."""
    method = metrics["method"]
    judges = [f"- Judge {escape(j)}: {escape(_described(d))}." for j, d in method.get("judges", {}).items()]
    said = f"{metrics['n']:,} test prompts; {method['interval']}, {method['resamples']:,} resamples; one seed"
    return "\n".join([f"- {escape(said)}.", *judges])


def _described(judge: Mapping[str, Any]) -> str:
    shown = {k: shown_name(v) if k == "model" else v for k, v in judge.items() if isinstance(v, str)}
    return "; ".join(f"{k} {v}" for k, v in shown.items())


def _teacher(config: Config) -> str:
    if not config.teacher.local:
        return f", as it answers behind {config.teacher.engine.behind}"
    return ", fine-tuned on the same targets" if config.teacher.sft else ", as it is"


def card_text(config: Config, manifest: Manifest, metrics: Mapping[str, Any] | None, *, seq2seq: bool = False) -> str:
    """The card: what, from what, how, how good, and what to mind.

    Args:
        config: of the run.
        manifest: of the run, for its stages' counts.
        metrics: contents of eval/metrics.json, or None before the evaluation.
        seq2seq: whether the student is an encoder-decoder model.

    Returns:
        Markdown with the hub's YAML front matter. Paths of this machine don't appear in it.
    """
    student, teacher = shown_name(config.student.model), shown_name(config.teacher.model)
    settings = config.student.prompt
    prompt = f"template {settings.template!r}" if settings.template else f"{settings.format} format"
    system = f", system message {settings.system!r}" if settings.system else ""
    parts = [
        front_matter(config, metrics, seq2seq=seq2seq),
        f"# {escape(student)}, distilled from {escape(teacher)}",
        "A small language model for one task, made with plad by preference-based distillation.",
        "## Use",
        _USE.format(auto="AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM"),
        f"Prompts: {escape(prompt + system)}. Answers were evaluated at up to "
        f"{config.evaluation_max_new_tokens} tokens.",
        "## Results",
        *_results(metrics),
        *(["How it was measured:", _evaluated(metrics)] if metrics else []),
        "## Data",
        _data(config, manifest),
        "## Method",
        _method(config),
        "## Limits",
        _LIMITS,
        "## Licence",
        "Not chosen yet: set `license` above, in agreement with the licences of the student's base model and the data. "
        f"This model learnt from the answers of {escape(teacher)}: check the teacher's terms before you publish.",
    ]
    return redact("\n\n".join(parts) + "\n")

"""Everything that can be found wrong with a run before a model is loaded, and what can't be found that way."""

import importlib.util
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from plad.cli.validate_teacher import check_teacher
from plad.config.distillation import LogitObjective, MiniLlmObjective
from plad.config.engines import VllmEngine
from plad.config.file import load_config
from plad.config.judges import EmbeddingJudge, LlmJudge, ReferenceJudge, RewardJudge, VerifiableJudge
from plad.config.models import ModelSection
from plad.config.root import Config
from plad.data.prepare import Prepared, check
from plad.data.sources import locate
from plad.errors import ConfigError, DataError, PladError, PolicyError, ProblemsError
from plad.policy.resolve import local_folder
from plad.records import Example
from plad.rundir.directory import check_place

if TYPE_CHECKING:
    from plad.policy.prompt import PromptFormat

State = Literal["ok", "note", "error", "skip"]
NEVER_CHECKED = (
    "that the weights load and fit into memory",
    "that the answers are any good: look at `plad show RUN generations` after a first `plad run CONFIG --limit 32`",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, how it is, and the details."""

    state: State
    what: str
    detail: str


@dataclass
class Validation:
    """Everything found.

    Attributes:
        not_checked: what stayed out of reach, with the reason.
    """

    findings: list[Finding] = field(default_factory=list)
    problems: list[PladError] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def add(self, state: State, what: str, detail: str) -> None:
        """Add a line."""
        self.findings.append(Finding(state, what, detail))

    def fail(self, what: str, problems: Iterable[PladError]) -> None:
        """Add problems, and a line that counts them."""
        flat = [q for p in problems for q in (p.problems if isinstance(p, ProblemsError) else (p,))]
        self.problems += flat
        self.add("error", what, f"{len(flat)} problem{'s' * (len(flat) != 1)}, below")


def validate(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    skip_invalid: bool = False,
    verify: str | None = None,
    online: bool = False,
) -> Validation:
    """Check a config with all it names: schema, run directory, data, tokenizers, lengths, extras.

    Only tokenizers and configurations of models are read, and only the file of a function is looked at. Nothing is
    downloaded.

    Args:
        online: send one request to a teacher behind an endpoint.
    """
    found = Validation()
    try:
        config = load_config(path, overrides)
    except PladError as e:
        found.fail("config", [e])
        found.not_checked.append("anything else: the config has to be right first")
        return found
    found.add("ok", "config", str(path))
    base = path.parent
    _check_run_dir(found, config)
    prepared = _check_data(found, config, base, skip_invalid)
    _check_policies(found, config, base, prepared, online=online)
    _check_vocabularies(found, config, base)
    _check_texts(found, config, base)
    _check_judges(found, config, base, prepared, verify)
    _check_sweep(found, path, overrides)
    found.not_checked += NEVER_CHECKED
    return found


def _check_run_dir(found: Validation, config: Config) -> None:
    try:
        check_place(config.run.dir)
    except PladError as e:
        found.fail("run directory", [e])
        return
    used = (config.run.dir / "manifest.json").is_file()
    found.add("ok", "run directory", f"{config.run.dir} ({'continues' if used else 'new'})")


def _check_data(found: Validation, config: Config, base: Path, skip_invalid: bool) -> Prepared | None:
    prepared, problems = check(config, base=base, skip_invalid=skip_invalid)
    if prepared is None:
        found.fail("data", problems)
        found.not_checked.append("prompts against tokenizers and contexts: the data has to be right first")
        return None
    c = prepared.counts
    found.add(
        "ok",
        "data",
        f"{c['sft']} rows for fine-tuning, {c['distill']} for distillation, "
        f"{c['validation']} for validation, {c['test']} for test; no prompt in two of them",
    )
    for name, words in (
        ("skipped", "unusable rows skipped"),
        ("duplicate_prompts", "prompts that stand twice, kept"),
        ("overlap", "rows left out because their prompt stands in another file"),
    ):
        counts = {split: n for split, n in c[name].items() if n}
        if counts:
            found.add("note", "data", f"{words}: " + ", ".join(f"{split} {n}" for split, n in counts.items()))
    if not prepared.validation:
        found.add("note", "data.validation", "none: the last weights of the distillation are kept, not the best")
    return prepared


def _check_policies(found: Validation, config: Config, base: Path, prepared: Prepared | None, *, online: bool) -> None:
    for role in ("teacher", "student"):
        if role == "teacher" and not config.teacher.local:
            check_teacher(found, config, base, prepared, online=online)
            continue
        section: ModelSection = getattr(config, role)
        section = section.model_copy(update={"model": locate(section.model, base)})
        try:
            if role == "teacher" and isinstance(config.teacher.engine, VllmEngine):
                from plad.sampling.vllm import require_vllm

                require_vllm()
                _check_gpu(found)
            folder = local_folder(section.model, section.revision)
            if folder is None:
                found.not_checked.append(f"{role} {section.model}: {_why_not(section.model)}")
                found.add("skip", role, f"{section.model} (see below)")
                continue
            _check_policy(found, config, role, section, folder, prepared)
        except PladError as e:
            where = e.where if e.where and e.where.startswith(role) else f"{role}: {e.where}" if e.where else role
            named = PolicyError(e.what, where=where, fix=e.fix)
            found.fail(role, [named])


def _check_gpu(found: Validation) -> None:
    from plad.policy.device import choose_device

    device, _ = choose_device()
    if device.type != "cuda":
        found.add("note", "teacher.engine", "vllm, but no GPU is seen here; engine transformers runs without one")


def _check_vocabularies(found: Validation, config: Config, base: Path) -> None:
    """Objectives on logits need one vocabulary; where a policy has problems already, they come first."""
    if found.problems or not any(isinstance(objective, LogitObjective) for objective in config.objectives):
        return
    from plad.pipeline.students.teacher_logits import check_logits

    sections = [s.model_copy(update={"model": locate(s.model, base)}) for s in (config.student, config.teacher)]
    if any(local_folder(s.model, s.revision) is None for s in sections):
        found.not_checked.append("that teacher and student have one vocabulary, which objectives on logits need")
        return
    try:
        check_logits(config.objectives, *sections)
    except PladError as e:
        found.fail("vocabularies", [e])
    else:
        found.add("ok", "vocabularies", "teacher and student have the same tokens")


def _check_texts(found: Validation, config: Config, base: Path) -> None:
    """Plain text that an objective reads beside the data."""
    files = [o.pretraining for o in config.objectives if isinstance(o, MiniLlmObjective) and o.pretraining is not None]
    missing = [file for name in files if not Path(file := locate(name, base)).is_file()]
    if missing:
        found.fail("pretraining", [DataError("no such file", where=file, fix="check pretraining") for file in missing])


def _why_not(model: str) -> str:
    if model.endswith(".gguf"):
        return "its tokenizer and the lengths (the file is converted when the run starts)"
    return "no such folder here, so taken for a hub model; nothing was downloaded to look at it"


def _check_policy(
    found: Validation, config: Config, role: str, section: ModelSection, folder: Path, prepared: Prepared | None
) -> None:
    from plad.policy.context import context_of
    from plad.policy.folder import check_init, read_format
    from plad.policy.lora import read_adapter
    from plad.policy.resolve import is_adapter

    weights = local_folder(read_adapter(folder).base, None) if is_adapter(folder) else folder
    if weights is None:
        found.not_checked.append(f"{role}: the adapter's base model is not on this machine")
        return
    prompt, notes, model = read_format(folder, weights, section.prompt)
    found.add("ok", role, "; ".join([section.model, *notes]))
    check_init(getattr(section, "init", None), model, role)
    if prepared is not None:
        _check_lengths(found, config, role, prompt, prepared, *context_of(model))


def _check_lengths(
    found: Validation,
    config: Config,
    role: str,
    prompt: "PromptFormat",
    prepared: Prepared,
    context: int | None,
    apart: bool,
) -> None:
    from plad.policy.context import fits

    lengths = {
        name: [(len(prompt.encode_prompt(e.prompt)), e) for e in getattr(prepared, name)]
        for name in ("sft", "distill", "validation", "test")
    }
    longest = max(n for rows in lengths.values() for n, _ in rows)
    if context is None:
        found.add("ok", f"{role}: lengths", f"longest prompt {longest} tokens; the model states no limit")
        return
    answers = {"distill": config.generate.max_new_tokens}
    answers |= dict.fromkeys(("validation", "test"), config.evaluation_max_new_tokens)
    over = {name: sum(not fits(n, answers[name], context, apart=apart) for n, _ in lengths[name]) for name in answers}
    targets = [(n, _target_tokens(prompt, e)) for n, e in lengths["sft"]]
    longer = config.sft.max_length or math.inf
    over["sft"] = sum(not fits(n, t, context, apart=apart) or n + t > longer for n, t in targets)
    total = sum(over.values())
    state = "note" if total else "ok"
    found.add(
        state,
        f"{role}: lengths",
        f"longest prompt {longest} tokens, context {context}; {total} rows don't fit with their answer"
        + (f" ({', '.join(f'{k} {n}' for k, n in over.items() if n)}): counted and left out" if total else ""),
    )
    for name, rows in lengths.items():
        if rows and over[name] == len(rows):
            raise PolicyError(
                f"no row of {name} fits: the longest prompt has {longest} tokens, the context {context}",
                where=role,
                fix="use a model with a longer context, or shorter prompts\nor lower generate.max_new_tokens",
            )


def _target_tokens(prompt: "PromptFormat", example: Example) -> int:
    return len(prompt.encode_completion(example.target or ""))


def _check_judges(found: Validation, config: Config, base: Path, prepared: Prepared | None, verify: str | None) -> None:
    named = [(f"evaluate.judges.{i}", judge) for i, judge in enumerate(config.evaluate.judges)]
    if config.pairs.scorer is not None:
        named.append(("pairs.scorer", config.pairs.scorer))
        if not config.pairs.scores:
            found.add("note", "pairs.scorer", "has nothing to do: pairs.real_share is 0 and pairs.select is all")
    for name, judge in named:
        rows = None if prepared is None else prepared.distill if name == "pairs.scorer" else prepared.test
        if isinstance(judge, ReferenceJudge | EmbeddingJudge) and rows is not None:
            found.findings += _reference_judge(name, judge.type, rows, against_target=name != "pairs.scorer")
        if isinstance(judge, VerifiableJudge):
            _check_verifiable(found, name, judge.verified_by(verify), rows)
        if isinstance(judge, LlmJudge):
            _check_llm(found, name, judge)
        if isinstance(judge, RewardJudge | EmbeddingJudge):
            model = locate(judge.model, base)
            try:
                folder = local_folder(model, judge.revision)
            except PladError as e:
                found.fail(name, [PolicyError(e.what, where=f"{name}.model: {e.where or model}", fix=e.fix)])
                continue
            if folder is None:
                found.not_checked.append(f"{name} {model}: whether the hub has it (it is not on this machine)")
            else:
                found.add("ok", name, model)
                if judge.type == "reward":
                    found.not_checked.append(f"{name} {model}: that it has exactly one output")


def _check_sweep(found: Validation, path: Path, overrides: Sequence[str]) -> None:
    from plad.extras.sweep.space import Space

    section = load_config(path, overrides).sweep
    if section is None:
        return
    problems = Space(path, tuple(overrides), section).check()
    if problems:
        found.fail("sweep", problems)
        return
    if importlib.util.find_spec("optuna") is None:
        found.add("note", "sweep", "plad sweep needs the package optuna: pip install 'plad[tune]'")
    found.add("ok", "sweep", f"settings to try: {len(section.space)}, each value looked at by itself")


def _check_llm(found: Validation, name: str, judge: LlmJudge) -> None:
    from plad.remote.transport import api_key, require_client

    try:
        require_client()
        api_key(judge)
    except PladError as e:
        found.fail(name, [e])
        return
    found.add("ok", name, f"llm: {judge.model} at {judge.base_url}; two questions a comparison")
    found.not_checked.append(f"{name}: that {judge.base_url} answers, and replies in JSON; nothing was sent")


def _check_verifiable(found: Validation, name: str, judge: VerifiableJudge, rows: Sequence[Example] | None) -> None:
    from plad.judges.verifiable import needs_function, verifiable_rows

    try:
        needs_function(judge)
        if judge.match == "function":
            found.add("ok", name, f"verifiable: {judge.function}")
            found.not_checked.append(f"{name}: what {judge.function} does; it was not imported")
        elif rows is not None:
            able = verifiable_rows(judge, rows)
            said = f"{able} of {len(rows)} rows have a reference with something to compare"
            if not able:
                raise ConfigError(said, where=name, fix="another match, markers or pattern")
            found.add("ok" if able == len(rows) else "note", name, f"verifiable: {said}")
    except PladError as e:
        found.fail(name, [e])


def _reference_judge(name: str, kind: str, test: Sequence[Example], *, against_target: bool) -> Iterator[Finding]:
    judged = sum(len(e.references) > against_target for e in test)
    if not against_target:
        yield Finding("ok", name, f"{kind}: {judged} of {len(test)} distillation rows have a reference")
    elif judged == len(test):
        yield Finding("ok", name, f"{kind}: every test row has a reference beside its target")
    else:
        said = f"{kind}: only {judged} of {len(test)} test rows have a reference beside their target"
        yield Finding("note", name, f"{said}; the others are not judged")

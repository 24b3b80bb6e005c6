"""Objectives on logits: one vocabulary, one prompt format, and a config that can be carried out."""

from pathlib import Path
from typing import Any

import pytest

from plad.cli.validate.run import validate
from plad.config.file import load_config
from plad.config.models import DistillSection, PromptSection
from plad.config.objectives import named_objective
from plad.distillers.distillm import DistillmObjective
from plad.distillers.f_distill import FDistillObjective
from plad.distillers.gkd import GkdObjective
from plad.distillers.kd import KdObjective
from plad.distillers.logits.losses import Document
from plad.distillers.minillm import MiniLlmObjective
from plad.distillers.samples.documents import documents
from plad.errors import ConfigError, DataError, PolicyError
from plad.objectives.sft import SftObjective
from plad.pairs.texts import texts_of_pairs, with_targets
from plad.pipeline import run as pipeline
from plad.pipeline.students import student
from plad.pipeline.students import teacher_logits as logits
from plad.policy.vocabulary import require_same_format, require_same_vocabulary
from plad.records import Pair
from plad.rundir.directory import open_run
from plad.scoring.score import Route
from tests.support.task import write_task
from tests.support.tiny_models import tiny_folder, tiny_policy, train_tokenizer


def test_the_same_vocabulary_passes() -> None:
    require_same_vocabulary(train_tokenizer(), train_tokenizer())


def test_another_vocabulary_is_refused_with_a_token_and_what_works_instead() -> None:
    with pytest.raises(PolicyError) as caught:
        require_same_vocabulary(train_tokenizer(["other words entirely"], vocab_size=280), train_tokenizer())
    said = str(caught.value)
    assert "different vocabularies" in said
    assert "the teacher's token" in said
    assert "PLaD (rank, margin) and SeqKD (sft)" in said


def test_a_larger_vocabulary_that_agrees_on_all_it_shares_is_another_one() -> None:
    larger = train_tokenizer()
    larger.add_tokens(["<extra>"])
    with pytest.raises(PolicyError, match="300 and 301 tokens"):
        require_same_vocabulary(larger, train_tokenizer())


def test_another_prompt_format_is_refused_by_what_differs() -> None:
    ours = tiny_policy(prompt=PromptSection(separator=" ")).prompt.describe()
    theirs = tiny_policy().prompt.describe()
    require_same_format(ours, ours)
    with pytest.raises(PolicyError, match=r"separator '' and ' '"):
        require_same_format(ours, theirs)


def other_student(folder: Path) -> str:
    """A model with another tokenizer, beside the task's."""
    tiny_folder(folder / "other", tokenizer=train_tokenizer(["other words entirely"], vocab_size=280))
    return "student={model: other, lora: null}"


def test_other_vocabularies_are_found_by_validation_and_before_anything_is_trained(tmp_path: Path) -> None:
    config, student = write_task(tmp_path), other_student(tmp_path)
    assert not validate(config, [student]).problems
    changes = [student, "distill.objective={type: gkd}"]
    (problem,) = validate(config, changes).problems
    loaded = load_config(config, changes)
    with open_run(loaded.run.dir) as opened, pytest.raises(PolicyError) as caught:
        pipeline.run(loaded, opened, base=tmp_path, to="sft")
    for error in (problem, caught.value):
        assert "different vocabularies" in str(error)
        assert "PLaD (rank, margin) and SeqKD (sft)" in str(error)
    assert not (tmp_path / "run/sft").exists()


def test_a_teacher_that_gives_text_alone_is_refused_with_what_works(tmp_path: Path) -> None:
    config = write_task(tmp_path)
    teacher = "teacher={model: someone, engine: {type: file, path: answers.jsonl}}"
    with pytest.raises(ConfigError, match=r"gkd needs the teacher's logits.*PLaD \(rank, margin\) and SeqKD"):
        load_config(config, [teacher, "distill.objective={type: gkd}"])
    load_config(config, [teacher])


def test_stored_logits_know_no_fresh_samples() -> None:
    with pytest.raises(ValueError, match="student_samples: cached"):
        FDistillObjective(teacher_logits="cached")
    FDistillObjective(teacher_logits="cached", student_samples="cached")
    FDistillObjective(teacher_logits="cached", divergence="kl")


def test_objectives_on_logits_have_names() -> None:
    assert named_objective("f_distill-tvd") == FDistillObjective(divergence="tvd")
    assert named_objective("kd-teacher") == KdObjective(text="teacher")


def pair(number: str, **texts: Any) -> Pair:
    return Pair(id=f"row#{number}", prompt="Q", **texts)


def test_texts_are_told_apart_by_who_wrote_them() -> None:
    """A pair that a scorer turned round, and two that share a text."""
    policy = tiny_policy()
    pairs = [
        pair("0-0", chosen="good", rejected="bad", chosen_source="teacher", rejected_source="student_sft",
             rejected_token_ids=(9, 8, 2)),
        pair("1-0", chosen="bad", rejected="fine", chosen_source="student_sft", rejected_source="teacher",
             chosen_token_ids=(9, 8, 2)),
    ]  # fmt: skip
    (group,) = texts_of_pairs(pairs, policy.prompt)
    good, fine = (tuple(policy.prompt.encode_completion(t)) for t in ("good", "fine"))
    assert group.completions == (good, fine, (9, 8, 2))
    assert group.chosen == 2
    (target,) = with_targets([group], {"row": "target"}, policy.prompt)
    assert target.completions == (tuple(policy.prompt.encode_completion("target")),)
    assert with_targets([group], {"row": None}, policy.prompt) == []


def test_seqkd_learns_what_the_teacher_said_whatever_a_scorer_preferred() -> None:
    """A pair that a scorer turned round; a warm-up learns what is preferred; a file's preferred texts are the best."""
    policy = tiny_policy()
    own = {"chosen": "bad", "rejected": "fine", "chosen_source": "student_sft", "rejected_source": "teacher"}
    file = {"chosen": "good", "rejected": "poor", "chosen_source": "file", "rejected_source": "file"}
    settings = DistillSection(objective=SftObjective())

    def learnt(preferred: bool, **texts: Any) -> list[tuple[tuple[int, ...], ...]]:
        nothing: Any = None
        job = student.StudentJob(nothing, {}, "seqkd", settings, [pair("0-0", **texts)], nothing, preferred)
        _, encoded, _ = student._groups(job, policy)
        return [g.completions for g in encoded.groups]

    good, bad, fine = ((tuple(policy.prompt.encode_completion(t)),) for t in ("good", "bad", "fine"))
    assert learnt(False, **own) == [fine]
    assert learnt(True, **own) == [bad]
    assert learnt(False, **file) == learnt(True, **file) == [good]
    with pytest.raises(DataError, match="no pair holds an answer of the teacher"):
        learnt(False, **{**own, "rejected_source": "student_sft"})


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (KdObjective(), (True, False)),
        (FDistillObjective(divergence="rkl"), (False, False)),
        (FDistillObjective(student_samples="cached"), (True, True)),
        (FDistillObjective(), (True, False)),
        (GkdObjective(), (True, False)),
        (GkdObjective(student_share=1), (False, False)),
        (DistillmObjective(), (True, True)),
        (DistillmObjective(student_share=1), (False, True)),
        (MiniLlmObjective(), (False, False)),
    ],
)
def test_an_objective_asks_for_no_text_that_it_never_reads(objective: Any, wanted: tuple[bool, bool]) -> None:
    assert (objective.texts.teacher, objective.texts.student) == wanted


def test_the_teacher_goes_where_it_is_wanted_in_the_type_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second device is needed for this: a model on `meta` has no weights at all."""
    asked: list[Any] = []

    def teacher(ctx: Any, role: str, *, dtype: str | None) -> Any:
        asked.append((role, dtype))
        return tiny_policy()

    monkeypatch.setattr(logits, "fine_tuned", teacher)
    monkeypatch.setattr("plad.scoring.head.check_head", lambda *_: None)
    monkeypatch.setattr("plad.scoring.score.checked_route", lambda *_: Route.SEGMENTS)
    wanted = KdObjective(teacher_dtype="bfloat16").model_copy(update={"teacher_device": "meta"})
    for objective, place in ((wanted, "meta"), (KdObjective(), "cpu")):
        live = logits._live(None, objective.needs.logits, tiny_policy(), None)  # type: ignore[arg-type]
        assert {p.device.type for p in live.model.parameters()} == {place}
        assert not any(p.requires_grad for p in live.model.parameters())
    assert asked == [("teacher", "bfloat16"), ("teacher", None)]


def test_plain_text_that_isnt_there_is_found_before_a_run(tmp_path: Path) -> None:
    config = write_task(tmp_path, evaluate__baselines=[{"type": "minillm", "pretraining": "corpus.txt"}])
    assert [p.what for p in validate(config).problems] == ["no such file"]
    (tmp_path / "corpus.txt").write_text("some words")
    assert validate(config).problems == []


def test_documents_are_cut_into_stretches_that_predict_something() -> None:
    tokenizer = train_tokenizer()
    ids = tokenizer.encode("a small model that learns", add_special_tokens=False)
    found = documents(["a small model that learns", "a"], tokenizer, 4)
    assert all(isinstance(d, Document) for d in found)
    assert [t for d in found for t in (*d.prompt, *d.completions[0])] == ids[: len(ids) - (len(ids) % 4 == 1)]
    assert max(len(d.prompt) + len(d.completions[0]) for d in found) == 4

"""Training on a policy's own samples: live weights, no gradient through sampling, resumed runs equal straight ones."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plad.config.models import LoraSection, TrainSettings
from plad.config.objectives import ObjectiveSection
from plad.distillers.f_distill import FDistillObjective
from plad.distillers.gkd import GkdObjective
from plad.distillers.logits.compare import LiveTeacher
from plad.distillers.logits.losses import Document, Rollout
from plad.distillers.logits.policy_gradient import importance, returns, rewards, whiten
from plad.distillers.minillm import MiniLlmObjective
from plad.distillers.samples.rollouts import MixedTexts, PolicyRollouts, Sampler, TextSource, batches_of_a_set
from plad.policy.load import Policy, attach
from plad.sampling.draw import Request
from plad.sampling.sample import sample
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from plad.train.run import TrainingJob, train_policy
from tests.support.tiny_models import tiny_model, tiny_policy
from tests.support.training_runs import Emitting, groups

MINILLM = MiniLlmObjective(rollouts=8, ppo_epochs=2)


def student(lora: bool = True) -> Policy:
    """A student with an adapter that does something."""
    torch.manual_seed(3)
    policy = tiny_policy()
    if not lora:
        return policy
    policy = attach(policy, LoraSection(dropout=0.3))
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return policy


def teacher() -> LiveTeacher:
    return LiveTeacher(tiny_model("llama", 300, layers=3, seed=1, initializer_range=0.3), Route.SEGMENTS)


def sampler(policy: Policy, teacher: LiveTeacher | None = None, mix: float = 0.0) -> Sampler:
    return Sampler(policy, "method", 1.0, 5, 3, seed=7, teacher=teacher, mix=mix)


def policy_rollouts(
    draws: Sampler, live: LiveTeacher, section: MiniLlmObjective, documents: Sequence[Document] = ()
) -> PolicyRollouts:
    return PolicyRollouts(
        draws,
        live,
        Route.SEGMENTS,
        groups(),
        section.rewarding(),
        section.ppo_epochs,
        batch_size=4,
        batches=2,
        seed=7,
        document_weight=section.pretraining_weight,
        documents=documents,
    )


def rollouts(policy: Policy, section: MiniLlmObjective = MINILLM, **options: Any) -> PolicyRollouts:
    live = teacher()
    draws = sampler(policy, live, section.teacher_mix)
    return policy_rollouts(draws, live, section, **options)


# -- what is sampled ------------------------------------------------------------------------------


def test_samples_come_from_the_policy_as_it_is_adapter_included() -> None:
    policy = student()
    before = sampler(policy).draw(0, groups())
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-3)
    after = sampler(policy).draw(0, groups())
    assert before != after
    merged: dict[str, tuple[int, ...]] = {}
    requests = [Request(str(i), g.prompt, 5, 0.0, 0) for i, g in enumerate(groups())]
    plain = policy.model.merge_and_unload()  # type: ignore[operator]
    greedy = Sampler(policy, "method", 0.0, 5, 3, seed=7).draw(0, groups())
    sample(plain, requests, slots=3, eos_ids=(2,), on_finish=lambda r, t, s: merged.__setitem__(r.key, t))
    assert greedy == [merged[str(i)] for i in range(len(groups()))]


def test_a_sample_depends_on_step_and_prompt_not_on_company() -> None:
    policy, rows = student(), groups()
    whole = dict(zip([g.id for g in rows], sampler(policy).draw(3, rows), strict=True))
    few = sampler(policy).draw(3, rows[5:1:-1])
    assert few == [whole[g.id] for g in rows[5:1:-1]]
    assert sampler(policy).draw(4, rows) != list(whole.values())
    twice = sampler(policy).draw(3, [rows[0], rows[0]])
    assert twice[0] == whole[rows[0].id]
    assert twice[0] != twice[1]


def test_counts_are_of_texts_ended_and_tokens() -> None:
    draws = sampler(student())
    texts = draws.draw(0, groups())
    assert draws.counts() == {
        "texts": 24,
        "ended": sum(t[-1] == 2 for t in texts),
        "tokens": sum(map(len, texts)),
    }


def test_sampling_leaves_mode_gradients_and_torchs_generator_alone() -> None:
    policy = student()
    policy.model.train()
    state = torch.get_rng_state()
    rollouts(policy).texts(0, [])
    assert policy.model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad == ("lora_" in n) for n, p in policy.model.named_parameters())


# -- which texts a step takes ---------------------------------------------------------------------


def test_teachers_students_or_both() -> None:
    rows = groups()[:3]
    own = [(text,) for text in sampler(student()).draw(2, rows)]

    def taken(**options: Any) -> list[Group]:
        return MixedTexts(seed=7, sampler=sampler(student()), **options).texts(2, rows)

    assert [g.completions for g in taken(share=0.0, both=False)] == [g.completions[:1] for g in rows]
    assert [g.completions for g in taken(share=1.0, both=False)] == own
    assert [g.chosen for g in taken(share=1.0, both=False)] == [0, 0, 0]
    both = taken(share=1.0, both=True)
    assert [g.completions for g in both] == [(*g.completions[:1], *o) for g, o in zip(rows, own, strict=True)]
    assert [g.chosen for g in both] == [1, 1, 1]
    cached = MixedTexts(1.0, False, 7).texts(2, rows)
    assert [g.completions for g in cached] == [g.completions[1:] for g in rows]


def test_the_share_of_steps_on_students_texts() -> None:
    source = MixedTexts(0.3, False, seed=7)
    taken = []
    for step in range(1000):
        source.texts(step, groups()[:1])
        taken.append(source.metrics()["student_text"])
    assert sum(taken) / 1000 == pytest.approx(0.3, abs=0.04)
    again = MixedTexts(0.3, False, seed=7)
    again.texts(5, groups()[:1])
    assert again.metrics()["student_text"] == taken[5]


# -- rollouts of MiniLLM --------------------------------------------------------------------------


def test_a_set_is_passed_over_in_other_orders_and_then_sampled_anew() -> None:
    source = rollouts(student())
    steps = [source.texts(step, []) for step in range(8)]
    ids = [[g.id for g in step] for step in steps]
    assert sorted(ids[0] + ids[1]) == sorted(ids[2] + ids[3])
    assert ids[0] + ids[1] != ids[2] + ids[3]
    assert not {*ids[0], *ids[1]} & {*ids[4], *ids[5]}
    by_id = {g.id: g.completions for step in steps[:2] for g in step}
    assert all(by_id[g.id] == g.completions for step in steps[2:4] for g in step)
    assert source.sampler.counts()["texts"] == 16


def test_all_prompts_come_once_before_any_comes_twice() -> None:
    source = rollouts(student(), MiniLlmObjective(rollouts=8, ppo_epochs=1))
    ids = [g.id for step in range(12) for g in source.texts(step, [])]
    assert sorted(ids[:24]) == sorted(g.id for g in groups())
    assert sorted(ids[24:]) == sorted(g.id for g in groups())
    assert ids[:24] != ids[24:]


@pytest.mark.parametrize("section", [MINILLM, MiniLlmObjective(ppo_epochs=2, whiten=False, own_reward=True)])
def test_what_is_measured_of_a_rollout(section: MiniLlmObjective) -> None:
    """Against the plain steps of the method, one text at a time, dropout off; whitened over the step's tokens."""
    policy = student()
    source = rollouts(policy, section)
    policy.model.train()
    taken = source.texts(0, [])
    policy.model.eval()
    raw: list[Tensor] = []
    for g in taken:
        assert isinstance(g, Rollout)
        plain = Group(g.id, g.prompt, g.completions)
        with torch.no_grad():
            q, p = (score(m, [plain]).logps.double() for m in (policy.model, source.teacher.model))
        torch.testing.assert_close(torch.tensor(g.old_logps).double(), q, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(g.weights).double(), importance(p, q, 0.2), rtol=1e-4, atol=1e-5)
        raw.append(returns(rewards(p, q, scaling=0.5, clip=100), own_reward=section.own_reward))
    expected = whiten(torch.cat(raw)) if section.whiten else torch.cat(raw)
    found = torch.tensor([a for g in taken if isinstance(g, Rollout) for a in g.advantages]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_documents_weigh_as_much_as_the_rollouts() -> None:
    """Their scaled token losses add up to (rollout tokens) x (mean cross-entropy) x weight."""
    documents = [Document(f"d{i}", (3,), (tuple(range(4, 6 + i)),), chosen=0) for i in range(3)]
    source = rollouts(student(), replace_section(MINILLM, pretraining_weight=0.5), documents=documents)
    taken = source.texts(1, [])
    tokens = sum(len(g.completions[0]) for g in taken if isinstance(g, Rollout))
    beside = [g for g in taken if isinstance(g, Document)]
    assert [g.id for g in beside] == ["d1#0", "d2#1", "d0#2", "d1#3"]
    assert sum(g.scale * len(g.completions[0]) for g in beside) == pytest.approx(0.5 * tokens)


def replace_section(section: MiniLlmObjective, **changes: Any) -> MiniLlmObjective:
    return section.model_copy(update=changes)


def test_a_set_shrinks_where_the_steps_would_not_suffice() -> None:
    assert batches_of_a_set(256, 8, 4, 1000) == 32
    assert batches_of_a_set(250, 8, 4, 1000) == 32
    assert batches_of_a_set(256, 8, 4, 60) == 15
    assert batches_of_a_set(256, 8, 4, 3) == 1


# -- the whole ------------------------------------------------------------------------------------

OBJECTIVES: dict[str, ObjectiveSection] = {
    "gkd": GkdObjective(),
    "f_distill": FDistillObjective(),
    "minillm": MINILLM,
}


def source_of(objective: ObjectiveSection, policy: Policy, live: LiveTeacher) -> TextSource:
    draws = sampler(policy, live, 0.2 if isinstance(objective, MiniLlmObjective) else 0.0)
    if isinstance(objective, MiniLlmObjective):
        return policy_rollouts(draws, live, objective)
    both = isinstance(objective, FDistillObjective)
    return MixedTexts(1.0 if both else 0.5, both, 7, draws)


class StoppedError(Exception):
    """The power went."""


def train(
    folder: Path, objective: ObjectiveSection, stop_after: int | None = None, **settings: Any
) -> tuple[Tensor, Any]:
    policy, live = student(), teacher()
    torch.manual_seed(3)
    rows: list[dict[str, Any]] = []

    def emit(row: dict[str, Any]) -> None:
        rows.append(row)
        if row["step"] == stop_after:
            raise StoppedError

    counts = train_policy(
        policy,
        TrainingJob(
            groups=[replace(g, completions=g.completions[:1]) for g in groups()],
            settings=TrainSettings(
                **{"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "checkpoint_steps": 3, **settings}
            ),
            objective=objective,
            route=Route.SEGMENTS,
            stage="t",
            folder=folder / "checkpoints",
            seed=3,
            teacher=live,
            texts=source_of(objective, policy, live),
            log=Emitting(emit),
        ),
    )
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]), (rows, counts)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_resumed_run_equals_a_straight_one(name: str, tmp_path: Path) -> None:
    """Stopped after step 8 of 12, resumed from step 6: for MiniLLM in the middle of a set of 4 steps."""
    straight, (rows, counts) = train(tmp_path / "straight", OBJECTIVES[name])
    with pytest.raises(StoppedError):
        train(tmp_path / "resumed", OBJECTIVES[name], stop_after=8)
    resumed, (again, counts_again) = train(tmp_path / "resumed", OBJECTIVES[name])
    assert [r["step"] for r in again] == list(range(7, 13))
    assert torch.equal(straight, resumed)
    assert counts["samples"] == counts_again["samples"]
    timing = ("tokens_per_s",)
    for a, b in zip(rows[6:], again, strict=True):
        assert {k: v for k, v in a.items() if k not in timing} == {k: v for k, v in b.items() if k not in timing}
    assert counts_again["train_seconds"] > 0


def test_the_set_of_rollouts_is_in_the_checkpoint_as_plain_numbers(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, MINILLM, stop_after=8)
    state = json.loads((tmp_path / "checkpoints/checkpoint-6/progress.json").read_text())["texts"]
    assert state["set"] == 1
    assert len(state["rollouts"]) == 8
    assert state["texts"] == 16


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_that_a_pass_cuts_short_is_taken_however_batches_are_accumulated(name: str, tmp_path: Path) -> None:
    """7 prompts, 4 a step: the second step has 3 of the data's, and MiniLLM's 4; as 4 at once or one by one."""
    weights, steps = [], []
    for settings in ({"batch_size": 4}, {"batch_size": 1, "gradient_accumulation_steps": 4}):
        policy, live = student(lora=False), teacher()
        counts = train_policy(
            policy,
            TrainingJob(
                groups=[replace(g, completions=g.completions[:1]) for g in groups()[:7]],
                settings=TrainSettings.model_validate({"epochs": 1, "learning_rate": 1e-3, **settings}),
                objective=OBJECTIVES[name],
                route=Route.SEGMENTS,
                stage="t",
                folder=tmp_path / str(len(steps)),
                seed=3,
                teacher=live,
                texts=source_of(OBJECTIVES[name], policy, live),
                log=Emitting(lambda row: None),
            ),
        )
        steps.append(counts["steps"])
        weights.append(torch.cat([p.detach().flatten() for p in policy.model.parameters()]))
        assert all(p.grad is None or not p.grad.any() for p in policy.model.parameters()), "no gradient is left over"
    assert steps == [2, 2]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=2e-4)


def test_rollouts_count_the_prompts_that_they_have_met() -> None:
    """Sets of 8 of 24 prompts: after one set 8, after four 24."""
    source = rollouts(student(), MiniLlmObjective(rollouts=8, ppo_epochs=1))
    assert source.counts()["prompts"] == 0
    met = []
    for step in range(8):
        source.texts(step, [])
        met.append(source.counts()["prompts"])
    assert met == [8, 8, 16, 16, 24, 24, 24, 24]


def test_the_ratio_of_a_rollout_is_1_before_the_first_update_dropout_or_not(tmp_path: Path) -> None:
    """An adapter with dropout 0.3: the loss's likelihoods are those that the rollouts were sampled with."""
    section = replace_section(MINILLM, teacher_mix=0.0, ppo_clip=1e-3)
    _, (rows, _) = train(tmp_path, section, epochs=0.5)
    assert rows[0]["clipped"] == 0
    assert rows[1]["clipped"] > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulated_batches_are_one_batch(name: str, tmp_path: Path) -> None:
    """4 prompts a step, or 2 twice: the same texts, the same loss, without dropout's draws."""
    losses = []
    for settings in ({"batch_size": 4}, {"batch_size": 2, "gradient_accumulation_steps": 2}):
        policy, live = student(lora=False), teacher()
        rows: list[dict[str, Any]] = []
        train_policy(
            policy,
            TrainingJob(
                groups=[replace(g, completions=g.completions[:1]) for g in groups()],
                settings=TrainSettings.model_validate({"epochs": 0.5, "learning_rate": 1e-3, **settings}),
                objective=OBJECTIVES[name],
                route=Route.SEGMENTS,
                stage="t",
                folder=tmp_path / str(len(losses)),
                seed=3,
                teacher=live,
                texts=source_of(OBJECTIVES[name], policy, live),
                log=Emitting(rows.append),
            ),
        )
        losses.append([r["loss"] for r in rows])
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)

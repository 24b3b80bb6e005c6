"""The trainer gives one result, however a batch is split, and never hides a failure."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plad.config.models import TrainSettings
from plad.distillers.kd import KdObjective
from plad.distillers.logits.compare import LiveTeacher
from plad.errors import TrainingError
from plad.objectives.base import ObjectiveOut
from plad.objectives.listwise import LipoObjective, RrhfObjective
from plad.objectives.plad import MarginObjective, RankObjective
from plad.objectives.preference import DpoObjective, SimpoObjective, SlicObjective
from plad.objectives.sft import SftObjective
from plad.policy.load import Policy
from plad.scoring.layout import Group
from plad.scoring.score import Route, choose_route
from plad.train import run as train_run
from plad.train.run import TrainingJob, train_policy
from tests.support.scoring_families import widen
from tests.support.tiny_models import tiny_policy
from tests.support.training_runs import Emitting, groups

OBJECTIVES = {
    "sft": SftObjective(),
    "rank": RankObjective(),
    "rank+sft": RankObjective(beta=0.3, length_normalization="sum", sft_weight=0.5),
    "rank+anchor": RankObjective(anchor_weight=0.5),
    "margin": MarginObjective(),
    "margin live": MarginObjective(scores="live", spans=(1, 3)),
    "dpo": DpoObjective(),
    "slic": SlicObjective(),
    "rrhf": RrhfObjective(),
    "lipo": LipoObjective(),
    "simpo": SimpoObjective(),
}
each_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def measured(objective: Any) -> list[Group]:
    """The groups with what the objective needs; the live score reads a reference beside the texts."""
    live = isinstance(objective, MarginObjective) and objective.scores == "live"
    return [
        replace(
            g,
            completions=(*g.completions, g.completions[0][::-1]) if live else g.completions,
            context=int(live),
            values={
                "reference_logp": tuple(-5.0 * len(c) for c in g.completions),
                "similarity": (1.5, 0.5),
                "quality": (2.0, 1.0),
            },
        )
        for g in groups()
    ]


def train(
    folder: Path,
    objective: Any,
    rows: Sequence[Group] | None = None,
    family: str = "llama",
    teacher: Any = None,
    **settings: Any,
) -> tuple[Policy, list]:
    policy = tiny_policy(family, dtype=torch.float64)
    emitted: list[dict[str, Any]] = []
    train_policy(
        policy,
        TrainingJob(
            groups=measured(objective) if rows is None else rows,
            settings=TrainSettings(**{"learning_rate": 1e-2, "batch_size": 8, **settings}),
            objective=objective,
            route=choose_route(policy.model),
            stage="t",
            folder=folder / "checkpoints",
            seed=1,
            teacher=teacher,
            log=Emitting(emitted.append),
        ),
    )
    return policy, emitted


def weights(policy: Policy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


@each_objective
def test_splitting_a_batch_never_changes_the_result(tmp_path: Path, objective: Any) -> None:
    whole, rows = train(tmp_path / "a", objective, max_tokens=10_000)
    for name, settings in {"groups": {"max_tokens": None}, "rows": {"max_tokens": 40}}.items():
        split, split_rows = train(tmp_path / name, objective, **settings)
        torch.testing.assert_close(weights(split), weights(whole), rtol=0, atol=1e-9)
        assert [r["loss"] for r in split_rows] == pytest.approx([r["loss"] for r in rows], abs=1e-9)


@each_objective
def test_batch_of_eight_equals_eight_accumulated_batches_of_one(tmp_path: Path, objective: Any) -> None:
    together, rows = train(tmp_path / "a", objective, batch_size=8)
    one_by_one, more = train(tmp_path / "b", objective, batch_size=1, gradient_accumulation_steps=8)
    torch.testing.assert_close(weights(one_by_one), weights(together), rtol=0, atol=1e-9)
    assert [r["loss"] for r in more] == pytest.approx([r["loss"] for r in rows], abs=1e-9)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, _ = train(tmp_path / "a", RankObjective())
    saved, _ = train(tmp_path / "b", RankObjective(), gradient_checkpointing=True)
    torch.testing.assert_close(weights(saved), weights(plain), rtol=0, atol=1e-9)


def test_gradient_checkpointing_changes_no_comparison_with_a_teacher(tmp_path: Path) -> None:
    live = LiveTeacher(tiny_policy("llama", dtype=torch.float64, seed=4).model, Route.SEGMENTS)
    plain, _ = train(tmp_path / "a", KdObjective(), groups()[:8], teacher=live)
    saved, _ = train(tmp_path / "b", KdObjective(), groups()[:8], teacher=live, gradient_checkpointing=True)
    torch.testing.assert_close(weights(saved), weights(plain), rtol=0, atol=1e-9)
    assert not torch.equal(weights(plain), weights(tiny_policy("llama", dtype=torch.float64)))


@pytest.mark.parametrize(
    ("family", "name"), [("t5", "sft"), ("t5", "rank+sft"), ("bart", "rank+sft"), ("t5", "margin live")]
)
def test_an_encoder_decoder_learns_the_same_however_its_batch_is_computed(
    tmp_path: Path, name: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen(monkeypatch, tiny_policy(family).model)
    whole, rows = train(tmp_path / "a", OBJECTIVES[name], family=family, max_tokens=10_000)
    assert not torch.equal(weights(whole), weights(tiny_policy(family, dtype=torch.float64)))
    ways = {"groups": {"max_tokens": None}, "recomputed": {"max_tokens": 60, "gradient_checkpointing": True}}
    for way, settings in ways.items():
        other, other_rows = train(tmp_path / way, OBJECTIVES[name], family=family, **settings)
        torch.testing.assert_close(weights(other), weights(whole), rtol=0, atol=1e-9)
        assert [r["loss"] for r in other_rows] == pytest.approx([r["loss"] for r in rows], abs=1e-9)


def test_training_on_pairs_makes_the_chosen_likelier(tmp_path: Path) -> None:
    _, rows = train(tmp_path, RankObjective(), epochs=10)
    first, last = rows[0], rows[-1]
    assert last["accuracy"] > first["accuracy"]
    assert last["chosen_logp"] - last["rejected_logp"] > first["chosen_logp"] - first["rejected_logp"] + 0.5
    for name in ("loss", "active", "accuracy", "chosen_logp", "rejected_logp", "grad_norm", "tokens_per_s"):
        assert name in first
    assert [r["step"] for r in rows] == list(range(1, 31))
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]


def test_pairs_whose_hinge_is_zero_cost_no_backward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    from accelerate import Accelerator

    backward = Accelerator.backward
    monkeypatch.setattr(Accelerator, "backward", lambda self, loss, **kw: (calls.append(1), backward(self, loss, **kw)))
    before = weights(tiny_policy(dtype=torch.float64))
    policy, rows = train(tmp_path, RankObjective(beta=0.0), rows=[g for g in groups() if _met(g)])
    assert [r["active"] for r in rows] == [0.0] * len(rows)
    assert not calls
    assert torch.equal(weights(policy), before)


def _met(group: Group) -> bool:
    """Whether the untrained policy already ranks the chosen text first."""
    from plad.scoring.score import score

    with torch.no_grad():
        chosen, rejected = score(tiny_policy(dtype=torch.float64).model, [group]).means().tolist()
    return chosen > rejected


class _Poisoned:
    """An objective whose loss is not a number for one row."""

    def __init__(self, inner: Any, row: str, tell: list[str]) -> None:
        self.inner, self.row, self.tell = inner, row, tell
        self.states, self.logits = inner.states, inner.logits

    def weight(self, group: Group) -> float:
        self.tell.append(group.id)
        return self.inner.weight(group)

    def __call__(self, scores: Any) -> ObjectiveOut:
        out = self.inner(scores)
        at = self.tell.pop(0)
        factor = float("nan") if at == self.row else 1.0
        return ObjectiveOut(out.losses * factor, out.active, out.metrics)


def test_a_non_finite_step_is_skipped_and_three_in_a_row_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = train_run.loss_of
    monkeypatch.setattr(train_run, "loss_of", lambda *what: _Poisoned(make(*what), "row7", []))
    emitted: list[dict[str, Any]] = []
    policy = tiny_policy(dtype=torch.float64)
    before = weights(policy)
    with pytest.raises(TrainingError, match="row7"):
        train_policy(
            policy,
            TrainingJob(
                groups=groups()[7:8],
                settings=TrainSettings(learning_rate=1e-2, batch_size=8, epochs=5),
                objective=SftObjective(),
                route=Route.SEGMENTS,
                stage="t",
                folder=tmp_path / "c",
                seed=1,
                log=Emitting(emitted.append),
            ),
        )
    assert torch.equal(weights(policy), before)
    assert [r["rows"] for r in emitted if "skipped" in r] == [["row7"]] * 3


def test_one_non_finite_step_among_good_ones_is_recorded_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = train_run.loss_of
    monkeypatch.setattr(train_run, "loss_of", lambda *what: _Poisoned(make(*what), "row7", []))
    policy, emitted = train(tmp_path, SftObjective())
    assert [r["rows"] for r in emitted if "skipped" in r] == [["row7"]]
    assert bool(torch.isfinite(weights(policy)).all())
    assert not torch.equal(weights(policy), weights(tiny_policy(dtype=torch.float64)))

"""What objectives say of themselves, so that no other room lists them."""

from typing import Literal

import pytest

from plad.config.kinds import Kind
from plad.config.objectives import Needs, ObjectiveSection, SimilarityNeeds
from plad.distillers.base import LogitObjective, trainable_objective
from plad.distillers.minillm import MiniLlmObjective
from plad.errors import ConfigError, TrainingError
from plad.objectives.listwise import LipoObjective
from plad.objectives.plad import MarginObjective, RankObjective
from plad.objectives.preference import DpoObjective
from plad.pipeline.students.teacher_logits import check_logits
from plad.train.loss import TextLoss
from tests.support.measured import one, scores


@pytest.mark.parametrize("kind", ObjectiveSection.kinds().values())
def test_every_objective_describes_itself_and_can_be_trained(kind: type[ObjectiveSection]) -> None:
    objective = kind.model_validate({})
    assert len(objective.describe()) > 20
    assert trainable_objective(objective) is objective
    assert objective.needs.pairs != isinstance(objective, LogitObjective) or objective.tag() == "sft"


def test_the_starting_student_is_measured_where_a_loss_compares_with_it() -> None:
    anchored = RankObjective(anchor_weight=0.1), MarginObjective(anchor_weight=0.1)
    assert all(o.needs.reference_logps for o in (DpoObjective(), LipoObjective(), *anchored))
    assert not RankObjective().needs.reference_logps


def test_similarity_is_what_the_margin_is_made_of() -> None:
    margin = MarginObjective(scores="live", spans=(1, 3), reference="teacher")
    assert margin.needs.similarity == SimilarityNeeds((1, 3), live=True, reference="teacher")
    assert (margin.needs.teacher_answers, MarginObjective().needs.teacher_answers) == (2, 1)


def test_dropout_is_off_where_a_ratio_must_start_at_one() -> None:
    assert not MiniLlmObjective().needs.dropout
    assert RankObjective().needs.dropout


def test_what_was_not_asked_for_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that compares with the starting student and doesn't say so stops at the first step."""
    monkeypatch.setattr(DpoObjective, "needs", property(lambda _: Needs(pairs=True)))
    with pytest.raises(TrainingError, match="let the objective's `needs` name reference_logps"):
        TextLoss(DpoObjective())(scores(one([[-1.0], [-2.0]], reference_logp=[-1.0, -2.0])))


def test_a_class_without_a_loss_is_refused_before_anything_is_trained() -> None:
    class Lossless(ObjectiveSection):
        kind: Literal["lossless"] = "lossless"  # no `type`: no kind that other tests would see

        @classmethod
        def tag(cls) -> str:
            return "lossless"

        @property
        def needs(self) -> Needs:
            return Needs()

        def describe(self) -> str:
            return "nothing"

    with pytest.raises(ConfigError, match=r"lossless can't be trained with.*\n.*plad.objectives.base.Objective"):
        check_logits([RankObjective(), Lossless()], None, None)  # type: ignore[arg-type]
    assert issubclass(Lossless, Kind)

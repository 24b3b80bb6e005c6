"""Objectives by name: what an ablation compares."""

import pytest

from plad.config.objectives import named_objective
from plad.errors import ConfigError
from plad.objectives.listwise import LipoObjective
from plad.objectives.plad import MarginObjective, RankObjective
from plad.objectives.sft import SftObjective


def test_a_type_alone_has_its_defaults() -> None:
    assert named_objective("lipo") == LipoObjective()
    assert named_objective("sft") == SftObjective()


def test_choices_follow_the_type() -> None:
    assert named_objective("rank-sum") == RankObjective(length_normalization="sum")
    assert named_objective("margin-live-sum") == MarginObjective(scores="live", length_normalization="sum")


def test_an_ablation_changes_one_setting_and_keeps_the_others() -> None:
    base = RankObjective(beta=0.1, sft_weight=4.0)
    assert named_objective("rank-sum", base) == RankObjective(beta=0.1, sft_weight=4.0, length_normalization="sum")
    assert named_objective("margin-sum", base) == MarginObjective(length_normalization="sum")


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        ("ranks", "no objective 'ranks'", "one of distillm, dpo, f_distill, gkd, kd, lipo, margin"),
        ("rank-live", "rank has no choice 'live'", "one of sum, mean"),
        ("sft-sum", "sft has no choice 'sum'", "plain sft"),
        ("margin-sum-mean", "sum and mean are both a length_normalization", "leave one out"),
        (
            "f_distill-kl-cached",
            "may be teacher_logits or student_samples",
            "{type: f_distill, teacher_logits: cached}",
        ),
        ("kd-float16", "kd has no choice 'float16'", "one of live, cached, auto, target, teacher"),
        ("gkd-cpu", "gkd has no choice 'cpu'", "plain gkd"),
    ],
)
def test_a_wrong_name_says_what_there_is(name: str, what: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named_objective(name)
    assert what in str(caught.value)
    assert fix in str(caught.value)

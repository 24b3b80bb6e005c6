"""Pseudo-preference pairs (Eq. 3) and what becomes of them as groups."""

import pytest

from plad.config.pairs import DropRules, PairsSection
from plad.errors import ConfigError
from plad.judges.base import Comparison
from plad.judges.verifiable import VerifiableJudge
from plad.pairs.build import build_pairs, chosen_groups, pair_groups
from plad.policy.prompt import PromptFormat
from plad.records import Example, Generation, Outcome, Pair, Verdict
from tests.support.tiny_models import tiny_policy


def said(text: str, sample: int = 0, outcome: Outcome = Outcome.OK, example: str = "a") -> Generation:
    return Generation(example, sample, text, (7, 8, 2), outcome, 3)


def pair_up(teacher: list[Generation], student: list[Generation], rules: DropRules | None = None):
    section = PairsSection(drop=rules or DropRules())
    return build_pairs([Example("a", "x", ())], {"a": teacher}, {"a": student}, section)


def prompt_format() -> PromptFormat:
    return tiny_policy().prompt


def test_the_teacher_is_chosen_and_the_student_rejected() -> None:
    pairs, counts = pair_up([said("better")], [said("worse")])
    assert (pairs[0].chosen, pairs[0].rejected) == ("better", "worse")
    assert (pairs[0].chosen_source, pairs[0].rejected_source) == ("teacher", "student_sft")
    assert counts == {"candidates": 1, "pairs": 1}


def test_every_teacher_answer_meets_every_student_answer() -> None:
    pairs, counts = pair_up([said("t0", 0), said("t1", 1)], [said(f"s{i}", i) for i in range(3)])
    assert [(p.id, p.chosen, p.rejected) for p in pairs[2:4]] == [("a#0-2", "t0", "s2"), ("a#1-0", "t1", "s0")]
    assert counts == {"candidates": 6, "pairs": 6}


def test_a_student_answer_that_the_teacher_gave_too_makes_no_pair() -> None:
    pairs, counts = pair_up([said("t0", 0), said("t1", 1)], [said("t1", 0), said("s", 1)])
    assert [(p.chosen, p.rejected) for p in pairs] == [("t0", "s"), ("t1", "s")]
    assert counts == {"candidates": 4, "pairs": 2, "dropped_identical": 2}


def test_each_rule_drops_and_counts() -> None:
    teacher = [said("t")]
    student = [
        said("t ", 0),  # identical but for white space
        said("", 1, Outcome.EMPTY),
        said("cut", 2, Outcome.TRUNCATED),
        said("", 3, Outcome.TOO_LONG),
        said("fine", 4),
        said("fine", 5),
    ]
    pairs, counts = pair_up(teacher, student)
    assert [p.id for p in pairs] == ["a#0-4"]
    assert counts == {
        "candidates": 6,
        "pairs": 1,
        "dropped_identical": 1,
        "dropped_empty": 1,
        "dropped_truncated": 1,
        "dropped_too_long": 1,
        "dropped_repeated": 1,
    }


def test_rules_that_are_off_keep_the_pair() -> None:
    rules = DropRules(identical=False, truncated="teacher")
    pairs, _ = pair_up([said("t")], [said("t", 0), said("cut", 1, Outcome.TRUNCATED)], rules)
    assert [p.rejected for p in pairs] == ["t", "cut"]
    assert not pair_up([said("cut", outcome=Outcome.TRUNCATED)], [said("s")], rules)[0]


def test_a_group_holds_a_prompt_and_each_of_its_texts_once() -> None:
    pairs, _ = pair_up([said("t0", 0), said("t1", 1)], [said(f"s{i}", i) for i in range(3)])
    fmt = prompt_format()
    (group,) = pair_groups(pairs, fmt)
    assert (group.id, group.chosen, len(group.completions)) == ("a", 2, 5)
    assert group.prompt == tuple(fmt.encode_prompt("x"))
    assert group.completions[:2] == (tuple(fmt.encode_completion("t0")), tuple(fmt.encode_completion("t1")))
    assert group.completions[2:] == ((7, 8, 2),) * 3  # the tokens that were sampled, not the text encoded again
    (alone,) = chosen_groups(pairs, fmt)
    assert alone.completions == group.completions[:2]


def made(id: str, chosen: str, rejected: str, **values: tuple[float, float]) -> Pair:
    return Pair(id, "x", chosen, rejected, "teacher", "student_sft", values=values)


def test_only_the_pairs_that_were_kept_are_preferences() -> None:
    """A text may be chosen in one pair and rejected in another; it stands in the group once."""
    pairs = [made("a#0-0", "t", "s0"), made("a#0-1", "s1", "t"), made("b#0-0", "t", "s0")]
    first, second = pair_groups(pairs, prompt_format())
    assert (first.chosen, len(first.completions)) == (2, 3)
    assert first.preferences == ((0, 2), (1, 0))
    assert second.preferences == ((0, 1),)


def test_values_follow_their_texts() -> None:
    """`half` was not measured of every pair, so the group has none."""
    pairs = [
        made("a#0-0", "t0", "s", quality=(3.0, 1.0), half=(0.0, 0.0)),
        made("a#1-0", "t1", "s", quality=(2.0, 1.0)),
    ]
    (group,) = pair_groups(pairs, prompt_format())
    assert group.values == {"quality": (3.0, 2.0, 1.0)}


def test_a_reference_is_context() -> None:
    fmt = prompt_format()
    (group,) = pair_groups([made("a#0-0", "t", "s")], fmt, {"a": "target"})
    assert group.completions[-1] == tuple(fmt.encode_completion("target"))
    assert (group.context, group.candidates, group.preferences) == (1, 2, ((0, 1),))


# -- with a scorer ------------------------------------------------------------------------------------


class Scorer:
    """Scores texts by a table and notes what it was asked."""

    name = "table"

    def __init__(self, **scores: float | None) -> None:
        self.scores, self.asked = scores, []

    def score(self, examples, texts, references):
        self.asked += [(e.id, text) for e, text in zip(examples, texts, strict=True)]
        return [self.scores[text] for text in texts]

    def describe(self):
        return {"type": "table"}


def scored(teacher: list[Generation], student: list[Generation], scorer: Scorer, **rules):
    section = PairsSection(**{"scorer": VerifiableJudge(), "real_share": 1.0, **rules})
    return build_pairs([Example("a", "x", ())], {"a": teacher}, {"a": student}, section, scorer=scorer)


def sides(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(p.chosen, p.rejected) for p in pairs]


def test_a_pair_is_swapped_where_the_scorer_prefers_the_student() -> None:
    pairs, counts = scored([said("t")], [said("s0", 0), said("s1", 1)], Scorer(t=1.0, s0=0.0, s1=2.0))
    assert sides(pairs) == [("t", "s0"), ("s1", "t")]
    kept, swapped = pairs
    assert (kept.chosen_source, kept.rejected_source, kept.values) == (
        "teacher",
        "student_sft",
        {"quality": (1.0, 0.0)},
    )
    assert (swapped.chosen_source, swapped.rejected_source) == ("student_sft", "teacher")
    assert (swapped.id, swapped.values) == ("a#0-1", {"quality": (2.0, 1.0)})
    assert (swapped.chosen_token_ids, swapped.rejected_token_ids) == ((7, 8, 2), ())
    assert (counts["swapped"], counts["pairs"], counts["candidates"]) == (1, 2, 2)
    assert counts["scored"] == {"pairs": 2, "teacher_better": 1, "student_better": 1, "ties": 0, "unjudged": 0}
    assert (counts["wrong"]["value"], counts["wrong"]["wrong"], counts["wrong"]["n"]) == (0.5, 1, 1)


def test_a_group_of_swapped_and_unswapped_pairs_keeps_each_order_and_the_sampled_tokens() -> None:
    pairs, _ = scored([said("t")], [said("s0", 0), said("s1", 1)], Scorer(t=1.0, s0=0.0, s1=2.0))
    fmt = prompt_format()
    (group,) = pair_groups(pairs, fmt)
    assert group.completions == (tuple(fmt.encode_completion("t")), (7, 8, 2), (7, 8, 2))  # t, s1, s0
    assert group.preferences == ((0, 2), (1, 0))
    assert group.values == {"quality": (1.0, 2.0, 0.0)}
    (alone,) = chosen_groups(pairs, fmt)
    assert alone.completions == group.completions[:2]


@pytest.mark.parametrize(
    ("scores", "rules", "kept", "reason"),
    [
        ((1.0, 1.0), {}, [("t", "s")], None),
        ((1.0, 1.0), {"ties": "drop"}, [], "dropped_tie"),
        ((None, 1.0), {"ties": "drop"}, [("t", "s")], None),
        ((1.0, 1.5), {"confidence": {"margin": 0.6}}, [("t", "s")], None),
        ((1.0, 1.5), {"confidence": {"margin": 0.5}}, [("s", "t")], None),
        ((1.5, 1.0), {"confidence": {"margin": 0.6, "below": "drop"}}, [], "dropped_unsure"),
        ((1.0, 2.0), {"confidence": {"wrong": "drop"}}, [], "dropped_wrong"),
        ((1.0, 2.0), {"confidence": {"wrong": "keep"}}, [("t", "s")], None),
        ((1.0, 1.0), {"confidence": {"margin": 1.0, "below": "drop"}}, [("t", "s")], None),  # a tie has its own rule
    ],
)
def test_ties_and_the_margin_decide_what_becomes_of_a_pair(scores, rules, kept, reason) -> None:
    pairs, counts = scored([said("t")], [said("s")], Scorer(t=scores[0], s=scores[1]), **rules)
    assert sides(pairs) == kept
    assert {k for k in counts if k.startswith("dropped_")} == ({reason} if reason else set())
    assert counts["scored"]["unjudged"] == (None in scores)


def test_the_scorer_sees_no_answer_that_is_dropped_anyway_and_each_text_once() -> None:
    scorer = Scorer(t=1.0, s=0.0)
    student = [said("s", 0), said("s", 1), said("cut", 2, Outcome.TRUNCATED), said("t", 3)]
    pairs, counts = scored([said("t", 0), said("t", 1)], student, scorer)
    assert scorer.asked == [("a", "t"), ("a", "s")]
    assert counts["candidates"] == 8 == len(pairs) + sum(n for k, n in counts.items() if k.startswith("dropped_"))


def many(n: int) -> tuple[list[Example], dict, dict]:
    examples = [Example(f"e{i}", f"prompt {i}", ()) for i in range(n)]
    ids = [e.id for e in examples]
    return examples, {i: [said("t", example=i)] for i in ids}, {i: [said("s", example=i)] for i in ids}


def test_a_share_of_the_prompts_is_real_and_a_smaller_share_is_part_of_a_larger() -> None:
    before: set[str] = set()
    for share, n in ((0.0, 0), (0.25, 5), (0.5, 10), (1.0, 20)):
        scorer = Scorer(t=0.0, s=1.0)
        section = PairsSection(scorer=VerifiableJudge(), real_share=share)
        pairs, counts = build_pairs(*many(20), section, scorer=scorer, seed=3)
        swapped = {p.id for p in pairs if p.chosen_source == "student_sft"}
        assert len(swapped) == n == counts.get("swapped", 0) == counts.get("real_prompts", 0)
        assert len(scorer.asked) == 2 * n
        assert before <= swapped
        before = swapped
    other = build_pairs(*many(20), PairsSection(scorer=VerifiableJudge(), real_share=0.5), scorer=scorer, seed=4)[0]
    assert {p.id for p in other if p.chosen_source == "student_sft"} != before


def test_best_worst_pairs_the_teachers_best_with_the_students_worst() -> None:
    scorer = Scorer(t0=1.0, t1=3.0, s0=2.0, s1=0.0, s2=None)
    teacher = [said("t0", 0), said("t1", 1)]
    student = [said(f"s{i}", i) for i in range(3)]
    pairs, counts = scored(teacher, student, scorer, select="best_worst", real_share=0.0)
    assert sides(pairs) == [("t1", "s1")]
    assert counts == {"candidates": 6, "pairs": 1, "dropped_not_selected": 5}
    assert pairs[0].id == "a#1-1"


def test_best_worst_is_swapped_too_where_even_the_worst_is_better() -> None:
    pairs, _ = scored([said("t")], [said("s")], Scorer(t=0.0, s=1.0), select="best_worst")
    assert sides(pairs) == [("s", "t")]


def test_a_prompt_that_cannot_be_judged_has_no_best() -> None:
    pairs, counts = scored([said("t")], [said("s")], Scorer(t=None, s=1.0), select="best_worst", real_share=0.0)
    assert (pairs, counts) == ([], {"candidates": 1, "pairs": 0, "dropped_unjudged": 1})


def test_rso_pairs_the_teacher_with_the_answers_it_accepts() -> None:
    """At so low a temperature the best are accepted in order."""
    scorer = Scorer(t=9.0, s0=0.0, s1=2.0, s2=1.0, s3=-1.0)
    rules = {"select": {"type": "rso", "beta": 1e-3, "keep": 2}, "real_share": 0.0}
    pairs, counts = scored([said("t")], [said(f"s{i}", i) for i in range(4)], scorer, **rules)
    assert sides(pairs) == [("t", "s1"), ("t", "s2")]
    assert ("a", "t") not in scorer.asked
    assert counts == {
        "candidates": 4,
        "rso_usable": 4,
        "rso_judged": 4,
        "rso_accepted": 2,
        "dropped_not_selected": 2,
        "pairs": 2,
    }


def test_rso_among_the_students_answers_needs_no_teacher() -> None:
    scorer = Scorer(s0=0.0, s1=2.0, s2=1.0, s3=1.0)
    rules = {"select": {"type": "rso", "beta": 100.0, "keep": 4, "opponent": "student"}, "real_share": 0.0}
    pairs, counts = scored([said("s0")], [said(f"s{i}", i) for i in range(4)], scorer, **rules)
    assert counts["candidates"] == 2 == len(pairs) + counts.get("dropped_tie", 0)
    for p in pairs:
        assert (p.chosen_source, p.rejected_source) == ("student_sft", "student_sft")
        assert p.values["quality"][0] > p.values["quality"][1]
        assert p.id == f"a#{p.chosen}-{p.rejected}"
    groups = pair_groups(pairs, prompt_format())
    assert all(g.completions == ((7, 8, 2),) * len(g.completions) for g in groups)


def test_every_answer_that_rso_leaves_out_among_the_students_is_counted() -> None:
    rules = {"select": {"type": "rso", "beta": 100.0, "keep": 4, "opponent": "student"}, "real_share": 0.0}
    answers = [said(f"s{i}", i) for i in range(3)]
    answers += [said("cut", 3, outcome=Outcome.TRUNCATED), said("", 4, outcome=Outcome.EMPTY), said("s0", 5)]
    pairs, counts = scored([said("t")], answers, Scorer(s0=0.0, s1=2.0, s2=1.0), drop={"truncated": "both"}, **rules)
    assert len(pairs) == 1
    assert counts == {
        "dropped_truncated": 1,
        "dropped_empty": 1,
        "dropped_repeated": 1,
        "rso_usable": 3,
        "rso_judged": 3,
        "rso_accepted": 3,
        "rso_unpaired": 1,
        "candidates": 1,
        "pairs": 1,
    }


def test_rso_draws_for_each_prompt_alone() -> None:
    section = PairsSection(
        scorer=VerifiableJudge(),
        select={"type": "rso", "beta": 0.3, "keep": 1},  # type: ignore[arg-type]
    )
    examples = [Example(f"e{i}", f"prompt {i}", ()) for i in range(8)]
    teacher = {e.id: [said("t", example=e.id)] for e in examples}
    student = {e.id: [said(f"s{k}", k, example=e.id) for k in range(4)] for e in examples}
    scorer = Scorer(s0=0.0, s1=0.1, s2=0.2, s3=0.3)
    pairs, _ = build_pairs(examples, teacher, student, section, scorer=scorer, seed=0)
    again, _ = build_pairs(examples[::-2], teacher, student, section, scorer=scorer, seed=0)
    assert {p.id for p in again} < {p.id for p in pairs}
    assert len({p.rejected for p in pairs}) > 1


@pytest.mark.parametrize("use", [{"real_share": 0.5}, {"select": "best_worst"}, {"select": {"type": "rso"}}])
def test_what_needs_a_scorer_says_so(use) -> None:
    with pytest.raises(ValueError, match=r"needs pairs\.scorer"):
        PairsSection(**use)


class PrefersTheLonger:
    """A pairwise judge: the longer text is better by the share of points 1 : 0; texts of one letter are unjudged."""

    name = "longer"

    def compare(self, examples, ours, theirs, references):
        found = []
        for a, b in zip(ours, theirs, strict=True):
            verdict = Verdict.TIE if len(a) == len(b) else Verdict.WIN if len(a) > len(b) else Verdict.LOSS
            points = {Verdict.WIN: 1.0, Verdict.TIE: 0.5, Verdict.LOSS: 0.0}[verdict]
            found.append(None if len(b) == 1 else Comparison(verdict, points, 1 - points))
        return found

    def describe(self):
        return {"type": "longer"}


def test_a_judge_that_compares_two_answers_orders_pairs_too() -> None:
    student = [said("ssss", 0), said("ss", 1), said("s", 2), said("sss", 3)]
    pairs, counts = scored([said("ttt")], student, PrefersTheLonger(), ties="drop")  # type: ignore[arg-type]
    assert sides(pairs) == [("ssss", "ttt"), ("ttt", "ss"), ("ttt", "s")]
    assert [p.values for p in pairs] == [{"judged": (1.0, 0.0)}, {"judged": (1.0, 0.0)}, {}]
    assert counts["scored"] == {"pairs": 4, "teacher_better": 1, "student_better": 1, "ties": 1, "unjudged": 1}
    assert (counts["swapped"], counts["dropped_tie"]) == (1, 1)


def test_a_judge_that_compares_two_answers_selects_none() -> None:
    with pytest.raises(ConfigError, match="longer only compares two"):
        scored([said("t")], [said("s")], PrefersTheLonger(), select="best_worst")  # type: ignore[arg-type]

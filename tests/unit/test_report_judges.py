"""What the page tells of the judges."""

from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.judges.reference import ReferenceScorer
from plad.records import Example
from plad.report.sections.judges import judges_table
from tests.support.written_runs import Opinion, generations, typed


def test_position_bias_unjudged_replies_and_rubric_are_told() -> None:
    examples = [Example(f"e{i}", "p", ("a b", "a c")) for i in range(6)]
    answers = {"student": generations(examples, ["a", "a b c", "x", "a c", "y", "longer than all"])}
    metrics, _ = evaluate_systems(examples, answers, [ReferenceScorer(), Opinion()], bootstrap=Bootstrap(50))
    table = judges_table(metrics)
    assert table is not None
    rows = {row[0].text: (row[1].text, row[2].text) for row in table.rows}
    assert rows["reference"][0].startswith("Likeness to the references. ROUGE-L F1")
    assert rows["reference"][1] == "6 comparisons judged, 0 not."
    rule, went = rows["opinion"]
    assert rule == (
        "Language model owner/opinion-7b. Rubric (summary): The better summary keeps the points that matter. Asked in "
        "both orders; disagreement is a tie."
    )
    assert "position bias: in 26.0 % of 100 comparisons asked in both orders the order decided" in went
    assert "(17 for the first place, 3 for the second, 6 a tie in one order)" in went
    assert "replies without a verdict: 2 unparsable; answers that spoke to the judge: 1, wins denied them: 1" in went
    assert judges_table(typed({"systems": {}, "method": {}})) is None

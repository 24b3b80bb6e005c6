"""The list of compared methods, Holm's correction, and the table of methods."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plad.cli.compare import comparison_overrides
from plad.config.evaluation import Baseline, EvaluateSection
from plad.config.file import load_config
from plad.distillers.f_distill import FDistillObjective
from plad.distillers.kd import KdObjective
from plad.errors import ConfigError
from plad.evaluate.deciding import frame, with_comparison
from plad.evaluate.metrics import Cost, Metrics
from plad.evaluate.stats import holm
from plad.objectives.plad import MarginObjective
from plad.objectives.sft import SftObjective
from plad.pipeline.stages.baselines import cost_of, reads_targets
from plad.report.parts.formatting import system_name
from plad.report.sections.methods import lead_plots, method_costs_table, methods_table, note
from tests.support.task import write_task

# -- the list -------------------------------------------------------------------------------------
from tests.support.written_runs import typed


def read(folder: Path, listed: str) -> tuple[Baseline, ...]:
    """As it stands in a config file."""
    return load_config(write_task(folder), [f"evaluate.baselines={listed}", "generate.samples=2"]).evaluate.baselines


def test_methods_by_name_by_key_and_by_type(tmp_path: Path) -> None:
    listed = "[sft, seqkd, kd, f_distill-js, {f_distill: {divergence: tvd}}, {type: margin, spans: [1, 2], name: m}]"
    assert read(tmp_path, listed) == (
        Baseline(name="seqkd", objective=SftObjective()),
        Baseline(name="kd", objective=KdObjective(text="teacher")),
        Baseline(name="f_distill-js", objective=FDistillObjective(divergence="js")),
        Baseline(name="f_distill-tvd", objective=FDistillObjective(divergence="tvd")),
        Baseline(name="m", objective=MarginObjective(spans=(1, 2), reference="teacher")),
    )


@pytest.mark.parametrize("spelt", ["sft", "{type: sft}", "{sft: {}}"])
def test_the_fine_tuned_student_is_the_same_however_it_is_spelt(spelt: str, tmp_path: Path) -> None:
    assert [b.name for b in read(tmp_path, f"[{spelt}, kd, {{type: sft, name: mine}}]")] == ["kd", "mine"]


def test_a_resolved_list_reads_back_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, "[seqkd, {type: rank, length_normalization: sum}]")
    assert [b.name for b in found] == ["seqkd", "rank-sum"]
    assert EvaluateSection.model_validate({"baselines": [b.model_dump(mode="json") for b in found]}).baselines == found


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("[kd, kd]", "two baselines are called kd"),
        ("[nothing]", "no objective 'nothing'"),
        ("[{type: kd, name: student}]", "student is what every run evaluates"),
        ("[{type: kd, name: ../up}]", "evaluate.baselines"),
        ("[{type: kd, ratios: 1}]", "ratio"),
        ("[{type: auto}]", "evaluate.baselines"),
        ("[sft]", "name a method to compare it with"),
        ("[{type: sft}, {sft: {}}]", "name a method to compare it with"),
    ],
)
def test_a_wrong_list_is_refused(listed: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, listed)


def test_what_the_student_itself_is_trained_with_is_not_trained_twice(tmp_path: Path) -> None:
    config = load_config(write_task(tmp_path), ["evaluate.baselines=[rank, kd]"])
    assert [m.name for m in config.methods] == ["kd"]
    rounds = load_config(write_task(tmp_path), ["evaluate.baselines=[rank, kd]", "distill.rounds=2"])
    assert [m.name for m in rounds.methods] == ["rank", "kd"], "a student of two rounds took more updates than one"


def test_methods_of_the_command_line_take_the_place_of_the_configs(tmp_path: Path) -> None:
    path = write_task(tmp_path, evaluate__baselines=["kd"])
    assert comparison_overrides(path, [], None) == []
    assert comparison_overrides(path, [], "sft, seqkd,gkd") == ["evaluate.baselines=[sft, seqkd, gkd]"]
    with pytest.raises(ConfigError, match="names no method to compare"):
        comparison_overrides(path, ["evaluate.baselines=[]"], None)


# -- Holm -----------------------------------------------------------------------------------------


def test_holm_worked_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.4; the third may not fall below the second."""
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_a_corrected_p_is_never_smaller_nor_above_the_plainest_correction(p: list[float]) -> None:
    for raw, corrected in zip(p, holm(p), strict=True):
        assert raw <= corrected <= min(1.0, len(p) * raw) + 1e-12


def estimate(value: float, p: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 50, "p": p}


def metrics(systems: Iterable[str], differences: dict[str, tuple[float, float | None]]) -> dict[str, Any]:
    """Figures of systems, and (win rate's, ROUGE-L's p) of pairs."""
    rate = {**estimate(0.5), "wins": 25, "ties": 0, "losses": 25, "unjudged": 0}
    return {
        "systems": {s: {"win_rate": {"j": rate}, "rougeL": estimate(0.3), "words": estimate(20)} for s in systems},
        "differences": {
            pair: {"win_rate": {"j": estimate(0.1, a)}, "rougeL": estimate(0.1, b)}
            for pair, (a, b) in differences.items()
        },
        "method": {},
    }


def test_families_are_the_methods_against_one_system_by_one_measure() -> None:
    """Against the SFT student: student 0.01, a 0.02, b 0.5. Against a and b, the student: 0.03 and 0.04."""
    found = metrics(
        ("teacher", "student_sft", "student", "a", "b"),
        {
            "student - student_sft": (0.01, 0.2),
            "a - student_sft": (0.02, None),
            "b - student_sft": (0.5, 0.3),
            "student - a": (0.03, 0.1),
            "student - b": (0.04, 0.1),
            "student - teacher": (0.001, 0.001),
        },
    )
    compared = with_comparison(Metrics.model_validate(found), ["a", "b"], {"student": Cost()})

    def corrected(pair: str) -> tuple[float | None, float | None]:
        d = compared.differences[pair]
        return d.win_rate["j"].p_holm, d.rougeL.p_holm

    assert corrected("student - student_sft") == pytest.approx((0.03, 0.4))
    assert corrected("a - student_sft") == (pytest.approx(0.04), None)
    assert corrected("b - student_sft") == pytest.approx((0.5, 0.4))
    assert corrected("student - a") == pytest.approx((0.06, 0.2))
    assert corrected("student - b") == pytest.approx((0.06, 0.2))
    assert corrected("student - teacher") == (None, None), "the teacher is no method"


# -- costs ----------------------------------------------------------------------------------------


def counts(steps: int, seconds: float, memory: int, prompts: int = 9, tokens: int = 100, **more: Any) -> dict[str, Any]:
    """Of one training."""
    return {
        "steps": steps,
        "train_seconds": seconds,
        "peak_memory": memory,
        "prompts": prompts,
        "tokens_cached": tokens,
        **more,
    }


def test_costs_of_a_warm_up_and_of_rounds_are_added_up() -> None:
    """10 + 4 updates before and 6 after, 7 tokens sampled between; memory and prompts are the larger."""
    first = counts(4, 2.0, 30, sft=counts(10, 5.0, 50, prompts=8))
    second = counts(6, 3.0, 40, tokens=120, samples={"tokens": 11}, teacher_seconds=0.5)
    assert cost_of([first, second], 7) == Cost(
        updates=20, prompts=9, seconds=10.5, peak_memory=50, tokens_cached=100, tokens_fresh=18
    )


def test_prompts_are_those_sampled_where_a_method_draws_its_own() -> None:
    assert cost_of([counts(4, 1.0, 1, samples={"tokens": 5, "prompts": 3})]).prompts == 3


def test_what_an_earlier_version_did_not_count_is_unknown() -> None:
    found = cost_of([{"steps": 3, "train_seconds": 1.0}])
    assert (found.updates, found.prompts, found.peak_memory, found.tokens_fresh) == (3, None, None, None)


def test_equal_updates_are_claimed_only_where_they_are() -> None:
    a, b = Cost(updates=5, prompts=9), Cost(updates=5, prompts=4)
    assert "as many updates on as many of the same prompts" in frame({"kd": a, "gkd": a})
    assert "not equal: kd 5 on 9, minillm 5 on 4" in frame({"kd": a, "minillm": b})
    assert "updates" not in frame({"kd": a, "student": Cost()})


# -- the table ------------------------------------------------------------------------------------


def test_one_row_a_method_with_quality_differences_and_costs() -> None:
    pairs = dict.fromkeys(("student - student_sft", "kd - student_sft", "student - kd"), (0.01, 0.02))
    found = metrics(("target", "teacher", "student_sft", "student", "kd"), pairs)
    assert methods_table(typed(found)) is method_costs_table(typed(found)) is None
    cost = {
        "updates": 45,
        "prompts": 30,
        "seconds": 90.0,
        "peak_memory": 2_340_000_000,
        "tokens_cached": 1200,
        "tokens_fresh": 0,
    }
    costs_of = {"kd": Cost.model_validate(cost), "student": Cost()}
    found = with_comparison(Metrics.model_validate(found), ["kd"], costs_of)
    table = methods_table(found)
    assert table is not None
    rows = {row[0].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == ["Teacher", "SFT student", "Standard KD", "Distilled student"]
    kd = rows["Standard KD"]
    assert kd["Win rate, j"].text == "50.0"
    assert "p = 0.020" in kd["Minus SFT student, j"].detail, "two methods in the family: 0.01 x 2"
    assert rows["SFT student"]["Minus SFT student, j"].text == "–"
    costs = method_costs_table(found)
    assert costs is not None
    rows = {row[0].text: dict(zip(costs.columns, row, strict=True)) for row in costs.rows}
    kd = rows["Standard KD"]
    assert "p = 0.010" in kd["Distilled student minus it, j"].detail, "one method in the family"
    assert [kd[c].text for c in costs.columns[-6:]] == ["45", "30", "1 min 30 s", "2.34", "1,200", "0"]
    assert rows["Teacher"]["Time"].text == "–"
    (lead,) = lead_plots(found)
    assert lead.alt.startswith("minus Standard KD +10.0 points")
    assert lead_plots(typed(metrics(("student",), {}))) == []


def test_methods_have_a_readers_name() -> None:
    names = ("seqkd", "f_distill-js", "margin", "student", "mine")
    assert [system_name(n) for n in names] == ["SeqKD", "f-distill, js", "PLaD, margin", "Distilled student", "mine"]


def test_in_a_comparison_kd_learns_the_texts_of_all_others_unless_asked_otherwise(tmp_path: Path) -> None:
    plain, asked = read(tmp_path, "[kd, {type: kd, text: auto, name: own}]")
    assert plain.objective == KdObjective(text="teacher")
    assert asked.objective == KdObjective(text="auto")
    assert (plain.name, KdObjective().text) == ("kd", "auto")


def test_in_a_comparison_margin_sees_no_target_unless_asked_to(tmp_path: Path) -> None:
    plain, asked = read(tmp_path, "[margin, {type: margin, reference: target, name: own}]")
    assert plain.objective == MarginObjective(reference="teacher")
    assert asked.objective == MarginObjective(reference="target")
    assert MarginObjective().reference == "target"
    one = ["evaluate.baselines=[margin]", "generate.samples=1"]
    with pytest.raises(ConfigError, match="reference: target, which reads human targets that other methods don't see"):
        load_config(write_task(tmp_path), one)


def test_who_read_the_human_targets_is_told() -> None:
    own, teacher = MarginObjective(), MarginObjective(reference="teacher")
    assert [reads_targets(o, ["a", ""]) for o in (own, teacher, SftObjective(), KdObjective())] == [True] + [False] * 3
    assert reads_targets(KdObjective(), ["a", "b"])
    assert reads_targets(KdObjective(text="target"), ["a", ""])
    assert not any(reads_targets(o, ["", ""]) for o in (own, KdObjective()))
    costs = {"student": Cost(targets=True), "seqkd": Cost(targets=False)}
    told = note(with_comparison(typed(metrics(("student", "seqkd"), {})), ["seqkd"], costs))
    assert told.endswith("Distilled student read the human targets of the distillation half; the others did not.")
    none = {system: Cost(targets=False) for system in costs}
    assert note(with_comparison(typed(metrics(("student", "seqkd"), {})), ["seqkd"], none)).endswith(
        "No method read the human targets of the distillation half."
    )

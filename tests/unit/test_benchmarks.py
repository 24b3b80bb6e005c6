"""The benchmark: lengths and orders of its data, directions of its ratios, and one comparison of each kind for real."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as command
import benchmarks.plan as plan_module
from benchmarks.data import COMPLETION, PROMPT, Pair, Question, Text, random_batches, real_text, sorted_batches
from benchmarks.measure import QUIET, Child, Meter, Sample
from benchmarks.models import T5_SHAPES, cut, group, load, make_active
from benchmarks.plan import GENERATE_ROWS, TRAIN_ROWS, GenerateCell, Plan, TrainCell, only
from benchmarks.results import different, train_result
from benchmarks.training import TrainTask, TrainVariant, train
from plad.scoring.score import score
from tests.support.tiny_models import tiny_folder, train_tokenizer

CELL = TrainCell("third", lora=False, batch=2, rounds=1, rows=TRAIN_ROWS[:1])
PAIR = Pair((1, 2, 3), (4, 5), (6,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", layers=3, max_position_embeddings=1024)


def test_prompts_and_completions_have_the_lengths_of_the_summarization_task() -> None:
    text = Text(*real_text(train_tokenizer(), vocabulary=200), seed=0)

    pairs = [text.pair() for _ in range(300)]

    prompts = [len(pair.prompt) for pair in pairs]
    assert 330 < sum(prompts) / 300 < 370
    assert PROMPT.low <= min(prompts) < 200 < 500 < max(prompts) <= PROMPT.high
    completions = [len(c) for pair in pairs for c in (pair.chosen, pair.rejected)]
    assert 30 < sum(completions) / 600 < 40
    assert COMPLETION.low <= min(completions) < max(completions) <= COMPLETION.high
    assert max(i for pair in pairs for i in pair.prompt) < 200
    assert len({pair.prompt for pair in pairs}) > 290


def test_a_prompt_with_several_completions_is_as_many_pairs_for_trl() -> None:
    four = Text(*real_text(train_tokenizer(), vocabulary=200), seed=0).pair(candidates=4)

    third = four.preferring(2)

    assert third.completions == (four.others[0], four.chosen, four.rejected, four.others[1])
    assert [(p.chosen, p.rejected) for p in third.each()] == [(third.chosen, other) for other in third.completions[1:]]
    assert third.reference == four.reference
    assert four.preferring(0) == four


def test_sorted_batches_hold_neighbours_in_length_from_short_to_long() -> None:
    pool = [Question(tuple(range(n)), 1) for n in random.Random(0).sample(range(1, 101), 100)]

    batches = sorted_batches(pool, size=5, count=2)

    assert [[q.length for q in batch] for batch in batches] == [[*range(26, 31)], [*range(76, 81)]]
    assert random_batches(pool, size=5, count=2) == [pool[:5], pool[5:10]]


def test_a_cut_model_has_the_first_layers_and_tokens_of_the_whole(folder: Path, tmp_path: Path) -> None:
    cut(folder, tmp_path / "cut", layers=1, vocabulary=100)

    whole, part = load(folder), load(tmp_path / "cut")
    assert (part.config.num_hidden_layers, part.config.vocab_size) == (1, 100)
    weights, originals = part.state_dict(), whole.state_dict()
    embeddings = {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(weights[name].equal(originals[name][:100]) for name in embeddings)
    assert all(weights[name].equal(originals[name]) for name in weights.keys() - embeddings)
    assert {name for name in weights if ".layers." in name} == {name for name in originals if ".layers.0." in name}


def test_a_loaded_model_lies_in_memory_and_not_in_its_file(folder: Path) -> None:
    """Mapped weights would come in at their first use, and count as memory of the step."""
    model = load(folder)

    maps = Path("/proc/self/maps")  # Linux's list of mapped files
    assert str(folder) not in (maps.read_text() if maps.exists() else "")
    assert all(p.requires_grad for p in model.parameters())


def test_the_model_prefers_the_rejected_completion_of_every_pair(folder: Path) -> None:
    model = load(folder)
    text = Text(*real_text(train_tokenizer(), vocabulary=300), seed=1)

    (pairs,) = make_active(model, [[text.pair() for _ in range(6)]])

    for pair in pairs:
        chosen, rejected = score(model, [group(pair, "x")]).sums().tolist()
        assert chosen < rejected


def _result(theirs: list[Sample]) -> dict[str, Any]:
    ours = [Sample(2.0, 100, {"loss": 4.0}), Sample(4.0, 110, {"loss": 8.0}), Sample(1.0, 90, {"loss": 2.0})]
    return train_result(CELL, TRAIN_ROWS[0], [[PAIR, PAIR]] * 3, ours, theirs)


def test_ratios_are_ours_over_theirs_in_speed_and_in_memory() -> None:
    """Three rounds: 6/2, 8/4 and 4/1 times as fast; peaks 110 and 440; losses off by 0, 1/8 and 0."""
    row = _result([Sample(6.0, 400, {"loss": 4.0}), Sample(8.0, 440, {"loss": 9.0}), Sample(4.0, 380, {"loss": 2.0})])

    assert (row["pairs_per_s_ratio"], row["pairs_per_s_ratio_low"], row["pairs_per_s_ratio_high"]) == (3.0, 2.0, 4.0)
    assert row["peak_memory_ratio"] == 0.25
    assert row["met"]
    assert row["max_rel_loss_diff"] == 0.125
    assert different({"train": [row]}) == [TRAIN_ROWS[0].against]


@pytest.mark.parametrize(("seconds", "peak"), [(2.4, 400), (3.0, 200)])
def test_a_target_is_missed_by_speed_or_by_memory(seconds: float, peak: int) -> None:
    theirs = [Sample(seconds * n, peak, {"loss": 2.0 * n}) for n in (2, 4, 1)]

    row = _result(theirs)

    assert not row["met"]
    assert different({"train": [row]}) == []


class _Here:
    """A meter that doesn't wait: the steps are taken in this process."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def model_is_loaded(self) -> None: ...

    def wait(self) -> None: ...

    def report(self, loss: float) -> None:
        self.losses.append(loss)


def losses(folder: Path, variant: TrainVariant, batches: list[list[Pair]]) -> list[float]:
    meter = _Here()
    train(meter, TrainTask(variant, folder, folder, lora=False, batches=batches))  # type: ignore[arg-type]
    return meter.losses


def test_four_candidates_and_their_three_pairs_are_the_same_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    text = Text(*real_text(train_tokenizer(), vocabulary=300), seed=1)
    batches = [[text.pair(candidates=4) for _ in range(2)] for _ in range(3)]

    ours, theirs = losses(folder, "plad", batches), losses(folder, "cpo", batches)

    assert len(ours) == 2
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_an_encoder_decoders_loss_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    folder = tiny_folder(tmp_path / "t5", "t5", tokenizer=train_tokenizer(adds_eos=True))
    text = Text(*real_text(train_tokenizer(), vocabulary=300), seed=1)
    batches = [[text.pair() for _ in range(3)] for _ in range(3)]

    ours, theirs = losses(folder, "plad", batches), losses(folder, "cpo", batches)

    assert len(ours) == 2
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_part_of_the_plan_is_chosen_by_name() -> None:
    part = only(plan_module.FULL, "sorted by length")

    assert part.train
    assert part.generate
    cells = (*part.train, *part.generate)
    assert all("sorted by length" in row.against for cell in cells for row in cell.rows)
    assert only(plan_module.FULL, "") == plan_module.FULL
    assert {cell.size for cell in only(plan_module.FULL, "encoder-decoder").train} == set(T5_SHAPES)


def test_the_margin_loss_runs_with_frozen_and_with_live_scores(folder: Path) -> None:
    """Frozen scores 2 and 1 are a margin of 1, which is that of the ranking loss."""
    text = Text(*real_text(train_tokenizer(), vocabulary=300), seed=1)
    batches = [[text.pair() for _ in range(2)] for _ in range(2)]

    rank, frozen, live = (losses(folder, variant, batches) for variant in ("plad", "plad margin", "plad margin live"))

    assert rank == frozen != live
    assert all(value > 0 for value in live)


def _fails(meter: Meter, task: str) -> None:
    raise ValueError(f"no {task}")


def test_what_goes_wrong_in_a_child_is_raised_here() -> None:
    with pytest.raises(RuntimeError, match="ValueError: no luck"), Child(_fails, "luck") as child:
        child.wait()


def test_a_missing_model_is_an_error_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--model", str(tmp_path / "nowhere")]) == 2
    assert "make model" in capsys.readouterr().err


def test_one_comparison_of_each_kind_agrees_in_loss_and_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(train=(CELL,), generate=(GenerateCell("full", questions=8, rounds=1, rows=GENERATE_ROWS[1:2]),))
    monkeypatch.setattr(plan_module, "FULL", plan)
    monkeypatch.setattr(command, "LAYERS", 1)
    monkeypatch.setattr(command, "VOCABULARY", 200)

    assert command.main(["--model", str(folder), "--output", str(tmp_path / "latest.json")]) == 0

    report = json.loads((tmp_path / "latest.json").read_text())
    assert set(report) >= {"train", "generate", "machine", "versions", "seeds", "n"}
    (trained,), (generated,) = report["train"], report["generate"]
    assert (trained["against"], trained["tuning"], trained["size"]) == (TRAIN_ROWS[0].against, "full", "third")
    assert trained["max_rel_loss_diff"] < 1e-4
    assert trained["losses"][0] > 1
    assert (generated["against"], generated["size"]) == (GENERATE_ROWS[1].against, "full")
    for row, speed in ((trained, "pairs_per_s_ratio"), (generated, "tokens_per_s_ratio")):
        assert row[f"{speed}_low"] <= row[speed] <= row[f"{speed}_high"]
        assert row["peak_memory_ratio"] > 0
        assert set(row["target"]) == {speed, "peak_memory_ratio"}
        assert isinstance(row["met"], bool)
    assert "transformers generate, batch 8" in capsys.readouterr().out

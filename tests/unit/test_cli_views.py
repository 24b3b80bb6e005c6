"""status, show, compare and export over a finished run made by the real writers."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from plad.answers.ledger import Ledger
from plad.answers.question import Question
from plad.answers.reply import Reply
from plad.data.formats import write_examples_jsonl, write_pairs_parquet
from plad.evaluate.files import write_answers, write_judgements
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.judges.reference import ReferenceScorer
from plad.pipeline.stage import NAMES
from plad.records import Example, Generation, Outcome, Pair
from plad.rundir.atomic import atomic_dir, verify_dir
from plad.rundir.directory import open_run
from tests.support.command import call, lines_fit
from tests.support.tiny_models import CHATML, tiny_folder, train_tokenizer

ROWS = [Example(f"t{i}", f"Prompt {i}", (f"the target {i}", f"a target {i}")) for i in range(6)]
ESCAPE = "\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \u202eflow <b> [bold]markup[/bold] \x9b2J"


def answer(example: Example, text: str) -> Generation:
    return Generation(example.id, 0, text, (5, 6, 2), Outcome.OK, 7)


def record(ledger: Ledger, key: str, system: str, generation: Generation) -> None:
    g = generation
    reply = Reply(g.outcome, g.text, g.token_ids, g.prompt_tokens, len(g.token_ids), seconds=0.5)
    ledger.put(Question(key, key, Example(g.example_id, ""), g.sample, 0, None, {"key": key}), system, reply)


def make_run(path: Path, *, good: str = "the target", prompts: list[Example] = ROWS, stages: int = len(NAMES)) -> Path:
    with open_run(path) as run:
        for stage in NAMES[:stages]:
            run.finish(stage, {}, {"rows": 6, "share": 0.25}, 12.3)
        run.set_versions({"plad": "0.1.0", "torch": "2.13.0"})
        run.log.append({"stage": "distill", "step": 3, "loss": 0.5})
        write_examples_jsonl(run / "data/test.jsonl", ROWS)
        write_examples_jsonl(run / "data/distill.jsonl", prompts)
        pairs = [
            Pair(
                f"{e.id}#0", e.prompt, ESCAPE, "worse", "teacher", "student_sft", (1, 2), values={"quality": (2.5, -1)}
            )
            for e in prompts
        ]
        write_pairs_parquet(run / "pairs.parquet", pairs)
        with Ledger(run / "generations.sqlite") as ledger:
            for i, e in enumerate(ROWS):
                record(ledger, str(i), "teacher", answer(e, f"answer {i} {ESCAPE}"))
        texts = {"teacher": good, "student_sft": "nothing", "student": "the target 3"}
        answers = {system: {e.id: answer(e, text) for e in ROWS} for system, text in texts.items()}
        metrics, judgements = evaluate_systems(ROWS, answers, [ReferenceScorer()], bootstrap=Bootstrap(100))
        metrics.write(run.path)
        write_judgements(run / "eval/judgements.parquet", judgements)
        write_answers(run / "eval/answers.jsonl", ROWS, answers)
    with atomic_dir(path / "student") as staging:
        chat = CHATML if any(not isinstance(e.prompt, str) for e in prompts) else None
        tiny_folder(staging, tokenizer=train_tokenizer(chat_template=chat))
    return path


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "one")


def harmless(text: str) -> bool:
    return not any(c in text for c in "\x1b\x07\x9b\u202e\x00")


def test_status_shows_stages_counts_seconds_and_versions(run):
    code, out, err = call("status", run)
    assert (code, err) == (0, "")
    assert lines_fit(out)
    for part in ("distill ", "done", "12.3", "rows 6, share 0.25", "pairs: 6", "answers of teacher: ok 6"):
        assert part in out
    assert "torch 2.13.0" in out
    assert "pending" not in out


def test_report_in_the_terminal_says_what_the_page_says_in_80_columns(run):
    code, out, err = call("report", run, "--terminal")
    assert (code, err) == (0, "")
    assert lines_fit(out)
    assert harmless(out)
    assert out.splitlines()[1].startswith("NO DIFFERENCE THAT THIS TEST CAN TELL")
    for part in (
        "Results on the test set",
        "Paired differences",
        "Time and cost by stage",
        "Training",
        "Distilled student",
    ):
        assert part in out
    assert "Distilling: loss" in out
    assert not (run / "report").exists()


def test_report_of_a_run_directory_needs_no_config(run):
    code, out, _ = call("report", run)
    assert (code, out) == (0, f"report: {run / 'report/index.html'}\n")
    assert "No difference that this test can tell" in (run / "report/index.html").read_text()
    assert call("report", run / "data")[0] == 2


def test_status_shortens_nested_counts(tmp_path):
    counts = {"rows": 3, "skipped": {"train": 0, "test": 0}, "best": {"step": 4, "validation": {"words": 9}}}
    with open_run(tmp_path / "r") as run:
        run.finish("data", {}, counts, 1)
    out = " ".join(call("status", tmp_path / "r")[1].split())
    assert "rows 3, skipped 0, best.step 4 sft" in out


def test_status_as_json(run):
    code, out, _ = call("status", run, "--json")
    found = json.loads(out)
    assert code == 0
    assert [s["stage"] for s in found["stages"]] == list(NAMES)
    assert found["stages"][0]["counts"] == {"rows": 6, "share": 0.25}
    assert found["latest"] == {"stage": "distill", "step": 3, "loss": 0.5}
    assert (found["pairs"], found["generations"]) == (6, {"teacher": {"ok": 6}})
    assert found["running"] is None or "pid" in found["running"]


def test_status_works_while_the_run_goes_on(tmp_path):
    path = make_run(tmp_path / "r", stages=3)
    with open_run(path), Ledger(path / "generations.sqlite") as ledger:
        record(ledger, "x", "student_sft", answer(ROWS[0], "new"))
        with (path / "metrics.jsonl").open("a") as f:
            f.write('{"step": 4, "lo')
        code, out, _ = call("status", path, "--json")
    found = json.loads(out)
    assert code == 0
    assert "pid" in found["running"]
    assert [s["done"] for s in found["stages"]] == [True] * 3 + [False] * (len(NAMES) - 3)
    assert found["generations"]["student_sft"] == {"ok": 1}
    assert found["latest"]["step"] == 3


def test_status_of_a_run_that_has_just_begun(tmp_path):
    with open_run(tmp_path / "r"):
        code, out, _ = call("status", tmp_path / "r")
    assert code == 0
    assert out.count("running") == 1
    assert out.count("pending") == len(NAMES) - 1


@pytest.mark.parametrize("kind", ["pairs", "generations", "judgements"])
def test_show_prints_examples_that_cannot_harm_a_terminal(run, kind):
    code, out, _ = call("show", run, kind, "-n", 2)
    assert code == 0
    assert lines_fit(out)
    assert harmless(out)
    assert out.count("╭") == 2
    if kind != "judgements":
        assert "red bell flow <b> [bold]markup[/bold]" in out


def test_show_says_what_a_pair_a_generation_and_a_judgement_are(run):
    pairs = call("show", run, "pairs", "-n", 1)[1]
    assert "t0#0" in pairs
    assert "t0 (test)" in pairs
    assert "chosen (teacher, quality 2.5)" in pairs
    assert "rejected (student_sft, quality -1)" in pairs
    assert "Prompt 0" in pairs
    generations = call("show", run, "generations", "-n", 1)[1]
    assert "teacher, sample 0: ok, 3 tokens" in generations
    assert "Prompt 5" in generations
    judgements = call("show", run, "judgements", "-n", 1)[1]
    assert "reference says" in judgements
    assert "the target 0" in judgements
    assert "Prompt 0" in judgements


@pytest.mark.parametrize("kind", ["pairs", "generations", "judgements"])
def test_show_as_json_is_ascii_and_counts(run, kind):
    code, out, _ = call("show", run, kind, "-n", 4, "--json")
    assert code == 0
    assert out.isascii()
    assert harmless(out)
    assert len(json.loads(out)) == 4


def test_show_json_of_a_judgement_has_both_texts_and_the_prompt(run):
    (shown,) = json.loads(call("show", run, "judgements", "-n", 1, "--json")[1])
    assert (shown["id"], shown["split"], shown["prompt"]) == ("t0", "test", "Prompt 0")
    first = shown["items"][0]
    assert first["system"] == "teacher"
    assert (first["answer"], first["opponent_answer"]) == ("the target", "the target 0")


def test_show_has_every_prompt_once_with_its_texts_side_by_side(run):
    with Ledger(run / "generations.sqlite") as ledger:
        for e in ROWS:
            record(ledger, f"s{e.id}", "student_sft", answer(e, f"weaker {e.id}"))
    out = call("show", run, "generations", "-n", 6)[1]
    assert [out.count(f"Prompt {i}") for i in range(6)] == [1] * 6
    line = next(line for line in out.splitlines() if "student_sft, sample 0" in line)
    assert "teacher, sample 0" in line
    judged = call("show", run, "judgements", "-n", 6)[1]
    assert [judged.count(f"Prompt {i}") for i in range(6)] == [1] * 6


def shown(run, *options):
    code, out, err = call("show", run, *options, "--json")
    assert code == 0, err
    return json.loads(out)


def test_show_takes_a_system_a_split_and_a_draw(run):
    only = shown(run, "judgements", "-n", 6, "--system", "student")
    assert {tuple(sorted((i["system"], i["opponent"]))) for e in only for i in e["items"]} >= {("student", "target")}
    assert all("student" in (i["system"], i["opponent"]) for e in only for i in e["items"])
    assert len(shown(run, "pairs", "--split", "test", "-n", 9)) == 6
    drawn = [tuple(e["id"] for e in shown(run, "pairs", "-n", 2, "--random", "--seed", s)) for s in range(12)]
    assert drawn[0] == tuple(e["id"] for e in shown(run, "pairs", "-n", 2, "--random", "--seed", 0))
    assert {i for ids in drawn for i in ids} == {f"t{i}" for i in range(6)}
    assert all(len(set(ids)) == 2 for ids in drawn)
    assert "the same again: --random --seed " in call("show", run, "generations", "--random")[1]


@pytest.mark.parametrize("kind", ["pairs", "generations", "judgements"])
@pytest.mark.parametrize("option", [("--system", "nobody"), ("--split", "validation")])
def test_show_says_that_nothing_fits(run, kind, option):
    code, _, err = call("show", run, kind, *option)
    assert code == 2
    assert f"no {kind} with {' '.join(option)}" in err


def test_ledger_counts_equal_failures(run):
    with Ledger(run / "generations.sqlite") as ledger:
        for i, message in enumerate(["busy", "busy", "too long", "busy"]):
            reply = Reply(Outcome.FAILED, attempts=3, message=message)
            ledger.put(Question(f"f{i}", f"f{i}", Example(f"x{i}", ""), 0, 0, None, {"key": i}), "teacher", reply)
    out = call("ledger", run)[1]
    assert "teacher, missing 3: busy" in out
    assert "teacher, missing 1: too long" in out
    assert out.count("busy") == 1


def test_status_says_which_stage_failed_and_why_until_it_runs_again(tmp_path):
    path = make_run(tmp_path / "r", stages=3)
    with open_run(path) as run:
        run.stop("pair", "the disk is full")
    states = {s["stage"]: s["state"] for s in json.loads(call("status", path, "--json")[1])["stages"]}
    assert (states["generate"], states["pair"], states["distill"]) == ("done", "failed", "pending")
    assert "the disk is full" in call("status", path)[1]
    with open_run(path) as run:
        run.set_versions({})
    assert "failed" not in call("status", path)[1]
    with open_run(path) as run:
        run.stop("pair")
    assert "pair was stopped at " in call("status", path)[1]


def test_show_renders_conversations(tmp_path):
    chat = [Example("c0", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}), ("r",))]
    out = call("show", make_run(tmp_path / "r", prompts=chat), "pairs")[1]
    assert "system: Be brief." in out
    assert "user: Hi" in out


def test_a_huge_answer_is_folded_with_a_count(tmp_path):
    path = make_run(tmp_path / "r")
    with Ledger(path / "generations.sqlite") as ledger:
        record(ledger, "big", "student", answer(ROWS[0], "x" * 1_000_000))
    out = call("show", path, "generations", "-n", 1)[1]
    assert len(out) < 5000
    assert "998,800 more" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("kind", "fix"), [("pairs", "plad pair"), ("judgements", "plad evaluate"), ("generations", "plad generate")]
)
def test_show_before_there_is_anything_names_the_command(tmp_path, kind, fix):
    with open_run(tmp_path / "r"):
        pass
    code, _, err = call("show", tmp_path / "r", kind)
    assert code == 2
    assert f"-> {fix} CONFIG" in err


def test_compare_shows_intervals_and_the_paired_difference(run):
    code, out, _ = call("compare", run)
    assert code == 0
    assert lines_fit(out)
    metrics = json.loads((run / "eval/metrics.json").read_text())
    rate = metrics["systems"]["student"]["win_rate"]["reference"]
    assert f"{rate['value'] * 100:.1f} [{rate['low'] * 100:.1f}, {rate['high'] * 100:.1f}]" in out
    assert f"{rate['wins']}/{rate['ties']}/{rate['losses']}" in out
    gain = metrics["differences"]["student - student_sft"]["rougeL"]
    assert "student - student_sft, paired over prompts" in out
    assert f"{gain['value'] * 100:+.1f} [{gain['low'] * 100:+.1f}, {gain['high'] * 100:+.1f}]" in out
    assert "only 6 test prompts" in out


def test_compare_puts_runs_side_by_side(tmp_path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", good="words")
    code, out, _ = call("compare", one, two)
    assert code == 0
    assert lines_fit(out)
    assert "one student" in out
    assert "two student" in out
    found = json.loads(call("compare", one, two, "--json")[1])
    assert list(found) == ["one", "two"]
    assert found["two"]["n"] == 6


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / folder / "x") for folder in ("a", "b")]
    assert list(json.loads(call("compare", *runs, "--json")[1])) == ["a/x", "b/x"]


def test_compare_before_the_evaluation_names_the_command(tmp_path):
    with open_run(tmp_path / "r"):
        pass
    code, _, err = call("compare", tmp_path / "r")
    assert code == 2
    assert "not evaluated yet\n  -> plad evaluate CONFIG" in err


@pytest.mark.parametrize("args", [["status"], ["show", "pairs"], ["compare"], ["export", "--to", "trl"]])
def test_what_is_no_run_is_said_so(tmp_path, args):
    code, _, err = call(args[0], tmp_path, *args[1:])
    assert code == 2
    assert f"error: {tmp_path}: not a run directory" in err


# -- export -------------------------------------------------------------------------------------------


def test_pairs_are_exported_as_trl_takes_them(run, tmp_path):
    data_utils = import_module("trl.data_utils")
    datasets = import_module("datasets")
    code, out, _ = call("export", run, "--to", "trl", "--out", tmp_path / "p.jsonl")
    assert (code, out) == (0, f"wrote {tmp_path / 'p.jsonl'}\n")
    table = datasets.load_dataset(
        "json", data_files=str(tmp_path / "p.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert set(table.column_names) == {"prompt", "chosen", "rejected"}
    assert len(table) == 6
    assert table[0] == {"prompt": "Prompt 0", "chosen": ESCAPE, "rejected": "worse"}
    assert not data_utils.is_conversational(table[0])


def test_conversations_stay_conversations(tmp_path):
    data_utils = import_module("trl.data_utils")
    chat = [Example("c0", ({"role": "user", "content": "Hi"},), ("r",))]
    path = make_run(tmp_path / "r", prompts=chat)
    assert call("export", path, "--to", "trl")[0] == 0
    (row,) = map(json.loads, (path / "export/pairs.jsonl").read_text().splitlines())
    assert row["prompt"] == [{"role": "user", "content": "Hi"}]
    assert row["rejected"] == [{"role": "assistant", "content": "worse"}]
    assert data_utils.is_conversational(row)


@pytest.mark.parametrize(("to", "says"), [("llamafactory", "dataset_info.json"), ("axolotl", "rl: dpo")])
def test_pairs_are_exported_for_other_trainers_with_how_to_register_them(run, tmp_path, to, says):
    datasets = import_module("datasets")
    file = tmp_path / "p.json"
    code, out, _ = call("export", run, "--to", to, "--out", file)
    assert code == 0
    assert out.startswith(f"wrote {file}\n")
    assert says in out
    assert str(file) in out
    table = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(table) == 6
    assert {"chosen", "rejected"} <= set(table.column_names)


def test_the_student_is_exported_whole_and_verified(run, tmp_path):
    code, _, _ = call("export", run, "--to", "merged", "--out", tmp_path / "out")
    assert code == 0
    verify_dir(tmp_path / "out")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "out", run / "student")]
    assert weights[0] == weights[1]


def test_a_damaged_student_is_not_exported(run, tmp_path):
    (run / "student/model.safetensors").write_bytes(b"weighty")
    code, _, err = call("export", run, "--to", "merged", "--out", tmp_path / "out")
    assert code == 2
    assert "damaged" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["trl", "merged"])
def test_export_overwrites_nothing(run, tmp_path, to):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in ("folder", "file"):
        code, _, err = call("export", run, "--to", to, "--out", tmp_path / out)
        assert code == 2
        assert "nothing is overwritten" in err
    assert (tmp_path / "folder/mine").read_text() == (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("to", "fix"), [("trl", "plad pair"), ("merged", "plad distill")])
def test_export_before_there_is_anything_names_the_command(tmp_path, to, fix):
    with open_run(tmp_path / "r"):
        pass
    code, _, err = call("export", tmp_path / "r", "--to", to)
    assert code == 2
    assert f"-> {fix} CONFIG" in err


def test_what_a_finished_stage_did_not_make_is_not_promised(tmp_path: Path) -> None:
    """Without a reference the reference judge judges nothing, however often the evaluation runs."""
    make_run(tmp_path / "run")
    write_judgements(tmp_path / "run/eval/judgements.parquet", [])
    code, _, err = call("show", tmp_path / "run", "judgements")
    assert (code, "the stage evaluate made no judgements" in err) == (2, True)
    make_run(tmp_path / "early", stages=4)
    write_judgements(tmp_path / "early/eval/judgements.parquet", [])
    assert "plad evaluate CONFIG makes them" in call("show", tmp_path / "early", "judgements")[2]

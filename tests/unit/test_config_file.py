"""Loading a config: YAML, overrides, and every problem in words a reader can act on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from plad.cli.app import known_stage
from plad.config.file import load_config
from plad.config.models import PruneInit
from plad.config.root import Config
from plad.errors import PladError, ProblemsError, RunDirError
from plad.objectives.plad import RankObjective
from plad.objectives.sft import SftObjective
from plad.pipeline.stage import NAMES
from plad.pipeline.students.auto import labels
from plad.rundir.config_files import write_config
from plad.rundir.directory import open_run

BASE = """\
run: {dir: runs/x}
data: {train: a.jsonl, test: b.jsonl}
teacher: {model: big}
student: {model: small}
"""


def load(tmp_path: Path, text: str = "", *overrides: str) -> Config:
    (tmp_path / "c.yaml").write_text(BASE + text, encoding="utf-8")
    return load_config(tmp_path / "c.yaml", overrides)


def complaint(tmp_path: Path, text: str = "", *overrides: str) -> str:
    with pytest.raises(PladError) as e:
        load(tmp_path, text, *overrides)
    return str(e.value).replace(f"{tmp_path}/", "")


def test_the_commands_know_every_stage():
    assert [known_stage(name) for name in NAMES] == list(NAMES)
    with pytest.raises(typer.BadParameter, match=r"'nowhere' is not one of 'data', 'sft', .*'report'"):
        known_stage("nowhere")


def test_a_config_is_read_without_a_heavy_library():
    code = "import sys, plad.config.file; print({'torch', 'transformers', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_what_is_left_out_has_the_papers_value(tmp_path):
    config = load(tmp_path)
    assert config.distill.objective == RankObjective(beta=1.0)
    assert (config.sft.learning_rate, config.generate.temperature) == (1e-4, 0.7)


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("+1e-4", 1e-4), (".5e-3", 5e-4), ("2.5e-5", 2.5e-5), ("1e0", 1.0), ("3", 3.0)],
)
def test_numbers_may_be_written_with_an_exponent(tmp_path, written, value):
    assert load(tmp_path, f"sft: {{learning_rate: {written}}}\n").sft.learning_rate == value
    assert load(tmp_path, "", f"sft.learning_rate={written}").sft.learning_rate == value


def test_a_whole_number_may_have_an_exponent(tmp_path):
    assert load(tmp_path, "evaluate: {bootstrap: 1e3}\n").evaluate.bootstrap == 1000


def test_a_byte_order_mark_is_harmless(tmp_path):
    (tmp_path / "c.yaml").write_text(BASE, encoding="utf-8-sig")
    assert load_config(tmp_path / "c.yaml").teacher.model == "big"


def test_overrides_come_after_the_file_and_reach_into_unions(tmp_path):
    config = load(
        tmp_path,
        "distill: {objective: {beta: 2.0}}\nevaluate: {judges: [{type: reference}]}\n",
        "distill.objective.beta=0.5",
        "student.init={type: prune, layers: 10}",
        "teacher.lora.r=4",
        "student.lora=null",
        "evaluate.judges.0={type: reward, model: r}",
    )
    assert config.distill.objective == RankObjective(beta=0.5)
    assert config.student.init == PruneInit(layers=10)
    assert config.teacher.lora is not None
    assert (config.teacher.lora.r, config.teacher.lora.alpha) == (4, 32)
    assert config.student.lora is None
    assert config.evaluate.judges[0].type == "reward"


def test_a_type_may_be_chosen_by_an_override(tmp_path):
    assert load(tmp_path, "", "distill.objective.type=sft").distill.objective == SftObjective()


def test_an_anchor_may_be_shared(tmp_path):
    config = load(tmp_path, "sft: &t {batch_size: 4, epochs: 2}\ndistill: {<<: *t, epochs: 3}\n")
    assert (config.distill.batch_size, config.distill.epochs) == (4, 3)


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("sft: {epochz: 1}\n", [], "c.yaml:5: sft.epochz: unknown key\n  -> did you mean sft.epochs?"),
        ("teachr: {}\n", [], "c.yaml:5: teachr: unknown key\n  -> did you mean teacher?"),
        ("temperature: 1\n", [], "c.yaml:5: temperature: unknown key\n  -> did you mean generate.temperature or"),
        ("on: 1\n", [], "c.yaml:5: on: unknown key\n  -> known here: run, data,"),
        ("sft: {lora: {alhpa: 1}}\n", [], "c.yaml:5: sft.lora.alhpa: unknown key\n  -> did you mean sft.lora.alpha?"),
        (
            "distill:\n  objective: {type: sft, beta: 1}\n",
            [],
            "c.yaml:6: distill.objective.beta: unknown key\n  -> known here: type",
        ),
        (
            "distill:\n  objective:\n    betta: 1\n",
            [],
            "c.yaml:7: distill.objective.betta: unknown key\n  -> did you mean distill.objective.beta?",
        ),
        ("", ["distil.epochs=3"], "distil: unknown key\n  -> did you mean distill?"),
        ("", ["sft.epoch=3"], "sft.epoch: unknown key\n  -> did you mean sft.epochs?"),
        ("distill: {objective: {type: rnk}}\n", [], "distill.objective: type must be auto or distillm or dpo or"),
        ("evaluate: {judges: [{type: oracle}]}\n", [], "judges.0: type must be embedding or llm or reference or"),
        ("evaluate: {judges: [{type: reward}]}\n", [], "evaluate.judges.0.model: is required"),
        ("evaluate: {judges: {type: reference}}\n", [], "evaluate.judges: expected a list; got {"),
        ("sft: {learning_rate: true}\n", [], "c.yaml:5: sft.learning_rate: expected a number; got true"),
        ("generate: {samples: true}\n", [], "generate.samples: expected a whole number; got true"),
        ("generate: {samples: '2'}\n", [], 'generate.samples: expected a whole number; got "2"'),
        ("generate: {samples: 1.5}\n", [], "generate.samples: expected a whole number; got 1.5"),
        ("evaluate: {rouge: 1}\n", [], "evaluate.rouge: expected true or false; got 1"),
        ("generate: {temperature: .inf}\n", [], "generate.temperature: must be a finite number; got .inf"),
        ("generate: {temperature: -.inf}\n", [], "generate.temperature: must be a finite number; got -.inf"),
        ("", ["sft.learning_rate=.nan"], "sft.learning_rate: must be a finite number; got .nan"),
        ("", ["sft.learning_rate=1e999"], "sft.learning_rate: must be a finite number; got .inf"),
        ("sft: {learning_rate: 0}\n", [], "sft.learning_rate: must be above 0; got 0"),
        ("generate: {temperature: -1}\n", [], "generate.temperature: must be at least 0; got -1"),
        ("sft: {lora: 3}\n", [], "sft.lora: expected a mapping or 'inherit'; got 3"),
        ("sft: 3\n", [], "c.yaml:5: sft: expected a mapping; got 3"),
        ("", ["teacher.dtype=fp16"], "expected 'auto', 'float32', 'bfloat16' or 'float16'; got \"fp16\""),
        ("", ["teacher.model=3"], "teacher.model: expected text; got 3"),
        ("generate: {temperature: 0, samples: 2}\n", [], "c.yaml: generate.temperature 0 gives every sample"),
        ("sft:\n  epochs: 1\n  epochs: 2\n", [], "c.yaml:7: sft.epochs: stands twice, first in line 6"),
        ("run: {dir: y}\n", [], "c.yaml:5: run: stands twice, first in line 1"),
        ("x: !!python/object/apply:os.system [ls]\n", [], "c.yaml:5:4: could not determine a constructor for the tag"),
        ("x: !!python/name:os.system\n", [], "c.yaml:5:4: could not determine a constructor for the tag"),
        ("x: [\n", [], "c.yaml:6:1: expected the node content, but found '<stream end>'"),
        ("sft:\n\tepochs: 1\n", [], "c.yaml:6:1: found character '\\t' that cannot start any token"),
        ("x: &a [*a]\n", [], "c.yaml: too large or nested too deeply"),
        ("", ["data.limit="], "data.limit=: no value\n  -> data.limit=null unsets it"),
        ("", ["data.limit"], "data.limit: an override looks like a.b=value"),
        ("", ["=3"], "=3: an override looks like a.b=value"),
        ("", ["a b=3"], "a b=3: an override looks like a.b=value"),
        ("", ["sft.epochs=[1"], "sft.epochs=[1: the value is not YAML"),
        ("", ["sft={epochs: 1, epochs: 2}"], "epochs: stands twice"),
        ("", ["teacher.model.x=1"], 'teacher.model: is "big", which has nothing below it'),
        ("evaluate: {judges: [{type: reference}]}\n", ["evaluate.judges.1.type=reward"], "is not one of its 1 items"),
    ],
)  # fmt: skip
def test_a_problem_is_named_with_its_place_and_the_way_out(tmp_path, text, overrides, expected):
    said = complaint(tmp_path, text, *overrides)
    assert expected in said
    assert "pydantic" not in said.lower()
    assert not said.startswith(("2 ", "3 "))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.yaml: is empty"),
        ("# nothing\n", "c.yaml: is empty"),
        ("- a\n", "c.yaml: expected a mapping of sections (run:, data:, ...), got a list"),
        ("3\n", "c.yaml: expected a mapping of sections (run:, data:, ...), got one value"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path, text, expected):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(PladError) as e:
        load_config(tmp_path / "c.yaml")
    assert expected in str(e.value)
    assert "\n" not in e.value.what


def test_aliases_that_multiply_are_refused_at_once(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{c}: &{c} [{', '.join(['*' + chr(ord(c) - 1)] * 9)}]" for c in "bcdefghij"]
    assert "too large" in complaint(tmp_path, "\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["missing", "folder", "latin-1", "huge"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, kind):
    path = tmp_path / "c.yaml"
    if kind == "folder":
        path.mkdir()
    if kind == "latin-1":
        path.write_bytes(b"x: caf\xe9")
    if kind == "huge":
        path.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(PladError) as e:
        load_config(path)
    assert e.value.where == str(path)
    assert "\n" not in e.value.what


def test_all_problems_come_at_once_each_with_its_place(tmp_path):
    with pytest.raises(ProblemsError) as e:
        load(tmp_path, "sft: {epochs: 0, epoch: 1}\nteachr: 1\nrun: {dir: y}\n", "data.limit=x", "nonsense")
    wheres = [p.where.replace(f"{tmp_path}/", "") for p in e.value.problems if p.where]
    assert wheres == [
        "c.yaml:7: run",
        "nonsense",
        "data.limit",
        "c.yaml:5: sft.epochs",
        "c.yaml:5: sft.epoch",
        "c.yaml:6: teachr",
    ]


def test_a_missing_section_says_what_it_is_for(tmp_path):
    (tmp_path / "c.yaml").write_text("run: {}\ndata: {train: a, test: b}\nteacher: {model: t}\n")
    with pytest.raises(ProblemsError) as e:
        load_config(tmp_path / "c.yaml")
    assert "c.yaml:1: run.dir: is required\n  -> Directory of this run" in str(e.value)
    assert "c.yaml: student: is required" in str(e.value)


def test_both_configs_are_written_and_secrets_are_not(tmp_path):
    config = load(tmp_path, "# hf_abcdefghijklmnop\n", "sft.epochs=2", "teacher.model=https://me:secret@host/x")
    with open_run(tmp_path / "run") as run, write_config(run, tmp_path / "c.yaml", config):
        pass
    written = (tmp_path / "run/config.yaml").read_text()
    assert written == BASE + "# [redacted]\n"
    resolved = json.loads((tmp_path / "run/config.resolved.json").read_text())
    assert resolved["sft"]["epochs"] == 2
    assert "secret" not in json.dumps(resolved)
    del resolved["teacher"]["model"]
    assert Config.model_validate_json(json.dumps(resolved | {"teacher": {"model": "t"}})).sft == config.sft


def test_a_refused_change_leaves_the_runs_config_in_place(tmp_path):
    first = load(tmp_path)
    with open_run(tmp_path / "run") as run:
        with write_config(run, tmp_path / "c.yaml", first):
            pass
        second = load(tmp_path, "sft: {epochs: 2}\n")
        with pytest.raises(RunDirError), write_config(run, tmp_path / "c.yaml", second):
            raise RunDirError("made with other settings")
        assert (run / "config.yaml").read_text() == BASE
        with write_config(run, tmp_path / "c.yaml", second):
            pass
        assert "epochs: 2" in (run / "config.yaml").read_text()


@pytest.mark.parametrize(
    "recipe", sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_loads(recipe):
    assert load_config(recipe, []).run.dir.parent == Path("runs")


def test_the_ablation_changes_a_setting_at_a_time_beside_seqkd():
    recipe = Path(__file__).parents[2] / "recipes/ablation.yaml"
    names = labels(load_config(recipe, []).distill.objective.alternatives)
    assert len(set(names)) == len(names) == 9
    assert names[0] == "rank"
    assert "sft" in names
    for tame in ("sft_weight=4", "sft_epochs=2", "beta=0.1", "anchor_weight=1"):
        assert f"rank {tame}" in names


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("run.seed=4294967296", "run.seed: must be at most 4,294,967,295; got 4294967296"),
        ("run.seed=-1", "run.seed: must be at least 0; got -1"),
        ('run.dir="runs/a\\0b"', "run.dir: holds a NUL character"),
        (f"run.dir=runs/{'é' * 150}", "run.dir: holds a name of 300 bytes; file systems take 255 at most"),
        (f"run.dir={'/'.join(['folder'] * 700)}", "run.dir: is a path of 4,900 bytes; at most 3,800"),
        (f"generate.ledger={'l' * 256}", "generate.ledger: holds a name of 256 bytes"),
    ],
)
def test_what_a_library_or_a_file_system_would_refuse_is_refused_here(tmp_path: Path, override: str, says: str) -> None:
    assert says in complaint(tmp_path, "", override)


def test_the_largest_seed_and_the_longest_name_are_taken(tmp_path: Path) -> None:
    config = load(tmp_path, "", "run.seed=4294967295", f"run.dir={tmp_path}/{'d' * 255}")
    assert config.run.seed == 2**32 - 1
    with open_run(config.run.dir):
        pass

"""The command line: quick help, exit codes, validate, init, doctor."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

import plad
from plad.cli.guard import resume_command
from plad.errors import ConfigError, PartialResultError, ProviderError
from plad.pipeline import run as pipeline
from tests.support.command import call
from tests.support.tiny_models import CHATML, tiny_folder, train_tokenizer

STAGE_COMMANDS = ("sft", "generate", "pair", "distill", "evaluate", "report")
COMMANDS = (
    "run",
    *STAGE_COMMANDS,
    "reward",
    "judge-check",
    "validate",
    "plan",
    "status",
    "show",
    "try",
    "serve",
    "ledger",
    "compare",
    "export",
    "init",
    "doctor",
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with a config, data of 20 + 3 + 5 rows and two tiny models in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "project"
    home.mkdir()
    for name, n in (("train", 20), ("validation", 3), ("test", 5)):
        rows = [json.dumps({"id": f"{name}{i}", "prompt": f"{name} {i}", "references": ["r", "s"]}) for i in range(n)]
        (home / f"{name}.jsonl").write_text("\n".join(rows))
    tiny_folder(home / "big")
    tiny_folder(home / "small", tokenizer=train_tokenizer(chat_template=CHATML))
    (home / "c.yaml").write_text(
        "run: {dir: runs/x}\n"
        "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}\n"
        "teacher: {model: big}\nstudent: {model: small}\n"
    )
    return home / "c.yaml"


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['plad', '--help']\n"
        "from plad.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'pydantic', 'datasets'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in out
    for command in COMMANDS:
        assert f" {command} " in out


def test_help_takes_less_than_half_a_second_of_work():
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "plad", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_every_public_name_is_there():
    assert [name for name in plad.__all__ if isinstance(getattr(plad, name), type(sys))] == []
    assert not hasattr(plad, "nonsense")


def test_importing_plad_is_light():
    code = "import sys, plad; print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "set()\n"


def test_version():
    assert call("--version") == (0, f"plad {plad.__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_stages_and_kinds(shell):
    def completed(*words: str) -> str:
        line = " ".join(("plad", *words))
        environment = {"COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_TYPER_COMPLETE_ARGS": line}
        environment |= {"_PLAD_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        command = [sys.executable, "-c", "from plad.cli import main; main()"]
        environment = os.environ | environment
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert "generate" in completed("ge")
    assert "judgements" in completed("show", "r", "ju")
    assert "evaluate" in completed("run", "c.yaml", "--to", "ev")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize(
    "args",
    [["run"], ["nonsense"], ["run", "c.yaml", "--to", "nowhere"], ["run", "c.yaml", "--limit", "0"], ["show", "r", "x"],
     ["compare"], ["export", "r"], ["export", "r", "--to", "zip"]],
)  # fmt: skip
def test_a_wrong_call_exits_2(args):
    assert call(*args)[0] == 2


def test_the_config_and_where_it_stands_reach_the_pipeline(project, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "run", lambda config, run, **kw: seen.append((config, run.path, kw)))
    assert (
        call("run", project, "sft.epochs=2", "--to", "pair", "--limit", 8, "--clean", "sft", "--skip-invalid")[0] == 0
    )
    assert call("distill", project)[0] == 0
    config, path, options = seen[0]
    assert (config.sft.epochs, config.data.limit, path) == (2, 8, Path("runs/x"))
    assert options == {
        "base": project.parent, "to": "pair", "clean": "sft", "skip_invalid": True, "verify": None, "donors": (),
    }  # fmt: skip
    assert seen[1][2] == {"base": project.parent, "only": "distill", "skip_invalid": False, "verify": None}
    assert Path("runs/x/config.yaml").read_text() == project.read_text()
    assert json.loads(Path("runs/x/config.resolved.json").read_text())["data"]["train"] == "train.jsonl"


@pytest.mark.parametrize("stage", STAGE_COMMANDS)
def test_a_stage_command_runs_that_stage_alone(project, monkeypatch, stage):
    seen = []
    monkeypatch.setattr(pipeline, "run", lambda config, run, **kw: seen.append(kw["only"]))
    assert call(stage, project)[0] == 0
    assert seen == [stage]


def test_a_stage_without_the_one_before_it_says_which_is_missing(project):
    code, _, err = call("pair", project)
    assert code == 2
    assert "stage sft is not done, and pair needs it" in err
    assert "-> plad sft CONFIG" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("w", where="a.b", fix="one\ntwo"), 2),
        (ProviderError("w", where="a.b", fix="one\ntwo"), 3),
        (PartialResultError("w", where="a.b", fix="one\ntwo"), 4),
    ],
)
def test_errors_say_where_what_and_the_ways_out(project, monkeypatch, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "run", fail)
    got, out, err = call("run", project)
    assert (got, out) == (code, "")
    assert err == "error: a.b: w\n  -> one\n  -> two\n"
    assert "stopped: a.b: w" in Path("runs/x/run.log").read_text()


def test_what_was_not_expected_leaves_its_traceback_in_the_log_without_secrets(project, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("boom sk-canary123456789 \x1b[31mred")

    monkeypatch.setattr(pipeline, "run", fail)
    code, _, err = call("run", project)
    assert code == 1
    assert err.startswith("error: unexpected RuntimeError: boom [redacted] red\n")
    assert "runs/x/run.log" in err
    assert "Traceback" not in err
    log = Path("runs/x/run.log").read_text()
    assert "Traceback" in log
    assert "in fail" in log
    for file in Path("runs").rglob("*"):
        assert not file.is_file() or b"canary" not in file.read_bytes()


def test_logs_of_libraries_go_to_the_log_file_redacted(project, monkeypatch):
    import logging
    import warnings

    def work(*_, **__):
        logging.getLogger("plad").info("token hf_canary1234567 used")
        logging.getLogger("httpx").warning("GET https://me:canary@host/")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("careful", UserWarning, stacklevel=1)

    monkeypatch.setattr(pipeline, "run", work)
    code, _, err = call("run", project)
    log = Path("runs/x/run.log").read_text()
    assert code == 0
    assert "token [redacted] used" in err
    assert "token [redacted] used" in log
    assert "GET https://[redacted]@host/" in log
    assert "UserWarning: careful" in log
    assert "careful" not in err
    assert "canary" not in log + err


def test_a_full_disk_says_how_much_is_free(project, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "runs/x/pairs.parquet")

    monkeypatch.setattr(pipeline, "run", fail)
    code, _, err = call("run", project)
    assert code == 2
    assert "error: runs/x/pairs.parquet: can't write: No space left on device;" in err
    assert "MiB are free there" in err


def test_the_resume_command_leaves_out_what_must_not_be_done_twice():
    argv = ["run", "my config.yaml", "--clean", "sft", "a.b=[1, 2]", "--clean=pair", "--limit", "3"]
    assert resume_command(argv) == "plad run 'my config.yaml' 'a.b=[1, 2]' --limit 3"


# -- validate -----------------------------------------------------------------------------------------


def test_validate_accepts_a_good_run_and_says_what_it_did_not_check(project):
    code, out, err = call("validate", project)
    assert (code, err) == (0, "")
    assert "10 rows for fine-tuning, 10 for distillation, 3 for validation, 5 for test" in out
    assert "teacher: lengths: longest prompt" in out
    assert "prompt format chat" in out
    assert "not checked:\n  - that the weights load" in out
    assert not Path("runs").exists()


def test_validate_reports_every_problem_at_once(project):
    with (project.parent / "train.jsonl").open("a") as f:
        f.write('\n{"prompt": null}\nrubbish\n')
    (project.parent / "test.jsonl").write_text('{"prompt": "P"}\n')
    (project.parent / "small/tokenizer.json").unlink()
    (project.parent / "small/tokenizer_config.json").unlink()
    code, out, err = call("validate", project, "run.dir=../up", "teacher.model=./bgi")
    assert code == 2
    for part in (
        "run.dir=../up: a run directory may not point upwards",
        "train.jsonl: 2 rows can't be used\n",
        "train.jsonl:21: prompt: null",
        "train.jsonl:22:1: not JSON",
        "test.jsonl:1: no column references",
        "teacher: ./bgi: no such folder",
        "error: student: ",
    ):
        assert part in err
    assert err.count("error: ") == 5
    assert "the data has to be right first" in out


def test_validate_stops_at_a_wrong_config_and_says_so(project):
    code, out, err = call("validate", project, "sft.epoch=1", "teachr.model=x")
    assert code == 2
    assert err.count("error: ") == 2
    assert "the config has to be right first" in out


def test_validate_looks_at_the_judges_truths_and_the_sweeps_values(project):
    scorer = "pairs.scorer={type: verifiable}"
    code, _, err = call("validate", project, scorer, "sweep={space: {distill.batch_size: [0], sft.epoch: [1]}}")
    assert code == 2
    assert "pairs.scorer: 0 of " in err
    assert "sweep.space.distill.batch_size: 0: must be above 0" in err
    assert "sweep.space.sft.epoch: no such setting" in err
    found = call(
        "validate", project, "pairs.scorer={type: verifiable, match: exact}", "sweep={space: {sft.epochs: [1]}}"
    )
    assert found[0] == 0
    assert "has nothing to do: pairs.real_share is 0" in found[1]
    assert "settings to try: 1" in found[1]


def test_validate_skips_what_it_may_and_counts_it(project):
    with (project.parent / "train.jsonl").open("a") as f:
        f.write("\nrubbish\n")
    assert call("validate", project)[0] == 2
    code, out, _ = call("validate", project, "--skip-invalid")
    assert code == 0
    assert "unusable rows skipped: train 1" in out


def test_validate_finds_a_leak(project):
    with (project.parent / "test.jsonl").open("a") as f:
        f.write('\n{"prompt": "TRAIN  3", "references": ["r", "s"]}\n')
    code, _, err = call("validate", project)
    assert code == 2
    assert "train.jsonl:4 (train) = " in err


def test_validate_counts_prompts_that_do_not_fit(project):
    row = {"prompt": "x " * 300, "references": ["r", "s"]}
    with (project.parent / "test.jsonl").open("a") as f:
        f.write("\n" + json.dumps(row))
    code, out, _ = call("validate", project)
    assert code == 0
    assert "context 256; 1 rows don't fit with their answer (test 1): counted and left out" in out
    code, _, err = call("validate", project, "generate.max_new_tokens=256")
    assert code == 2
    assert "no row of distill fits" in err


@pytest.mark.parametrize(("margin", "over"), [(0, 0), (1, 3)])
def test_validate_counts_to_the_token(project, margin, over):
    """Prompt + answer may fill the context exactly; one token more doesn't fit."""
    tokenizer = train_tokenizer()
    longest = max(len(tokenizer.encode(f"validation {i}")) for i in range(3))
    assert longest == min(len(tokenizer.encode(f"validation {i}")) for i in range(3))
    code, out, err = call("validate", project, f"evaluate.max_new_tokens={256 - longest + margin}", "student.model=big")
    assert ("(validation 3" in out) == bool(over), out + err
    assert code == (2 if over else 0)


def test_validate_wants_a_template_for_conversations(project):
    rows = [{"prompt": [{"role": "user", "content": f"q {i}"}], "references": ["r", "s"]} for i in range(20)]
    rows = [{**r, "prompt": [{"role": "system", "content": "s"}, *r["prompt"]]} for r in rows]
    (project.parent / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err = call("validate", project)
    assert code == 2
    assert "error: teacher" in err
    assert "template" in err


def test_validate_refuses_to_keep_more_layers_than_there_are(project):
    code, _, err = call("validate", project, "student.init={type: prune, layers: 2}")
    assert code == 2
    assert "student.init.layers: the model has 2 layers" in err


def test_validate_says_when_the_hub_is_switched_off(project, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = call("validate", project, "teacher.model=nobody/nothing")
    assert code == 2
    assert "error: teacher: nobody/nothing: no such folder, and as a hub model it is not on this machine" in err
    assert "hf download nobody/nothing" in err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    code, out, _ = call("validate", project, "teacher.model=nobody/nothing")
    assert code == 0
    assert "- teacher nobody/nothing: no such folder here, so taken for a hub model" in out


def test_validate_names_a_missing_extra(project, monkeypatch):
    (project.parent / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("plad.policy.gguf.find_spec", lambda name: None)
    code, _, err = call("validate", project, "student.model=m.gguf")
    assert code == 2
    assert "pip install 'plad[gguf]'" in err


def test_validate_notes_rows_that_the_reference_judge_cannot_judge(project):
    (project.parent / "test.jsonl").write_text('{"prompt": "P", "reference": "only one"}\n')
    code, out, _ = call("validate", project)
    assert code == 0
    assert "only 0 of 1 test rows have a reference beside their target" in out


# -- init and doctor ----------------------------------------------------------------------------------


def test_init_writes_a_project_that_validate_accepts(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("init", "new/project")
    assert code == 0
    assert "next: plad validate new/project/config.yaml" in out
    names = sorted(p.name for p in Path("new/project").rglob("*") if p.is_file())
    assert names == ["LICENSE.txt", "NOTICE.txt", "config.yaml", "test.jsonl", "train.jsonl", "validation.jsonl"]
    code, out, err = call("validate", "new/project/config.yaml")
    assert (code, err) == (0, "")
    assert "120 rows for fine-tuning, 120 for distillation, 40 for validation, 152 for test" in out


def test_the_template_changes_nothing_but_the_places_and_the_objective(tmp_path):
    """A student as small as the template's needs a tamed ranking loss; all else has its default."""
    from plad.config.file import load_config
    from plad.config.root import Config

    call("init", tmp_path / "p")
    config = load_config(tmp_path / "p/config.yaml")
    minimal = {
        "run": {"dir": config.run.dir},
        "data": {name: getattr(config.data, name) for name in ("train", "validation", "test")},
        "teacher": {"model": config.teacher.model},
        "student": {"model": config.student.model},
        "distill": {"objective": {"type": "rank", "beta": 0.1, "sft_weight": 4.0}},
    }
    assert config == Config.model_validate(minimal)
    assert config.run.dir.name == "p"


def test_init_overwrites_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "mine.txt"):
        code, _, err = call("init", target)
        assert code == 2
        assert "nothing is overwritten" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_doctor_names_versions_and_the_device_and_no_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary1234567")
    code, out, _ = call("doctor")
    assert code == 0
    for name in ("plad ", "python ", "torch ", "device ", "dtype ", "threads ", "memory ", "HF_HUB_OFFLINE "):
        assert f"\n{name}" in f"\n{out}"
    assert "canary" not in out


def test_python_m_plad_is_the_same_command():
    result = subprocess.run(
        [sys.executable, "-m", "plad", "status", "/nowhere"], check=False, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: /nowhere: not a run directory")

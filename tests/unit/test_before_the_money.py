"""What `plad validate`, and a run, find before anything is trained or paid for: adapters, kinds, paths, settings."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from plad.config.models import LoraSection
from plad.errors import PolicyError
from plad.policy.checks import template
from plad.policy.checks.targets import check_targets
from plad.policy.folder import load_config
from tests.support.command import call
from tests.support.servers.scripted import Call, Response, answer, as_json, error, serve
from tests.support.task import write_task
from tests.support.tiny_models import tiny_folder, train_tokenizer

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GREEDY = "{% for a in range(40) %}{% set x = 'x' * 999999999 %}{{ x }}{% endfor %}"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"))


def refused(config: Path, *overrides: str, command: str = "validate") -> str:
    """What is said of the one problem that there is."""
    code, out, err = call(command, config, *overrides)
    assert code == 2, out + err
    assert err.count("error: ") == 1, err
    return " ".join(err.split())


# -- adapters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("student.lora={target_modules: [q_proj, qproj]}", "student.lora.target_modules"),
        ("teacher.lora={target_modules: [qproj]}", "teacher.lora.target_modules"),
        ("distill.lora={target_modules: [qproj]}", "distill.lora.target_modules"),
        ("sft.lora={target_modules: [qproj]}", "sft.lora.target_modules"),
    ],
)
def test_an_adapter_of_modules_that_are_not_there(task: Path, override: str, place: str) -> None:
    code, out, err = call("validate", task, override)
    assert code == 2, out
    said = " ".join(err.split())
    assert f"{place}: LlamaForCausalLM has no module qproj -> did you mean q_proj?" in said
    assert "linear layers of this model: down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj" in said


def test_a_run_says_so_before_the_teacher_is_trained(task: Path) -> None:
    said = refused(task, "student.lora={target_modules: [qproj]}", "--to", "sft", command="run")
    assert "student.lora.target_modules" in said
    assert not list((task.parent / "run/sft").glob("*"))


def test_an_adapter_that_fits_passes_and_a_tied_head_does_not(tmp_path: Path) -> None:
    config = load_config(tiny_folder(tmp_path / "m", "gemma3"))
    check_targets(config, {"student.lora": LoraSection(target_modules=("q_proj",))})
    with pytest.raises(PolicyError, match="one matrix") as e:
        check_targets(config, {"student.lora": LoraSection(target_modules=("lm_head",))})
    assert e.value.where == "student.lora.target_modules"


# -- objectives and kinds of models -----------------------------------------------------------------------


def test_an_objective_that_an_encoder_decoder_cannot_have(tmp_path: Path) -> None:
    config = write_task(tmp_path, family="t5", student__init={"type": "pretrained"})
    for command, more in (("validate", ()), ("run", ("--to", "sft"))):
        said = refused(config, "distill.objective={type: minillm}", *more, command=command)
        assert "student.model: objective minillm needs decoder-only models" in said
        assert "teacher_mix: 0" in said
    assert not list((tmp_path / "run/sft").glob("*"))
    for fine in ("{type: minillm, teacher_mix: 0}", "{type: gkd}"):
        assert call("validate", config, f"distill.objective={fine}")[0] == 0


# -- paths ------------------------------------------------------------------------------------------------


def test_a_misspelt_model_of_a_folder_that_is_there(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_folder(task.parent / "models/small")
    said = refused(task, "student={model: models/smal, lora: null}")
    assert "student: models/smal: no such folder, though models/ exists" in said
    assert "-> did you mean models/small?" in said
    assert "hf download models/smal" in said
    assert "did you mean models/small?" in refused(
        task, "student={model: models/smal, lora: null}", "--to", "sft", command="run"
    )
    said = refused(task, "student={model: ./modle, lora: null}")
    assert "./modle: no such folder -> did you mean model?" in said
    judge = "evaluate.judges=[{type: reward, model: models/smal}]"
    assert "did you mean models/small?" in refused(task, judge)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    code, out, err = call("validate", task, "student={model: nobody/nothing, lora: null}")
    assert (code, "taken for a hub model" in out) == (0, True), err


def test_a_provider_names_its_models_as_it_likes(task: Path) -> None:
    (task.parent / "models").mkdir(exist_ok=True)
    engine = "{type: openai, base_url: 'http://127.0.0.1:9/v1'}"
    assert call("validate", task, f"teacher={{model: models/gemini-3-flash, engine: {engine}}}")[0] == 0


# -- settings ---------------------------------------------------------------------------------------------


def test_a_temperature_at_which_nobody_samples_is_noted(task: Path) -> None:
    assert "note  generate.temperature: 7 is far above 1" in call("validate", task, "generate.temperature=7")[1]
    assert "generate.temperature" not in call("validate", task, "generate.temperature=2")[1]


# -- what takes too long -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bound"), [(ENDLESS, "2 s of processor time"), (GREEDY, "1 GiB of memory")], ids=["endless", "greedy"]
)
def test_a_chat_template_is_bounded(tmp_path: Path, text: str, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "CPU_S", 2)
    monkeypatch.setattr(template, "_CHILD_BYTES", 2**30)
    config = write_task(tmp_path)
    tiny_folder(tmp_path / "other", tokenizer=train_tokenizer(chat_template=text))
    said = refused(config, "student={model: other, lora: null}")
    assert f"the chat template takes more than {bound}" in said
    assert "prompt.format: plain" in said
    assert call("validate", config, "student={model: other, lora: null, prompt: {format: plain}}")[0] == 0


def test_a_row_of_megabytes_is_measured_by_its_beginning(task: Path, tmp_path: Path) -> None:
    """Reading all of it takes ten times as long."""
    text = "word and more words here " * 160_000
    rows = [json.loads(line) for line in (task.parent / "train.jsonl").read_text().splitlines()]
    rows[3]["prompt"], rows[5]["references"] = text, [text]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    started = time.process_time()
    code, out, err = call("validate", task, f"data.train={tmp_path / 'train.jsonl'}")
    seconds = time.process_time() - started
    assert code == 0, err
    assert out.count("longest prompt over 512 tokens, context 256; ") == 2
    assert seconds < 3, f"{seconds:.1f} s for 4 MB twice"


# -- models that refuse fields ---------------------------------------------------------------------------------


def choosy(call_: Call) -> Response:
    """As OpenAI's reasoning models refuse."""
    if call_.method == "GET":
        return as_json({"data": []})
    if "max_tokens" in call_.body:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return error(400, text, type="invalid_request_error", param="max_tokens", code="unsupported_parameter")
    if call_.body.get("temperature", 1) != 1:
        text = f"Unsupported value: 'temperature' does not support {call_.body['temperature']} with this model. "
        text += "Only the default (1) value is supported."
        return error(400, text, type="invalid_request_error", param="temperature", code="unsupported_value")
    return answer("an answer")


def behind(url: str, config: Path, **engine: Any) -> Path:
    written = yaml.safe_load(config.read_text())
    written["teacher"] = {"model": "big", "engine": {"type": "openai", "base_url": url, **engine}}
    path = config.with_name("remote.yaml")
    path.write_text(yaml.safe_dump(written))
    return path


def test_a_refused_field_stops_at_once_with_the_setting_that_avoids_it(task: Path) -> None:
    with serve(choosy) as server:
        first = behind(server.url, task)
        for command, options in (("validate", ("--online",)), ("run", ("--to", "generate"))):
            before = len(server.calls)
            code, _, err = call(command, first, *options, f"run.dir={task.parent / 'remote'}", "sft.epochs=0.1")
            assert code in (2, 3)
            assert "-> engine.max_tokens_field: max_completion_tokens" in " ".join(err.split())
            assert len(server.calls) - before <= 16, "nothing more than was in flight"
        tokens = {"max_tokens_field": "max_completion_tokens"}
        err = call("validate", behind(server.url, task, **tokens), "--online")[2]
        assert "-> engine.body: {temperature: null} leaves it out" in " ".join(err.split())
        code, out, err = call("validate", behind(server.url, task, **tokens, body={"temperature": None}), "--online")
        assert code == 0, err
        assert "outcome ok" in out


def test_the_providers_example_of_the_docs_is_taken_by_such_a_model(task: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/teachers.md").read_text()
    shown = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    with serve(choosy) as server:
        engine = {**shown["teacher"]["engine"], "base_url": server.url, "api_key_env": None, "rpm": None}
        del engine["type"]
        config = behind(server.url, task, **engine)
        code, out, err = call("run", config, "--to", "generate", f"run.dir={task.parent / 'docs'}", "sft.epochs=0.1")
        assert code == 0, out + err
        body = server.calls[-1].body
    assert {"max_completion_tokens", "reasoning_effort"} < set(body)
    assert not {"max_tokens", "temperature"} & set(body)


def test_online_sends_a_request_of_the_run(task: Path) -> None:
    with serve(lambda c: as_json({"data": []}) if c.method == "GET" else answer("yes")) as server:
        config = behind(server.url, task, body={"top_p": 0.9})
        where = f"run.dir={task.parent / 'same'}"
        assert call("validate", config, "--online", "generate.temperature=0.3", where)[0] == 0
        (probed,) = [c.body for c in server.calls if c.method == "POST"]
        code, out, err = call("run", config, "generate.temperature=0.3", where, "--to", "generate", "sft.epochs=0.1")
        assert code == 0, out + err
        asked = [c.body for c in server.calls if c.method == "POST"][1:]
    assert probed in asked
    assert (probed["temperature"], probed["max_tokens"], probed["top_p"]) == (0.3, 24, 0.9)

"""Preparing the splits of a run."""

import json
from importlib.resources import files

import pytest

from plad.config.root import Config
from plad.data.prepare import data_fingerprint, prepare
from plad.data.split import prompt_key
from plad.errors import PladError


def config(tmp_path, *, batch=4, limit=None, **data):
    for name, n in (("train", 20), ("validation", 3), ("test", 5)):
        rows = [json.dumps({"id": f"{name}{i}", "prompt": f"{name} {i}", "references": ["r"]}) for i in range(n)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    sources = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}
    return Config.model_validate(
        {
            "run": {"dir": str(tmp_path / "run")},
            "data": {**sources, "limit": limit, **data},
            "teacher": {"model": "t"},
            "student": {"model": "s"},
            "sft": {"batch_size": batch},
            "distill": {"batch_size": batch},
        }
    )


def test_the_splits_and_their_counts(tmp_path):
    prepared = prepare(config(tmp_path))
    assert [len(prepared.sft), len(prepared.distill), len(prepared.validation), len(prepared.test)] == [10, 10, 3, 5]
    assert prepared.counts == {
        "sft": 10,
        "distill": 10,
        "validation": 3,
        "test": 5,
        "skipped": {"train": 0, "validation": 0, "test": 0},
        "duplicate_prompts": {"train": 0, "validation": 0, "test": 0},
        "overlap": {"train": 0, "validation": 0, "test": 0},
    }


def test_prompts_of_another_file_are_left_out_of_the_earlier_one_and_counted(tmp_path):
    settings = config(tmp_path, overlap="drop")
    for name, prompts in (("train", ["TEST  0", "validation 1"]), ("validation", ["test 1", "test 1"])):
        more = [json.dumps({"id": f"more {p} {i}", "prompt": p, "references": ["r"]}) for i, p in enumerate(prompts)]
        with (tmp_path / f"{name}.jsonl").open("a") as f:
            f.write("\n" + "\n".join(more))
    prepared = prepare(settings)
    assert [len(prepared.sft), len(prepared.distill), len(prepared.validation), len(prepared.test)] == [10, 10, 3, 5]
    assert prepared.counts["overlap"] == {"train": 2, "validation": 2, "test": 0}
    assert prepared.counts["duplicate_prompts"] == {"train": 0, "validation": 0, "test": 0}
    with pytest.raises(PladError, match="stand in two splits") as error:
        prepare(settings.model_copy(update={"data": settings.data.model_copy(update={"overlap": "refuse"})}))
    assert "data.overlap: drop" in str(error.value)


def test_validation_is_optional(tmp_path):
    assert prepare(config(tmp_path, validation=None)).validation == []


def test_the_shipped_data_is_cut_120_120_and_leaks_nothing(tmp_path):
    folder = files("plad.extras.demo") / "data"
    sources = {n: str(folder / f"{n}.jsonl") for n in ("train", "validation", "test")}
    prepared = prepare(config(tmp_path, **sources))
    assert [len(prepared.sft), len(prepared.distill), len(prepared.validation), len(prepared.test)] == [
        120,
        120,
        40,
        152,
    ]
    everything = prepared.sft + prepared.distill + prepared.validation + prepared.test
    assert len({prompt_key(e.prompt) for e in everything}) == 432
    assert sum(len(e.references) for e in prepared.test) > 120


def test_a_limit_that_leaves_less_than_a_batch_is_named(tmp_path):
    with pytest.raises(PladError, match=r"3 rows for sft \(of 6 training rows, data.limit 6, .*one batch of 4") as e:
        prepare(config(tmp_path, limit=6))
    assert "distill.batch_size=3" in str(e.value)


def test_skipped_rows_are_counted(tmp_path):
    made = config(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as f:
        f.write('\n{"prompt": null}\nrubbish\n')
    assert prepare(made, skip_invalid=True).counts["skipped"] == {"train": 2, "validation": 0, "test": 0}


def test_problems_of_all_files_are_reported_together(tmp_path):
    made = config(tmp_path)
    (tmp_path / "validation.jsonl").write_text('{"prompt": "train 1", "reference": "r"}\n')
    (tmp_path / "test.jsonl").write_text('{"prompt": ""}\n')
    with pytest.raises(PladError) as e:
        prepare(made)
    text = str(e.value)
    assert "2 problems" in text
    assert f"{tmp_path}/test.jsonl:1: prompt: blank" in text
    assert f"{tmp_path}/train.jsonl:2 (train) = {tmp_path}/validation.jsonl:1" in text


def test_test_rows_need_references(tmp_path):
    made = config(tmp_path)
    (tmp_path / "test.jsonl").write_text('{"prompt": "P"}\n{"prompt": "Q", "references": null}\n')
    with pytest.raises(PladError) as e:
        prepare(made)
    assert "test.jsonl:1: no column references, reference, completion (has 'prompt')" in str(e.value)
    assert "test.jsonl:2: references: null; expected" in str(e.value)


def test_relative_sources_are_found_beside_the_config(tmp_path):
    made = config(tmp_path, train="train.jsonl", validation=None, test="test.jsonl")
    assert prepare(made, base=tmp_path).counts["test"] == 5
    assert set(data_fingerprint(made, tmp_path)) == {"train", "test"}


def test_the_fingerprint_follows_the_content_not_the_name(tmp_path):
    made = config(tmp_path)
    before = data_fingerprint(made)
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "train.jsonl").read_bytes())
    assert data_fingerprint(config(tmp_path, train=str(tmp_path / "copy.jsonl"))) == before
    with (tmp_path / "test.jsonl").open("a") as f:
        f.write("\n")
    after = data_fingerprint(made)
    assert [name for name in after if after[name] != before[name]] == ["test"]


def test_all_missing_files_are_named_at_once(tmp_path):
    with pytest.raises(PladError) as e:
        data_fingerprint(config(tmp_path, train="no.jsonl", test="none.jsonl"))
    assert "no.jsonl: no such data file" in str(e.value)
    assert "none.jsonl: no such data file" in str(e.value)

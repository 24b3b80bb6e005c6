"""plad export --to hub through the real command, against a hub on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from plad.policy.load import save_policy
from plad.rundir.atomic import atomic_dir, write_json
from tests.support.servers.hub import TOKEN, Hub, hub
from tests.support.tiny_models import tiny_policy
from tests.support.written_runs import MANIFEST

CARD = "---\nlicense: other\nlibrary_name: transformers\n---\n# A student\n"


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub() as started:
        yield started


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "my-run"
    write_json(path / "manifest.json", MANIFEST)
    write_json(path / "eval/metrics.json", {})
    (path / "run.log").write_text("private")
    with atomic_dir(path / "student") as folder:
        (folder / "README.md").write_text(CARD)
        save_policy(tiny_policy(), folder)
    return path


def push(run: Path, server: Hub, *options: str, token: str | None = TOKEN, **more: str) -> tuple[int, str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(run.parent / "hf"), **more}
    if token:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "plad", "export", str(run), "--to", "hub", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_students_folder_and_nothing_else_arrives_in_one_private_commit(run: Path, server: Hub) -> None:
    code, out, err = push(run, server, "--repo", "owner/name")
    assert (code, out) == (0, f"uploaded: {server.url}/owner/name/commit/c0ffee\n"), err
    assert server.repos == {"owner/name": True}
    assert {k: v for k, v in server.files.items() if k != ".gitattributes"} == {
        file.name: file.read_bytes() for file in (run / "student").iterdir() if file.name != "COMPLETE"
    }
    assert list((run / "export").iterdir()) == []
    assert server.messages == ["Student of the plad run my-run"]
    assert ModelCard(server.files["README.md"].decode()).data.license == "other"
    assert TOKEN not in out + err


def test_public_is_said_aloud(run: Path, server: Hub) -> None:
    assert push(run, server, "--repo", "owner/name", "--public")[0] == 0
    assert server.repos == {"owner/name": False}


@pytest.mark.parametrize(("status", "way_out"), [(401, "check the token's rights"), (403, "check the token's rights")])
def test_a_refusal_is_named_with_exit_code_3(run: Path, server: Hub, status: int, way_out: str) -> None:
    server.refuse = status
    code, out, err = push(run, server, "--repo", "owner/name")
    assert (code, out) == (3, "")
    assert f"the hub refused ({status})" in err
    assert way_out in err
    assert "Traceback" not in err
    assert TOKEN not in err


def test_a_hub_that_is_not_there_is_named(run: Path, server: Hub) -> None:
    code, _, err = push(run, server, "--repo", "owner/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 3
    assert "the upload failed" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("change", "options", "shown"),
    [
        ("", (), "--repo OWNER/NAME"),
        ("", ("--repo", "name"), "'name' is no repository"),
        ("eval/metrics.json", ("--repo", "o/n"), "was not evaluated"),
        ("student/COMPLETE", ("--repo", "o/n"), "no student yet"),
        ("student/README.md", ("--repo", "o/n"), "no model card"),
    ],
)
def test_nothing_is_asked_of_the_hub_before_everything_is_there(
    run: Path, server: Hub, change: str, options: tuple[str, ...], shown: str
) -> None:
    if change:
        (run / change).unlink()
    code, _, err = push(run, server, *options)
    assert code == 2
    assert shown in err
    assert server.requests == []


def test_without_a_token_or_offline_the_way_out_is_named(run: Path, server: Hub) -> None:
    assert "HF_TOKEN: no token" in push(run, server, "--repo", "o/n", token=None)[2]
    assert "the hub is switched off" in push(run, server, "--repo", "o/n", HF_HUB_OFFLINE="1")[2]
    assert server.requests == []


def test_a_dry_run_shows_what_would_be_pushed_and_asks_for_nothing(run: Path, server: Hub) -> None:
    options = ("--repo", "o/n", "--dry-run")
    code, out, err = push(run, server, *options, token=None, HF_HUB_OFFLINE="1")
    assert (code, err) == (0, "")
    assert f"to: {server.url}/o/n\nseen by: you alone" in out
    files = [file for file in (run / "student").iterdir() if file.name != "COMPLETE"]
    assert f"{len(files)} files, {sum(f.stat().st_size for f in files):,} bytes" in out
    assert all(f"{file.stat().st_size:,}  {file.name}\n" in out for file in files)
    assert "COMPLETE" not in out
    assert out.endswith("  ---\n  license: other\n  library_name: transformers\n  ---\n  # A student\n")
    assert "seen by: everybody" in push(run, server, *options, "--public", token=None)[1]
    assert server.requests == []
    assert list((run / "export").iterdir()) == []
    half = push(run, server, *options, "--dtype", "bfloat16", token=None)[1]
    size = (run / "student/model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" not in half


def test_what_is_for_the_hub_alone_is_refused_elsewhere(run: Path, server: Hub) -> None:
    code, _, err = push(run, server, "--to", "merged", "--dry-run")
    assert code == 2
    assert "--dry-run: is for --to hub alone" in err

"""The benchmark of a teacher behind an endpoint, very small: it measures what it says."""

import multiprocessing
import socket
from pathlib import Path

from benchmarks import teacher


def test_it_measures_rate_memory_ledger_and_resume(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = multiprocessing.get_context("fork").Process(target=teacher.serve, args=(listener,), daemon=True)
    server.start()
    try:
        found = teacher.throughput(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", 200, tmp_path)
    finally:
        server.kill()
        server.join()
    listener.close()
    assert found["prompts"] == 200
    assert 0 < found["of ideal"] <= 1
    measured = teacher.resume(500, tmp_path)
    assert measured["resume s"] > 0
    assert measured["ms a row"] > 0


def test_a_proxy_is_looked_up_once_for_the_address(monkeypatch) -> None:
    from plad.remote.transport import _proxy

    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert _proxy("https://api.example/v1") == "http://proxy:3128"
    assert _proxy("http://api.example/v1") is None
    assert _proxy("https://localhost:8000/v1") is None

"""The tiny whole run: every stage, two rounds, adapters, a method to compare with, a teacher behind a server."""

import contextlib
import hashlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.support.servers.scripted import Call, Response, Server, answer, error
from tests.support.task import rows
from tests.support.tiny_models import tiny_folder, train_tokenizer

CONCURRENCY = 3
SPLITS = {"train": 12, "validation": 3, "test": 4}
ROWS = {split: [{**row, "prompt": f"{row['prompt']} naïve"} for row in rows(split, n)] for split, n in SPLITS.items()}
TARGETS = {row["prompt"]: row["references"][0] for same in ROWS.values() for row in same}
WEATHER = ("fair", "refuse", "reset", "500", "429", "rubbish", "cut", "empty")


def write_base(folder: Path) -> None:
    """Data and model, which all sequences share."""
    folder.mkdir(parents=True)
    for split, same in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in same)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    tiny_folder(folder / "model", "llama", tokenizer=train_tokenizer(), layers=2)


def write_config(folder: Path, base: Path, url: str) -> None:
    """The config of a sequence: the same text in every folder, so that the runs are the same."""
    engine = {"type": "openai", "base_url": url, "concurrency": CONCURRENCY, "timeout_s": 5, "max_attempts": 2}
    engine["max_wait_s"] = 0.5  # a rate limit that never ends is given up soon
    adapter = {"r": 2, "alpha": 8, "dropout": 0.1}
    config: dict[str, Any] = {
        "run": {"dir": "run", "seed": 1},
        "data": {name: str(base / f"{name}.jsonl") for name in SPLITS},
        "teacher": {"model": "big", "engine": engine},
        "student": {"model": str(base / "model"), "lora": adapter},
        "sft": {"batch_size": 2, "learning_rate": 1e-2, "checkpoint_steps": 1},
        "generate": {"max_new_tokens": 6, "slots": 3, "max_failed": 0.0},
        "pairs": {"drop": {"truncated": "teacher"}},
        "distill": {
            "batch_size": 3,
            "learning_rate": 1e-2,
            "checkpoint_steps": 1,
            "rounds": 2,
            "validation": {"evaluations": 1, "rows": 2},
        },
        "evaluate": {"bootstrap": 50, "baselines": ["seqkd"], "calibration": {"rows": 2}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def _mark(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:12]


class Teacher:
    """The server on loopback, its weather, and what was paid for.

    Attributes:
        asked: every question that arrived, by its mark.
        paid: whole good answers that were sent, by the mark that stands in their text.
        kept: marks of recorded answers; asking for one of them again goes to `again`.
    """

    def __init__(self) -> None:
        self.server = Server(self._respond)
        http = self.server._http  # on a port asked for by number, which stays ours while connections are refused
        http.socket.close()
        http.socket = socket.create_server(("127.0.0.1", http.server_port), backlog=256)
        self.server.__enter__()
        self.url = self.server.url
        self.weather, self.fair_for, self.refuses = "fair", 0, False
        self.forget()

    def forget(self) -> None:
        """A new sequence begins."""
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.kept: set[str] = set()
        self.again: list[str] = []
        self.served = 0
        self.server.calls.clear()
        self.server._attempts.clear()
        self.change("fair", 0)

    def change(self, weather: str, fair_for: int) -> None:
        """The weather after `fair_for` more good answers."""
        self.weather, self.fair_for = weather, fair_for
        listener = self.server._http.socket
        if weather == "refuse" and not self.refuses:
            listener.shutdown(socket.SHUT_RDWR)  # connections are refused, and the port stays ours
            self.refuses = True
        elif weather != "refuse" and self.refuses:
            listener.listen(256)
            self.refuses = False

    def _respond(self, call: Call) -> Response:
        mark = _mark(call.raw)
        self.asked[mark] += 1
        if mark in self.kept:
            self.again.append(mark)
        if self.weather != "fair" and self.fair_for <= 0:
            return _bad(self.weather)
        self.fair_for -= 1
        self.paid[mark] += 1
        return answer(f"{TARGETS[call.prompt]} {mark}", model="big")

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self.change("fair", 0)
        self.server.__exit__()


def _bad(weather: str) -> Response:
    match weather:
        case "500":
            return error(500, "down")
        case "429":
            return error(429, "slowly", headers={"Retry-After": "0"})
        case "rubbish":
            return Response(b"<html>log in</html>", headers={"Content-Type": "text/html"})
        case "cut":
            return Response(answer("half an answer").body, way="cut")
        case "empty":
            return Response(b"{}", headers={"Content-Type": "application/json"})
    return Response(way="reset")

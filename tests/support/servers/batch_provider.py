"""Files and batches as an OpenAI-compatible provider has them: a script for `tests.support.servers.scripted.serve`."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tests.support.servers.scripted import Call, Response, as_json, error

Row = dict[str, Any]


def honest(line: Row) -> Row:
    """An answered row, by all that was asked."""
    body = line["body"]
    text = f"{body['messages'][-1]['content']} {body['seed']}"
    return answered(line, text)


def answered(line: Row, text: Any, status: int = 200, **changes: Any) -> Row:
    message = {"role": "assistant", "content": text}
    body = {
        "model": "big",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        **changes,
    }
    return {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


def refused(line: Row, status: int, message: str = "no", **fields: Any) -> Row:
    body = {"error": {"message": message, **fields}}
    return {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


def expired(line: Row) -> Row:
    """As a batch that ran out of time says it of a request."""
    reason = {"code": "batch_expired", "message": "This request could not be executed before the window was over."}
    return {"custom_id": line["custom_id"], "response": None, "error": reason}


@dataclass
class Provider:
    """What it was given, and how it answers.

    Attributes:
        row: how a line is answered; None leaves it out.
        end: status that a batch ends with, by its number from 0.
        looks: how often a batch is looked at before it is over.
        arrange: changes the rows of an output file.
        errors: of a batch that failed, by its number.
        before, after: called with each request, before and after it takes effect.
    """

    row: Callable[[Row, int], Row | None] = lambda line, _: honest(line)
    end: Callable[[int], str] = lambda _: "completed"
    looks: int = 2
    arrange: Callable[[list[Row]], Iterable[Row | str]] = lambda rows: rows
    errors: Callable[[int], list[Row]] = lambda _: []
    before: Callable[[Call], Response | None] = lambda _: None
    after: Callable[[Call], Response | None] = lambda _: None
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Row] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, call: Call) -> Response:
        with self.lock:  # a request whose sender was killed takes effect before the next is looked at
            early = self.before(call)
            if early is not None:
                return early
            response = self._respond(call)
            return self.after(call) or response

    def lines(self, batch: Row) -> list[Row]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    @property
    def asked(self) -> Counter[str]:
        """How often each request stands in a batch."""
        return Counter(line["custom_id"] for batch in self.batches.values() for line in self.lines(batch))

    def _respond(self, call: Call) -> Response:
        parts = call.path.removeprefix("/v1/").partition("?")[0].split("/")
        match call.method, parts:
            case "POST", ["files"]:
                return as_json({"id": self._store(_upload(call)), "object": "file"})
            case "POST", ["batches"]:
                return self._create(call.body)
            case "GET", ["batches"]:
                return self._list(call.path)
            case "GET", ["batches", name] if name in self.batches:
                return as_json(self._look(self.batches[name]))
            case "GET", ["files", name, "content"] if name in self.files:
                return Response(self.files[name])
        return error(404, f"nothing at {call.path}")

    def _store(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def _create(self, asked: Row) -> Response:
        if asked["input_file_id"] not in self.files or asked["endpoint"] != "/v1/chat/completions":
            return error(400, "no such file")
        number = len(self.batches)
        name = f"batch-{number}"
        self.batches[name] = {**asked, "id": name, "status": "validating", "number": number, "looks": 0}
        return as_json(self.batches[name])

    def _list(self, path: str) -> Response:
        """Two a page, the latest first."""
        names = list(reversed(self.batches))
        after = path.partition("after=")[2]
        start = names.index(after) + 1 if after else 0
        data = [self.batches[name] for name in names[start : start + 2]]
        return as_json({"data": data, "has_more": start + 2 < len(names)})

    def _look(self, batch: Row) -> Row:
        batch["looks"] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["looks"] > self.looks:
                self._finish(batch)
        return batch

    def _finish(self, batch: Row) -> None:
        number = batch["number"]
        batch["status"] = self.end(number)
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": self.errors(number)}
            return
        rows = [row for line in self.lines(batch) if (row := self.row(line, number)) is not None]
        good = [r for r in rows if (r["response"] or {}).get("status_code") == 200]
        bad = [r for r in rows if r not in good]
        for name, part in (("output_file_id", good), ("error_file_id", bad)):
            listed = [row if isinstance(row, str) else json.dumps(row) for row in self.arrange(part)]
            batch[name] = self._store("\n".join([*listed, ""]).encode()) if part else None


def _upload(call: Call) -> bytes:
    """The file of a form, whose purpose must be `batch`."""
    head = f"Content-Type: {call.headers['Content-Type']}\r\n\r\n".encode()
    form = BytesParser(policy=HTTP).parsebytes(head + call.raw)
    fields: dict[Any, Any] = {}
    for part in form.iter_parts():  # type: ignore[attr-defined]
        fields[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True)
    assert fields["purpose"] == b"batch"
    return fields["file"]

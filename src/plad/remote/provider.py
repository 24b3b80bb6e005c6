"""The files and batches of an OpenAI-compatible provider: upload, submit, look, read. Each is tried until it works."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plad.config.engines import Endpoint
from plad.errors import ProviderError
from plad.remote.client import decide, way_out
from plad.remote.limits import Clock
from plad.remote.response import Attempt, JsonObject, Meaning, as_object, objects, parse_json, read_response
from plad.remote.transport import BrokenError, HttpResponse, send, stream_lines
from plad.text import conceal, redact

if TYPE_CHECKING:
    import aiohttp

_TRANSFER_S = 3600.0  # for a whole file
_PAGE = 100  # batches listed at once


@dataclass(frozen=True)
class Provider:
    """An open connection to the batch API.

    Attributes:
        path: of the API that its batches ask, such as `/chat/completions`.
        window: the time in which a batch is to be done, as the provider names it.
    """

    http: "aiohttp.ClientSession"
    endpoint: Endpoint
    path: str
    window: str
    clock: Clock
    draw: Callable[[], float]

    @property
    def _patient(self) -> Endpoint:
        return self.endpoint.model_copy(update={"timeout_s": _TRANSFER_S})

    async def upload(self, file: Path, name: str) -> str:
        """The id of an uploaded file of requests."""
        import aiohttp

        async def once() -> JsonObject:
            with file.open("rb") as content:
                form = aiohttp.FormData({"purpose": "batch"})
                form.add_field("file", content, filename=name, content_type="application/jsonl")
                return await self._send("POST", "/files", form, patient=True)

        return str((await self._until_it_works(once))["id"])

    async def submit(self, file: str, name: str) -> str:
        """The id of the batch that asks what a file holds; one that was submitted before is found by its name."""
        body = {
            "input_file_id": file,
            "endpoint": f"/v1{self.path}",
            "completion_window": self.window,
            "metadata": {"plad_job": name},
        }
        tried = False

        async def once() -> JsonObject:
            nonlocal tried
            before = await self.find(file, name) if tried else None  # the answer may be all that was lost
            tried = True
            return {"id": before} if before is not None else await self._send("POST", "/batches", json.dumps(body))

        return str((await self._until_it_works(once))["id"])

    async def find(self, file: str, name: str) -> str | None:
        """The id of a batch that was submitted under a name; None if there is none."""
        after = ""
        while True:
            page = await self.get(f"/batches?limit={_PAGE}{after}")
            listed = [batch for batch in objects(page.get("data")) if isinstance(batch.get("id"), str)]
            for batch in listed:
                known = as_object(batch.get("metadata")).get("plad_job") == name or batch.get("input_file_id") == file
                if known:
                    return str(batch["id"])
            if not page.get("has_more") or not listed:
                return None
            after = f"&after={listed[-1]['id']}"

    async def get(self, path: str) -> JsonObject:
        """What stands at a path."""
        return await self._until_it_works(lambda: self._send("GET", path))

    async def rows(self, file: str) -> AsyncIterator[JsonObject | None]:
        """The rows of a file, read as they arrive; None for one that is no JSON.

        Raises:
            BrokenError: the connection broke; what came before stands.
        """
        async for line in stream_lines(self.http, self._patient, f"/files/{file}/content"):
            row = parse_json(line)
            yield row if isinstance(row, dict) else None

    async def pause(self, attempt: Attempt, attempts: int) -> None:
        """Wait before another attempt.

        Raises:
            ProviderError: there is none, or none can succeed.
        """
        delay = None
        if attempt.meaning in (Meaning.PASSING, Meaning.RATE_LIMIT):
            delay = decide(attempt, attempts, self.draw(), self.endpoint)
        if delay is None:
            raise self.refused(attempt.message)
        await self.clock.sleep(delay)

    def refused(self, message: str) -> ProviderError:
        """The error of a provider that doesn't take the batch."""
        return ProviderError(
            f"the batch API refused: {message}",
            where=self.endpoint.base_url,
            fix=f"{way_out(message, self.endpoint)}\nor mode: live, which asks one by one\n"
            "the same command continues: no answer is lost, and no batch is sent twice",
        )

    async def _until_it_works(self, once: Callable[[], Awaitable[JsonObject]]) -> JsonObject:
        attempts = 0
        while True:
            try:
                return await once()
            except BrokenError as e:
                attempts += 1
                await self.pause(e.attempt, attempts)

    async def _send(
        self, method: str, path: str, data: "str | aiohttp.FormData | None" = None, *, patient: bool = False
    ) -> JsonObject:
        response = await send(self.http, self._patient if patient else self.endpoint, method, path, data)
        if not isinstance(response, HttpResponse):
            raise BrokenError(response)
        status, _, body = response
        if not 200 <= status < 300:
            attempt = read_response(*response)
            message = attempt.message or (attempt.reply.message if attempt.reply else None) or f"HTTP {status}"
            raise BrokenError(Attempt(attempt.meaning, message=message, wait=attempt.wait))
        value = parse_json(body)
        name = value.get("id") if isinstance(value, dict) else None
        named = isinstance(name, str) and conceal(name) == name  # it will be written down
        if not isinstance(value, dict) or (method == "POST" and not named):
            what = redact(f"the answer to {method} {path} is none: {body[:80]!r}")
            raise BrokenError(Attempt(Meaning.PASSING, message=what))
        return value

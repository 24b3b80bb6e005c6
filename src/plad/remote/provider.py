"""The files and batches of an OpenAI-compatible provider: upload, submit, look, read. Each is tried until it works."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plad.answers.reply import Kind, Verdict, read_response
from plad.config.engines import OpenAIEngine
from plad.errors import ProviderError
from plad.remote.client import decide, way_out
from plad.remote.limits import Clock
from plad.remote.transport import BrokenError, send, stream_lines

if TYPE_CHECKING:
    import aiohttp

_TRANSFER_S = 3600.0  # for a whole file
_PAGE = 100  # batches listed at once


@dataclass(frozen=True)
class Provider:
    """An open connection to the batch API."""

    http: "aiohttp.ClientSession"
    section: OpenAIEngine
    clock: Clock
    draw: Callable[[], float]

    async def upload(self, file: Path, name: str) -> str:
        """The id of an uploaded file of requests."""
        import aiohttp

        async def once() -> Any:
            with file.open("rb") as content:
                form = aiohttp.FormData({"purpose": "batch"})
                form.add_field("file", content, filename=name, content_type="application/jsonl")
                return await self._send("POST", "/files", form, patient=True)

        return (await self._until_it_works(once))["id"]

    async def submit(self, file: str, name: str) -> str:
        """The id of the batch that asks what a file holds; one that was submitted before is found by its name."""
        path = "/chat/completions" if self.section.api == "chat" else "/completions"
        body = {
            "input_file_id": file,
            "endpoint": f"/v1{path}",
            "completion_window": self.section.batch.window,
            "metadata": {"plad_job": name},
        }
        tried = False

        async def once() -> Any:
            nonlocal tried
            before = await self.find(file, name) if tried else None  # the answer may be all that was lost
            tried = True
            return {"id": before} if before is not None else await self._send("POST", "/batches", json.dumps(body))

        return (await self._until_it_works(once))["id"]

    async def find(self, file: str, name: str) -> str | None:
        """The id of a batch that was submitted under a name; None if there is none."""
        after = ""
        while True:
            page = await self.get(f"/batches?limit={_PAGE}{after}")
            listed = [b for b in page.get("data") or [] if isinstance(b, dict) and isinstance(b.get("id"), str)]
            for batch in listed:
                if (batch.get("metadata") or {}).get("plad_job") == name or batch.get("input_file_id") == file:
                    return batch["id"]
            if not page.get("has_more") or not listed:
                return None
            after = f"&after={listed[-1]['id']}"

    async def get(self, path: str) -> dict[str, Any]:
        """What stands at a path."""
        return await self._until_it_works(lambda: self._send("GET", path))

    async def rows(self, file: str) -> AsyncIterator[dict[str, Any] | None]:
        """The rows of a file, read as they arrive; None for one that is no JSON.

        Raises:
            BrokenError: the connection broke; what came before stands.
        """
        patient = self.section.model_copy(update={"timeout_s": _TRANSFER_S})
        async for line in stream_lines(self.http, patient, f"/files/{file}/content"):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else None

    async def pause(self, verdict: Verdict, attempts: int) -> None:
        """Wait before another attempt.

        Raises:
            ProviderError: there is none, or none can succeed.
        """
        delay = None
        if verdict.kind in (Kind.PASSING, Kind.RATE_LIMIT):
            delay = decide(verdict, attempts, self.draw(), self.section)
        if delay is None:
            raise self.refused(verdict.message)
        await self.clock.sleep(delay)

    def refused(self, message: str) -> ProviderError:
        """The error of a provider that doesn't take the batch."""
        return ProviderError(
            f"the batch API refused: {message}",
            where=self.section.base_url,
            fix=f"{way_out(message, self.section)}\nor mode: live, which asks one by one\n"
            "the same command continues: no answer is lost, and no batch is sent twice",
        )

    async def _until_it_works(self, once: Callable[[], Awaitable[Any]]) -> Any:
        attempts = 0
        while True:
            try:
                return await once()
            except BrokenError as e:
                attempts += 1
                await self.pause(e.verdict, attempts)

    async def _send(self, method: str, path: str, data: Any = None, *, patient: bool = False) -> dict[str, Any]:
        section = self.section.model_copy(update={"timeout_s": _TRANSFER_S}) if patient else self.section
        response = await send(self.http, section, method, path, data)
        if isinstance(response, Verdict):
            raise BrokenError(response)
        status, headers, body = response
        if not 200 <= status < 300:
            verdict = read_response(status, headers, body)
            said = verdict.message or (verdict.reply.message if verdict.reply else None) or f"HTTP {status}"
            raise BrokenError(Verdict(verdict.kind, message=said, wait=verdict.wait))
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        if not isinstance(value, dict) or (method == "POST" and not isinstance(value.get("id"), str)):
            raise BrokenError(Verdict(Kind.PASSING, message=f"the answer to {method} {path} is none: {body[:80]!r}"))
        return value

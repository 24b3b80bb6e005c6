"""One HTTP request to a provider: the key, the connection, and what every way to fail means.

The HTTP client is aiohttp: at 64 requests in flight it costs a tenth of a millisecond of processor time a request;
the openai package costs a whole one, more than a server of 50 ms leaves.
"""

import asyncio
import importlib.util
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from plad.config.engines import Endpoint
from plad.errors import ConfigError, MissingExtraError
from plad.remote.request import HttpRequest
from plad.remote.response import Attempt, Meaning, failed, read_response
from plad.text import hide, redact
from plad.version import __version__

if TYPE_CHECKING:
    import aiohttp

_MAX_BODY = 16 * 2**20  # bytes of a response, or of a line of a file, once unpacked


def api_key(endpoint: Endpoint) -> str | None:
    """The endpoint's key, which from now on appears in no log and no error.

    Raises:
        ConfigError: the variable is not set.
    """
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {endpoint.api_key_env} is not set",
            where="api_key_env",
            fix=f"export {endpoint.api_key_env}=...\nor api_key_env: null, for a server that needs no key",
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{endpoint.api_key_env} holds no key: odd characters", where="api_key_env")
    hide(key)
    return key


def require_client() -> None:
    """Raise the way out where the HTTP client isn't installed.

    Raises:
        MissingExtraError: it isn't.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingExtraError("asking a server needs the package aiohttp", fix="pip install 'plad[api]'")


def connect(endpoint: Endpoint) -> "aiohttp.ClientSession":
    """A session of the HTTP client with the endpoint's key; use it as a context manager.

    Raises:
        ConfigError: the key's environment variable is not set.
    """
    import aiohttp
    import truststore

    headers, key = {"User-Agent": f"plad/{__version__}"}, api_key(endpoint)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0, ssl=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=_proxy(endpoint.base_url),
    )


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY); looked up once, not by request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def post(http: "aiohttp.ClientSession", endpoint: Endpoint, request: HttpRequest) -> Attempt:
    """Ask for a completion once; whatever happens has a meaning."""
    response = await send(http, endpoint, "POST", request.path, json.dumps(request.body))
    return read_response(*response) if isinstance(response, HttpResponse) else response


class HttpResponse(NamedTuple):
    """A whole response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def send(
    http: "aiohttp.ClientSession",
    endpoint: Endpoint,
    method: str,
    path: str,
    data: "str | aiohttp.FormData | None" = None,
) -> HttpResponse | Attempt:
    """Send anything once; what comes back, or why nothing does."""
    import aiohttp

    headers = {"Content-Type": "application/json"} if isinstance(data, str) else {}
    connected = False
    try:
        async with (
            asyncio.timeout(endpoint.timeout_s),
            http.request(
                method, endpoint.base_url + path, data=data, headers=headers, allow_redirects=False
            ) as response,
        ):
            connected = True
            body = await _read(response)
            return HttpResponse(response.status, _lower(response.headers), body)
    except _TooLargeError:
        return failed(f"the answer is larger than {_MAX_BODY // 2**20} MiB")
    except TimeoutError:
        return Attempt(Meaning.PASSING, message=f"no answer within {endpoint.timeout_s:g} s", lost=True)
    except aiohttp.InvalidURL:
        return Attempt(Meaning.STOP, message="not an address")
    except aiohttp.ClientConnectorCertificateError as e:
        return Attempt(Meaning.STOP, message=redact(f"its certificate can't be trusted: {e.certificate_error}"))
    except aiohttp.ClientConnectorError as e:
        return Attempt(Meaning.PASSING, message=redact(f"no connection: {e.os_error.strerror or e.os_error}"))
    except (aiohttp.ClientError, OSError) as e:
        what = "the answer was cut off" if connected else "the connection broke"
        return Attempt(Meaning.PASSING, message=redact(f"{what} ({type(e).__name__})"), lost=True)


class BrokenError(Exception):
    """No answer came, or only a part of it.

    Attributes:
        attempt: what that means for what comes next.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        super().__init__(attempt.message)


async def stream_lines(http: "aiohttp.ClientSession", endpoint: Endpoint, path: str) -> AsyncIterator[bytes]:
    """The lines of a file, as they arrive; its size doesn't matter.

    Raises:
        BrokenError: it isn't there, or broke off; a last line without an end is not given then.
    """
    import aiohttp

    try:
        async with (
            asyncio.timeout(endpoint.timeout_s),
            http.get(endpoint.base_url + path, allow_redirects=True) as response,
        ):
            if response.status != 200:
                raise BrokenError(read_response(response.status, _lower(response.headers), await _read(response)))
            rest = b""
            async for chunk in response.content.iter_chunked(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _MAX_BODY:
                    raise BrokenError(Attempt(Meaning.STOP, message="a line of the file is too large"))
                for line in lines:
                    if line.strip():
                        yield line
            if rest.strip():
                yield rest
    except _TooLargeError:
        raise BrokenError(Attempt(Meaning.STOP, message="the answer is too large")) from None
    except (aiohttp.ClientError, OSError, TimeoutError) as e:
        raise BrokenError(
            Attempt(Meaning.PASSING, message=redact(f"the file broke off ({type(e).__name__})"))
        ) from None


class _TooLargeError(Exception):
    """A response holds more than anybody asked for."""


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    """The content, unpacked piece by piece: a few megabytes may stand for gigabytes."""
    length = response.content_length
    if length is not None and length <= _MAX_BODY and "Content-Encoding" not in response.headers:
        return await response.read()
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _MAX_BODY:
            raise _TooLargeError
    return bytes(content)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}

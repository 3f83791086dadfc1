"""Responses as a real API server sends them: their headers, when a body is chunked, when it is compressed.

Knows nothing of what a body holds.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import chain

from aiohttp import web

from clusterinfo.sandbox.kubernetes.statuses import ApiFailure

CONTENT_LENGTH_MAX_BYTES = 2048  # Go's net/http: a longer answer written in one go is sent chunked
GZIP_MIN_BYTES = 128 * 1024  # the API server's defaultGzipThresholdBytes; it compresses with level 1
FLOW_SCHEMA = {"X-Kubernetes-Pf-Flowschema-Uid": "395d7f18-51db-4d54-a852-b83666e23434"}
NO_CACHE = {"Cache-Control": "no-cache, private"}


def json_response(
    body: bytes, headers: Mapping[str, str] = NO_CACHE, content_type: str = "application/json", status: int = 200
) -> web.Response:
    """A body in one go."""
    response = web.Response(body=body, status=status, headers={"Content-Type": content_type, **headers, **FLOW_SCHEMA})
    if len(body) > CONTENT_LENGTH_MAX_BYTES:
        response.enable_chunked_encoding()
    return response


def failure_response(failure: ApiFailure, authenticated: bool) -> web.Response:
    """`authenticated`: whether the request has a user, since only such a request is assigned a flow schema."""
    headers = {**NO_CACHE, **(FLOW_SCHEMA if authenticated else {}), **failure.headers}
    return web.Response(
        body=failure.body, status=failure.status, headers=headers | {"Content-Type": failure.content_type}
    )


async def begin_stream(request: web.Request, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
    """A chunked JSON response whose headers have been sent; the caller writes the body and its end."""
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", **NO_CACHE, **FLOW_SCHEMA, **(headers or {})}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def send(request: web.Request, chunks: Iterable[bytes], gzip: bool) -> web.StreamResponse:
    """Send a body of at least one chunk: with its length if short, else chunked; compressed if `gzip` and asked for."""
    chunks = iter(chunks)
    first = next(chunks)
    second = next(chunks, None)
    if second is None and len(first) <= CONTENT_LENGTH_MAX_BYTES:
        return json_response(first)
    whole = chain([first] if second is None else [first, second], chunks)
    if gzip and len(first) >= GZIP_MIN_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        response = await begin_stream(request, {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
        encoded = _gzip(whole)
    else:
        response = await begin_stream(request)
        encoded = _plain(whole)
    async for chunk in encoded:
        await response.write(chunk)
    await response.write_eof()
    return response


async def send_broken(request: web.Request, body: bytes, stall_s: float | None) -> web.StreamResponse:
    """Send half of the body, then close the connection (None), or send the rest after a pause."""
    response = await begin_stream(request)
    if stall_s is None:
        return await cut(request, response, body)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(stall_s)
    await response.write(body[len(body) // 2 :])
    await response.write_eof()
    return response


async def cut(request: web.Request, response: web.StreamResponse, body: bytes) -> web.StreamResponse:
    """Half of `body`, then the connection is closed."""
    await response.write(body[: len(body) // 2])
    response.force_close()
    if request.transport is not None:
        request.transport.close()
    return response


async def _plain(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _gzip(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Compresses in a thread, since zlib releases the interpreter's lock."""
    compressor = zlib.compressobj(level=1, wbits=31)  # 31: gzip
    for chunk in chunks:
        if compressed := await asyncio.to_thread(compressor.compress, chunk):
            yield compressed
    yield compressor.flush()

"""A transport for loopback backends that no HTTP mock of the user's tests can catch.

respx replaces the methods of httpcore for the whole process, so a test with a `respx.mock` would also
catch calls to the embedded backend. This transport goes through `http.client` instead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

# Bound at import: vcrpy replaces the name inside `http.client` while a cassette is open.
from http.client import HTTPConnection, HTTPException, HTTPResponse

import httpx

_CHUNK_BYTES = 64 * 1024


def is_loopback(host: str) -> bool:
    """Say whether a host name or address stands for this machine itself."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class StdlibTransport(httpx.BaseTransport):
    """Send requests to plain-http servers on this machine, one connection for each.

    Thread-safe, because nothing is shared. The `connect` and `read` time-outs of a request are honoured.

    Raises:
        httpx.UnsupportedProtocol: If a URL is not http on a loopback host.
        httpx.TransportError: One of its subclasses, as httpx's own transport would raise it.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme != "http" or not is_loopback(url.host):
            raise httpx.UnsupportedProtocol(
                f"this transport serves http on loopback hosts only, not {url.scheme}://{url.host}"
            )
        timeouts = request.extensions.get("timeout", {})
        connection = HTTPConnection(url.host, url.port or 80, timeout=timeouts.get("connect"))
        try:
            response = _send(connection, request, timeouts.get("read"))
            return httpx.Response(
                response.status,
                headers=_raw(response.getheaders()),
                stream=_Body(connection, response),
                extensions={"reason_phrase": response.reason.encode("ascii", "replace")},
            )
        except BaseException:
            connection.close()
            raise


class _Body(httpx.SyncByteStream):
    """The body of an answer, as it arrives; closing it closes its connection."""

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            while chunk := self._response.read1(_CHUNK_BYTES):
                yield chunk
            if self._response.length:  # `read1` takes the end of the connection for that of the body
                raise httpx.RemoteProtocolError(
                    f"the connection ended {self._response.length} bytes before the body did"
                )
        except TimeoutError as error:
            raise httpx.ReadTimeout("no data from the server in time") from error
        except (OSError, HTTPException) as error:
            raise httpx.ReadError(_text(error)) from error

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def _send(connection: HTTPConnection, request: httpx.Request, read_s: float | None) -> HTTPResponse:
    try:
        connection.connect()
    except TimeoutError as error:
        raise httpx.ConnectTimeout("no connection in time") from error
    except OSError as error:
        raise httpx.ConnectError(_text(error)) from error
    connection.sock.settimeout(read_s)
    body = request.read()
    try:
        target = request.url.raw_path.decode("ascii")
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.raw:
            if name.lower() != b"connection":
                connection.putheader(name, value)
        connection.putheader("Connection", "close")
        connection.endheaders(body or None)
        return connection.getresponse()
    except TimeoutError as error:
        raise httpx.ReadTimeout("no answer from the server in time") from error
    except HTTPException as error:
        raise httpx.RemoteProtocolError(_text(error)) from error
    except OSError as error:
        raise httpx.ReadError(_text(error)) from error


def _raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Undo the decoding of `http.client`, which takes bytes for Latin-1; httpx would encode as ASCII."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__

"""The metrics of :mod:`plugin.diagnostics` over HTTP, for Prometheus and for `foretag status`. Loopback by default.

It is read-only and has no secrets, yet no password either: whoever reaches the port learns names of tags and sources.
"""

import asyncio
import io
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from socket import AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from typing import Annotated, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app
from pydantic import AfterValidator, model_validator

from plugin.diagnostics import Diagnostics
from plugin.fields import Section

_log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d*)?")
_REQUEST_SECONDS = 5.0
_MOST_REQUESTS = 8
_LOOK = 0.1
"""How long the end of the server may take [s]."""


def _listen(text: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if text and (found is None or int(found[2]) > 0xFFFF):
        raise ValueError('is no address; write "127.0.0.1:9464", or "" for none')
    return text


class DiagnosticsConfig(Section):
    """``[diagnostics]``: what the service tells of itself."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:9464"
    """Address of the Prometheus endpoint, which `foretag status` asks too: host and port; port 0 takes a free one;
    empty: there is none. Default: this machine alone."""

    public: bool = False
    """Whether an address that other machines reach is allowed; default false: the endpoint asks for no password, so
    put it behind a firewall or a proxy that does."""

    @model_validator(mode="after")
    def _is_not_open_by_accident(self) -> Self:
        if self.listen and not self.public and not _is_loopback(self.address[0]):
            raise ValueError(
                "listen is reached from other machines, without a password; add public = true if you mean it"
            )
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host, without brackets, and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port or 0)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def serving(config: DiagnosticsConfig, diagnostics: Diagnostics) -> AsyncIterator[str]:
    """The endpoint, for as long as the context lasts; gives its URL. Empty, after a warning, where the port is taken or
    the address is none of ours: acquisition does not hang on its own metrics."""
    if not config.listen:
        yield ""
        return
    try:
        server = await asyncio.to_thread(_bind, config, diagnostics)
    except OSError as error:
        _log.warning(
            "metrics: can't listen on %s (%s): there is no Prometheus endpoint, and `foretag status` sees nothing; free"
            " the port, or set [diagnostics] listen", config.listen, error.strerror or error,
        )  # fmt: skip
        yield ""
        return
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK,), name="metrics", daemon=True)
    thread.start()
    host, port = config.address[0], server.server_port
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
    _log.info("metrics at %s", url)
    if config.public and not _is_loopback(host):
        _log.warning("metrics: whoever reaches %s reads them without a password", url)
    try:
        yield url
    finally:
        await asyncio.to_thread(_end, server, thread)


def _bind(config: DiagnosticsConfig, diagnostics: Diagnostics) -> "_Server":
    host, port = config.address
    app = _guarded(make_wsgi_app(diagnostics.registry), public=config.public)
    return make_server(host, port, app, _Server6 if ":" in host else _Server, _Request)


def _end(server: "_Server", thread: threading.Thread) -> None:
    server.shutdown()
    thread.join()
    server.server_close()


def _guarded(app: Callable[..., Any], *, public: bool) -> Callable[..., Any]:
    """Nothing but the metrics; and where they are for this machine alone, not for a page in a browser on it that has
    its own name resolve to us."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        refusal = ""
        if environ["PATH_INFO"] not in {"/metrics", "/"}:
            refusal = "404 Not Found"
        elif not public and not _is_loopback(_asked_for(environ.get("HTTP_HOST", ""))):
            refusal = "403 Forbidden"
        if not refusal:
            return app(environ, start_response)
        start_response(refusal, [("Content-Type", "text/plain")])
        return [f"{refusal}: the metrics are at /metrics, under the address that is configured\n".encode()]

    return answer


def _asked_for(host: str) -> str:
    found = _HOST.fullmatch(host)
    return found[1].strip("[]") if found else ""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per request, and not more than a few: who holds connections open keeps memory and acquisition free."""

    daemon_threads = True

    def __init__(self, *args: Any, **more: Any) -> None:
        self._free = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__(*args, **more)

    def server_bind(self) -> None:
        """Without asking for our own name, which takes seconds where a plant has no DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("metrics: a client at %s went away", client_address, exc_info=True)


class _Server6(_Server):
    address_family = AF_INET6


class _Request(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the library
        _log.debug("metrics: %s", format % args)

    def get_stderr(self) -> Any:
        return io.StringIO()  # a request that is cut off would leave a traceback in the terminal

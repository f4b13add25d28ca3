"""The way to a loopback cloud: a CONNECT proxy that ends TLS itself, gives each request to the server of its host name,
and refuses every other host. `Gateway.refused` holds what was refused; a test that leaves it filled fails."""

import contextlib
import http.client
import json
import re
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.clouds.authority import Authority

PIECE = 1 << 20
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection", "expect"}


@dataclass
class Request:
    """One request as it came; the body is read at most once, in pieces or whole."""

    method: str
    host: str
    path: str
    """With the query."""
    headers: http.client.HTTPMessage
    pieces: Iterator[bytes]
    _body: bytes | None = None

    @property
    def body(self) -> bytes:
        if self._body is None:
            self._body = b"".join(self.pieces)
        return self._body


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterator[bytes] = b""
    cut_after: int | None = None
    """Break the connection off after so many bytes of the body."""


def as_json(document: object, status: int = 200) -> Response:
    return Response(status, [("Content-Type", "application/json")], json.dumps(document).encode())


class Tally:
    """A sum that many threads add to."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.value += number


Serve = Callable[[Request], Response]
Splice = Callable[[str], tuple[str, int] | None]
"""Gives the local address that a host's connections go to."""


class Gateway:
    """Listens on loopback; ``proxy`` is what HTTPS_PROXY must hold."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.routes: list[tuple[re.Pattern[str], Serve]] = []
        self.splices: list[tuple[re.Pattern[str], Splice]] = []
        self.refused: list[str] = []
        self._context = authority.server_context()
        self._servers: list[ThreadingHTTPServer] = []
        self.sent = Tally()
        """Bytes that went to spliced hosts."""
        self.port = self.listen("127.0.0.1")

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def route(self, pattern: str, serve: Serve) -> None:
        """Requests to hosts that match the whole pattern go to ``serve``; the first route that matches wins."""
        self.routes.append((re.compile(pattern), serve))

    def splice(self, pattern: str, address: "Splice") -> None:
        """Connections to hosts that match the whole pattern are passed on as they are, TLS taken off, to the address
        that ``address`` gives; where it gives None, the host's route answers."""
        self.splices.append((re.compile(pattern), address))

    def spliced(self, host: str) -> tuple[str, int] | None:
        found = (address(host) for pattern, address in self.splices if pattern.fullmatch(host))
        return next((address for address in found if address), None)

    def find(self, host: str) -> Serve | None:
        return next((serve for pattern, serve in self.routes if pattern.fullmatch(host)), None)

    def listen(self, address: str, port: int = 0) -> int:
        """Take CONNECT requests on one more address; gives the port."""
        return self._serve(_handler(self), address, port)

    def listen_tls(self, address: str, port: int = 443) -> int:
        """Take TLS connections at once, for a client that uses no proxy (a container engine)."""
        return self._serve(_direct_handler(self), address, port)

    def listen_plain(self, address: str, port: int, serve: Serve) -> int:
        """Serve plain HTTP for one purpose (a machine's credentials)."""
        return self._serve(_plain_handler(serve), address, port)

    def tls(self, connection: socket.socket) -> ssl.SSLSocket:
        return self._context.wrap_socket(connection, server_side=True)

    def close(self) -> None:
        while self._servers:
            server = self._servers.pop()
            server.shutdown()
            server.server_close()

    def _serve(self, handler: type[BaseHTTPRequestHandler], address: str, port: int) -> int:
        server = _Server((address, port), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self._servers.append(server)
        return server.server_address[1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or does not trust us, is its own business."""


def _handler(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    class Handler(_Exchange):
        serve: Serve | None = None

        def do_CONNECT(self) -> None:
            host = self.path.partition(":")[0]
            self.serve = gateway.find(host)
            if self.serve is None:
                gateway.refused.append(host)
                self.send_error(403, "not a host of this loopback cloud")
                return
            self.send_response(200, "connection established")
            self.end_headers()
            with contextlib.suppress(OSError):
                if (address := gateway.spliced(host)) is None:
                    self.talk_tls(gateway, host)
                else:
                    _pass_on(gateway.tls(self.connection), address, gateway.sent)
            self.close_connection = True

        def answer(self) -> None:
            if self.serve is None:
                gateway.refused.append(self.path)
                self.send_error(403, "plain HTTP is not served")
            else:
                self.exchange(self.serve)

    return Handler


def _direct_handler(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    class Handler(_Exchange):
        def setup(self) -> None:
            self.request = gateway.tls(self.request)
            super().setup()

        def answer(self) -> None:
            host = self.headers["Host"].partition(":")[0]
            serve = gateway.find(host)
            if serve is None:
                gateway.refused.append(host)
                self.send_error(403, "not a host of this loopback cloud")
            else:
                self.tls_host = host
                self.exchange(serve)

    return Handler


def _plain_handler(serve: Serve) -> type[BaseHTTPRequestHandler]:
    class Handler(_Exchange):
        def answer(self) -> None:
            self.exchange(serve)

    return Handler


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tls_host = ""
    timeout = 120

    def log_message(self, *_: object) -> None:
        pass

    def talk_tls(self, gateway: Gateway, host: str) -> None:
        self.tls_host = host
        self.connection = gateway.tls(self.connection)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False
        while not self.close_connection:
            self.handle_one_request()

    def exchange(self, serve: Serve) -> None:
        request = Request(self.command, self.tls_host, self.path, self.headers, self._pieces())
        response = serve(request)
        for _ in request.pieces:  # what the server did not want must not stand before the next request
            pass
        self._send(response)

    def _pieces(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def _send(self, response: Response) -> None:
        whole = isinstance(response.body, bytes)
        self.send_response(response.status)
        for name, value in response.headers:
            if name.lower() not in HOP_BY_HOP | ({"content-length"} if whole and self.command != "HEAD" else set()):
                self.send_header(name, value)
        if whole and self.command != "HEAD":
            self.send_header("Content-Length", str(len(response.body)))
        sized = whole or any(name.lower() == "content-length" for name, _ in response.headers)
        if not sized:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if response.cut_after is not None:
            self.wfile.write(response.body[: response.cut_after])
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        for piece in [response.body] if whole else response.body:
            self.wfile.write(piece)

    def answer(self) -> None:
        raise AssertionError

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET


def _pass_on(client: ssl.SSLSocket, address: tuple[str, int], sent: Tally) -> None:
    """Carry bytes both ways until one side is done (a websocket has no requests that could be told apart); in one
    thread, as two must not use one TLS connection at a time."""
    with client, socket.create_connection(address, timeout=10) as server, selectors.DefaultSelector() as selector:
        for each in (client, server):
            each.settimeout(None)
            selector.register(each, selectors.EVENT_READ)
        while True:
            ready = {client} if client.pending() else {key.fileobj for key, _ in selector.select()}
            for source, target in ((client, server), (server, client)):
                if source in ready:
                    piece = source.recv(PIECE)
                    if not piece:
                        return
                    target.sendall(piece)
                    sent.add(len(piece) if source is client else 0)


def forward(
    request: Request,
    address: tuple[str, int],
    path: str | None = None,
    host: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """Pass a request on to a local server, over TLS where a context is given, both bodies in pieces."""
    connection = (
        http.client.HTTPSConnection(*address, timeout=120, context=tls)
        if tls
        else http.client.HTTPConnection(*address, timeout=120)
    )
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    headers["Host"] = host or request.headers["Host"]
    body = None
    if request._body is not None:
        body, headers["Content-Length"] = request._body, str(len(request._body))
    elif "chunked" in request.headers.get("Transfer-Encoding", ""):
        body, headers["Transfer-Encoding"] = request.pieces, "chunked"
    elif "Content-Length" in request.headers:
        body = request.pieces
    encode = "Transfer-Encoding" in headers
    connection.request(request.method, path or request.path, body, headers, encode_chunked=encode)
    answer = connection.getresponse()

    def pieces() -> Iterator[bytes]:
        with contextlib.closing(connection):
            while piece := answer.read(PIECE):
                yield piece

    headers_back = list(answer.headers.items())
    if request.method == "HEAD" or int(answer.headers.get("Content-Length") or -1) < PIECE:
        with contextlib.closing(connection):
            return Response(answer.status, headers_back, answer.read())
    return Response(answer.status, headers_back, pieces())

"""A WSGI application on an address of this machine, until Ctrl-C.

The standard library's server: one person looks at a study on their own machine. On a loopback
address requests that name another host are refused, so that a page from elsewhere, whose name an
attacker lets point to this machine (DNS rebinding), cannot reach what has no password.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A line for every request would hide what the command says."""


class Server(ThreadingMixIn, WSGIServer):
    """A thread a request; none of them keeps the process alive."""

    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # HTTPServer's would also look the address's name up, which can hang where there is no net.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


def bind(host: str, port: int) -> Server:
    """A server that listens; port 0 takes a free one (`server_port` says which).

    Raises: ValueError for a port that is in use or not allowed, and for an unknown host.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        kind = type("Server", (Server,), {"address_family": family})
        server: Server = kind((host, port), _Quiet)
        return server
    except socket.gaierror as error:
        raise ValueError(
            f"--host {host!r} is no address of this machine: {error.strerror}"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is in use, perhaps by another dashboard; choose another "
                "--port (0 takes a free one)"
            ) from None
        raise ValueError(f"cannot listen on {host} port {port}: {error.strerror}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def only_for_this_machine(application: Application) -> Application:
    """`application`, for requests that name a loopback host; 403 for others."""

    def guarded(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        named = str(environ.get("HTTP_HOST", ""))
        host = named.rpartition(":")[0] if named.rpartition(":")[2].isdigit() else named
        if not is_loopback(host.strip("[]")):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this dashboard answers to 127.0.0.1 only\n"]
        return application(environ, start_response)

    return guarded

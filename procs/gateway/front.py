"""The ASGI application: who may ask, then the answers, then the document.

A browser's page can send requests to loopback, and a name that it controls can be made to point there. So a request must name a
host that we know (Host), and one that comes from a page must come from such a host as well (Origin). Nothing here changes
anything, no header allows another origin to read, and every method but GET and HEAD is refused.

The few routes are looked up here and not by a framework: an answer costs what its reading costs. All other paths (/docs,
/openapi.json) go to the FastAPI application that describes them (procs.gateway.document).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from procs.gateway.answers import NOT_FOUND, ROUTES, Answers, Refused, Reply, refusal
from procs.gateway.bearer import is_given

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
WILDCARDS: Final = ("0.0.0.0", "::")
MAX_QUERY: Final = 1024
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, METHOD_NOT_ALLOWED, FAILED = 400, 401, 403, 405, 500
DOCUMENT: Final = ("/docs", "/openapi.json")
HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


def known_hosts(host: str, more: Iterable[str]) -> frozenset[str]:
    """The names that requests may be made to: loopback's, the address listened on, and those of the profile."""
    own = () if host in WILDCARDS else (host,)
    return frozenset(name.lower() for name in (*LOOPBACK, *own, *more))


def host_of(text: str) -> str:
    """The name in a Host header, without its port; "" where it is none."""
    try:
        return (urlsplit(f"//{text}").hostname or "") if text and "@" not in text and "/" not in text else ""
    except ValueError:
        return ""


def origin_host(text: str) -> str:
    """The name in an Origin header; "" for "null" and what is no origin."""
    scheme, mark, rest = text.partition("://")
    return host_of(rest) if mark and scheme in ("http", "https") else ""


class Front:
    """The application.

    `document`: what answers DOCUMENT, None for a 404; `token`: what a request must carry, None: nothing; `fault` hears what
    failed in here.
    """

    def __init__(
        self, answers: Answers, hosts: frozenset[str], document: Application | None = None, token: bytes | None = None,
        fault: Callable[[Exception], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._answers, self._hosts, self._document, self._token, self._fault = answers, hosts, document, token, fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, as ASGI says."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway does not speak {scope['type']}")
        try:
            self._check(scope)
            reply = self._answers.get(scope["path"], self._query(scope))
            if reply is None and self._document is not None and scope["path"] in DOCUMENT:
                await self._document(scope, receive, send)
                return
            if reply is None:
                raise Refused(NOT_FOUND, "unknown_path", "there is nothing here", known=[route.path for route in ROUTES])
        except Refused as refused:
            reply = refusal(refused)
        except Exception as error:  # a defect: said in the log, and in the shape of all errors
            self._fault(error)
            reply = refusal(Refused(FAILED, "internal", "the gateway failed to make this answer: see its log"))
        await self._send(scope, send, reply)

    def _check(self, scope: Scope) -> None:
        given: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name, []).append(value.decode("latin-1"))
        hosts = given.get(b"host", [])
        if len(hosts) != 1 or not host_of(hosts[0]):
            raise Refused(BAD_REQUEST, "bad_host", "a request needs one Host header that names a host")
        if host_of(hosts[0]) not in self._hosts:
            text = f"this gateway is not {host_of(hosts[0])[:64]!r}: ask it as localhost, or name it in gateway.hosts"
            raise Refused(FORBIDDEN, "unknown_host", text)
        if any(origin_host(origin) not in self._hosts for origin in given.get(b"origin", [])):
            raise Refused(FORBIDDEN, "foreign_origin", "pages of other origins may not ask this gateway")
        if self._token is not None and not any(is_given(text, self._token) for text in given.get(b"authorization", [])):
            text = "this gateway wants a token: send Authorization: Bearer <the word in gateway.token_file>"
            raise Refused(UNAUTHORIZED, "no_token", text)
        if scope["method"] not in ("GET", "HEAD"):
            raise Refused(METHOD_NOT_ALLOWED, "read_only", f"{scope['method'][:16]}: this gateway only answers GET and HEAD")

    @staticmethod
    def _query(scope: Scope) -> dict[str, str]:
        raw: bytes = scope.get("query_string", b"")
        if len(raw) > MAX_QUERY:
            raise Refused(BAD_REQUEST, "long_query", f"the query is longer than {MAX_QUERY} bytes")
        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))

    @staticmethod
    async def _send(scope: Scope, send: Send, reply: Reply) -> None:
        status, body = reply
        headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
        if status == METHOD_NOT_ALLOWED:
            headers.append((b"allow", b"GET, HEAD"))
        if status == UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

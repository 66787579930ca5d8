"""Match paths below /v2: a tree of segments built once from a list of endpoints. Called by V2.route for all but the inference route.

Several modules contribute endpoints (inference here, repository and statistics elsewhere); the list is the table of contents of the API.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dragoman.dialects import Access, Handler, Request, Route, method_error, path_error


class Endpoint(NamedTuple):
    """One route. In `path`, below /v2, `{}` stands for a segment that the handler gets, and a part in brackets may be left out.

    `handler` is called as `await handler(request, *segments)`.
    """

    method: str
    path: str
    handler: Handler
    access: Access


class _Node:
    __slots__ = ("below", "methods", "wildcard")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.wildcard: _Node | None = None
        self.methods: dict[str, tuple[Handler, Access]] = {}


class Table:
    """Every endpoint of the dialect. A literal segment wins over `{}`: GET models/stats is not the model "stats"."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Node()
        for endpoint in endpoints:
            head, bracket, tail = endpoint.path.partition("[")
            optional, _, rest = tail.partition("]")
            self._add(head + rest, endpoint)
            if bracket:
                self._add(head + optional + rest, endpoint)

    def match(self, request: Request, segments: Sequence[str]) -> Route:
        """The route of a request whose path below /v2 is `segments`, percent-decoded. HEAD goes where GET does, and a GET that brings a body
        where POST does if there is nothing to get (MLRun's GET of infer).

        Raises NOT_FOUND, or UNSUPPORTED what="method".
        """
        node, args = self._walk(segments)
        if node is None or not node.methods:
            raise path_error(request)
        found = node.methods.get(request.method)
        if found is None and request.method == "HEAD":
            found = node.methods.get("GET")
        if found is None and request.method == "GET" and _brings_body(request):
            found = node.methods.get("POST")
        if found is None:
            raise method_error(request, node.methods)
        return Route(found[0], found[1], tuple(args))

    def methods(self, segments: Sequence[str]) -> list[str]:
        """What may be done at a path, for the Allow header; empty when there is nothing."""
        node, _ = self._walk(segments)
        return [] if node is None else list(node.methods)

    def _walk(self, segments: Sequence[str]) -> tuple[_Node | None, list[str]]:
        node: _Node | None = self._root
        args: list[str] = []
        for segment in segments:
            assert node is not None
            known = node.below.get(segment)
            if known is None and segment:
                known = node.wildcard
                args.append(segment)
            node = known
            if node is None:
                break
        return node, args

    def _add(self, path: str, endpoint: Endpoint) -> None:
        node = self._root
        for segment in path.split("/") if path else ():
            if segment == "{}":
                node.wildcard = node = node.wildcard or _Node()
            else:
                node = node.below.setdefault(segment, _Node())
        if endpoint.method in node.methods:
            raise ValueError(f"two endpoints claim {endpoint.method} {path}")
        node.methods[endpoint.method] = (endpoint.handler, endpoint.access)


def _brings_body(request: Request) -> bool:
    return request.header(b"transfer-encoding") is not None or (request.header(b"content-length") or b"0") != b"0"

"""Serves the object `app` of a file on port 5000, as FloydHub did in its second era: `PYTHON wsgi.py app.py`. Begun by inside.py.

Runs as the program itself, with the job's own packages: werkzeug's server when they have it, else the standard library's.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import socketserver
import sys
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

_HOST = "127.0.0.1"
_PORT = 5000


class _Threads(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def main(file: str) -> None:
    """Until it is ended. Exits with a message when the file has no such object."""
    sys.path[0] = os.getcwd()  # not this folder, whose modules would hide the program's own
    sys.argv = [file]
    app = _load(file)
    if not callable(app):
        sys.exit(f"app of {file} is {type(app).__name__}: a WSGI application was expected")
    if _is_asgi(app):
        _serve_asgi(app, file)
    else:
        _serve(app)


def _load(file: str) -> Any:
    name = os.path.basename(file)[:-3]
    spec = importlib.util.spec_from_file_location(name, os.path.abspath(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return getattr(module, "app", None)


def _is_asgi(app: Any) -> bool:
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004 # not whether, but which


def _serve(app: Any) -> None:
    try:
        from werkzeug.serving import run_simple
    except ImportError:
        with make_server(_HOST, _PORT, app, server_class=_Threads) as server:
            server.serve_forever()
    else:
        run_simple(_HOST, _PORT, app, threaded=True)


def _serve_asgi(app: Any, file: str) -> None:
    try:
        import uvicorn
    except ImportError:
        sys.exit(f"app of {file} is an ASGI application: name uvicorn in floyd_requirements.txt, so that it can be served")
    uvicorn.run(app, host=_HOST, port=_PORT)


if __name__ == "__main__":
    main(sys.argv[1])

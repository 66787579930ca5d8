"""Tungstenkit's model server as its images start it, but on loopback: it has no option for the address, so uvicorn is told here."""

from typing import Any

import uvicorn

if __name__ == "__main__":
    run = uvicorn.run

    def on_loopback(*arguments: Any, **options: Any) -> None:
        run(*arguments, **{**options, "host": "127.0.0.1", "access_log": False, "log_level": "error"})

    uvicorn.run = on_loopback
    from tungstenkit._internal.model_server.cli import serve

    serve()

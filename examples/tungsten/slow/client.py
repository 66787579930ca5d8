"""Ask for something that takes long: poll it, read its logs while it runs, change your mind. Nothing but the standard library.

python client.py [URL [SECONDS_PER_STEP]]
"""

import json
import os
import sys
import time
import urllib.request
from typing import Any

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")


def call(url: str, path: str, body: object = None, method: str = "") -> Any:
    """One request; None for an empty answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method or ("POST" if data else "GET"))
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def ended(view: dict[str, Any]) -> bool:
    return view["status"] in ("success", "failed")


def main(url: str = URL, seconds: str = "0.4") -> None:
    pause = float(seconds) / 4
    soup = {"dish": "soup", "steps": 4, "seconds": float(seconds)}

    # The id comes at once; the result is fetched when it is ready.
    number = call(url, "/predictions", [soup])["prediction_id"]
    seen: list[str] = []
    while not ended(view := call(url, f"/predictions/{number}")):
        if view["status"] not in seen:
            seen.append(view["status"])
        time.sleep(pause)
    print("predictions:", " -> ".join([*seen, view["status"]]), view["outputs"])

    # The demo of the same model shows what it prints meanwhile.
    number = call(url, "/demo", [soup])["demo_id"]
    shown = 0
    while not ended(view := call(url, f"/demo/{number}")):
        logs = view["logs"] or ""
        print(logs[shown:], end="")
        shown = len(logs)
        time.sleep(pause)
    print((view["logs"] or "")[shown:], end="")
    print("demo:", view["status"], json.dumps(view["demo_outputs"][0]["recipe"]))

    # Enough is enough: the model is free again at once.
    number = call(url, "/predictions", [{"dish": "roast", "steps": 1000, "seconds": 1}])["prediction_id"]
    while call(url, f"/predictions/{number}")["status"] == "pending":
        time.sleep(pause)
    call(url, f"/predictions/{number}/cancel", method="POST")
    view = call(url, f"/predictions/{number}")
    print("cancelled:", view["status"], view["error_message"])
    started = time.monotonic()
    call(url, "/predict", [{"dish": "toast", "steps": 1, "seconds": 0}])
    print("the next one was served", "soon" if time.monotonic() - started < 10 else "late")


if __name__ == "__main__":
    main(*sys.argv[1:3])

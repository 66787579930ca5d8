"""Shout with options, alone and in company, with nothing but the standard library.

python client.py [URL]
"""

import json
import os
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")


def call(url: str, path: str, body: object = None) -> Any:
    """One request: POST with a body, GET without."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main(url: str = URL) -> None:
    # What the model takes and gives.
    schema = call(url, "/")["input_schema"]
    print("required:", schema["required"], "voices:", schema["properties"]["voice"]["choices"])

    # A list of inputs is one prediction; outputs come in the order of the inputs.
    answer = call(url, "/predict", [{"text": "good morning"}, {"text": "good night", "voice": "whisper", "marks": 0}])
    print(answer["status"], [output["text"] for output in answer["outputs"]])

    # Many clients at once: those that agree in their options run together.
    def shout(number: int) -> Any:
        return call(url, "/predict", [{"text": f"client {number}", "voice": ("loud", "polite")[number % 2]}])["outputs"][0]

    with ThreadPoolExecutor(16) as crowd:
        outputs = list(crowd.map(shout, range(16)))
    print("largest batch:", max(output["batch"] for output in outputs))
    print("all right:", all(o["text"] == (f"CLIENT {i}!", f"Client {i}!")[i % 2] for i, o in enumerate(outputs)))

    # What does not fit is refused, with the place and the reason.
    try:
        call(url, "/predict", [{"text": "hello", "voice": "sung"}])
    except urllib.error.HTTPError as error:
        with error:
            problem = json.load(error)["detail"][0]
            print("refused:", error.code, problem["loc"], problem["msg"])


if __name__ == "__main__":
    main(*sys.argv[1:2])

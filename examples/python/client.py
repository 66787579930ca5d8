"""One Python model through three protocols, with nothing but the standard library.

python client.py [URL]
"""

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")
EASY = "The cat sat on the mat. It was warm."
HARD = "Notwithstanding considerable methodological heterogeneity, contemporary investigations consistently demonstrate improvements."


def call(url: str, path: str, body: object) -> Any:
    """POST some JSON."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main(url: str = URL) -> None:
    # A list of inputs by name, the outputs in their order. What has a default may be left out.
    answer = call(url, "/models/reading/predict", [{"text": EASY}, {"text": HARD, "words_per_minute": 115}])
    print("predictions:", answer["status"], [(o["words"], o["seconds"], o["level"]) for o in answer["outputs"]])

    # TensorFlow Serving: where one input is needed, its value will do.
    print("instances:", [row["level"] for row in call(url, "/v1/models/reading:predict", {"instances": [EASY, HARD]})["predictions"]])

    # Open Inference Protocol: a tensor per input, of one element per row.
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [EASY, HARD]}
    outputs = call(url, "/v2/models/reading/infer", {"inputs": [tensor]})["outputs"]
    print("tensors:", {output["name"]: output["data"] for output in outputs})

    # Input that the hints of predict do not allow is refused before the model is asked.
    try:
        call(url, "/models/reading/predict", [{"text": EASY, "words_per_minute": 0}])
    except urllib.error.HTTPError as error:
        with error:
            problem = json.load(error)["detail"][0]
            print("refused:", error.code, problem["loc"], problem["msg"])


if __name__ == "__main__":
    main(*sys.argv[1:2])

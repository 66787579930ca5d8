"""Call the example models over TensorFlow Serving's REST, with nothing but requests.

    python examples/client_tfserving.py [URL]

Needs requests. The same calls work under /model-serving/NAME, the paths of Gradient deployments.
"""

import os
import sys

import requests

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")


def main(url: str = URL) -> None:
    with requests.Session() as session:
        model = f"{url}/v1/models/iris"
        status = session.get(model, timeout=60).json()["model_version_status"][0]
        print("version", status["version"], "is", status["state"])

        # Row form: one item per row, one prediction per item.
        flowers = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.3, 3.3, 6.0, 2.5]]
        answer = session.post(f"{model}:predict", json={"instances": flowers}, timeout=60)
        for flower, prediction in zip(flowers, answer.json()["predictions"], strict=True):
            print(flower, "->", prediction["predict"])

        # Column form: whole tensors in, whole tensors out; here over a Gradient path and for one version.
        answer = session.post(f"{url}/model-serving/iris/versions/1:predict", json={"inputs": {"X": flowers}}, timeout=60)
        print("classes:", answer.json()["outputs"]["predict"])

        # A picture of 8 x 8 grey values, as the digits model wants it: a ring, which is a nought.
        ring = [0, 0, 6, 14, 13, 5, 0, 0, 0, 2, 15, 9, 8, 15, 2, 0, 0, 6, 15, 0, 0, 13, 8, 0, 0, 8, 12, 0, 0, 10, 8, 0,
                0, 8, 11, 0, 0, 10, 9, 0, 0, 5, 13, 0, 0, 12, 8, 0, 0, 1, 14, 8, 9, 15, 2, 0, 0, 0, 5, 14, 13, 4, 0, 0]  # fmt: skip
        answer = session.post(f"{url}/v1/models/digits:predict", json={"instances": [ring]}, timeout=60)
        print("digit:", answer.json()["predictions"][0]["predict"])

        # An error is a JSON object with one key.
        answer = session.post(f"{model}:predict", json={"instances": [["five", 3.5, 1.4, 0.2]]}, timeout=60)
        print("refused:", answer.status_code, answer.json()["error"])


if __name__ == "__main__":
    main(*sys.argv[1:2])

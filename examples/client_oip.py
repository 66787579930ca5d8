"""Call the example models over the Open Inference Protocol (KServe V2, Triton, MLServer), with the client that Triton publishes.

    python examples/client_oip.py [URL]

Needs numpy and tritonclient[http].
"""

import os
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")


def main(url: str = URL) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        print("ready:", client.is_server_ready())
        metadata = client.get_model_metadata("iris")
        for tensor in metadata["inputs"] + metadata["outputs"]:
            print("  ", tensor["name"], tensor["datatype"], tensor["shape"])

        # Three flowers in one request; the tensor travels as raw bytes, which is what this client does unless it is told otherwise.
        flowers = np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.3, 3.3, 6.0, 2.5]])
        rows = triton.InferInput("X", list(flowers.shape), "FP64")
        rows.set_data_from_numpy(flowers)
        result = client.infer("iris", [rows], request_id="flowers")
        print("classes:", result.as_numpy("predict").tolist())

        # The best two classes with their probabilities, as JSON.
        best = triton.InferRequestedOutput("predict_proba", binary_data=False, class_count=2)
        print("best two:", client.infer("iris", [rows], outputs=[best]).as_numpy("predict_proba")[0].tolist())

        # What is wrong with a request is said in words.
        wrong = triton.InferInput("X", [1, 3], "FP64")
        wrong.set_data_from_numpy(flowers[:1, :3])
        try:
            client.infer("iris", [wrong])
        except InferenceServerException as error:
            print("refused:", error.message())

        stats = client.get_inference_statistics("iris")["model_stats"][0]
        print("rows answered so far:", stats["inference_count"])


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""Use models in a program or a test without a server: the whole server, without a socket.

    python examples/embedded.py [MODEL]

Needs the package itself and scikit-learn. dragoman.serve(...) does the same with a port.
"""

import sys

import dragoman


def main(model: str = "examples/models/iris") -> None:
    with dragoman.TestClient(f"iris={model}") as client:
        print("served:", client.loaded.ready)
        reply = client.post("/v1/models/iris:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]})
        print("classes:", [row["predict"] for row in reply.json()["predictions"]])
        body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
        reply = client.post("/v2/models/iris/infer", json=body)
        print("probabilities:", [round(p, 3) for p in reply.json()["outputs"][1]["data"]])
        reply = client.post("/v2/models/nobody/infer", json=body)
        print("refused:", reply.status, reply.json()["error"])


if __name__ == "__main__":
    main(*sys.argv[1:2])

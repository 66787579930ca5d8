"""MLRun's own mock server with the class of mlrun_iris/, called in this process: no HTTP. One request per line on stdin, one answer each.

A line is `{"path", "body", "seconds"}`; with 0 seconds the answer is that of the mock, else `{"rate", "p50_ms", "p99_ms"}` of calls in a row.
"""

import json
import sys
import time
from pathlib import Path

import mlrun

APP = Path(__file__).parent / "mlrun_iris"


def main() -> None:
    function = mlrun.new_function("iris", kind="serving")
    function.set_topology("router")
    sys.path.insert(0, str(APP))
    from iris import Iris

    function.add_model("iris", class_name="Iris", model_path=str(APP))
    server = function.to_mock_server(namespace={"Iris": Iris})
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(server, asked["path"], json.dumps(asked["body"]), asked["seconds"])), flush=True)


def answer(server, path, body, seconds):
    if not seconds:
        return server.test(path, body)
    took = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        server.test(path, body)
        took.append(time.perf_counter() - begin)
    took.sort()
    return {"rate": len(took) / sum(took), "p50_ms": took[len(took) // 2] * 1e3, "p99_ms": took[len(took) * 99 // 100] * 1e3}


if __name__ == "__main__":
    main()

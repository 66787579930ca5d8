"""MLRun classes of our own, as a user writes them: the text of a file, and the folder of a model with its schema."""

import json
from pathlib import Path

CLASSES = '''
import json
import time

import numpy as np
from mlrun.serving import V2ModelServer


class Flowers(V2ModelServer):
    """A model with a schema: what it sees decides what it answers."""

    def load(self):
        path, _ = self.get_model(".json")
        with open(path) as file:
            self.model = json.load(file)

    def predict(self, request):
        points = request["inputs"]
        if points and not isinstance(points[0], list):
            points = [points]
        return [int(point[0] + point[1] > self.model["limit"]) for point in points]

    def explain(self, request):
        return {"limit": self.model["limit"], "inputs": request["inputs"]}


class Echo(V2ModelServer):
    """Answers its request, and whatever else a test needs."""

    def load(self):
        self.model = "loaded"

    def preprocess(self, request, operation):
        if "wrong" in request:
            raise KeyError("wrong was sent")
        return {**request, "seen": operation}

    def predict(self, request):
        inputs = request["inputs"]
        if inputs == ["raise"]:
            raise RuntimeError("the model is tired")
        if inputs == ["numpy"]:
            return {"array": np.arange(3), "scalar": np.float32(1.5), "bool": np.bool_(True)}
        if inputs == ["status"]:
            return self.context.Response(body="no such flower", status_code=404, headers={"x-flower": "none"})
        if inputs and inputs[0] == "wait":
            time.sleep(inputs[1])
        if inputs and hasattr(inputs[0], "read"):
            content = inputs[0].read()
            return [type(inputs[0]).__name__, len(content), content[:4].hex()]
        if request.get("all"):
            return {key: value for key, value in request.items()}
        return inputs

    def op_event(self, event):
        return {"body": event.body, "path": event.path, "id": event.id, "kind": event.trigger.kind, "method": event.method}

    def op_text(self, event):
        return "plain words"


class Versioned(V2ModelServer):
    def load(self):
        pass

    def predict(self, request):
        return [self.name, self.version, self.get_param("k", 0)]


class Unready(V2ModelServer):
    def load(self):
        raise ValueError("the weights are gone")

    def predict(self, request):
        return []
'''

SPEC = """
kind: model
metadata: {key: flowers}
spec:
  model_file: weights.json
  inputs:
    - {name: sepal, value_type: float}
    - {name: petal, value_type: float}
  outputs:
    - {name: kind, value_type: int}
"""


def write(folder: Path) -> tuple[Path, Path]:
    """The file with the classes, and the folder of the model with a schema."""
    store = folder / "store"
    store.mkdir(parents=True)
    (store / "weights.json").write_text(json.dumps({"limit": 10}))
    (store / "model_spec.yaml").write_text(SPEC)
    file = folder / "classes.py"
    file.write_text(CLASSES)
    return file, store

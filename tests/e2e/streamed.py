"""A model for tests of streams, the messages that they send to it, and what must come of them. Used by test_streams_mqtt.py and _kinesis.py."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.brokers import Record, eventually

MODEL = """
from mlrun.serving import V2ModelServer


class Doubler(V2ModelServer):
    def load(self):
        self.factor = self.get_param("factor", 2)

    def predict(self, request):
        if request["inputs"] == ["fail"]:
            raise RuntimeError("nothing to double")
        return [value * self.factor for value in request["inputs"]]
"""
POISON: Sequence[tuple[Any, str]] = (
    (b"\xff\xfe not JSON", "JSON"),
    (b"[1, 2", "JSON"),
    (b"", "JSON"),
    ([1, 2], "object"),
    ({"id": "p-no-model", "model": "nobody", "inputs": [1]}, "nobody"),
    ({"id": "p-no-inputs", "model": "m"}, "inputs"),
    ({"id": "p-fails", "model": "m", "inputs": ["fail"]}, "nothing to double"),
)
"""Messages that cannot be answered, and a word of what is said about each."""


def written(folder: Path) -> str:
    """The target of the model."""
    path = folder / "doubler.py"
    path.write_text(MODEL)
    return f"m={path}"


def asked(number: int) -> dict[str, Any]:
    return {"id": number, "model": "m", "inputs": [number]}


def is_answer(record: Record, number: int) -> bool:
    document = record.json
    return bool(document.get("id") == number and document.get("model_name") == "m" and document.get("outputs") == [2 * number])


def all_answered(numbers: Sequence[int], records: Callable[[], Sequence[Record]]) -> list[Record]:
    """What was received as soon as each number has an answer, which may be there more than once. Right ones, all of them."""
    wanted = set(numbers)

    def look() -> list[Record]:
        found = list(records())
        return found if wanted <= {record.json.get("id") for record in found} else []

    found = eventually(look, pause_s=0.2)
    assert all(is_answer(record, record.json["id"]) for record in found)
    return found

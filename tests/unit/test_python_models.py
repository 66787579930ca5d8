"""Dragoman's own API for Python models: what a function or class declares by its hints, and what its callers get."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dragoman
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, Model
from dragoman.core.tensors import BOOL, BYTES, FP32, FP64, INT64, Blob, Form, Rows, Tensor, Tensors, TensorSpec
from tests.models.calls import load
from tests.models.snippets import answers, model_of, same_process, write


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    with same_process():
        yield


def refused(folder: Path, source: str, **arguments: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        model_of(folder, source, **arguments)
    assert "'m'" in caught.value.message
    assert "\n" not in caught.value.message
    assert str(folder) not in caught.value.message
    return caught.value


def test_a_function_is_a_model(tmp_path: Path) -> None:
    """Parameters are the inputs, defaults make options, the answer is the output."""
    model = model_of(tmp_path, "def predict(text: str, times: int = 2) -> str:\n    return text * times")
    signature = model.signatures[""]
    assert signature.form is Form.ROWS
    assert signature.input_schema == {
        "type": "object",
        "properties": {"text": {"type": "string"}, "times": {"type": "integer", "default": 2}},
        "required": ["text"],
    }
    assert signature.output_schema == {"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]}
    assert signature.options == ("times",)
    assert signature.inputs == (TensorSpec("text", BYTES, (-1,)), TensorSpec("times", INT64, (-1,), optional=True))
    assert signature.outputs == (TensorSpec("output", BYTES, (-1,)),)
    assert (model.platform, set(model.operations), model.concurrent) == ("python", {"predict"}, False)
    assert answers(model, {"text": "ab"}, {"text": "c", "times": "3"}) == [{"output": "abab"}, {"output": "ccc"}]


def test_a_class_is_set_up_once(tmp_path: Path) -> None:
    """Beside its module lie the files that it opens and the modules that it imports: Tungsten requirement T17, for our own API too."""
    write(tmp_path, "GREETING = 'hello'", "beside.py")
    (tmp_path / "names.txt").write_text("ann\nbob\n")
    model = model_of(
        tmp_path,
        """
        from beside import GREETING
        from pathlib import Path
        WORD = Path("names.txt").read_text().split()[0]

        class Greeter:
            def __init__(self):
                self.times = []
            def setup(self):
                self.times.append(len(Path("names.txt").read_text().split()))
            def predict(self, who: int) -> str:
                return f"{GREETING} {WORD} {self.times} {who}"
            def close(self):
                Path("closed.txt").write_text("x" * (1 + Path("closed.txt").exists()))
        """,
    )
    assert answers(model, {"who": 1}, {"who": 2}) == [{"output": "hello ann [2] 1"}, {"output": "hello ann [2] 2"}]
    model.close()
    model.close()
    assert (tmp_path / "closed.txt").read_text() == "x"
    with pytest.raises(ServingError) as caught:
        answers(model, {"who": 1})
    assert caught.value.kind is Kind.UNAVAILABLE


EVERY = """
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypedDict

import numpy as np
from numpy.typing import NDArray

from dragoman import Blob


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float = 0.0


class Box(TypedDict, total=False):
    corner: Point
    size: int


def predict(
    i: int,
    f: float,
    s: str,
    b: bool,
    raw: bytes,
    blob: Annotated[Blob, "image"],
    path: Annotated[Path, "audio"],
    ints: list[int],
    deep: list[list[float]],
    words: tuple[str, ...],
    files: list[bytes],
    table: dict[str, int],
    free: dict,
    way: Literal["up", "down"],
    colour: Colour,
    point: Point,
    box: Box,
    array: NDArray[np.float32],
    four: Annotated[NDArray[np.int64], (2, 2)],
    anything: Any,
    bare,
    limited: Annotated[int, {"minimum": 1, "description": "how many"}],
    maybe: Optional[int],
    other: str | None = "x",
    odd: object = print,
) -> dict:
    kinds = {name: type(value).__name__ for name, value in locals().items() if name != "odd"}
    return {**kinds, "path_text": path.read_bytes(), "suffix": path.suffix, "points": [point.y, box], "sum": float(array.sum()), "odd": odd is print}
"""
SENT = {
    "i": "7", "f": 1, "s": 5, "b": "yes", "raw": b"r", "blob": Blob(b"p", "image/png"), "path": Blob(b"wave", "audio/x-wav", "../../../x"),
    "ints": ["1", 2], "deep": [[1], [2, 3]], "words": ["a"], "files": [b"x", Blob(b"y")], "table": {"a": "1"}, "free": {"z": [None]},
    "way": "up", "colour": "red", "point": {"x": 1}, "box": {"corner": {"x": 2, "y": 3}}, "array": [[1, 2], [3, 4]], "four": [[1, 2], [3, 4]],
    "anything": [1], "bare": None, "limited": 1,
}  # fmt: skip


def test_every_hint(tmp_path: Path) -> None:
    """Each type that a parameter may have reaches the function as that type."""
    model = model_of(tmp_path, EVERY)
    (got,) = answers(model, SENT)
    assert {k: got[k] for k in ("i", "f", "s", "b", "raw", "blob", "ints", "words", "table", "colour", "point", "box", "maybe")} == {
        "i": "int", "f": "float", "s": "str", "b": "bool", "raw": "bytes", "blob": "Blob", "ints": "list", "words": "tuple",
        "table": "dict", "colour": "Colour", "point": "Point", "box": "dict", "maybe": "NoneType",
    }  # fmt: skip
    assert got["path_text"] == b"wave"
    assert got["suffix"] == ".wav"
    assert got["points"] == [0.0, {"corner": {"x": 2.0, "y": 3.0}}]
    assert (got["array"], got["four"], got["sum"], got["odd"]) == ("ndarray", "ndarray", 10.0, True)
    assert (got["bare"], got["anything"], got["other"]) == ("NoneType", "list", "str")


def test_every_hint_is_described(tmp_path: Path) -> None:
    """As JSON schema, as tensors, and as files by kind."""
    signature = model_of(tmp_path, EVERY).signatures[""]
    assert signature.input_schema is not None
    properties = signature.input_schema["properties"]
    assert properties["way"] == {"type": "string", "choices": ["up", "down"]}
    assert properties["colour"] == {"type": "string", "choices": ["red", "blue"]}
    assert properties["limited"] == {"type": "integer", "minimum": 1, "description": "how many"}
    assert properties["maybe"] == {"type": "integer", "nullable": True}
    assert properties["other"] == {"type": "string", "nullable": True, "default": "x"}
    assert properties["point"]["required"] == ["x"]
    assert properties["box"]["required"] == []
    assert properties["anything"] == properties["bare"] == {}
    assert properties["raw"] == {"type": "string", "format": "uri"}
    assert signature.options == ("maybe", "other", "odd")
    assert dict(signature.input_files) == {"raw": "binary", "blob": "image", "path": "audio", "files.$item": "binary"}
    tensors = {s.name: (s.datatype, s.shape) for s in signature.inputs}
    assert tensors["b"] == (BOOL, (-1,))
    assert tensors["f"] == (FP64, (-1,))
    assert tensors["deep"] == (FP64, (-1, -1, -1))
    assert tensors["words"] == (BYTES, (-1, -1))
    assert tensors["table"] == tensors["point"] == (BYTES, (-1,))
    assert tensors["array"] == (FP32, None)
    assert tensors["four"] == (INT64, (-1, 2, 2))
    assert tensors["bare"] == (None, None)


def test_files_of_a_call_are_gone_after_it(tmp_path: Path) -> None:
    """A Path leads to a private copy that the model may even delete."""
    source = """
        import os
        from pathlib import Path
        def predict(a: Path, b: Path) -> str:
            os.remove(b)
            return str(a)
        """
    ((row),) = answers(model_of(tmp_path, source), {"a": Blob(b"1"), "b": Blob(b"2")})
    assert not Path(row["output"]).exists()
    assert not Path(row["output"]).is_relative_to(tmp_path)


OUTPUTS: list[tuple[str, str, Any]] = [
    ("int", "np.int64(3)", {"output": 3}),
    ("list[float]", "(1.5, np.float32(2))", {"output": [1.5, 2.0]}),
    ("dict", "{'a': 1, 2: 'b'}", {"a": 1, "2": "b"}),
    ("dict[str, int]", "{'a': 1}", {"a": 1}),
    ("bytes", "b'x'", {"output": Blob(b"x")}),
    ("Path", "Path('out.png')", {"output": Blob(b"picture", "image/png", "out.png")}),
    ("list[Path]", "[Path('out.png')]", {"output": [Blob(b"picture", "image/png", "out.png")]}),
    ("Blob", "Blob(b'x', 'a/b')", {"output": Blob(b"x", "a/b")}),
    ("Pair", "{'left': 1, 'right': b'r', 'more': 2}", {"left": 1, "right": Blob(b"r")}),
    ("Data", "Data(1, Path('out.png'))", {"left": 1, "right": Blob(b"picture", "image/png", "out.png")}),
    ("Optional[str]", "None", {"output": None}),
    ("str", "Path('out.png').read_text()", {"output": "picture"}),
]
TYPES = """
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TypedDict
import numpy as np
from dragoman import Blob
class Pair(TypedDict):
    left: int
    right: bytes
@dataclass
class Data:
    left: int
    right: Path
"""


@pytest.mark.parametrize(("hint", "value", "expected"), OUTPUTS)
def test_answers(hint: str, value: str, expected: Any, tmp_path: Path) -> None:
    """Named fields of dicts, dataclasses and typed dicts, else "output"; plain values; files are read at once."""
    (tmp_path / "out.png").write_bytes(b"picture")
    model = model_of(tmp_path, f"{TYPES}\ndef predict(x: int) -> {hint}:\n    return {value}")
    assert answers(model, {"x": 1}) == [expected]


def test_an_answer_without_a_hint(tmp_path: Path) -> None:
    """Says nothing about its outputs, and is taken as it is."""
    model = model_of(tmp_path, "def predict(x):\n    return x")
    assert model.signatures[""].outputs == ()
    assert answers(model, {"x": {"a": 1}}, {"x": 5}) == [{"a": 1}, {"output": 5}]


WRONG_ANSWERS = [
    ("-> int", "{1, 2}", "output 'output' of model 'm' is of type set"),
    ("", "{'a': object()}", "the answer of model 'm'.a is of type object"),
    ("-> Pair", "{'left': 1}", "the answer of model 'm' lacks the output 'right'"),
    ("-> Pair", "5", "the answer of model 'm' is int, expected its declared fields"),
]


@pytest.mark.parametrize(("hint", "value", "words"), WRONG_ANSWERS)
def test_answers_that_nobody_could_read(hint: str, value: str, words: str, tmp_path: Path) -> None:
    """Are the model's failure, naming the output."""
    model = model_of(tmp_path, f"{TYPES}\ndef predict(x: int) {hint}:\n    return {value}")
    with pytest.raises(ServingError) as caught:
        answers(model, {"x": 1})
    assert caught.value.kind is Kind.MODEL_FAILED
    assert words in caught.value.message


BATCHED = """
import dragoman
import numpy as np
class Shouter:
    def setup(self):
        self.calls = []
    @dragoman.batched(max_size=3)
    def predict(self, texts: list[str], x: np.ndarray, mark: str = "!") -> list[str]:
        self.calls.append(len(texts))
        assert x.shape == (len(texts), 2)
        if "fewer" in texts:
            return texts[1:]
        if "none" in texts:
            return None
        return [f"{t.upper()}{mark}{self.calls}" for t in texts]
"""


def test_batches(tmp_path: Path) -> None:
    """Lists in, a list out; at most as many as declared, and only inputs whose options are equal: Tungsten requirement T21 for our API."""
    model = model_of(tmp_path, BATCHED)
    signature = model.signatures[""]
    assert signature.input_schema is not None
    assert signature.input_schema["properties"]["texts"] == {"type": "string"}
    assert (signature.options, signature.batch) == (("mark",), True)
    assert getattr(model, "batch_size", None) == 3
    rows = [
        {"texts": text, "x": [1, 2], "mark": mark} for text, mark in [*zip("abcd", "!!!!", strict=True), ("e", "?"), ("f", "?"), ("g", "!")]
    ]
    assert [row["output"] for row in answers(model, *rows)] == [
        "A![3]", "B![3]", "C![3]", "D![3, 1]", "E?[3, 1, 2]", "F?[3, 1, 2]", "G![3, 1, 2, 1]",
    ]  # fmt: skip


def test_the_server_may_choose_another_batch_size(tmp_path: Path) -> None:
    """Tungsten requirement T3, for our API: what the command line says wins over what the author says."""
    model = model_of(tmp_path, BATCHED, batch_size=2)
    assert getattr(model, "batch_size", None) == 2
    assert answers(model, *[{"texts": "a", "x": [1, 2]}] * 3)[2]["output"] == "A![2, 1]"


def test_a_batch_answers_one_output_for_each_input(tmp_path: Path) -> None:
    """Tungsten requirement T32: another number fails at once, in words."""
    model = model_of(tmp_path, BATCHED)
    for text, words in [("fewer", "answered 1 output for 2 inputs"), ("none", "answered a batch with NoneType, expected a list")]:
        with pytest.raises(ServingError, match=words) as caught:
            answers(model, {"texts": text, "x": [1, 2]}, {"texts": "b", "x": [1, 2]})
        assert caught.value.kind is Kind.MODEL_FAILED
    with pytest.raises(ServingError, match="arrays of different shapes") as caught:
        answers(model, {"texts": "a", "x": [1, 2]}, {"texts": "b", "x": [1, 2, 3]})
    assert caught.value.kind is Kind.INVALID_INPUT


def test_what_user_code_raises_passes_through(tmp_path: Path) -> None:
    """With its own type and traceback; an attempt to exit is a failure and ends nothing."""
    model = model_of(tmp_path, "import sys\ndef predict(x: int) -> int:\n    return sys.exit(3) if x else 1 // x")
    with pytest.raises(ZeroDivisionError):
        answers(model, {"x": 0})
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        answers(model, {"x": 1})


def stream(model: Model, row: dict[str, Any]) -> list[Any]:
    """The parts of an answer."""
    streaming: Any = model
    return [part.items[0]["output"] for part in streaming.stream(Call(Rows([row])))]


def test_generators_stream(tmp_path: Path) -> None:
    """Texts are joined where nobody streams, everything else is a list."""
    words = model_of(
        tmp_path / "a", "from typing import Iterator\ndef predict(n: int) -> Iterator[str]:\n    yield from map(str, range(n))"
    )
    assert stream(words, {"n": 3}) == ["0", "1", "2"]
    assert answers(words, {"n": 3}, {"n": 0}) == [{"output": "012"}, {"output": ""}]
    assert words.signatures[""].output_schema == {"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]}
    numbers = model_of(tmp_path / "b", "from typing import Iterator\ndef predict(n: int) -> Iterator[int]:\n    yield from range(n)")
    assert stream(numbers, {"n": 3}) == [0, 1, 2]
    assert answers(numbers, {"n": 3}) == [{"output": [0, 1, 2]}]
    plain = model_of(tmp_path / "c", "def predict(n: int) -> int:\n    return n")
    assert stream(plain, {"n": 3}) == [3]


def test_a_stream_that_is_left_is_closed(tmp_path: Path) -> None:
    """The generator's own cleaning up runs when its reader has gone, and files of the call are removed."""
    source = """
        from pathlib import Path
        from typing import Iterator
        def predict(n: int) -> Iterator[int]:
            try:
                while True:
                    yield n
            finally:
                Path("closed").touch()
        """
    model: Any = model_of(tmp_path, source)
    parts = model.stream(Call(Rows([{"n": 1}])))
    assert next(parts) == Rows([{"output": 1}])
    parts.close()
    assert (tmp_path / "closed").exists()


# --- arrays ---


def arrays(model: Model, outputs: tuple[str, ...] = (), **inputs: Any) -> dict[str, Any]:
    tensors = [Tensor(k, FP32 if v.dtype == np.float32 else INT64, v) for k, v in inputs.items()]
    answer = model.predict(Call(Tensors(tensors), outputs=outputs))
    assert isinstance(answer, Tensors)
    return {t.name: t for t in answer.items}


def test_a_function_of_arrays_takes_tensors(tmp_path: Path) -> None:
    """Joined along axis 0 when it is batched; datatype and shape are those of its hints."""
    source = """
        from typing import Annotated, TypedDict
        import dragoman
        import numpy as np
        from numpy.typing import NDArray
        class Out(TypedDict):
            twice: NDArray[np.float32]
            label: NDArray[np.str_]
        @dragoman.batched
        def predict(x: Annotated[NDArray[np.float32], (2,)]) -> Out:
            return {"twice": (x * 2).astype(">f8"), "label": np.array(["l"] * len(x))}
        """
    model = model_of(tmp_path, source)
    signature = model.signatures[""]
    assert (signature.form, signature.batch) == (Form.TENSORS, True)
    assert signature.inputs == (TensorSpec("x", FP32, (-1, 2)),)
    assert signature.outputs == (TensorSpec("twice", FP32, None), TensorSpec("label", BYTES, None))
    assert getattr(model, "batch_size", None) == dragoman.core.authoring.USUAL_SIZE
    answer = arrays(model, x=np.ones((3, 2), np.float32))
    assert answer["twice"].array.dtype == np.dtype("<f4")
    assert answer["twice"].array.tolist() == [[2, 2]] * 3
    assert answer["label"].array.tolist() == [b"l"] * 3


STEPS = """
from typing import Iterator
import numpy as np
from numpy.typing import NDArray
def predict(x: NDArray[np.float32], upto: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    kept = np.zeros_like(x)
    try:
        for number in range(int(upto[0])):
            kept += x
            yield kept if number < 3 else kept[:1]
    finally:
        open("closed", "w").close()
"""


def test_a_generator_of_arrays_streams(tmp_path: Path) -> None:
    """Each part is what it was when it was yielded; where nobody streams they are stacked. It ends when its reader leaves."""
    model: Any = model_of(tmp_path, STEPS)
    assert model.signatures[""].outputs == (TensorSpec("output", FP32, None),)
    given = [Tensor("x", FP32, np.array([1, 2], "f4")), Tensor("upto", INT64, np.array([3]))]
    parts = list(model.stream(Call(Tensors(given))))
    assert [part.items[0].array.tolist() for part in parts] == [[1, 2], [2, 4], [3, 6]]
    (tmp_path / "closed").unlink()
    reading = model.stream(Call(Tensors(given)))
    next(reading)
    reading.close()
    assert (tmp_path / "closed").exists()
    x = np.array([1, 2], np.float32)
    assert arrays(model, x=x, upto=np.array([2]))["output"].array.tolist() == [[1, 2], [2, 4]]
    assert arrays(model, x=x, upto=np.array([0]))["output"].array.tolist() == []
    with pytest.raises(ServingError, match="'output' differs in shape or datatype") as caught:
        arrays(model, x=x, upto=np.array([4]))
    assert caught.value.kind is Kind.MODEL_FAILED
    batched = STEPS.replace("def predict", "import dragoman\n@dragoman.batched\ndef predict")
    assert "cannot be batched" in refused(tmp_path / "batched", batched).message


def test_a_declared_signature(tmp_path: Path) -> None:
    """Says what hints could not; a tuple answers in its order; without a batch axis a request runs alone."""
    source = """
        from dragoman import Signature, TensorSpec
        from dragoman.core.tensors import FP32, INT64
        class Model:
            signature = Signature(
                inputs=(TensorSpec("a", FP32, (-1, 2)), TensorSpec("b", INT64, (-1,), optional=True)),
                outputs=(TensorSpec("sum", FP32, (-1,)), TensorSpec("n", INT64, ())),
            )
            def predict(self, a, b=None):
                return a.sum(axis=1), len(a) if b is None else b.sum()
        """
    model = model_of(tmp_path, source)
    assert model.signatures[""].batch is False
    one = arrays(model, a=np.ones((3, 2), np.float32))
    assert one["sum"].array.tolist() == [2, 2, 2]
    assert one["n"].array.tolist() == 3
    assert list(arrays(model, ("n",), a=np.ones((3, 2), np.float32), b=np.ones(4, np.int64))) == ["n"]


def test_arrays_that_break_the_signature(tmp_path: Path) -> None:
    """Another kind of number, or an output that does not come."""
    head = "from numpy.typing import NDArray\nimport numpy as np\nfrom typing import TypedDict\nclass O(TypedDict):\n    y: NDArray[np.int64]\n"
    broken = model_of(tmp_path / "a", f"{head}def predict(x: NDArray[np.float32]) -> O:\n    return {{'y': x}}")
    with pytest.raises(ServingError, match="output 'y' of model 'm' is an array of float32, expected INT64"):
        arrays(broken, x=np.ones(2, np.float32))
    other = model_of(tmp_path / "b", f"{head}def predict(x: NDArray[np.float32]) -> O:\n    return {{'z': x}}")
    with pytest.raises(ServingError, match="did not answer the output 'y'"):
        arrays(other, x=np.ones(2, np.float32))


# --- what cannot be loaded ---

BAD = [
    ("x = 1", "declares no model: it has neither a function predict nor a class with one"),
    ("class A:\n    def predict(self, x): ...\nclass B:\n    def predict(self, x): ...", "several classes with a predict: 'A', 'B'; say which: "),
    ("def predict(): ...", "predict of model 'm' has no parameters"),
    ("def predict(*x): ...", "has the parameter '*x'; every input needs a name"),
    ("def predict(größe): ...", "names of inputs are ASCII"),
    ("async def predict(x): ...", "predict of model 'm' is async"),
    ("def predict(x: set[int]): ...", "the parameter 'x' of predict of model 'm' has the type set[int]"),
    ("def predict(x: int | str): ...", "may be one of several types"),
    ("def predict(x: tuple[int, str]): ...", "possible are list[...] and tuple[..., ...]"),
    ("def predict(x: 'Nothing'): ...", "type hints of predict of model 'm' cannot be read"),
    ("from typing import Literal\ndef predict(x: Literal[1, 'a']): ...", "neither all texts nor all whole numbers"),
    ("import dragoman\n@dragoman.batched\ndef predict(x: int): ...", "in a batch it is list[...] or an array"),
    ("import dragoman\n@dragoman.batched\ndef predict(x: list[int]): yield 1", "cannot be batched"),
    ("import dragoman\n@dragoman.batched(max_size=0)\ndef predict(x): ...", "max_size must be a whole number"),
    ("def predict(x:\n", "'model.py' of model 'm' is not Python"),
    ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    ("raise SystemExit(1)", "cannot be imported: SystemExit: 1"),
    ("signature = __import__('dragoman').Signature(inputs=(__import__('dragoman').TensorSpec('y', None, None),))\ndef predict(x): ...",
     "has the input 'y', which predict does not take"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "words"), BAD, ids=range(len(BAD)))
def test_models_that_cannot_be(source: str, words: str, tmp_path: Path) -> None:
    """One sentence that says what is wrong with which part of which model."""
    error = refused(tmp_path, source)
    assert error.kind is Kind.INVALID_INPUT
    assert words in error.message


def test_a_setup_that_fails(tmp_path: Path) -> None:
    """Tungsten requirement T28: the reason in one line, the traceback for whoever logs it."""
    error = refused(tmp_path, "class M:\n    def setup(self):\n        raise OSError('no weights\\nat all')\n    def predict(self, x): ...")
    assert error.kind is Kind.MODEL_FAILED
    assert error.message == "model 'm' could not be set up: OSError: no weights"
    assert "in setup" in error.trace


def test_a_class_may_be_chosen(tmp_path: Path) -> None:
    """By its name; one that is not there is named beside those that are."""
    source = "class A:\n    def predict(self, x): return 'a'\nclass B:\n    def predict(self, x): return 'b'\ndef predict(x): return 'f'"
    assert answers(model_of(tmp_path, source, **{"class": "B"}), {"x": 1}) == [{"output": "b"}]
    assert answers(model_of(tmp_path, source), {"x": 1}) == [{"output": "f"}]
    assert "has no class 'C' with a predict; it has 'A', 'B'" in refused(tmp_path, source, **{"class": "C"}).message


def test_a_module_may_be_chosen(tmp_path: Path) -> None:
    """By its name, also inside of a package; anything but a name is refused before it is looked for."""
    write(tmp_path / "package", "from package.beside import N\ndef predict(x): return N", "inner.py")
    write(tmp_path / "package", "N = 7", "beside.py")
    source = "def predict(x): return 1"
    assert answers(model_of(tmp_path, source, module="package.inner"), {"x": 1}) == [{"output": 7}]
    missing = refused(tmp_path, source, module="nothing")
    assert (missing.kind, missing.message) == (Kind.NOT_FOUND, "the folder of model 'm' has no module 'nothing'")
    with pytest.raises(ServingError, match=r"has neither 'tungsten_model\.py' nor 'model\.py'"):
        load("python", tmp_path / "package")
    for odd in ("../x", "a b", "a..b", ".a", "1a"):
        assert "is no name of a module" in refused(tmp_path, source, module=odd).message
    with pytest.raises(ServingError, match="is no Python module"):
        load("python", write(tmp_path, source, "my-model.py"))


def test_two_models_of_one_name(tmp_path: Path) -> None:
    """In one process the second is not taken for the first, and a class of the first still works."""
    first = model_of(tmp_path / "a", "def predict(x): return 'first'")
    second = model_of(tmp_path / "b", "def predict(x): return 'second'")
    assert answers(first, {"x": 1}) + answers(second, {"x": 1}) == [{"output": "first"}, {"output": "second"}]


def test_rows_only(tmp_path: Path) -> None:
    """A model of rows refuses tensors and rows that are no objects."""
    model = model_of(tmp_path, "def predict(x: int): return x")
    for inputs in (Tensors([]), Rows([1])):
        with pytest.raises(ServingError) as caught:
            model.predict(Call(inputs))
        assert caught.value.kind is Kind.INVALID_INPUT


def test_batched_is_strict_about_its_size() -> None:
    """It marks and changes nothing else."""

    def predict(x: list[int]) -> list[int]:
        return x

    assert dragoman.batched(predict) is predict
    for size in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="max_size"):
            dragoman.batched(max_size=size)  # type: ignore[arg-type]


def test_hints_that_have_a_name(tmp_path: Path) -> None:
    """What stands behind the name counts, however it was given; `type X = ...` came with Python 3.12."""
    lines = ["type Word = str", "type Many[T] = list[T]", "type Named = Annotated[Word, {'title': 'a word'}]"]
    if sys.version_info < (3, 12):
        lines = ["Word = str", "Many = list", "Named = Annotated[Word, {'title': 'a word'}]"]
    source = ["from typing import Annotated", *lines, "def predict(word: Named, many: Many[int]) -> Word:", "    return word * many[0]"]
    model = model_of(tmp_path, "\n".join(source))
    schema = model.signatures[""].input_schema
    assert schema is not None
    assert schema["properties"]["word"] == {"type": "string", "title": "a word"}
    assert schema["properties"]["many"]["items"] == {"type": "integer"}
    assert answers(model, {"word": "ab", "many": [2]}) == [{"output": "abab"}]

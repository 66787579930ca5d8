"""The bridge between server and model: descriptions, inputs from rows, rows from outputs, and the model class of a module."""

import enum
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Optional  # noqa: UP035 # as model files write it

import pytest

from dragoman.compat.tungstenkit import Audio, BaseIO, Binary, Field, Image, MaskedImage, Option, Video, define_model
from dragoman.compat.tungstenkit import _bridge as bridge
from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob
from tests.unit.compat.pictures import png


class Mode(enum.StrEnum):
    FAST = "fast"
    BEST = "best"


class Request(BaseIO):
    image: Image = Field(description="A picture")
    sketch: Optional[MaskedImage] = None  # noqa: UP045
    prompt: str = Field(max_length=5)
    steps: int = Option(3, ge=1, le=9)
    scale: float = Option(8, choices=[7, 8])
    mode: Mode = Mode.FAST
    weights: Binary = Option(Binary.from_path("weights.bin"))
    logo: Image = Option(Image.from_url("https://example.com/logo.png"))
    badge: Image = Option(Image.from_url("data:image/png;base64,YQ=="))
    strength: Optional[float] = 2  # noqa: UP045


class Inner(BaseIO):
    sound: Audio


class Reply(BaseIO):
    picture: Image
    clips: List[Video]  # noqa: UP006
    inner: Inner
    named: Dict[int, Binary]  # noqa: UP006
    mode: Mode
    score: float


class Shown(BaseIO):
    words: str


@define_model(input=Request, output=Reply, demo_output=Shown, batch_size=0, gpu=True)
class Everything:
    def predict(self, inputs: list[Request]) -> list[Reply]:
        return []

    def predict_demo(self, inputs: list[Request]) -> tuple[list[Reply], list[Shown]]:
        return [], []


class Text(BaseIO):
    text: str
    times: int = Option(1, le=5)


class Answer(BaseIO):
    text: str
    n: int


@define_model(input=Text, output=Answer, batch_size=4)
class Echo:
    def predict(self, inputs: list[Text]) -> list[Answer]:
        return [Answer(text=i.text * i.times, n=i.times) for i in inputs]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's directory, which must stay clean."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed(outputs: object, expected: int, demo: bool = False, model: type = Echo) -> str:
    """The message of a model's failure."""
    with pytest.raises(ServingError) as caught:
        bridge.to_rows(model, outputs, expected, demo)
    assert caught.value.kind is Kind.MODEL_FAILED
    return caught.value.message


def refused(model: type, *rows: dict[str, Any]) -> ServingError:
    """The error of rows that the model's input class does not take."""
    with pytest.raises(ServingError) as caught:
        bridge.to_inputs(model, list(rows))
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value


class TestDescribe:
    """What the server is told of a model."""

    def test_schemas(self) -> None:
        """One row each, inlined, without titles; a default that is a local path is not shown."""
        described = bridge.describe(Everything)
        properties = described.input_schema["properties"]
        assert described.input_schema["required"] == ["image", "prompt"]
        assert properties["image"] == {"type": "string", "format": "uri", "description": "A picture"}
        assert properties["steps"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "description": "Steps"}
        assert properties["mode"] == {"type": "string", "enum": ["fast", "best"], "default": "fast", "description": "Mode"}
        assert properties["weights"] == {"type": "string", "format": "uri", "description": "Weights"}
        assert properties["logo"] == {"type": "string", "format": "uri", "description": "Logo"}
        assert properties["badge"]["default"] == "data:image/png;base64,YQ=="
        assert described.output_schema["properties"]["named"] == {
            "type": "object",
            "additionalProperties": {"type": "string", "format": "uri"},
        }
        assert described.demo_output_schema == {"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"]}

    def test_a_default_looks_like_a_value(self) -> None:
        """So that a request that says it and one that leaves it out are equal as text."""
        default = bridge.describe(Everything).input_schema["properties"]["scale"]["default"]
        assert (default, type(default)) == (8.0, float)

    def test_null_beside_a_default(self) -> None:
        """Is a value of its own, which only this field takes."""
        properties = bridge.describe(Everything).input_schema["properties"]
        assert [name for name, shown in properties.items() if shown.get("nullable")] == ["strength"]
        inputs: Any = bridge.to_inputs(Everything, [{"image": b"", "prompt": "x", "strength": None}, {"image": b"", "prompt": "x"}])
        assert [i.strength for i in inputs] == [None, 2.0]
        bridge.discard(inputs)

    def test_places_of_files(self) -> None:
        """By path: objects by name, lists and dicts by $item."""
        described = bridge.describe(Everything)
        assert described.input_files == {
            "image": "image",
            "sketch.image": "image",
            "sketch.mask": "image",
            "weights": "binary",
            "logo": "image",
            "badge": "image",
        }
        assert described.output_files == {"picture": "image", "clips.$item": "video", "inner.sound": "audio", "named.$item": "binary"}
        assert described.demo_output_files == {}

    def test_the_rest(self) -> None:
        """Options in order, a batch of at least one, and the configuration as declared."""
        described = bridge.describe(Everything)
        assert described.options == ("sketch", "steps", "scale", "mode", "weights", "logo", "badge", "strength")
        assert described.batch_size == 1
        assert described.config["gpu"] is True
        assert described.has_post_build is False
        assert bridge.describe(Echo).batch_size == 4
        assert bridge.describe(Echo).demo_output_schema == bridge.describe(Echo).output_schema


class TestInputs:
    """Rows become objects of the model's class."""

    def test_files_arrive_with_their_content(self, here: Path) -> None:
        """In memory, and on disk only for a model that asks for a path; never in the model's directory."""
        rows: list[dict[str, Any]] = [
            {"image": Blob(png(), "image/png", "a.png"), "prompt": "x"},
            {"image": png(), "prompt": "y", "mode": "best"},
        ]
        inputs: Any = bridge.to_inputs(Everything, rows)
        assert [type(i) for i in inputs] == [Request, Request]
        assert inputs[0].image.to_pil_image().size == (2, 2)
        path = inputs[0].image.path
        assert path.suffix == ".png"
        assert inputs[1].mode is Mode.BEST
        assert inputs[1].image.path.suffix == ".bin"
        assert list(here.iterdir()) == []
        bridge.discard(inputs)
        assert not path.parent.exists()

    def test_defaults_are_the_models_own(self, here: Path) -> None:
        """A missing option, and None where None is none, is the declared default."""
        inputs: Any = bridge.to_inputs(Everything, [{"image": png(), "prompt": "x", "steps": None, "weights": None, "sketch": None}])
        assert inputs[0].steps == 3
        assert inputs[0].weights.path.name == "weights.bin"
        assert inputs[0].sketch is None
        bridge.discard(inputs)

    def test_masked_images(self) -> None:
        """Are decoded before the model is called; what cannot be is the caller's fault."""
        good = {"image": Blob(png(), "image/png"), "mask": png("L", colour=3)}
        inputs: Any = bridge.to_inputs(Everything, [{"image": png(), "prompt": "x", "sketch": good}])
        assert inputs[0].sketch.mask.to_pil_image("L").getpixel((0, 0)) == 255
        bridge.discard(inputs)
        error = refused(Everything, {"image": png(), "prompt": "x", "sketch": {"image": png(), "mask": b"words"}})
        assert [p.path for p in error.problems] == [(0, "sketch", "mask")]
        assert refused(Everything, {"image": png(), "prompt": "x", "sketch": {"image": png()}}).problems[0].code == "value_error.missing"

    def test_every_fault_of_every_row(self) -> None:
        """With the row's index before the field."""
        error = refused(Echo, {"text": "a"}, {"times": 9}, {"text": None, "times": "x"})
        assert [(p.path, p.code) for p in error.problems] == [
            ((1, "text"), "value_error.missing"),
            ((1, "times"), "value_error.number.not_le"),
            ((2, "text"), "type_error.none.not_allowed"),
            ((2, "times"), "type_error.integer"),
        ]
        assert error.problems[1].context == {"limit_value": 5}
        assert error.message.startswith("invalid input: 1 -> text: field required; 1 -> times: ensure this value is less")

    def test_contexts_are_json(self) -> None:
        """Enum members by value."""
        error = refused(Everything, {"image": png(), "prompt": "x", "mode": "slow", "scale": 3})
        assert [p.context for p in error.problems] == [{"given": 3.0, "permitted": [7.0, 8.0]}, {"enum_values": ["fast", "best"]}]

    @pytest.mark.parametrize("value", ["file:///etc/passwd", "/etc/passwd", "https://example.com/a.png", "", "words"])
    def test_a_text_is_never_a_file(self, value: str) -> None:
        """The server has fetched every address before; nothing is opened for a client here."""
        error = refused(Everything, {"image": value, "prompt": "x"})
        assert [(p.path, p.message) for p in error.problems] == [((0, "image", "__root__"), "Invalid file input")]
        assert refused(Everything, {"image": png(), "prompt": "x", "sketch": {"image": value, "mask": value}})

    def test_nothing_is_left_of_refused_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not even the folder."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        refused(Everything, {"image": png(), "prompt": "too long"})
        assert list(tmp_path.iterdir()) == []

    def test_a_model_may_empty_its_list(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And delete its files, or make new ones; all are removed with the batch."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        inputs: Any = bridge.to_inputs(Everything, [{"image": png(), "prompt": "x"}, {"image": png(), "prompt": "y"}])
        inputs[0].image.path.unlink()
        assert inputs[1].image.path.exists()
        made = Image.from_bytes(b"by the model").path
        inputs.clear()
        assert made.exists()
        bridge.discard(inputs)
        bridge.discard(inputs)
        assert list(tmp_path.iterdir()) == []

    def test_discarding_another_list(self) -> None:
        """Does nothing."""
        bridge.discard([])

    def test_unknown_fields_are_ignored(self) -> None:
        """As the class does."""
        inputs: Any = bridge.to_inputs(Echo, [{"text": "a", "more": 1}])
        assert inputs[0].dict() == {"text": "a", "times": 1}
        bridge.discard(inputs)


class TestRows:
    """Outputs become rows of plain values and blobs."""

    def test_objects_dicts_and_subclasses(self) -> None:
        """All are checked and coerced; what the output class does not declare is dropped."""

        class More(Answer):
            extra: int

        outputs = [Answer(text="a", n=1), {"text": 5, "n": "2", "unknown": ...}, More(text="c", n=3, extra=4)]
        assert bridge.to_rows(Echo, outputs, 3, False) == [{"text": "a", "n": 1}, {"text": "5", "n": 2}, {"text": "c", "n": 3}]

    @pytest.mark.parametrize("kind", [list, tuple, iter])
    def test_any_iterable(self, kind: Any) -> None:
        """A list, a tuple, a generator."""
        assert bridge.to_rows(Echo, kind([{"text": "a", "n": 1}]), 1, False) == [{"text": "a", "n": 1}]

    def test_files_are_read_now(self, here: Path) -> None:
        """Wherever they are nested; a model may then write the next result to the same name."""
        (here / "out.mp4").write_bytes(b"first")
        (here / "note").write_text("words")
        output = {
            "picture": Image.from_bytes(b"pixels"),
            "clips": [Video.from_path("out.mp4"), Video.from_path(here / "out.mp4")],
            "inner": Inner(sound=Audio.from_url("data:audio/wav;base64,YWJj")),
            "named": {7: Binary.from_path("note")},
            "mode": "best",
            "score": float("nan"),
        }
        (row,) = bridge.to_rows(Everything, [output], 1, False)
        (here / "out.mp4").write_bytes(b"second")
        clip = Blob(b"first", "video/mp4", "out.mp4")
        assert row["clips"] == [clip, clip]
        assert row["picture"] == Blob(b"pixels", "application/octet-stream")
        assert row["inner"] == {"sound": Blob(b"abc", "audio/wav")}
        assert row["named"] == {"7": Blob(b"words", "text/plain", "note")}
        assert row["mode"] == "best"
        assert type(row["mode"]) is str
        assert row["score"] != row["score"]

    def test_pictures_are_png(self) -> None:
        """Those that PIL made."""
        import PIL.Image

        class Picture(BaseIO):
            picture: Image

        @define_model(input=Text, output=Picture)
        class Painter:
            def predict(self, inputs: list[Text]) -> list[Picture]:
                return [Picture(picture=Image.from_pil_image(PIL.Image.new("RGB", (1, 1)))) for _ in inputs]

        (row,) = bridge.to_rows(Painter, Painter().predict([Text(text="a")]), 1, False)
        assert row["picture"].media_type == "image/png"
        assert row["picture"].data.startswith(b"\x89PNG")

    def test_keys_of_dicts_are_texts(self) -> None:
        """As JSON has them."""

        class Table(BaseIO):
            flags: Dict[bool, int]  # noqa: UP006
            counts: Dict[int, float]  # noqa: UP006

        @define_model(input=Text, output=Table)
        class Counter:
            def predict(self, inputs: list[Text]) -> list[Table]:
                return []

        outputs = [{"flags": {True: 1, "no": 2}, "counts": {1: 2, "3": 4}}]
        assert bridge.to_rows(Counter, outputs, 1, False) == [{"flags": {"true": 1, "false": 2}, "counts": {"1": 2.0, "3": 4.0}}]

    @pytest.mark.parametrize(
        ("outputs", "words"),
        [
            (None, "Echo.predict must return a list of outputs, one for each input; it returned NoneType"),
            (5, "it returned int"),
            ("ab", "it returned str"),
            ({"text": "a", "n": 1}, "it returned dict"),
            (Answer(text="a", n=1), "it returned Answer"),
            ([], "Echo.predict returned 0 outputs for 2 inputs"),
            ([{}] * 5, "Echo.predict returned 5 outputs for 2 inputs"),
            (iter([{}]), "Echo.predict returned 1 outputs for 2 inputs"),
            (iter(int, 1), "Echo.predict returned more than 2 outputs for 2 inputs"),
            ([{"text": "a", "n": 1}, 7], "Echo.predict: output 1 must be Answer or dict, not int"),
            ([{"text": "a", "n": 1}, None], "output 1 must be Answer or dict, not NoneType"),
            ([{"text": "a", "n": 1}, Text(text="a")], "output 1 must be Answer or dict, not Text"),
            ([{"text": "a"}, {}], "Echo.predict: output 0 is not a valid Answer: n: field required"),
            ([Answer.construct(text="a", n="secret")] * 2, "n: value is not a valid integer"),
        ],
    )
    def test_what_a_model_may_not_return(self, outputs: object, words: str) -> None:
        """Each says which method, which output and which field; values are not repeated."""
        message = failed(outputs, 2)
        assert words in message
        assert "secret" not in message

    @pytest.mark.parametrize(
        ("file", "words"),
        [
            (Video.from_path("nothing.mp4"), "there is no file 'nothing.mp4'"),
            (Video.from_path("."), "cannot read the file: Is a directory"),
            (Video.from_url("data:video/mp4;base64,!"), "cannot read the file: the content of a data URI is not base64"),
            (Video.from_url("http://127.0.0.1:1/x.mp4"), "cannot read the file: cannot fetch http://127.0.0.1/x.mp4"),
        ],
    )
    def test_files_that_cannot_be_read(self, here: Path, file: Video, words: str) -> None:
        """Fail the prediction, with the field and no path of the machine."""
        output = {"picture": Image.from_bytes(b""), "clips": [file], "inner": {"sound": "data:,"}, "named": {}, "mode": "best", "score": 1}
        message = failed([output], 1, model=Everything)
        assert f"Everything.predict: output 0, field 'clips'[0]: {words}" in message
        assert str(here) not in message


class TestDemo:
    """predict_demo's two lists."""

    def test_rows_of_both(self) -> None:
        """A demo output may be a dict, an object or None."""
        outputs = [{"text": "a", "n": 1}] * 3
        rows = bridge.to_rows(Echo, (outputs, [None, {"text": "b", "n": "2"}, Answer(text="c", n=3)]), 3, True)
        assert [row["output"] for row in rows] == outputs
        assert [row["demo_output"] for row in rows] == [None, {"text": "b", "n": 2}, {"text": "c", "n": 3}]

    def test_the_default_is_the_outputs_twice(self) -> None:
        """Of a model without predict_demo."""
        instance: Any = Echo()
        inputs: Any = bridge.to_inputs(Echo, [{"text": "a", "times": 2}])
        (row,) = bridge.to_rows(Echo, instance.predict_demo(inputs), 1, True)
        assert row == {"output": {"text": "aa", "n": 2}, "demo_output": {"text": "aa", "n": 2}}
        bridge.discard(inputs)

    @pytest.mark.parametrize(
        ("outputs", "words"),
        [
            (None, "Echo.predict_demo must return two lists: outputs and demo outputs"),
            ([{"text": "a", "n": 1}], "must return two lists"),
            (([], [], []), "must return two lists"),
            ({"a": 1, "b": 2}, "must return two lists"),
            (([{"text": "a", "n": 1}], None), "must return a list of demo outputs, one for each input; it returned NoneType"),
            (([{"text": "a", "n": 1}], []), "returned 0 demo outputs for 1 inputs"),
            (([], [None]), "returned 0 outputs for 1 inputs"),
            (([{"text": "a", "n": 1}], [{"n": 1}]), "demo output 0 is not a valid Answer: text: field required"),
        ],
    )
    def test_what_a_demo_may_not_return(self, outputs: object, words: str) -> None:
        """In the same manner."""
        assert words in failed(outputs, 1, demo=True)


class TestFinding:
    """The model class of a module."""

    def module(self, **names: Any) -> ModuleType:
        made = ModuleType("tungsten_model")
        vars(made).update(names)
        return made

    def test_the_only_one(self) -> None:
        """Under whatever name, also under two."""
        assert bridge.find_model(self.module(Echo=Echo, Alias=Echo, Text=Text, x=5)) is Echo

    def test_none(self) -> None:
        """Says what to do; a subclass that was not decorated is none."""

        class Derived(Echo):
            pass

        with pytest.raises(ServingError, match="No defined model in module 'tungsten_model': decorate a class") as caught:
            bridge.find_model(self.module(Derived=Derived, Text=Text))
        assert caught.value.kind is Kind.INVALID_INPUT

    def test_several(self) -> None:
        """Need a name."""
        module = self.module(Echo=Echo, Everything=Everything)
        with pytest.raises(ServingError, match="Multiple models are defined in module 'tungsten_model': Echo, Everything"):
            bridge.find_model(module)
        assert bridge.find_model(module, "Everything") is Everything

    def test_an_imported_one_beside_its_own(self) -> None:
        """The module's own is meant."""

        @define_model(input=Text, output=Answer)
        class Own:
            def predict(self, inputs: list[Text]) -> list[Answer]:
                return []

        Own.__module__ = "with_its_own"
        module = ModuleType("with_its_own")
        vars(module).update(Echo=Echo, Own=Own)
        assert bridge.find_model(module) is Own

    def test_one_that_nobody_sees(self) -> None:
        """A class made in a function is found, too."""

        def make() -> type:
            @define_model(input=Text, output=Answer)
            class Hidden:
                def predict(self, inputs: list[Text]) -> list[Answer]:
                    return []

            Hidden.__module__ = "tungsten_model_of_a_function"
            return Hidden

        hidden = make()
        assert bridge.find_model(ModuleType("tungsten_model_of_a_function")) is hidden

    @pytest.mark.parametrize(
        ("name", "words"), [("Nobody", "has no class 'Nobody'"), ("Text", "does not decorate with define_model: 'Text'")]
    )
    def test_a_wrong_name(self, name: str, words: str) -> None:
        """Says what is wrong with it."""
        with pytest.raises(ServingError, match=words):
            bridge.find_model(self.module(Text=Text), name)


def test_a_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs, predict, rows, and nothing left: what the runtime does for every batch, also when the model asks for paths."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    class Upload(BaseIO):
        file: Binary

    class Size(BaseIO):
        size: int
        copy_of: Binary

    @define_model(input=Upload, output=Size, batch_size=2)
    class Scale:
        def predict(self, inputs: list[Upload]) -> list[Size]:
            return [Size(size=i.file.path.stat().st_size, copy_of=Binary.from_path(i.file.path)) for i in inputs]

    inputs: Any = bridge.to_inputs(Scale, [{"file": Blob(b"ab", "text/plain", "a.txt")}, {"file": b"c"}])
    try:
        rows = bridge.to_rows(Scale, Scale().predict(inputs), len(inputs), False)
    finally:
        bridge.discard(inputs)
    assert [(row["size"], row["copy_of"].data, row["copy_of"].media_type) for row in rows] == [
        (2, b"ab", "text/plain"),
        (1, b"c", "application/octet-stream"),
    ]
    assert list(tmp_path.iterdir()) == []

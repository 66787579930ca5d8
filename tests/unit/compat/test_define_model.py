"""define_model: what it refuses and in which words, what it leaves on the class, and fields' names as descriptions."""

import enum
import re
from typing import Any, Dict, List, Optional  # noqa: UP035 # as model files write it

import pytest

from dragoman.compat import tungstenkit
from dragoman.compat.tungstenkit import Audio, BaseIO, Binary, Field, Image, MaskedImage, Option, Video, define_model, exceptions


class Input(BaseIO):
    text: str


class Output(BaseIO):
    text: str


def model(body: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """A class with these members, decorated."""
    members = {"predict": lambda self, inputs: [{"text": i.text} for i in inputs]} if body is None else body
    return define_model(**{"input": Input, "output": Output, **arguments})(type("Model", (), members))


def io_class(**annotations: Any) -> Any:
    """A BaseIO class by its annotations."""
    return type("Fields", (BaseIO,), {"__annotations__": annotations})


class Mode(enum.StrEnum):
    A = "a"


class Colour(enum.Enum):
    RED = "red"


class Tree(BaseIO):
    children: List["Tree"]  # noqa: UP006


class TestWords:
    """Every refusal names what is wrong and where."""

    @pytest.mark.parametrize(
        ("body", "arguments", "error", "words"),
        [
            ({}, {}, TypeError, "Model has no method 'predict'"),
            ({"predict": lambda self: []}, {}, TypeError, "Model.predict must have the parameters (self, inputs), not (self)"),
            ({"predict": 5}, {}, TypeError, "Model.predict is not a method"),
            (
                {"predict": lambda s, i: [], "setup": lambda s, x: None},
                {},
                TypeError,
                "Model.setup must have the parameters (self), not (s, x)",
            ),
            ({"predict": lambda s, i: []}, {"demo_output": Output}, TypeError, "has a demo_output but no method 'predict_demo'"),
            ({"predict": lambda s, i: [], "predict_demo": lambda s, i: []}, {}, ValueError, "define_model needs demo_output"),
            (None, {"input": 5}, TypeError, "input must be a class that inherits from tungstenkit.BaseIO, not 5"),
            (None, {"output": dict}, TypeError, "output must be a class that inherits from tungstenkit.BaseIO"),
            (None, {"input": io_class(xs=List[int])}, TypeError, "Fields.xs: typing.List[int]"),  # noqa: UP006
            (None, {"input": io_class(x=bytes, y=int, z=Colour)}, TypeError, "Fields.x: bytes; Fields.z: Colour. Supported: int"),
            (None, {"output": io_class(x=Optional[int])}, TypeError, "an output is never optional"),  # noqa: UP045
            (None, {"output": io_class(xs=list[dict[str, Any]])}, TypeError, "Fields.xs.<item>.<value>: list[dict[str, typing.Any]]"),
            (None, {"output": io_class(x=Dict[float, int])}, TypeError, "keys are str, int or bool"),  # noqa: UP006
            (None, {"output": Tree}, TypeError, "Tree.children.<item>: Tree contains itself"),
            (None, {"output": io_class(x="Missing")}, TypeError, "Fields.x: 'Missing' is not defined"),
            (None, {"colour": 1}, TypeError, "colour"),
        ],
    )
    def test_refusals(self, body: dict[str, Any] | None, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
        """At define time, with the class and the field or method in the message."""
        with pytest.raises(error, match=re.escape(words)):
            model(body, **arguments)

    def test_a_demo_outputs_class_is_checked_as_well(self) -> None:
        """And named as that."""
        with pytest.raises(TypeError, match=r"unsupported demo_output types: Fields\.x: bytes"):
            model({"predict": lambda s, i: [], "predict_demo": lambda s, i: []}, demo_output=io_class(x=bytes))

    def test_an_async_predict(self) -> None:
        """Is refused: nothing would await it."""

        async def predict(self: Any, inputs: Any) -> list[Any]:
            return []

        with pytest.raises(TypeError, match=r"Model\.predict is async"):
            model({"predict": predict})

    def test_what_is_no_class(self) -> None:
        """A function is no model."""
        with pytest.raises(TypeError, match="decorates a class"):
            define_model(input=Input, output=Output)(lambda: None)  # type: ignore[type-var]

    def test_a_nested_class_may_have_no_default_either(self) -> None:
        """The place is named down to the field."""

        class Inner(BaseIO):
            x: int = 1

        with pytest.raises(TypeError, match=r"Fields\.many\.<item>\.x: an output has no default"):
            model(output=io_class(many=list[Inner]))


class TestAccepted:
    """What Tungstenkit takes is taken."""

    def test_every_kind_of_input(self) -> None:
        """With defaults, Optional, and enums."""

        class Every(BaseIO):
            a: int
            b: float = 1
            c: str = Option("x", max_length=3)
            d: bool = False
            e: Image
            f: Video
            g: Audio
            h: Binary
            i: MaskedImage
            j: Optional[Image] = None  # noqa: UP045
            k: "Mode | None" = None
            m: Mode = Mode.A

        assert model(input=Every).__tungsten_input__ is Every

    def test_every_kind_of_output(self) -> None:
        """Nested as deep as you like."""

        class Inner(BaseIO):
            pic: Image
            mask: MaskedImage

        class Every(BaseIO):
            a: int
            b: Dict[bool, List[Dict[int, Inner]]]  # noqa: UP006
            c: Mode
            d: Video
            e: dict[str, float] = Field(description="scores")

        assert model(output=Every).__tungsten_output__ is Every

    def test_unannotated_defaults_are_fields(self) -> None:
        """As in pydantic 1, so they are options of the model."""

        class Loose(BaseIO):
            steps = 5

        assert model(input=Loose).__tungsten_input__.schema()["properties"] == {
            "steps": {"type": "integer", "description": "Steps", "default": 5}
        }

    @pytest.mark.parametrize(
        ("name", "description"),
        [
            ("prompt", "Prompt"),
            ("upper_first", "Upper First"),
            ("camelCase", "Camel Case"),
            ("HTTPServer", "Http Server"),
            ("numSteps2", "Num Steps2"),
            ("x", "X"),
            ("aB", "A B"),
            ("trailing_", "Trailing "),
        ],
    )
    def test_descriptions(self, name: str, description: str) -> None:
        """Made of names, for inputs only."""
        fields = io_class(**{name: int})
        model(input=fields, output=io_class(**{name: int}))
        assert fields.schema()["properties"][name]["description"] == description
        assert "description" not in model(output=io_class(**{name: int})).__tungsten_output__.schema()["properties"][name]

    def test_a_given_description_stays(self) -> None:
        """Whoever wrote it meant it."""

        class Described(BaseIO):
            x: int = Field(description="own words")

        assert model(input=Described).__tungsten_input__.schema()["properties"]["x"]["description"] == "own words"


class TestTheClass:
    """It is returned as it was, with what it lacked."""

    def test_it_works_by_hand(self) -> None:
        """As in the `if __name__ == "__main__"` of many model files."""
        cls = model()
        instance = cls()
        assert instance.setup() is None
        assert instance.predict([Input(text="a")]) == [{"text": "a"}]
        assert instance.predict_demo([Input(text="a")]) == ([{"text": "a"}], [{"text": "a"}])
        assert cls.post_build() is None
        assert cls.__has_post_build__ is False

    def test_own_methods_are_kept(self) -> None:
        """Also inherited ones."""

        class Base:
            ready = False

            @staticmethod
            def post_build() -> str:
                return "built"

            def setup(self) -> None:
                self.ready = True

        @define_model(input=Input, output=Output)
        class Model(Base):
            def predict(self, inputs: list[Input]) -> list[Output]:
                return [Output(text=i.text) for i in inputs]

        instance = Model()
        instance.setup()
        assert instance.ready
        assert Model.post_build() == "built"
        assert Model.__has_post_build__ is True  # type: ignore[attr-defined]
        assert Model.predict_demo.__name__ == "predict_demo"  # type: ignore[attr-defined]

    def test_configuration(self) -> None:
        """Everything that was declared, and the defaults of the rest."""
        config = model(batch_size=8, gpu=True, python_packages=["torch==2.0"], cuda_version="11.8").__tungsten_config__
        assert config == {
            "batch_size": 8,
            "gpu": True,
            "python_packages": ["torch==2.0"],
            "cuda_version": "11.8",
            "gpu_mem_gb": 16.0,
            "mem_gb": 8.0,
            "force_install_system_cuda": False,
            **dict.fromkeys(("python_version", "system_packages", "cudnn_version", "readme_md", "include_files", "exclude_files")),
            **dict.fromkeys(("dockerfile_commands", "base_image")),
        }

    def test_two_models_of_one_input(self) -> None:
        """Do not share what they declare."""
        first, second = model(batch_size=1), model(batch_size=2)
        assert first.__tungsten_config__["batch_size"] == 1
        assert second.__tungsten_config__["batch_size"] == 2


class TestThePackage:
    """The names that a program finds."""

    def test_public_names(self) -> None:
        """Those of Tungstenkit 0.2.20, all there."""
        names = [
            "Audio",
            "BaseIO",
            "Binary",
            "Field",
            "Image",
            "MaskedImage",
            "ModelServer",
            "Option",
            "Video",
            "__version__",
            "define_model",
        ]
        assert sorted(tungstenkit.__all__, key=str.lower) == sorted(names, key=str.lower)
        assert all(hasattr(tungstenkit, name) for name in names)
        assert tungstenkit.__version__ == "0.2.20"
        assert callable(tungstenkit.models.get)

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "TungstenModelError",
                "DockerError",
                "NotLoggedIn",
                "InvalidName",
                "InvalidURL",
                "NotFound",
                "ModelNotFound",
                "ModelImageNotFound",
            ),
            *(
                "ModelConfigError",
                "TungstenTaskError",
                "ClientError",
                "TungstenClientError",
                "ModelClientError",
                "DownloadError",
                "UploadError",
            ),
            *(
                "Conflict",
                "BuildError",
                "InvalidOutput",
                "InvalidDemoOutput",
                "PipPackageParseError",
                "NoCompatibleVersion",
                "InvalidInput",
            ),
            *(
                "NoCompatiblePythonPackage",
                "NoCompatiblePythonVersion",
                "NoCompatibleCUDAImage",
                "NoCompatiblePythonImage",
                "UnsupportedURL",
            ),
            *("PythonPackageMetadataError", "StoredDataError", "PredictionFailure", "UnsupportedModel"),
        ],
    )
    def test_exceptions(self, name: str) -> None:
        """Every class of tungstenkit.exceptions, below the one that catches all."""
        assert issubclass(getattr(exceptions, name), exceptions.TungstenException)

    def test_families(self) -> None:
        """Who catches NotFound catches both kinds; a client's error says what was asked and answered."""
        assert issubclass(exceptions.ModelNotFound, exceptions.NotFound)
        error = exceptions.ModelClientError("http://x/predict", 422, "Unprocessable Entity", "details", "refused")
        assert isinstance(error, exceptions.ClientError)
        assert str(error) == "refused: http://x/predict answered 422 Unprocessable Entity\ndetails"
        assert (error.status_code, error.url, error.detail) == (422, "http://x/predict", "details")

"""BaseIO where it goes beyond the recorded snippets: choices, names that come late, pydantic's leftovers, and odd values."""

import enum
import json
from collections import deque
from typing import Annotated, Any, ClassVar, Dict, List, Optional  # noqa: UP035 # as model files write it

import numpy as np
import pytest

from dragoman.compat.tungstenkit import BaseIO, Field, Image, Option, ValidationError


def refused(make: Any, **values: Any) -> list[dict[str, Any]]:
    """The faults of making an object."""
    with pytest.raises(ValidationError) as caught:
        make(**values)
    return caught.value.errors()


class Sampler(enum.StrEnum):
    EULER = "euler"
    DDIM = "ddim"


class Painting(BaseIO):
    size: str = Option("512x512", choices=["512x512", "768x768"])
    count: int = Option(1, choices=[1, 2, 4])
    sampler: Sampler = Option(Sampler.EULER, choices=[Sampler.EULER])
    odd: str = Option("", choices=["a", "b"])
    style: Optional[str] = Option(None, choices=["oil", "ink"])  # noqa: UP045
    tags: List[str] = Option([], choices=["x", "y"])  # noqa: UP006


class TestChoices:
    """`choices` are the only values that a field takes."""

    @pytest.mark.parametrize(
        "values",
        [
            {"size": "768x768"},
            {"count": "4"},
            {"count": 2.0},
            {"sampler": "euler"},
            {"odd": "b"},
            {"style": None},
            {"style": "ink"},
            {"tags": ["x", "y", "x"]},
            {},
        ],
    )
    def test_a_choice_is_taken(self, values: dict[str, Any]) -> None:
        """After coercion, and for each item of a list; None where it may be."""
        assert Painting(**values)

    @pytest.mark.parametrize(
        ("values", "given"),
        [
            ({"size": "1x1"}, "1x1"),
            ({"count": "3"}, 3),
            ({"sampler": "ddim"}, Sampler.DDIM),
            ({"odd": "c"}, "c"),
            ({"style": "wax"}, "wax"),
            ({"tags": ["x", "z"]}, "z"),
        ],
    )
    def test_another_value_is_refused(self, values: dict[str, Any], given: object) -> None:
        """With pydantic's fault for a value that is not the expected one."""
        (fault,) = refused(Painting, **values)
        assert fault["loc"] == tuple(values)
        assert fault["type"] == "value_error.const"
        assert fault["msg"].startswith("unexpected value; permitted: ")
        assert fault["ctx"]["given"] == given

    def test_a_default_need_not_be_a_choice(self) -> None:
        """Model files declare such defaults, and they worked; saying the default explicitly is the same as leaving it out."""
        assert Painting().odd == ""
        assert Painting(odd="").odd == ""

    def test_assignment_is_checked_as_well(self) -> None:
        """The object stays as it was."""
        painting = Painting()
        with pytest.raises(ValidationError, match="permitted: 1, 2, 4"):
            painting.count = 3
        assert painting.count == 1

    def test_choices_are_compared_as_values_of_the_field(self) -> None:
        """Texts of numbers are numbers on a number's field."""

        class Input(BaseIO):
            steps: int = Field(choices=["10", "20"])

        assert Input(steps=20).steps == 20
        assert Input.schema()["properties"]["steps"]["choices"] == [10, 20]
        assert refused(Input, steps=30)[0]["ctx"]["permitted"] == [10, 20]

    @pytest.mark.parametrize(("base", "value", "shown"), [(str, "a", "string"), (int, 1, "integer"), (float, 0.5, "number")])
    def test_enums_of_every_base(self, base: Any, value: Any, shown: str) -> None:
        """Have the type of their values, and take a value as well as a member."""
        kind: Any = enum.Enum("kind", {"ONE": value}, type=base)
        made: Any = type("Input", (BaseIO,), {"__annotations__": {"x": kind}})
        assert made.schema()["properties"]["x"] == {"type": shown, "enum": [value]}
        assert made(x=value).x is kind.ONE
        assert refused(made, x="other")[0]["type"] == "type_error.enum"

    def test_members_are_shown_by_value(self) -> None:
        """The schema is JSON."""
        shown = json.loads(Painting.schema_json())["properties"]["sampler"]
        assert shown == {"type": "string", "enum": ["euler", "ddim"], "choices": ["euler"], "default": "euler"}


class TestNames:
    """Annotations are looked up where Python would find them."""

    def test_classes_of_a_function(self) -> None:
        """Texts see the names around the class statement."""

        class Inner(BaseIO):
            n: int

        class Outer(BaseIO):
            inner: "Inner"
            many: "list[Inner]" = []  # noqa: RUF012 # copied for each object
            deep: list["Inner"] = []  # noqa: RUF012

        outer = Outer.parse_obj({"inner": {"n": "1"}, "many": [{"n": 2}], "deep": [{"n": 3}]})
        assert [outer.inner.n, outer.many[0].n, outer.deep[0].n] == [1, 2, 3]

    def test_a_class_of_the_module_that_comes_later(self) -> None:
        """It is found when the first object is made, without update_forward_refs."""

        class Early(BaseIO):
            x: "ComesLater"  # type: ignore[name-defined] # noqa: F821

        globals()["ComesLater"] = int
        try:
            assert Early.parse_obj({"x": "5"}).x == 5
        finally:
            del globals()["ComesLater"]

    def test_a_class_in_the_class(self) -> None:
        """A text finds what stands in the same body."""

        class Outer(BaseIO):
            class Inner(BaseIO):
                n: int

            inner: "Inner"

        assert Outer.parse_obj({"inner": {"n": "1"}}).inner.n == 1

    def test_a_class_that_never_comes(self) -> None:
        """The error names the field; asking for an update names what is missing."""

        class Early(BaseIO):
            x: "Nowhere"  # type: ignore[name-defined] # noqa: F821

        with pytest.raises(RuntimeError, match=r"Early\.x: 'Nowhere' is not defined"):
            Early.parse_obj({"x": 1})
        with pytest.raises(NameError, match="Nowhere"):
            Early.update_forward_refs()

    def test_class_variables_as_text(self) -> None:
        """They are no fields, however they are written."""

        class Input(BaseIO):
            LIMIT: "ClassVar[int]" = 3
            bare: ClassVar = 4
            x: int = 1

        assert list(Input.__fields__) == ["x"]
        assert Input.LIMIT + Input.bare == 7

    def test_annotated(self) -> None:
        """The type counts, and a Field among the rest; other extras are ignored."""

        class Input(BaseIO):
            x: Annotated[int, "pixels"] = 3
            y: Annotated[int, Field(ge=1, description="why")]

        assert Input(y=2).dict() == {"x": 3, "y": 2}
        assert refused(Input, y=0)[0]["type"] == "value_error.number.not_ge"
        assert Input.__fields__["y"].field_info.description == "why"

    def test_one_field_object_for_several_fields(self) -> None:
        """What is found out about one of them is not said of the others."""
        common = Field(ge=1)

        class Input(BaseIO):
            a: int = common
            b: int = common

        Input.__fields__["a"].field_info.description = "only a"
        assert Input.__fields__["b"].field_info.description is None
        assert refused(Input, a=0, b=0)[1]["loc"] == ("b",)

    def test_a_subclass_keeps_its_own_descriptions(self) -> None:
        """Fields are copied, not shared, when they are inherited."""

        class A(BaseIO):
            x: int

        class B(A):
            pass

        B.__fields__["x"].field_info.description = "of B"
        assert A.__fields__["x"].field_info.description is None

    def test_a_method_in_place_of_an_inherited_field(self) -> None:
        """The field is gone."""

        class A(BaseIO):
            x: int = 1
            y: int = 2

        class B(A):
            @property  # type: ignore[misc]
            def x(self) -> int:  # type: ignore[override]
                return 7

        assert list(B.__fields__) == ["y"]
        assert B().x == 7

    @pytest.mark.parametrize("name", ["dict", "json", "copy", "schema", "construct", "parse_obj", "validate"])
    def test_a_field_that_would_hide_a_method(self, name: str) -> None:
        """Is refused when the class is made."""
        with pytest.raises(NameError, match=f"Input.{name} would hide the method"):
            type("Input", (BaseIO,), {"__annotations__": {name: int}})

    def test_a_field_named_self(self) -> None:
        """Is one like any other."""
        made = type("Input", (BaseIO,), {"__annotations__": {"self": int}})
        assert made(self=3).dict() == {"self": 3}


class TestPydantic:
    """A model file may know pydantic, of either version."""

    def test_a_validator_is_refused(self) -> None:
        """Nothing here would call it, and a check that silently does not happen is worse than an error."""

        def check(cls: type, value: int) -> int:
            return value

        check.__validator_config__ = ("x",)  # type: ignore[attr-defined] # what pydantic 1 leaves on the function
        with pytest.raises(TypeError, match=r"Input\.check is a validator of pydantic"):
            type("Input", (BaseIO,), {"__annotations__": {"x": int}, "check": classmethod(check)})

    def test_a_validator_of_pydantic_2_is_refused(self) -> None:
        """It is known by the name of its class."""
        proxy = type("PydanticDescriptorProxy", (), {})()
        with pytest.raises(TypeError, match=r"Input\.check is a validator of pydantic"):
            type("Input", (BaseIO,), {"__annotations__": {"x": int}, "check": proxy})

    def test_a_config_class_does_no_harm(self) -> None:
        """It has no effect."""

        class Input(BaseIO):
            x: int

            class Config:
                extra = "forbid"

        assert Input.parse_obj({"x": 1, "more": 2}).dict() == {"x": 1}


class TestValues:
    """What models put into their outputs."""

    class Output(BaseIO):
        n: int = 0
        f: float = 0.0
        s: str = ""
        b: bool = False
        xs: List[float] = []  # noqa: RUF012, UP006
        d: Dict[str, int] = {}  # noqa: RUF012, UP006

    @pytest.mark.parametrize(
        ("name", "given", "kept"),
        [
            ("n", np.int64(3), 3),
            ("n", np.float32(3.9), 3),
            ("f", np.float32(0.5), 0.5),
            ("f", np.array(2.5), 2.5),
            ("s", np.str_("word"), "word"),
            ("s", np.float64(1.5), "1.5"),
            ("b", np.bool_(True), True),
            ("b", np.int64(0), False),
            ("xs", (np.float32(1), 2), [1.0, 2.0]),
            ("xs", deque([1]), [1.0]),
            ("xs", (x for x in (1, 2)), [1.0, 2.0]),
            ("d", {np.str_("a"): np.int8(1)}, {"a": 1}),
        ],
    )
    def test_numpy_values_become_pythons(self, name: str, given: object, kept: object) -> None:
        """Of exactly the declared type."""
        value = getattr(self.Output.parse_obj({name: given}), name)
        assert value == kept
        assert type(value) is type(kept)
        if isinstance(value, list):
            assert {type(item) for item in value} == {float}

    @pytest.mark.parametrize(
        ("name", "given", "code"),
        [
            ("n", np.array([1, 2]), "type_error.integer"),
            ("n", float("inf"), "type_error.integer"),
            ("n", "9" * 5000, "type_error.integer"),
            ("f", object(), "type_error.float"),
            ("f", 10**400, "type_error.float"),
            ("s", b"\xff", "type_error.str"),
            ("s", np.zeros(2), "type_error.str"),
            ("b", np.zeros(2), "type_error.bool"),
            ("b", b"\xff", "type_error.bool"),
            ("xs", np.zeros(2), "type_error.list"),
            ("d", [1], "type_error.dict"),
        ],
    )
    def test_what_is_not_of_the_type_is_a_fault(self, name: str, given: object, code: str) -> None:
        """Never another exception."""
        with pytest.raises(ValidationError) as caught:
            self.Output.parse_obj({name: given})
        assert [fault["type"] for fault in caught.value.errors()] == [code]

    def test_a_fault_says_nothing_of_the_value(self) -> None:
        """Messages go to strangers."""
        with pytest.raises(ValidationError) as caught:
            self.Output.parse_obj({"n": "secret", "f": "secret", "b": "secret", "xs": "secret", "d": "secret"})
        assert "secret" not in str(caught.value)
        assert len(caught.value.errors()) == 5

    def test_non_finite_numbers_are_numbers(self) -> None:
        """What JSON makes of them is not decided here."""
        assert self.Output.parse_obj({"f": float("inf")}).f == float("inf")

    def test_none_for_a_field_whose_default_is_none(self) -> None:
        """As in pydantic 1, also when the annotation does not say Optional."""
        made: Any = type("Input", (BaseIO,), {"__annotations__": {"x": int}, "x": None})
        assert made().x is None
        assert made(x=None).x is None
        assert made(x="3").x == 3
        assert made.schema() == {"type": "object", "properties": {"x": {"type": "integer"}}}

    def test_fields_that_no_model_can_have(self) -> None:
        """Work in a class that is no model's: plain classes are checked, the rest is taken as it is."""

        class Loose(BaseIO):
            raw: bytes
            any: Any = None
            union: int | str = 0

        assert Loose(raw=b"x", any={1}, union="a").dict() == {"raw": b"x", "any": {1}, "union": "a"}
        assert refused(Loose, raw="text")[0]["msg"] == "instance of bytes expected"


class TestObjects:
    """Copies, dicts and texts of nested objects."""

    class Outer(BaseIO):
        class Inner(BaseIO):
            a: int = 1
            b: int = 2

        inner: Inner = Inner()
        many: List[Inner] = []  # noqa: RUF012, UP006
        named: Dict[str, Inner] = {}  # noqa: RUF012, UP006
        picture: Optional[Image] = None  # noqa: UP045

    def test_dict_goes_down(self) -> None:
        """Into lists and dicts; a file is its URI."""
        outer = self.Outer(many=[self.Outer.Inner(a=5)], named={"n": self.Outer.Inner()}, picture=Image.from_bytes(b"a"))
        assert outer.dict() == {
            "inner": {"a": 1, "b": 2},
            "many": [{"a": 5, "b": 2}],
            "named": {"n": {"a": 1, "b": 2}},
            "picture": "data:application/octet-stream;base64,YQ==",
        }
        assert json.loads(outer.json()) == outer.dict()

    def test_include_and_exclude_go_down(self) -> None:
        """As mappings from a field to what is meant inside of it."""
        outer = self.Outer()
        assert outer.dict(include={"inner": {"a"}}) == {"inner": {"a": 1}}
        assert outer.dict(exclude={"inner": {"a"}, "many": ..., "named": ..., "picture": ...}) == {"inner": {"b": 2}}

    def test_unset_fields_of_nested_objects(self) -> None:
        """Are left out as well."""
        outer = self.Outer.parse_obj({"inner": {"a": 5}})
        assert outer.dict(exclude_unset=True) == {"inner": {"a": 5}}

    def test_json_with_an_encoder(self) -> None:
        """For values that JSON does not have."""

        class Loose(BaseIO):
            raw: bytes

        assert Loose(raw=b"a").json(encoder=lambda value: value.decode()) == '{"raw": "a"}'
        with pytest.raises(TypeError, match="bytes cannot be written as JSON"):
            Loose(raw=b"a").json()

    def test_a_class_with_its_own_init_in_a_field(self) -> None:
        """Is made by that, and its faults have their place."""

        class Point(BaseIO):
            x: int

            def __init__(self, x: Any = 0) -> None:
                super().__init__(x=x)

        class Output(BaseIO):
            p: Point

        assert Output.parse_obj({"p": {}}).p.x == 0
        assert refused(Output.parse_obj, obj={"p": {"x": "a"}})[0]["loc"] == ("p", "x")

    def test_equality_with_files(self) -> None:
        """By their URIs."""
        first, second = (self.Outer(picture=Image.from_bytes(b"a")) for _ in range(2))
        assert first == second
        second.picture = Image.from_bytes(b"b")
        assert first != second

    def test_the_exception_as_text(self) -> None:
        """Names the class and counts."""
        with pytest.raises(ValidationError) as caught:
            self.Outer.parse_obj({"inner": 5, "many": [{"a": "x"}]})
        assert str(caught.value) == (
            "2 validation errors for Outer\ninner\n  value is not a valid dict (type=type_error.dict)\n"
            "many -> 0 -> a\n  value is not a valid integer (type=type_error.integer)"
        )
        assert "model='Outer'" in repr(caught.value)
        assert json.loads(caught.value.json())[0]["loc"] == ["inner"]

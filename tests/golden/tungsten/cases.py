"""What a model file may do with Tungstenkit, as snippets that run under the original and under ours. Read by scripts/record_tungsten.py
with the original's interpreter and by tests/golden/test_tungsten_model_file.py; nothing here imports anything.

A snippet finds `tungstenkit` and its public names defined, a folder `folder` with photo.png, notes.txt and noise.bin, and sets `result`.
"""

MODEL = """
class Input(BaseIO):
    {input}
class Output(BaseIO):
    {output}
@define_model(input=Input, output=Output{arguments})
class Model:
    {body}
"""


def validation(fields: str, *values: str) -> dict[str, str]:
    """One case for each value of field `x`, written as Python."""
    return {
        f"validate {fields} <- {value}": f"class Input(BaseIO):\n    {fields}\nresult = plain(Input.parse_obj({value}).dict())"
        for value in values
    }


def defined(name: str, input: str = "x: int", output: str = "y: int", arguments: str = "", body: str = "") -> dict[str, str]:
    """A model definition, and the schemas that come of it."""
    body = body or "def predict(self, inputs): return []"
    source = MODEL.format(input=input, output=output, arguments=arguments, body=body)
    return {f"define {name}": source + "result = [Input.schema(), Output.schema()]"}


CASES: dict[str, str] = {
    # --- coercion, constraints, errors ---
    **validation(
        "x: int",
        *("{'x': 7}", "{'x': '7'}", "{'x': ' 7 '}", "{'x': 2.7}", "{'x': '2.7'}", "{'x': True}", "{'x': None}", "{}", "{'x': 'seven'}"),
        *("{'x': [1]}", "{'x': {}}", "{'x': float('inf')}", "{'x': float('nan')}", "{'x': b'7'}", "{'x': 10**30}", "{'x': 1, 'y': 2}"),
        *("[]", "None", "'text'", "[('x', 3)]", "5"),
    ),
    **validation(
        "x: float",
        *("{'x': 1}", "{'x': '1.5'}", "{'x': True}", "{'x': 'nan'}", "{'x': 'one'}", "{'x': None}", "{'x': [1.0]}", "{'x': '1e3'}"),
    ),
    **validation(
        "x: str",
        *(
            "{'x': 'a'}",
            "{'x': 7}",
            "{'x': 2.5}",
            "{'x': True}",
            "{'x': b'bytes'}",
            "{'x': None}",
            "{'x': ['a']}",
            "{'x': {}}",
            "{'x': ''}",
        ),
    ),
    **validation(
        "x: bool",
        *("{'x': 'yes'}", "{'x': 'ON'}", "{'x': 'True'}", "{'x': 1}", "{'x': 0}", "{'x': 'f'}", "{'x': 'n'}", "{'x': 1.0}", "{'x': 2}"),
        *("{'x': 'maybe'}", "{'x': None}", "{'x': []}", "{'x': b'no'}", "{'x': ''}"),
    ),
    **validation("x: int = Field(ge=1, le=5)", "{'x': 1}", "{'x': 5}", "{'x': 0}", "{'x': 6}", "{'x': '3'}", "{'x': 5.9}", "{'x': True}"),
    **validation("x: float = Field(ge=0.5, le=1)", "{'x': 0.5}", "{'x': 0.4}", "{'x': 1.5}", "{'x': 1}", "{'x': float('nan')}"),
    **validation("x: str = Field(min_length=2, max_length=3)", "{'x': 'ab'}", "{'x': 'a'}", "{'x': 'abcd'}", "{'x': 123}", "{'x': None}"),
    **validation("x: Optional[int] = Option(None, ge=3)", "{}", "{'x': None}", "{'x': 3}", "{'x': 2}", "{'x': 'a'}"),
    **validation("x: Optional[int]", "{}", "{'x': None}", "{'x': '4'}"),
    **validation("x: 'int | None' = None", "{}", "{'x': None}", "{'x': '4'}"),
    **validation("x: int = Option(5)", "{}", "{'x': None}", "{'x': 6}"),
    **validation("x: int = Option('5')", "{}"),
    **validation("x: int = Option('five')", "{}", "{'x': 1}"),
    **validation("x: float = Option(default=8, ge=1)", "{}"),
    **validation("x = 5", "{}", "{'x': '6'}", "{'x': 'six'}"),
    **validation(
        "x: List[int]", "{'x': [1, '2']}", "{'x': (1, 2)}", "{'x': 'ab'}", "{'x': [1, 'b', 'c']}", "{'x': {1}}", "{'x': 5}", "{'x': [None]}"
    ),
    **validation("x: list[int]", "{'x': [1, '2']}", "{'x': range(3)}", "{'x': iter([1])}"),
    **validation(
        "x: Dict[str, float]", "{'x': {'a': 1}}", "{'x': {1: '2'}}", "{'x': [('a', 1)]}", "{'x': {'a': 'b'}}", "{'x': {(): 1}}", "{'x': 3}"
    ),
    **validation("x: Dict[int, bool]", "{'x': {'1': 'yes'}}", "{'x': {'a': 1}}"),
    **validation("x: Dict[str, List[int]]", "{'x': {'a': [1, 'b']}}"),
    **validation("x: str = Field(description='words')", "{'x': 'a'}"),
    **validation("x: int\n    y: str\n    z: float = 1.0", "{}", "{'x': 'a', 'y': [], 'z': 'b'}", "{'x': 1, 'y': 'b'}"),
    "enum from its value": """
import enum
class Mode(str, enum.Enum):
    fast = "fast"
    best = "best"
class Input(BaseIO):
    mode: Mode = Mode.fast
result = [Input().mode is Mode.fast, Input(mode="best").mode is Mode.best, plain(Input(mode="best").dict()), Input(mode=Mode.best).json()]
""",
    "enum refuses another value": """
import enum
class Mode(str, enum.Enum):
    fast = "fast"
    best = "best"
class Input(BaseIO):
    mode: Mode
Input(mode="slow")
""",
    "enum of integers": """
import enum
class Size(enum.IntEnum):
    small = 1
    large = 2
class Input(BaseIO):
    size: Size = Size.large
result = [Input().size is Size.large, Input(size="1").size is Size.small, Input.schema()]
""",
    "enum member for a plain text": """
import enum
class Mode(str, enum.Enum):
    fast = "fast"
class Input(BaseIO):
    x: str
result = [Input(x=Mode.fast).x, type(Input(x=Mode.fast).x).__name__]
""",
    "subclass of str becomes plain": """
class Word(str): pass
class Input(BaseIO):
    x: Word
result = type(Input(x="a").x).__name__
""",
    "nested objects": """
class Inner(BaseIO):
    n: int
class Output(BaseIO):
    inner: Inner
    more: List[Inner]
out = Output(inner={"n": "1"}, more=[{"n": 2}, Inner(n=3)])
result = [plain(out.dict()), out.json(), repr(out), str(out)]
""",
    "nested errors": """
class Inner(BaseIO):
    n: int
class Output(BaseIO):
    inner: Inner
    more: List[Inner]
    named: Dict[str, Inner]
Output(inner={}, more=[{"n": 1}, {"n": "b"}, 7], named={"a": {"n": None}})
""",
    "nested objects are copied": """
class Inner(BaseIO):
    n: int
class Output(BaseIO):
    inner: Inner
inner = Inner(n=1)
out = Output(inner=inner)
inner.n = 2
result = [out.inner.n, out.inner is inner]
""",
    "lists are new": """
class Output(BaseIO):
    xs: List[int]
xs = [1]
out = Output(xs=xs)
xs.append(2)
result = out.xs
""",
    # --- methods ---
    "assignment is checked": """
class Input(BaseIO):
    x: int = Field(le=5)
i = Input(x=1)
i.x = "3"
result = i.x
i.x = 9
""",
    "assignment of an unknown name": "class Input(BaseIO):\n    x: int = 1\nInput().y = 3",
    "deleting and assigning again": "class Input(BaseIO):\n    x: int = 1\ni = Input()\ndel i.x\nresult = hasattr(i, 'x')",
    "defaults are not shared": """
class Output(BaseIO):
    xs: List[int] = [1]
a, b = Output(), Output()
a.xs.append(2)
result = b.xs
""",
    "equality": """
class A(BaseIO):
    x: int
class B(BaseIO):
    x: int
result = [A(x=1) == A(x="1"), A(x=1) == A(x=2), A(x=1) == B(x=1), A(x=1) == {"x": 1}, A(x=1) != A(x=2), A(x=1) == 1]
""",
    "hash": "class A(BaseIO):\n    x: int\nhash(A(x=1))",
    "repr and str": "class A(BaseIO):\n    x: int\n    y: str = 'b'\nresult = [repr(A(x=1)), str(A(x=1))]",
    "dict with choices of fields": """
class A(BaseIO):
    x: int
    y: int = 2
    z: Optional[int] = None
a = A(x=1)
result = [plain(a.dict(include={"x"})), plain(a.dict(exclude={"x"})), plain(a.dict(exclude_unset=True)), plain(a.dict(exclude_defaults=True)),
          plain(a.dict(exclude_none=True)), sorted(a.__fields_set__), plain(A(x=1, y=2).dict(exclude_unset=True))]
""",
    "iterating": "class A(BaseIO):\n    x: int\n    y: str\nresult = [list(p) for p in A(x=1, y='b')]",
    "json": """
class A(BaseIO):
    x: float
    y: str
    z: List[int]
result = [A(x=1, y="ä", z=[1]).json(), A(x=1, y="ä", z=[]).json(indent=1, ensure_ascii=False), A(x=1, y="", z=[1]).json(exclude={"z"})]
""",
    "copy": """
class A(BaseIO):
    x: int
    xs: List[int]
a = A(x=1, xs=[1])
b, c = a.copy(), a.copy(deep=True)
d = a.copy(update={"x": "raw"})
a.xs.append(2)
result = [b.xs, c.xs, d.x, b == a, sorted(d.__fields_set__), plain(a.copy(include={"x"}).dict())]
""",
    "copy module": """
import copy
class A(BaseIO):
    xs: List[int]
a = A(xs=[1])
b, c = copy.copy(a), copy.deepcopy(a)
a.xs.append(2)
result = [b.xs, c.xs]
""",
    "parse_raw": 'class A(BaseIO):\n    x: int\nresult = A.parse_raw(\'{"x": "3"}\').x',
    "parse_raw of bytes": 'class A(BaseIO):\n    x: int\nresult = A.parse_raw(b\'{"x": "3"}\').x',
    "parse_raw of nonsense": "class A(BaseIO):\n    x: int\nA.parse_raw('{')",
    "parse_file": "class A(BaseIO):\n    x: int\n(folder / 'a.json').write_text('{\"x\": 4}')\nresult = A.parse_file(folder / 'a.json').x",
    "validate": "class A(BaseIO):\n    x: int\na = A(x=1)\nresult = [A.validate({'x': '2'}).x, A.validate(a) is a, A.validate(a) == a]",
    "construct": "class A(BaseIO):\n    x: int\n    y: int = 5\na = A.construct(x='raw')\nresult = [a.x, a.y, sorted(a.__fields_set__)]",
    "construct with a given set": "class A(BaseIO):\n    x: int = 1\nresult = sorted(A.construct({'x'}, x=2).__fields_set__)",
    "positional argument": "class A(BaseIO):\n    x: int\nA(1)",
    "fields": """
class A(BaseIO):
    x: int = Field(description="d", ge=1)
    y: Optional[str] = None
    z: List[int] = [1]
f = A.__fields__
result = [list(f), [f[n].required for n in f], f["x"].field_info.description, f["x"].type_.__mro__[-2].__name__, f["y"].default, f["y"].allow_none,
          f["z"].default, f["z"].get_default(), f["x"].name, f["y"].type_.__name__, f["z"].type_.__name__, f["y"].field_info.ge]
""",
    "fields are no class attributes": "class A(BaseIO):\n    x: int = 1\nresult = hasattr(A, 'x')",
    "inheritance": """
class A(BaseIO):
    x: int
    y: int = 1
class B(A):
    y: str = "b"
    z: float = 2
result = [list(B.__fields__), plain(B(x=1).dict()), list(A.__fields__), isinstance(B(x=1), A), B(x=1) == A(x=1)]
""",
    "several bases": """
class A(BaseIO):
    x: int = 1
class B(BaseIO):
    y: int = 2
class C(A, B):
    z: int = 3
result = [sorted(C.__fields__), plain(C().dict())]
""",
    "plain mixin": """
class Area:
    def area(self): return self.w * self.h
class A(Area, BaseIO):
    w: int
    h: int
result = A(w=2, h=3).area()
""",
    "own methods and properties": """
class A(BaseIO):
    w: int
    def double(self): return self.w * 2
    @property
    def half(self): return self.w / 2
    @classmethod
    def one(cls): return cls(w=1)
    @staticmethod
    def name(): return "A"
result = [A(w=3).double(), A(w=3).half, A.one().w, A.name(), list(A.__fields__)]
""",
    "own init": """
class A(BaseIO):
    w: int
    def __init__(self, w=4, **more):
        super().__init__(w=w, **more)
result = A().w
""",
    "class variables and underscores": """
from typing import ClassVar
class A(BaseIO):
    LIMIT: ClassVar[int] = 3
    _hidden = 4
    x: int = 1
result = [A.LIMIT, A._hidden, A().LIMIT, list(A.__fields__), plain(A().dict())]
""",
    "fields under a condition": """
WIDE = True
class A(BaseIO):
    x: int
    if WIDE:
        wide: bool = True
    else:
        narrow: bool = False
result = list(A.__fields__)
""",
    "future annotations": """
from __future__ import annotations
class Inner(BaseIO):
    n: int
class A(BaseIO):
    x: int | None = None
    inner: Inner
    many: list[Inner] = Field()
result = [plain(A(inner={"n": 1}, many=[{"n": "2"}]).dict()), A.__fields__["x"].required]
""",
    "later class in a text": """
class A(BaseIO):
    inner: "Inner"
class Inner(BaseIO):
    n: int
A.update_forward_refs(Inner=Inner)
result = plain(A(inner={"n": 1}).dict())
""",
    "recursive class": """
class Tree(BaseIO):
    n: int
    children: List["Tree"] = []
Tree.update_forward_refs(Tree=Tree)
result = plain(Tree(n=1, children=[{"n": 2}]).dict())
""",
    "name of a method as field": "class A(BaseIO):\n    json: int",
    "value before annotation is a function": "class A(BaseIO):\n    def x(self): return 1\nresult = list(A.__fields__)",
    "errors of the exception": """
class A(BaseIO):
    x: int = Field(ge=3)
try:
    A(x=1)
except ValueError as e:
    result = [e.errors(), str(e), isinstance(e, ValueError), type(e).__name__, e.json()]
""",
    "pickle": """
import pickle
class A(BaseIO):
    x: int
globals_of_main(A=A)
result = plain(pickle.loads(pickle.dumps(A(x=1))).dict())
""",
    # --- Field and Option ---
    **{
        f"call {call}": f"result = type({call}).__name__"
        for call in (
            *("Field()", "Field(5)", "Field(default=5)", "Field(gt=1)", "Field(title='a')", "Field(regex='a')", "Option()", "Option(5)"),
            *(
                "Option(default=5)",
                "Option(5, lt=2)",
                "Option(5, alias='y')",
                "Option(5, 6)",
                "Field(choices=['a'])",
                "Option(None, choices=[1])",
            ),
        )
    },
    "constraint that cannot hold": "class A(BaseIO):\n    x: str = Field(ge=1)",
    "length of a number": "class A(BaseIO):\n    x: int = Field(min_length=1)",
    "limit of a bool": "class A(BaseIO):\n    x: bool = Field(ge=1)",
    "limit of an image": "class A(BaseIO):\n    x: Image = Field(max_length=1)",
    "limit of the items": "class A(BaseIO):\n    x: List[int] = Field(ge=1)\nresult = A.schema()\nA(x=[0])",
    "choices are in the schema": "class A(BaseIO):\n    x: str = Field(choices=['a', 'b'])\nresult = A.schema()",
    # --- define_model ---
    **defined("plain"),
    **defined(
        "descriptions",
        input="upper_first: int\n    camelCase: str\n    HTTPServer: int\n    x2: int\n    a_b__c: int = 3\n    given: int = Field(description='own')",
    ),
    **defined(
        "limits",
        input="a: int = Field(ge=1, le=5)\n    b: float = Option(0.5, ge=0.25, le=1)\n    c: str = Option('abc', min_length=1, max_length=9, choices=['abc', 'b'])",
    ),
    **defined(
        "optional",
        input="a: Optional[int]\n    b: Optional[str] = None\n    c: Optional[float] = 2\n    d: 'int | None' = Option(None, ge=2)",
    ),
    **defined("plain default", input="a: int = 5\n    b: bool = True\n    c: str = ''"),
    **defined(
        "all files in",
        input="a: Image\n    b: Video\n    c: Audio\n    d: Binary\n    e: Optional[Image] = None\n    f: Image = Field(description='pic')",
    ),
    **defined(
        "masked image in", input="a: MaskedImage\n    b: MaskedImage = Field(description='with mask')\n    c: Optional[MaskedImage] = None"
    ),
    **defined(
        "all files out", output="a: Image\n    b: List[Video]\n    c: Dict[str, Audio]\n    d: Binary\n    e: List[Dict[str, Image]]"
    ),
    **defined("masked image out", output="a: MaskedImage"),
    **defined(
        "lists and dicts out",
        output="a: List[int]\n    b: Dict[int, float]\n    c: Dict[bool, str]\n    d: List[List[str]]\n    e: 'dict[str, list[int]]'",
    ),
    **defined("output with limits", output="a: int = Field(ge=1)\n    b: str = Field(choices=['a'], description='words')"),
    **defined("class docstring", input="'''Words about it.'''\n    a: int"),
    **defined("file default", input="a: Image = Image.from_url('https://example.com/a.png')"),
    "define nested output": """
class Inner(BaseIO):
    '''An inner one.'''
    n: int = Field(ge=1)
    pic: Image
class Input(BaseIO):
    x: int
class Output(BaseIO):
    inner: Inner
    more: List[Inner] = Field(description="several")
    named: Dict[str, Inner]
    described: Inner = Field(description="one")
@define_model(input=Input, output=Output)
class Model:
    def predict(self, inputs): return []
result = Output.schema()
""",
    "define with an enum": """
import enum
class Mode(str, enum.Enum):
    fast = "fast"
    best = "best"
class Input(BaseIO):
    mode: Mode
    other: Mode = Mode.fast
    described: Mode = Option(Mode.fast, description="how")
class Output(BaseIO):
    mode: Mode
@define_model(input=Input, output=Output)
class Model:
    def predict(self, inputs): return []
result = [Input.schema(), Output.schema()]
""",
    **{
        name: source
        for kind in (
            *(
                "list",
                "List",
                "List[int]",
                "dict",
                "Dict[str, int]",
                "bytes",
                "Union[int, str]",
                "Any",
                "Literal['a']",
                "Tuple[int, int]",
                "set",
            ),
            *(
                "datetime.datetime",
                "pathlib.Path",
                "Optional[Union[int, str]]",
                "Optional[List[int]]",
                "object",
                "complex",
                "Inner",
                "Optional[Inner]",
            ),
            *("type", "'int'", "decimal.Decimal", "Optional[Image]", "Optional[bool]", "None"),
        )
        for name, source in {
            f"define input of {kind}": "import datetime, pathlib, decimal\nclass Inner(BaseIO):\n    n: int\n"
            + MODEL.format(input=f"x: {kind} = None", output="y: int", arguments="", body="def predict(self, inputs): return []")
            + "result = 'ok'",
            f"define required input of {kind}": "import datetime, pathlib, decimal\nclass Inner(BaseIO):\n    n: int\n"
            + MODEL.format(input=f"x: {kind}", output="y: int", arguments="", body="def predict(self, inputs): return []")
            + "result = 'ok'",
            f"define output of {kind}": "import datetime, pathlib, decimal\nclass Inner(BaseIO):\n    n: int\n"
            + MODEL.format(input="x: int", output=f"y: {kind}", arguments="", body="def predict(self, inputs): return []")
            + "result = 'ok'",
        }.items()
    },
    **defined("output with a default", output="y: int = 3"),
    **defined("output with an option", output="y: int = Option(3)"),
    **defined("output of optional", output="y: Optional[int]"),
    **defined("nested list of any", output="y: List[Any]"),
    **defined("dict with a float key", output="y: Dict[float, int]"),
    **defined("dict of dicts of images", output="y: Dict[str, Dict[int, Image]]"),
    **defined("empty classes", input="pass", output="pass"),
    **defined("no predict", body="def setup(self): pass"),
    **defined("predict without inputs", body="def predict(self): pass"),
    **defined("predict with more", body="def predict(self, inputs, more): pass"),
    **defined("predict with another name", body="def predict(self, batch): pass"),
    **defined("predict with a keyword", body="def predict(self, inputs, *, more=1): pass"),
    **defined("predict with a default", body="def predict(self, inputs, more=1): pass"),
    **defined("predict with stars", body="def predict(self, *inputs): pass"),
    **defined("async predict", body="async def predict(self, inputs): pass"),
    **defined("static predict", body="@staticmethod\n    def predict(inputs): pass"),
    **defined("static predict of two", body="@staticmethod\n    def predict(a, b): pass"),
    **defined("predict that is no function", body="predict = 5"),
    **defined("setup with more", body="def setup(self, x): pass\n    def predict(self, inputs): pass"),
    **defined("setup without self", body="def setup(): pass\n    def predict(self, inputs): pass"),
    **defined("demo without output", body="def predict(self, inputs): pass\n    def predict_demo(self, inputs): pass"),
    **defined("demo output without method", arguments=", demo_output=Output"),
    **defined("demo", arguments=", demo_output=Output", body="def predict(self, inputs): pass\n    def predict_demo(self, inputs): pass"),
    **defined(
        "demo with more", arguments=", demo_output=Output", body="def predict(self, i): pass\n    def predict_demo(self, i, j): pass"
    ),
    **defined("unknown argument", arguments=", colour=1"),
    **defined("batch size zero", arguments=", batch_size=0"),
    **defined(
        "every argument",
        arguments=", gpu=True, gpu_mem_gb=15, mem_gb=4, python_packages=['torch==2.0.0'], python_version='3.9', system_packages=['git'], "
        "cuda_version='11.8', cudnn_version='8', force_install_system_cuda=True, readme_md='README.md', batch_size=4, include_files=['a'], "
        "exclude_files=['b'], dockerfile_commands=['RUN true'], base_image='python:3.9'",
    ),
    "define without input": "class O(BaseIO):\n    y: int\n@define_model(output=O)\nclass M:\n    def predict(self, inputs): pass",
    "define without output": "class O(BaseIO):\n    y: int\n@define_model(input=O)\nclass M:\n    def predict(self, inputs): pass",
    "define without parentheses": "@define_model\nclass M:\n    def predict(self, inputs): pass",
    "define with classes of another kind": "class I: pass\nclass O(BaseIO):\n    y: int\n@define_model(input=I, output=O)\nclass M:\n    def predict(self, i): pass",
    "define with an output of another kind": "class I(BaseIO):\n    y: int\n@define_model(input=I, output=dict)\nclass M:\n    def predict(self, i): pass",
    "define with an instance": "class I(BaseIO):\n    y: int\n@define_model(input=I(y=1), output=I)\nclass M:\n    def predict(self, i): pass",
    "define by call": """
class I(BaseIO):
    y: int
class M:
    def predict(self, inputs): return inputs
D = define_model(M, input=I, output=I)
result = D is M
""",
    "what a defined class has": MODEL.format(
        input="x: int",
        output="y: int",
        arguments=", batch_size=3, gpu=True",
        body="def predict(self, inputs): return [{'y': i.x} for i in inputs]",
    )
    + """
m = Model()
config = {k: v for k, v in Model.__tungsten_config__.items() if v is not None}
result = [config, Model.__tungsten_input__ is Input, Model.__tungsten_output__ is Output, Model.__tungsten_demo_output__ is Output,
          Model.__has_post_build__, m.setup(), m.post_build(), Model.post_build(), m.predict([Input(x=1)]), m.predict_demo([Input(x=2)]),
          Model.__name__, Model.predict_demo.__name__]
""",
    # --- files ---
    "from_path": "f = Image.from_path(folder / 'photo.png')\nresult = [f.__root__ == (folder / 'photo.png').as_uri(), f.path == folder / 'photo.png']",
    "from_path of a text": "f = Binary.from_path(str(folder / 'notes.txt'))\nresult = f.path.read_text()",
    "from_path of nothing": "f = Binary.from_path('does-not-exist')\nresult = f.path.exists()",
    "from_path of bytes": "Image.from_path(b'x')",
    "from_bytes": "result = [Binary.from_bytes(b'abc').__root__, Binary.from_bytes(b'abc').path.read_bytes().decode(), Binary.from_bytes(b'').path.read_bytes() == b'']",
    "from_bytes of a text": "Binary.from_bytes('abc')",
    "from_bytes of a bytearray": "Binary.from_bytes(bytearray(b'abc'))",
    "from_buffer": "import io\nresult = [Binary.from_buffer(io.BytesIO(b'abc')).__root__, Binary.from_buffer(io.StringIO('ä')).__root__]",
    "from_buffer of a file": "with open(folder / 'notes.txt') as f: b = Binary.from_buffer(f)\nresult = b.__root__ == (folder / 'notes.txt').as_uri()",
    "from_buffer of a raw file": "with open(folder / 'notes.txt', 'rb', buffering=0) as f: b = Binary.from_buffer(f)",
    "from_buffer of bytes": "Binary.from_buffer(b'abc')",
    "from_url": "result = [Image.from_url(u).__root__ for u in ('https://example.com/a.png', 'data:text/plain;base64,YQ==', 'file:///srv/a.png', 'HTTP://EXAMPLE.com/A')]",
    "from_url without a scheme": "Image.from_url('example.com/a.png')",
    "from_url of another scheme": "Image.from_url('ftp://example.com/a.png')",
    "from_url of a number": "Image.from_url(5)",
    "from_url of a file elsewhere": "Image.from_url('file://server/a.png')",
    "suffix of a data uri": "result = [Binary.from_url(f'data:{m};base64,YQ==').path.suffix for m in ('image/png', 'image/jpeg', 'text/plain', 'audio/wav', 'video/mp4', 'application/octet-stream', 'x/unknown')]",
    "data uri without base64": "result = [Binary.from_url(u).path.read_bytes().decode() for u in ('data:text/plain,a%20b', 'data:,abc', 'data:text/plain;charset=utf-8;base64,YWJj', 'data:;base64,YWJj')]",
    "broken data uri": "Binary.from_url('data:text/plain;base64,YW').path",
    "data uri without comma": "Binary.from_url('data:text/plain').path",
    "path is made once": "f = Binary.from_bytes(b'abc')\nresult = [f.path == f.path, f.path.is_absolute(), f.__root__.split(':')[0]]",
    "moved away": "f = Binary.from_bytes(b'abc')\np = f.path\np.unlink()\nresult = [f.path == p, f.path.exists()]",
    "file in a field": """
class Input(BaseIO):
    image: Image
    other: Optional[Binary] = None
a = Input(image="data:image/png;base64,YQ==")
b = Input(image=Image.from_url("data:image/png;base64,YQ=="))
c = Input(image=Video.from_url("data:image/png;base64,YQ=="))
result = [plain(a.dict()), a.json(), a == b, a.image == b.image, type(c.image).__name__, type(a.image).__name__, repr(a)]
""",
    "path in a field": """
class Input(BaseIO):
    image: Image
result = [Input(image=str(folder / "photo.png")).image.__root__ == (folder / "photo.png").as_uri()]
""",
    **validation(
        "x: Image",
        "{'x': 5}",
        "{'x': None}",
        "{'x': b'abc'}",
        "{'x': {}}",
        "{'x': 'ftp://a/b'}",
        "{'x': 'file://a/b'}",
        "{}",
        "{'x': ['a']}",
    ),
    **validation("x: List[Image]", "{'x': ['data:,a', 5]}"),
    "equality of files": """
a, b = Image.from_bytes(b"a"), Image.from_bytes(b"a")
result = [a == b, a == Video.from_bytes(b"a"), a == Image.from_bytes(b"b"), a != b]
""",
    "methods of files": "f = Binary.from_bytes(b'a')\nresult = [plain(f.dict()), f.json(), repr(f), str(f), f.copy() == f, Binary.parse_obj('data:,a').__root__, Binary.schema()]",
    "file by its root": "result = [Image(__root__='data:,a').__root__]",
    "file without anything": "Image()",
    "pil image, new": """
import PIL.Image
f = Image.from_pil_image(PIL.Image.new("RGB", (2, 3), "red"))
g = f.to_pil_image()
result = [f.__root__.split(",")[0], g.size, g.mode, g.getpixel((0, 0)), f.path.suffix]
""",
    "pil image, opened": """
import PIL.Image, io
buffer = io.BytesIO()
PIL.Image.new("RGB", (2, 3)).save(buffer, format="JPEG")
f = Image.from_pil_image(PIL.Image.open(buffer))
result = [f.__root__.split(",")[0], f.path.suffix]
""",
    "pil image of another kind": "Image.from_pil_image('red')",
    "pil image modes": """
result = [Image.from_path(folder / "photo.png").to_pil_image(m).mode for m in ("RGB", "RGBA", "CMYK", "YCbCr", "HSV", "1", "L", "P", "I", "F")]
result.append(Image.from_path(folder / "photo.png").to_pil_image(mode="L").size)
""",
    "pil image in a wrong mode": "Image.from_path(folder / 'photo.png').to_pil_image('XYZ')",
    "pil image from a text": "Image.from_path(folder / 'notes.txt').to_pil_image()",
    "pil image from a broken data uri": "Image.from_url('data:image/png').to_pil_image()",
    "masked image": """
import PIL.Image
grey = PIL.Image.new("L", (2, 1)); grey.putpixel((0, 0), 7)
class Input(BaseIO):
    m: MaskedImage
i = Input(m={"image": Image.from_pil_image(PIL.Image.new("RGB", (2, 1))), "mask": Image.from_pil_image(grey)})
mask = i.m.mask.to_pil_image("L")
result = [type(i.m).__name__, [mask.getpixel((x, 0)) for x in (0, 1)], list(i.m.dict()), i.m.mask.__root__.split(",")[0]]
""",
    "masked image of two sizes": """
import PIL.Image
MaskedImage(image=Image.from_pil_image(PIL.Image.new("RGB", (2, 1))), mask=Image.from_pil_image(PIL.Image.new("L", (1, 1))))
""",
    "masked image without a mask": "MaskedImage(image='data:,a')",
    "masked image of a text": "class I(BaseIO):\n    m: MaskedImage\nI(m='data:,a')",
    "masked image is checked on assignment": """
import PIL.Image
m = MaskedImage(image=Image.from_pil_image(PIL.Image.new("RGB", (2, 1))), mask=Image.from_pil_image(PIL.Image.new("L", (2, 1))))
m.mask = Image.from_pil_image(PIL.Image.new("L", (5, 1)))
""",
}

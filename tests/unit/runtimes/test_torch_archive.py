"""Which PyTorch files are opened at all."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dragoman.core.errors import Kind, ServingError
from dragoman.runtimes.torch_archive import Format, examine
from tests.models import learned
from tests.models.calls import load


class Trap:
    """Notices when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return (_spring, ())


def _spring() -> int:
    Trap.sprung = True
    return 0


def edited(path: Path, change: Callable[[str, bytes], bytes | None], data: bytes | None = None) -> Path:
    """An archive with members changed, or left out (None)."""
    source = zipfile.ZipFile(io.BytesIO(data or learned.exported()))
    with zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


def with_program(path: Path, change: Callable[[Any], None]) -> Path:
    """An exported program whose graph is changed."""

    def edit(name: str, content: bytes) -> bytes:
        if "/models/" not in name:
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return edited(path, edit)


def refusal(path: Path, *, trusted: bool = False) -> ServingError:
    with pytest.raises(ServingError) as caught:
        examine(path, "m", trusted=trusted)
    assert f"'{path.name}' of model 'm'" in caught.value.message
    return caught.value


def test_formats(tmp_path: Path) -> None:
    """The content says what a file is, not its name."""
    assert examine(learned.write(tmp_path / "a.pt", learned.exported()), "m", trusted=False) is Format.EXPORT
    assert examine(learned.write(tmp_path / "b.pt2", learned.scripted()), "m", trusted=False) is Format.SCRIPT
    assert load("torch", tmp_path / "b.pt2").platform == "pytorch_torchscript"


@pytest.mark.parametrize("new", [True, False])
def test_weights_alone_are_no_program(new: bool, tmp_path: Path) -> None:
    """What torch.save writes, in both of its formats, is explained, whether trusted or not, and not unpickled."""
    path = tmp_path / "weights.pt"
    for content in ({"weight": torch.zeros(2)}, Trap()):
        torch.save(content, path, _use_new_zipfile_serialization=new)
        for trusted in (True, False):
            error = refusal(path, trusted=trusted)
            assert error.kind is Kind.UNSUPPORTED
            assert "was written by torch.save" in error.message
            assert "torch.export.save" in error.message
    assert not Trap.sprung


def test_plain_pickles(tmp_path: Path) -> None:
    """A pickle that is called .pt is the same."""
    assert "was written by torch.save" in refusal(learned.write(tmp_path / "m.pt", pickle.dumps(Trap()))).message
    assert not Trap.sprung


def test_other_archives(tmp_path: Path) -> None:
    """A zip file of something else is said to be no PyTorch archive."""
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", "hello")
    error = refusal(path)
    assert error.kind is Kind.INVALID_INPUT
    assert "neither an exported program nor TorchScript" in error.message


def test_machine_code(tmp_path: Path) -> None:
    """Packages of compiled code are refused even when trusted: they need a loader of their own."""
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/aotinductor/model/x.so", b"\x7fELF")
    error = refusal(path, trusted=True)
    assert error.kind is Kind.UNSUPPORTED
    assert "AOTInductor" in error.message


def test_pickled_weights(tmp_path: Path) -> None:
    """Weights and constants that PyTorch would unpickle are refused."""

    def pickled(name: str, content: bytes) -> bytes:
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    def custom(name: str, content: bytes) -> bytes:
        return content.replace(b'"path_name": "weight_0"', b'"path_name": "opaque_obj_0"')

    for change in (pickled, custom):
        error = refusal(edited(tmp_path / "m.pt2", change))
        assert error.kind is Kind.UNSUPPORTED
        assert "could run foreign code when it is opened" in error.message
        assert "is a pickle" in error.message
        assert "--trust-pickle" in error.message


def test_pickled_samples(tmp_path: Path) -> None:
    """Sample inputs may hold tensors and nothing else; the examination itself runs nothing."""
    buffer = io.BytesIO()
    torch.save(((Trap(),), {}), buffer)
    for data in (buffer.getvalue(), pickle.dumps(Trap()), b"nonsense"):
        path = edited(tmp_path / "m.pt2", lambda name, content, data=data: data if name.endswith(".pt") else content)  # type: ignore[misc]
        assert "is a pickle of more than tensors" in refusal(path).message
        with pytest.raises(ServingError, match="--trust-pickle"):
            load("torch", path)
    assert not Trap.sprung


def first_node(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"][0]


def size_of_x(program: Any) -> Any:
    return program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.load",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.no_such_operator.default",
        "torch.ops.higher_order.triton_kernel_wrapper_mutation",
        "torch.ops.__class__.__init__.__globals__",
        "torch.ops.aten.add.Tensor.__class__",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "_operator.add.__call__",
        "math.__loader__",
        "os.system",
        "#custom:thing",
        "builtins.eval",
        "",
    ],
)
def test_functions_that_are_no_operators(target: str, tmp_path: Path) -> None:
    """A graph may call PyTorch's operators and simple arithmetic; everything else is refused by name."""

    def change(program: Any) -> None:
        first_node(program)["target"] = target

    error = refusal(with_program(tmp_path / "m.pt2", change))
    assert error.kind is Kind.UNSUPPORTED
    assert f"it calls '{target}', which is no known operator" in error.message


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.mul.Tensor", "torch.ops.higher_order.cond", "_operator.mul", "_operator.getitem", "math.floor", "torch.sym_float"],
)
def test_functions_that_are(target: str, tmp_path: Path) -> None:
    """What exported programs consist of passes."""

    def change(program: Any) -> None:
        first_node(program)["target"] = target

    assert examine(with_program(tmp_path / "m.pt2", change), "m", trusted=False) is Format.EXPORT


def test_functions_as_arguments(tmp_path: Path) -> None:
    """A function that is handed to another is a function all the same."""

    def change(program: Any) -> None:
        first_node(program)["inputs"].append({"name": "f", "arg": {"as_operator": "torch.os.system"}, "kind": 1})

    assert "it calls 'torch.os.system'" in refusal(with_program(tmp_path / "m.pt2", change)).message


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0]",
        "eval('1')",
        "open('x')",
        "Symbol('__import__(\"os\")')",
        "Max('exec(1)')",
        "[x for x in (1,)]",
        "lambda: 1",
        "Symbol('s0').subs",
        "f'{1}'",
        "(s0 := 1)",
        "s0 if s1 else s2",
        "*s0",
        "",
        "s0 +",
        " " * 20_000 + "s0",
        "print(1)",
        "s0\nimport os",
    ],
)
def test_expressions_that_compute_more_than_numbers(expression: str, tmp_path: Path) -> None:
    """Expressions of dimensions are evaluated as Python by PyTorch, so only arithmetic passes."""

    def change(program: Any) -> None:
        size_of_x(program)["expr_str"] = expression

    error = refusal(with_program(tmp_path / "m.pt2", change))
    assert error.kind is Kind.UNSUPPORTED
    assert "it evaluates '" in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "expression",
    [
        "s77",
        "2*s0 + 1",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s77', positive=True, integer=True))",
        "FloatPow(Float('1.5', precision=53), ToFloat(Symbol('u0', integer=True)))",
        "Max(1, s0 // 2)",
        "Mod(s0, 8) == 0",
        "-s0**2",
        "Piecewise((1, s0 > 2), (0, True))",
    ],
)
def test_expressions_of_dimensions(expression: str, tmp_path: Path) -> None:
    """What exported programs say about their dimensions passes, but for tuples, which no dimension needs."""

    def change(program: Any) -> None:
        size_of_x(program)["expr_str"] = expression

    path = with_program(tmp_path / "m.pt2", change)
    if expression.startswith("Piecewise"):
        assert "it evaluates" in refusal(path).message
    else:
        assert examine(path, "m", trusted=False) is Format.EXPORT


@pytest.mark.parametrize("words", ['{"__enum__": true, "fqn": "os:x", "name": "y"}', '{"default_factory_module": "os"}'])
def test_structures_of_other_modules(words: str, tmp_path: Path) -> None:
    """Descriptions of arguments that import modules are refused."""

    def change(program: Any) -> None:
        found = next(item for item in walk(program) if isinstance(item, dict) and "in_spec" in item)
        found["in_spec"] = f"[1, {words}]"

    assert "objects of other modules" in refusal(with_program(tmp_path / "m.pt2", change)).message


def walk(item: Any) -> Any:
    yield item
    for child in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from walk(child)


def test_members_of_one_name(tmp_path: Path) -> None:
    """Two members of one name would let the examination see another one than PyTorch."""
    path = edited(tmp_path / "m.pt2", lambda name, content: content)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"other")
    assert "two members of one name" in refusal(path).message


def test_script_that_opens_files(tmp_path: Path) -> None:
    """TorchScript stays in its interpreter, but for operators that open files."""
    path = learned.write(tmp_path / "m.pt", learned.script("saves"))
    error = refusal(path)
    assert error.kind is Kind.UNSUPPORTED
    assert "torch.from_file" in error.message
    assert examine(path, "m", trusted=True) is Format.SCRIPT


def test_trusted_files_are_not_examined(tmp_path: Path) -> None:
    """--trust-pickle opens what the examination would refuse."""
    path = edited(tmp_path / "m.pt2", lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle": true'))
    assert examine(path, "m", trusted=True) is Format.EXPORT


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: content[:50] if "/models/" in name else content,
        lambda name, content: b"[]" if name.endswith("weights_config.json") else content,
        lambda name, content: b'{"config": {"a": 1}}' if name.endswith("weights_config.json") else content,
        lambda name, content: content[:4] if name.endswith("weight_0") else content,
        lambda name, content: None if "/models/" in name else content,
        lambda name, content: b"{}" if "/models/" in name else content,
        lambda name, content: b"[" * 100_000 if "/models/" in name else content,
        lambda name, content: b"9" if name.endswith("archive_version") else content,
    ],
)
def test_damaged_programs(change: Callable[[str, bytes], bytes | None], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is missing or cut inside, loading ends in one sentence about the file."""
    path = edited(tmp_path / "m.pt2", change)
    with pytest.raises(ServingError) as caught:
        load("torch", path)
    assert caught.value.kind in (Kind.INVALID_INPUT, Kind.UNSUPPORTED)
    assert "'m.pt2' of model 'm'" in caught.value.message
    assert "\n" not in caught.value.message

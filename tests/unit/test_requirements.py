"""What a model may ask to have installed: one form for equal wishes, and a refusal for whatever an installer would take for something else."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment
from dragoman.engines.requirements import environment_of, from_file, from_model, minor_of

SHA = "a" * 64
OTHER = "b" * 64


def lines(*given: object) -> list[str]:
    return [r.text for r in from_model(given)]


def refusal(*given: object) -> str:
    with pytest.raises(ServingError) as caught:
        from_model(given, "python_packages of model m")
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def file_refusal(text: str) -> str:
    with pytest.raises(ServingError) as caught:
        from_file(text)
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


# --- lines of a model ---


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("pillow", "pillow"),
        ("Pillow", "pillow"),
        ("  zope.interface  ", "zope-interface"),
        ("Flask__SQL-.Alchemy", "flask-sql-alchemy"),
        ("torch == 2.5.1", "torch==2.5.1"),
        ("torch==2.5.1+cu121", "torch==2.5.1+cu121"),
        ("numpy<2,>=1.26", "numpy<2,>=1.26"),
        ("numpy >=1.26 , <2", "numpy<2,>=1.26"),
        ("numpy (>=1.26)", "numpy>=1.26"),
        ("scipy~=1.11", "scipy~=1.11"),
        ("scipy!=1.11.*", "scipy!=1.11.*"),
        ("odd===1.0-final", "odd===1.0-final"),
        ("uvicorn[Standard, http_tools]>=0.30", "uvicorn[http-tools,standard]>=0.30"),
        ("uvicorn[]", "uvicorn"),
        ('tomli; python_version  <  "3.11"', 'tomli; python_version < "3.11"'),
        (
            "a>=1;sys_platform=='linux' and (python_version>'3' or extra=='x')",
            "a>=1; sys_platform=='linux' and (python_version>'3' or extra=='x')",
        ),
    ],
)
def test_one_form(given: str, normal: str) -> None:
    """Letter case, separators, white space and the order of versions and extras make no difference."""
    assert lines(given) == [normal]
    assert lines(normal) == [normal]


def test_sorted_and_each_once() -> None:
    """The order of a declaration means nothing, and neither does repeating oneself."""
    assert lines("b", "A==1", "a == 1", "B") == ["a==1", "b"]
    assert lines() == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--index-url https://evil.example/simple", "the option '--index-url' is not allowed"),
        ("--extra-index-url=https://evil.example", "the option '--extra-index-url' is not allowed"),
        ("-r other.txt", "the option '-r' is not allowed"),
        ("-e .", "the option '-e' is not allowed"),
        ("  --config-settings=a=b", "the option '--config-settings' is not allowed"),
        ("-", "the option '-' is not allowed"),
        ("https://evil.example/a.whl", "this address is not allowed"),
        ("pillow @ https://evil.example/pillow.whl", "this address is not allowed"),
        ("pillow@https://evil.example/pillow.whl", "this address is not allowed"),
        ("pillow @ file:///etc/passwd", "this address is not allowed"),
        ("git+https://evil.example/a", "this address is not allowed"),
        ("file:./x", "files and paths are not allowed"),
        ("file:x", "files and paths are not allowed"),
        ("./x", "files and paths are not allowed"),
        (".", "files and paths are not allowed"),
        ("..", "files and paths are not allowed"),
        ("/etc/x", "files and paths are not allowed"),
        ("~/x", "files and paths are not allowed"),
        ("a/b", "files and paths are not allowed"),
        ("a\\b", "files and paths are not allowed"),
        ("evil.whl", "files and paths are not allowed"),
        ("evil-1.0.tar.gz", "files and paths are not allowed"),
        ("evil.ZIP", "files and paths are not allowed"),
        ("pillow==${HOME}", "variables are not allowed"),
        ("pillow --hash=sha256:" + SHA, "this is no requirement"),
        ('pillow; python_version>"3" --config-settings=a=b', "this is no requirement"),
        ('pillow; python_version>"3" -e x', "this is no requirement"),
        ("pillow; -e x", "this is no requirement"),
        ("pillow\n--index-url https://evil.example", "this address is not allowed"),
        ("pillow\nother", "this is no requirement"),
        ("pillow\r-e x", "this is no requirement"),
        ("pillow;a=='1'\n-e x", "this is no requirement"),
        ("pillow # comment", "this is no requirement"),
        ("pillow==1 torch==2", "this is no requirement"),
        ("pillow==", "this is no requirement"),
        ("pillow=1", "this is no requirement"),
        ("pillow[a", "this is no requirement"),
        ("pillow,", "this is no requirement"),
        ("píllow", "this is no requirement"),
        ("pillow\x00", "this is no requirement"),
        ("pillow\u2028x", "this is no requirement"),
        ("", "this is no requirement"),
        ("a" * 2000, "this is no requirement"),
        ("a==" + "1" * 2000, "this is no requirement"),
    ],
)
def test_refused_lines(given: str, reason: str) -> None:
    """An option, an address, a path, and all that is no requirement: with the place, the line and the reason."""
    message = refusal("fine", given)
    assert message.startswith("python_packages of model m: ")
    assert reason in message
    assert "a model may name packages and their versions only" in message
    assert len(message) < 400


@pytest.mark.parametrize("given", [None, 5, b"pillow", ["pillow"], {"pillow": 1}])
def test_refused_types(given: object) -> None:
    """Python code can put anything into a list."""
    assert "expected texts such as" in refusal(given)


def test_too_many() -> None:
    """A list without end is not read to its end."""
    assert "more than 1000 packages" in refusal(*(f"p{i}" for i in range(1001)))


@given(st.text(max_size=60) | st.from_regex(r"[a-z.=<>~@;:/ '\"$#\-\n\\]{1,40}", fullmatch=True))
def test_whatever_is_accepted_is_harmless(text: str) -> None:
    """No accepted line can be read by an installer as an option, a comment, a path, an address, a variable or two lines."""
    try:
        (found,) = from_model([text])
    except ServingError:
        return
    assert found.line.isascii()
    assert found.line.isprintable()
    assert not any(token.startswith("-") for token in found.line.split(" "))
    assert not set(found.line) & set("/\\@:$#`\n\r")
    assert from_model([found.line]) == (found,)


# --- requirements files ---


def test_a_file_of_an_operator() -> None:
    """Comments and empty lines are dropped, continued lines joined; options and addresses are kept in one form."""
    options, requirements = from_file(
        f"""
# made by somebody
-i https://index.example/simple   # ours
--extra-index-url=http://localhost:3141/ours/stable
--only-binary :all:
--no-binary=Some-Package
--pre
--require-hashes
Pillow == 11.0 \\
    --hash=sha256:{OTHER} \\
    --hash sha256:{SHA.upper()}
six    # by name

tool @ https://files.example/tool-1.0.whl#sha256={SHA}
other[x]@git+https://git.example/other.git@v1
https://files.example/third-1.0.whl
"""
    )
    assert options == (
        "--index-url https://index.example/simple",
        "--extra-index-url http://localhost:3141/ours/stable",
        "--only-binary :all:",
        "--no-binary Some-Package",
        "--pre",
        "--require-hashes",
    )
    assert [r.text for r in requirements] == [
        f"pillow==11.0 --hash=sha256:{SHA} --hash=sha256:{OTHER}",
        "six",
        f"tool @ https://files.example/tool-1.0.whl#sha256={SHA}",
        "other[x] @ git+https://git.example/other.git@v1",
        "https://files.example/third-1.0.whl",
    ]
    assert [r.name for r in requirements] == ["pillow", "six", "tool", "other", ""]
    assert requirements[0].line == "pillow==11.0"


def test_line_ends_make_no_difference() -> None:
    """Files from any system, with or without an end to the last line, also a continued one."""
    same = {
        from_file(text)
        for text in ("six\nattrs\n", "six\r\nattrs", "six\rattrs\r", "  six  \n\n#\nattrs \\", "six # x\\\nmore of x\nattrs")
    }
    assert len(same) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-r other.txt", "the option '-r' is not allowed"),
        ("-rother.txt", "the option '-rother.txt' is not allowed"),
        ("--requirement other.txt", "the option '--requirement' is not allowed"),
        ("-c constraints.txt", "the option '-c' is not allowed"),
        ("-e .", "the option '-e' is not allowed"),
        ("--find-links /srv", "the option '--find-links' is not allowed"),
        ("--trusted-host evil.example", "the option '--trusted-host' is not allowed"),
        ("--index-url http://plain.example/simple", "the option '--index-url' is not allowed"),
        ("--index-url http://localhost.evil.example/simple", "the option '--index-url' is not allowed"),
        ("--index-url file:///srv", "the option '--index-url' is not allowed"),
        ("--index-url https://${TOKEN}@index.example", "the option '--index-url' is not allowed"),
        ("--index-url https://a https://b", "the option '--index-url' is not allowed"),
        ("six --config-settings=a=b", "this is no requirement"),
        ("six --hash=md5:" + "a" * 32, "this is no requirement"),
        ("six --hash=sha256:short", "this is no requirement"),
        ("six \\\n  -e .", "this is no requirement"),
        ("six==$VERSION", "variables are not allowed"),
        ("tool @ file:///srv/tool.whl", "this address is not allowed"),
        ("tool @ http://plain.example/tool.whl", "this address is not allowed"),
        ("git+ssh://git@git.example/other.git", "this address is not allowed"),
        ("./wheels/tool.whl", "files and paths are not allowed"),
        ("tool.whl", "files and paths are not allowed"),
    ],
)
def test_refused_in_a_file(text: str, reason: str) -> None:
    """Other files, plain addresses, variables, and options that change more than where packages come from."""
    message = file_refusal(f"attrs\n{text}\n")
    assert message.startswith("requirements.txt: ")
    assert reason in message


def test_a_file_without_end() -> None:
    """Lines are counted."""
    assert "more than 1000 lines" in file_refusal("\n".join(f"p{i}" for i in range(1001)))


@given(st.text(max_size=80))
def test_no_file_is_a_crash(text: str) -> None:
    """Accepted or refused; what was accepted is accepted again as it is passed on."""
    try:
        options, requirements = from_file(text)
    except ServingError:
        return
    assert from_file("\n".join([*options, *(r.text for r in requirements)])) == (options, requirements)


# --- the declaration of a model ---


def test_no_environment_without_a_reason(tmp_path: Path) -> None:
    """Nothing to install and no other Python: the server's own environment will do."""
    own = "{}.{}".format(*sys.version_info[:2])
    (tmp_path / "requirements.txt").write_text("# nothing\n\n")
    assert environment_of() is None
    assert environment_of([], "", tmp_path / "missing.txt") is None
    assert environment_of(None, own, tmp_path / "requirements.txt") is None
    assert environment_of((), "3.8") is None, "too old to be used"


def test_the_environment_of_a_declaration(tmp_path: Path) -> None:
    """Packages in one form, the text of the file, the version that was asked for."""
    file = tmp_path / "requirements.txt"
    file.write_bytes(b"\xef\xbb\xbfsix\n")
    assert environment_of(["Pillow", "attrs == 1"]) == Environment("", ("attrs==1", "pillow"))
    assert environment_of(["pillow"], " 3.9 ") == Environment("3.9", ("pillow",))
    assert environment_of([], None, file) == Environment("", (), "six\n")
    assert environment_of([], "3.99") == Environment("3.99")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff", "is not UTF-8"), (b"#" * (1 << 21), "is larger than"), (b"-e .", "'-e' is not allowed")]
)
def test_a_bad_file(tmp_path: Path, content: bytes, reason: str) -> None:
    """Known before anything is built."""
    file = tmp_path / "requirements.txt"
    file.write_bytes(content)
    with pytest.raises(ServingError, match=reason) as caught:
        environment_of([], "", file)
    assert caught.value.kind is Kind.INVALID_INPUT


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """What cannot be read is said to be so."""
    with pytest.raises(ServingError, match="cannot be read"):
        environment_of([], "", tmp_path)


@pytest.mark.parametrize("given", ["3", "three", "3.x", "3.11.", "3.11 ", "-3.11", "3.11;x", "python3.11", "3.1111", "٣.١١"])
def test_bad_versions(given: str) -> None:
    """A version is two or three numbers: it becomes part of a command's name."""
    with pytest.raises(ServingError, match=r"expected one such as '3\.12'"):
        minor_of(given)
    assert minor_of("3.12") == minor_of("3.12.7") == (3, 12)

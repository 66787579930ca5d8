"""API keys: the file, its changes while a server runs, and how keys are found in headers."""

import base64
import fcntl
import hashlib
import logging
import os
import re
import stat
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access
from dragoman.server.keys import Key, KeyRing, ensure_admin_key, explicit_token, tokens_from

HASH = hashlib.sha256(b"dg_secret").hexdigest()
ONE = f'[[keys]]\nname = "ci"\nsha256 = "{HASH}"\nscopes = ["infer"]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a key file may be; its directory does not exist yet."""
    return tmp_path / "data" / "keys.toml"


def write(path: Path, text: str) -> None:
    """Replaces a key file as an editor would."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


# --- making keys


def test_a_created_key_is_verified(path: Path) -> None:
    """A new key is random, url-safe and 256 bits long, and the ring that made it knows it with its name and scopes."""
    ring = KeyRing(path)
    token = ring.create("ci", [Access.INFER])
    assert re.fullmatch(r"dg_[A-Za-z0-9_-]{43}", token)
    assert ring.verify(token) == Key("ci", hashlib.sha256(token.encode()).hexdigest(), frozenset({Access.INFER}))
    assert ring.create("other", [Access.INFER]) != token


def test_the_file_holds_no_key_but_its_hash(path: Path) -> None:
    """Who reads the file cannot call with it; it is readable by its owner only, and is TOML that others can write."""
    token = KeyRing(path).create("ci", {Access.ADMIN, Access.INFER})
    text = path.read_text()
    assert token not in text
    assert token[3:] not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    expected = {"name": "ci", "sha256": hashlib.sha256(token.encode()).hexdigest(), "scopes": ["infer", "admin"]}
    assert tomllib.loads(text) == {"keys": [expected]}


def test_keys_are_added_to_what_is_there(path: Path) -> None:
    """Comments and keys of a file written by hand stay, also where its last line does not end; so do its mode and inode."""
    path.parent.mkdir()
    path.write_text(f"# ours\n{ONE}# end")
    path.chmod(0o640)
    inode = path.stat().st_ino
    KeyRing(path).create("second", [Access.ADMIN])
    assert path.read_text().startswith(f"# ours\n{ONE}# end\n\n[[keys]]\n")
    assert [key.name for key in KeyRing.load(path).keys] == ["ci", "second"]
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (inode, 0o640)


def test_names_are_unique(path: Path) -> None:
    """A taken name is CONFLICT and leaves the file as it was."""
    write(path, ONE)
    with pytest.raises(ServingError, match="ci") as caught:
        KeyRing(path).create("ci", [Access.ADMIN])
    assert caught.value.kind is Kind.CONFLICT
    assert path.read_text() == ONE


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a\nb", ".a", "-a", "a" * 65, "ü", "a\\", "a]"])
def test_names_that_a_file_cannot_hold_are_refused(path: Path, name: str) -> None:
    """Names are plain words, so that none can be TOML; a refused one makes no file."""
    with pytest.raises(ServingError) as caught:
        KeyRing(path).create(name, [Access.INFER])
    assert caught.value.kind is Kind.INVALID_INPUT
    assert not path.exists()


@pytest.mark.parametrize("scopes", [[], [Access.PUBLIC], [Access.INFER, Access.PUBLIC]])
def test_scopes_are_infer_and_admin(path: Path, scopes: list[Access]) -> None:
    """A key without a scope opens nothing, and what is public needs none: neither can be made."""
    with pytest.raises(ServingError) as caught:
        KeyRing(path).create("ci", scopes)
    assert caught.value.kind is Kind.INVALID_INPUT


def test_keys_added_at_once_are_all_there(path: Path) -> None:
    """Several processes may add keys at the same time: none is lost and the file stays whole."""
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda number: KeyRing(path).create(f"key{number}", [Access.INFER]), range(24)))
    ring = KeyRing.load(path)
    assert len(ring.keys) == 24
    assert all(ring.verify(token) for token in tokens)


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A directory in the place of the file, or a file in the place of its directory, is INVALID_INPUT with the path."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "keys.toml"):
        with pytest.raises(ServingError, match=re.escape(str(path))) as caught:
            KeyRing(path).create("ci", [Access.INFER])
        assert caught.value.kind is Kind.INVALID_INPUT


def test_the_first_admin_key_is_made_once(path: Path) -> None:
    """The first start makes one admin key and returns it; later starts find it and return nothing."""
    token = ensure_admin_key(path)
    assert token is not None
    key = KeyRing.load(path).verify(token)
    assert key is not None
    assert (key.name, key.allows(Access.ADMIN)) == ("admin", True)
    assert ensure_admin_key(path) is None
    assert len(KeyRing.load(path).keys) == 1


def test_starts_at_the_same_time_make_one_admin_key(path: Path) -> None:
    """Of several starts over one directory exactly one makes the key."""
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: ensure_admin_key(path), range(8)))
    assert len([token for token in tokens if token]) == 1


def test_no_admin_key_is_made_beside_others(path: Path) -> None:
    """Somebody who keeps keys without an admin among them meant it so. A file without any key counts as none."""
    write(path, ONE)
    assert ensure_admin_key(path) is None
    write(path, "# nobody\n")
    assert ensure_admin_key(path) is not None
    assert path.read_text().startswith("# nobody\n")


def test_a_malformed_file_is_not_added_to(path: Path) -> None:
    """A file that cannot be understood is reported, not extended."""
    write(path, "[[keys")
    with pytest.raises(ServingError, match="not TOML"):
        ensure_admin_key(path)
    assert path.read_text() == "[[keys"


# --- verifying keys


@pytest.mark.parametrize("token", ["", "dg_", "dg_secreT", "dg_secret ", " dg_secret", HASH, "ci", "\ud800", "dg_secret\0", "é" * 1000])
def test_other_keys_are_unknown(path: Path, token: str) -> None:
    """Only the exact key is known: not its name, its hash or a near miss, and no text breaks the comparison."""
    write(path, ONE)
    ring = KeyRing.load(path)
    assert ring.verify(token) is None
    assert ring.verify("dg_secret") is not None


def test_hashes_may_be_written_in_capitals(path: Path) -> None:
    """Tools differ in how they print a hash."""
    write(path, ONE.replace(HASH, HASH.upper()))
    assert KeyRing.load(path).verify("dg_secret") is not None


@pytest.mark.parametrize(
    ("scopes", "opens"),
    [
        ({Access.INFER}, {Access.PUBLIC, Access.INFER}),
        ({Access.JOBS}, {Access.PUBLIC, Access.JOBS}),
        ({Access.ADMIN}, set(Access)),
        ({Access.ADMIN, Access.INFER}, set(Access)),
    ],
)
def test_admin_includes_the_others(scopes: set[Access], opens: set[Access]) -> None:
    """Who may change the server may use it; the reverse is not so."""
    key = Key("k", HASH, frozenset(scopes))
    assert {access for access in Access if key.allows(access)} == opens


# --- the file while the server runs


def test_changes_count_at_once(path: Path) -> None:
    """A key added, revoked or given other scopes in the file counts from the next request on, without a restart."""
    ring = KeyRing(path)
    assert ring.verify("dg_secret") is None
    write(path, ONE)
    assert ring.verify("dg_secret") is not None
    write(path, ONE.replace("infer", "admin"))
    key = ring.verify("dg_secret")
    assert key is not None
    assert key.allows(Access.ADMIN)
    added = KeyRing(path).create("more", [Access.INFER])
    assert ring.verify(added) is not None
    write(path, "")
    assert ring.verify("dg_secret") is None
    assert ring.verify(added) is None


def test_removing_the_file_revokes_all(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without its file a ring knows nobody, says so once, and recovers when the file is back."""
    write(path, ONE)
    ring = KeyRing.load(path)
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert ring.verify("dg_secret") is None
        assert ring.verify("dg_secret") is None
    assert [record.getMessage() for record in caplog.records] == [f"the key file {path} is gone: no key is valid now"]
    write(path, ONE)
    assert ring.verify("dg_secret") is not None


def test_a_slip_in_the_file_locks_nobody_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A malformed change is logged once and the keys read before stay valid, until the file is right again."""
    write(path, ONE)
    ring = KeyRing.load(path)
    write(path, ONE + "[[keys]]\nname =\n")
    with caplog.at_level(logging.WARNING):
        assert ring.verify("dg_secret") is not None
        assert ring.verify("dg_secret") is not None
    assert len(caplog.records) == 1
    assert "stay valid" in caplog.text
    assert HASH not in caplog.text
    write(path, ONE.replace("ci", "repaired"))
    key = ring.verify("dg_secret")
    assert key is not None
    assert key.name == "repaired"


def test_a_file_that_was_never_right_allows_nobody(path: Path) -> None:
    """There are no keys read before that could stay valid."""
    write(path, ONE + "[[keys")
    assert KeyRing(path).verify("dg_secret") is None


def test_a_key_being_added_does_not_hold_up_requests(path: Path) -> None:
    """While another process holds the file, requests are judged by the keys read before; the change is seen afterwards."""
    write(path, ONE)
    ring = KeyRing.load(path)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("# half a ke")
        file.flush()
        assert ring.verify("dg_secret") is not None
        file.write("y\n" + ONE.replace("ci", "second").replace(HASH, hashlib.sha256(b"dg_new").hexdigest()))
        file.flush()
        assert ring.verify("dg_new") is None
    assert ring.verify("dg_new") is not None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602, 0o604])
def test_an_open_file_is_warned_about(path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    """A key file that others may read or write is used, with a warning that says what to do."""
    write(path, ONE)
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        ring = KeyRing.load(path)
        assert ring.verify("dg_secret") is not None
    assert [record.getMessage() for record in caplog.records] == [
        f"the key file {path} is open to other users (mode {mode:03o}): run chmod 600 {path}"
    ]


def test_a_closed_file_is_not_warned_about(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Mode 0600, which is what the server makes, gives no warning."""
    KeyRing(path).create("ci", [Access.INFER])
    assert KeyRing.load(path).keys
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("keys", "not TOML"),
        ("\xff", "expected only"),
        ("x = 1", "expected only"),
        ("keys = 1", "expected only"),
        ("keys = [1]", "key 1: expected exactly"),
        ('[[keys]]\nname = "a"', "key 1: expected exactly"),
        (ONE + "extra = 1\n", "key 1: expected exactly"),
        (ONE.replace("scopes", "scope"), "key 1: expected exactly"),
        (ONE.replace('"ci"', "7"), "key 1: name"),
        (ONE.replace("ci", "c i"), "key 1: name"),
        (ONE.replace(HASH, HASH[1:]), "sha256 must be"),
        (ONE.replace(HASH, "g" + HASH[1:]), "sha256 must be"),
        (ONE.replace('["infer"]', "[]"), "scopes must be"),
        (ONE.replace('["infer"]', '"infer"'), "scopes must be"),
        (ONE.replace('["infer"]', '["public"]'), "scopes must be"),
        (ONE.replace('["infer"]', '["infer", []]'), "scopes must be"),
        (ONE + ONE, "two keys are named ci"),
        ("x = " + "[" * 5000, "not TOML"),
        ("#" * (1 << 20) + "##", "larger than"),
    ],
)
def test_malformed_files_are_explained(path: Path, text: str, complaint: str) -> None:
    """A start with a malformed file fails with the file, the number of the key and what is expected there."""
    write(path, text if text != "\xff" else "\xff = 1")
    with pytest.raises(ServingError) as caught:
        KeyRing.load(path)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert str(path) in caught.value.message
    assert complaint in caught.value.message or "not TOML" in caught.value.message


def test_a_file_that_is_not_text_is_malformed(path: Path) -> None:
    """Bytes that are no UTF-8 are malformed like any other."""
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(ServingError, match="not TOML"):
        KeyRing.load(path)


def test_a_named_file_must_exist(path: Path) -> None:
    """A key file that was named and is not there stops the start; a directory does as well."""
    with pytest.raises(ServingError, match=re.escape(str(path))):
        KeyRing.load(path)
    with pytest.raises(ServingError, match="directory"):
        KeyRing.load(Path(os.sep))


# --- keys in headers


def basic(text: str | bytes) -> bytes:
    """The value of a Basic authorization header."""
    return b"Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text)


AUTH, OWN = b"authorization", b"x-api-key"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([(b"accept", b"Bearer k")], None),
        ([(AUTH, b"Bearer k")], "k"),
        ([(AUTH, b"bearer k")], "k"),
        ([(AUTH, b"BEARER   k  ")], "k"),
        ([(b"Authorization", b"Bearer k")], "k"),
        ([(AUTH, b"apikey k")], "k"),
        ([(AUTH, b"ApiKey k")], "k"),
        ([(OWN, b"k")], "k"),
        ([(b"X-API-Key", b" k ")], "k"),
        ([(AUTH, basic("user:k"))], "k"),
        ([(AUTH, basic(":k"))], "k"),
        ([(AUTH, basic("user:k:l"))], "k:l"),
        ([(AUTH, basic("user:k").replace(b"Basic", b"bAsIc"))], "k"),
        ([(AUTH, b"Bearer k"), (OWN, b"l")], "k"),
        ([(AUTH, basic("proxy:p")), (OWN, b"l")], "l"),
        ([(AUTH, b"Digest x"), (OWN, b"l")], "l"),
        ([(AUTH, b"Bearer"), (OWN, b"l")], "l"),
        ([(AUTH, b"Bearer")], None),
        ([(AUTH, b"Bearer ")], None),
        ([(AUTH, b"")], None),
        ([(AUTH, b"k")], None),
        ([(AUTH, b"Bearerk")], None),
        ([(AUTH, b"Bearer a b")], None),
        ([(AUTH, b"Bearer \xc3\xa9")], None),
        ([(AUTH, b"Bearer a\x00")], None),
        ([(AUTH, b"Bearer " + b"k" * 513)], None),
        ([(AUTH, b"Digest k")], None),
        ([(AUTH, b"Bearer k"), (AUTH, b"Bearer l")], None),
        ([(OWN, b"k"), (OWN, b"l")], None),
        ([(OWN, b"")], None),
        ([(OWN, b"a b")], None),
        ([(AUTH, basic("user"))], None),
        ([(AUTH, basic("user:"))], None),
        ([(AUTH, basic(b"user:\xff"))], None),
        ([(AUTH, b"Basic !!!")], None),
        ([(AUTH, b"Basic dXNlcjp")], None),
        ([(AUTH, b"Basic")], None),
    ],
)
def test_where_keys_are_read(headers: list[tuple[bytes, bytes]], token: str | None) -> None:
    """Each way to send a key is understood in any case of its words; what is malformed, doubled or empty is no key."""
    assert tokens_from(headers) == token


@given(st.lists(st.tuples(st.sampled_from([AUTH, OWN, b"X"]), st.binary(max_size=40) | st.binary(max_size=30).map(b"Basic ".__add__))))
def test_no_header_breaks_the_reading(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever bytes a client sends, the answer is a plain printable text or None."""
    token = tokens_from(headers)
    assert token is None or (token.isascii() and token.isprintable() and " " not in token)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(AUTH, basic("user:k"))], None),
        ([(AUTH, basic("user:k")), (OWN, b"l")], "l"),
        ([(AUTH, b"Bearer k")], "k"),
        ([(AUTH, b"apikey k")], "k"),
        ([(AUTH, b"Bearer k"), (AUTH, basic("user:k"))], None),
        ([], None),
    ],
)
def test_explicit_keys_are_told_apart(headers: list[tuple[bytes, bytes]], token: str | None) -> None:
    """A Basic password proves less: a browser that remembers one adds it to the requests of any page."""
    assert explicit_token(headers) == token

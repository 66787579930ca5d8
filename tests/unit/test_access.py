"""The table of who may call what, row by row, and the answers to web pages of other origins."""

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access
from dragoman.server.access import Auth, Rules, cors_headers, is_local, preflight, refusal
from dragoman.server.keys import Key, tokens_from

PUBLIC, INFER, ADMIN = Access.PUBLIC, Access.INFER, Access.ADMIN
LOCAL, REMOTE = Rules(loopback=True), Rules(loopback=False)
LOCAL_OPEN, REMOTE_OPEN = Rules(loopback=True, auth=Auth.NO_AUTH), Rules(loopback=False, auth=Auth.NO_AUTH)
LOCAL_STRICT, REMOTE_STRICT = Rules(loopback=True, auth=Auth.REQUIRE_KEY), Rules(loopback=False, auth=Auth.REQUIRE_KEY)
ALL_RULES = [LOCAL, REMOTE, LOCAL_OPEN, REMOTE_OPEN, LOCAL_STRICT, REMOTE_STRICT]

KEYS = {"inf": Key("ci", "0" * 64, frozenset({INFER})), "adm": Key("ops", "1" * 64, frozenset({ADMIN}))}
OK, WHO, NO = None, Kind.UNAUTHENTICATED, Kind.FORBIDDEN
Headers = Sequence[tuple[bytes, bytes]]


def judge(rules: Rules, access: Access, token: str | None = None, headers: Headers = (), method: str = "POST") -> ServingError | None:
    """The decision for a call as a local client would send it, with this key as a Bearer token and these headers besides."""
    sent = [*headers] if any(name == b"host" for name, _ in headers) else [(b"host", b"localhost:3000"), *headers]
    if token is not None:
        sent.append((b"authorization", f"Bearer {token}".encode()))
    carried = tokens_from(sent)
    return refusal(rules, access, method, sent, carried, KEYS.get(carried or ""))


def kind(error: ServingError | None) -> Kind | None:
    """What a decision comes down to."""
    return error.kind if error else None


@pytest.mark.parametrize(
    ("rules", "access", "anonymous", "wrong", "inf", "adm"),
    [
        # listener      route   no key  wrong  infer  admin
        (LOCAL, PUBLIC, OK, OK, OK, OK),
        (LOCAL, INFER, OK, OK, OK, OK),
        (LOCAL, ADMIN, OK, OK, OK, OK),
        (REMOTE, PUBLIC, OK, OK, OK, OK),
        (REMOTE, INFER, OK, WHO, OK, OK),
        (REMOTE, ADMIN, WHO, WHO, NO, OK),
        (LOCAL_STRICT, PUBLIC, OK, OK, OK, OK),
        (LOCAL_STRICT, INFER, WHO, WHO, OK, OK),
        (LOCAL_STRICT, ADMIN, WHO, WHO, NO, OK),
        (REMOTE_STRICT, PUBLIC, OK, OK, OK, OK),
        (REMOTE_STRICT, INFER, WHO, WHO, OK, OK),
        (REMOTE_STRICT, ADMIN, WHO, WHO, NO, OK),
        (LOCAL_OPEN, PUBLIC, OK, OK, OK, OK),
        (LOCAL_OPEN, INFER, OK, OK, OK, OK),
        (LOCAL_OPEN, ADMIN, OK, OK, OK, OK),
        (REMOTE_OPEN, PUBLIC, OK, OK, OK, OK),
        (REMOTE_OPEN, INFER, OK, OK, OK, OK),
        (REMOTE_OPEN, ADMIN, OK, OK, OK, OK),
    ],
)
def test_keys(rules: Rules, access: Access, anonymous: Kind | None, wrong: Kind | None, inf: Kind | None, adm: Kind | None) -> None:
    """Every listener, route and key: what is open, what asks for a key, and that a wrong key is refused wherever keys count."""
    assert [kind(judge(rules, access, token)) for token in (None, "mistake", "inf", "adm")] == [anonymous, wrong, inf, adm]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "BREW"])
@pytest.mark.parametrize("rules", ALL_RULES)
def test_the_method_opens_nothing(rules: Rules, method: str) -> None:
    """A route's access counts and not the method: a GET that changes something is guarded like a POST."""
    for access in Access:
        assert kind(judge(rules, access, None, (), method)) == kind(judge(rules, access))


def test_preflights_need_no_key() -> None:
    """OPTIONS on inference routes carries no key and is let through; on admin routes it is judged like anything else."""
    assert judge(REMOTE_STRICT, INFER, method="OPTIONS") is None
    assert kind(judge(REMOTE_STRICT, ADMIN, method="OPTIONS")) is WHO
    assert kind(judge(LOCAL, ADMIN, None, [(b"origin", b"https://evil.example")], "OPTIONS")) is NO


def test_texts_say_what_is_needed() -> None:
    """A refusal tells how to send which key, and the holder of a valid key why it does not suffice; a wrong key is not repeated."""
    missing = judge(REMOTE, ADMIN)
    assert missing is not None
    assert "scope admin" in missing.message
    assert "Authorization: Bearer" in missing.message
    wrong = judge(REMOTE, INFER, "hunter2")
    assert wrong is not None
    assert "not valid" in wrong.message
    assert "hunter2" not in wrong.message
    short = judge(REMOTE, ADMIN, "inf")
    assert short is not None
    assert "key ci has infer" in short.message


# --- web pages


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *(
            (name, True)
            for name in (b"localhost", b"localhost:3000", b"LocalHost:1", b"127.0.0.1:3000", b"127.9.8.7", b"[::1]", b"[::1]:3000")
        ),
        *((name, False) for name in (b"evil.example", b"evil.example:3000", b"localhost.evil.example", b"127.0.0.1.evil.example:3000")),
        *(
            (name, False)
            for name in (b"0.0.0.0:3000", b"10.0.0.1", b"128.0.0.1", b"[::]:3000", b"[::ffff:127.0.0.1]", b"[fe80::1]", b"::1")
        ),
        *(
            (name, False)
            for name in (b"", b"localhost:", b"localhost:x", b"localhost:3000:1", b"evil@localhost", b"localhost/x", b"local host")
        ),
        *((name, False) for name in (b"localhost.", b"127.1", b"2130706433", b"0x7f000001", b"localhost\xff", b"localhost,evil.example")),
    ],
)
@pytest.mark.parametrize("rules", [LOCAL, LOCAL_OPEN])
def test_the_host_must_be_local(rules: Rules, host: bytes, *, allowed: bool) -> None:
    """A page of a name that was pointed at this machine (DNS rebinding) has that name in Host, and may use but not change the server."""
    assert (judge(rules, ADMIN, None, [(b"host", host)]) is None) is allowed
    assert judge(rules, INFER, None, [(b"host", host)]) is None
    assert judge(rules, PUBLIC, None, [(b"host", host)]) is None


def test_each_host_header_must_be_local() -> None:
    """A second Host header does not hide the first; a call without any comes from no browser."""
    assert kind(judge(LOCAL, ADMIN, None, [(b"host", b"localhost"), (b"host", b"evil.example")])) is NO
    assert refusal(LOCAL, ADMIN, "POST", [], None, None) is None


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        (b"localhost:3000", b"http://localhost:3000", True),
        (b"localhost:3000", b"http://127.0.0.1:3000", True),
        (b"127.0.0.1:3000", b"http://[::1]:3000", True),
        (b"localhost:3000", b"HTTPS://LOCALHOST:3000", True),
        (b"localhost", b"http://localhost", True),
        (b"localhost:80", b"http://localhost", True),
        (b"localhost", b"https://localhost:443", True),
        (b"localhost:3000", b"http://localhost:8888", False),
        (b"localhost:3000", b"http://localhost", False),
        (b"localhost", b"http://localhost:3000", False),
        (b"localhost:3000", b"http://evil.example:3000", False),
        (b"localhost:3000", b"http://localhost.evil.example:3000", False),
        (b"localhost:3000", b"null", False),
        (b"localhost:3000", b"", False),
        (b"localhost:3000", b"file://", False),
        (b"localhost:3000", b"chrome-extension://abc", False),
        (b"localhost:3000", b"localhost:3000", False),
        (b"localhost:3000", b"http://localhost:3000/", False),
        (b"localhost:3000", b"http://x@localhost:3000", False),
        (b"localhost:3000", b"http://localhost:3000 http://evil.example", False),
    ],
)
@pytest.mark.parametrize("rules", [LOCAL, LOCAL_OPEN])
def test_the_origin_must_be_the_server_itself(rules: Rules, host: bytes, origin: bytes, *, allowed: bool) -> None:
    """Pages that this server sent may change it, under any local name and the port the browser used; no other page may."""
    headers = [(b"host", host), (b"origin", origin)]
    assert (judge(rules, ADMIN, None, headers) is None) is allowed
    assert judge(rules, INFER, None, headers) is None


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        (b"models.example:3000", b"http://models.example:3000", True),
        (b"models.example", b"https://models.example", True),
        (b"models.example:3000", b"http://localhost:3000", False),
        (b"models.example:3000", b"http://evil.example:3000", False),
        (b"models.example:3000", b"null", False),
    ],
)
def test_without_keys_foreign_pages_are_held_off_elsewhere_too(host: bytes, origin: bytes, *, allowed: bool) -> None:
    """--no-auth opens a server to who can reach it, and not to every page that such a person looks at."""
    assert (judge(REMOTE_OPEN, ADMIN, None, [(b"host", host), (b"origin", origin)]) is None) is allowed
    assert judge(REMOTE_OPEN, ADMIN, None, [(b"host", host)]) is None


def test_an_origin_without_a_host_is_foreign() -> None:
    """A page's request that does not say whom it addresses cannot be its own server's."""
    for rules in (LOCAL, REMOTE_OPEN):
        assert kind(refusal(rules, ADMIN, "POST", [(b"origin", b"http://localhost:3000")], None, None)) is NO


@pytest.mark.parametrize(
    ("site", "allowed"),
    [(b"same-origin", True), (b"none", True), (b"Same-Origin", True), (b"same-site", False), (b"cross-site", False), (b"", False)],
)
def test_what_the_browser_says_about_the_page_counts(site: bytes, *, allowed: bool) -> None:
    """An image or link of another site sends no Origin with its GET, but browsers mark it in Sec-Fetch-Site."""
    assert (judge(LOCAL, ADMIN, None, [(b"sec-fetch-site", site)], "GET") is None) is allowed
    assert judge(LOCAL, INFER, None, [(b"sec-fetch-site", site)], "GET") is None


FOREIGN: list[Headers] = [
    [(b"host", b"models.example")],
    [(b"origin", b"https://console.example")],
    [(b"sec-fetch-site", b"cross-site")],
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("rules", [LOCAL, LOCAL_STRICT, LOCAL_OPEN, REMOTE, REMOTE_STRICT, REMOTE_OPEN])
def test_an_admin_key_is_taken_from_anywhere(rules: Rules, headers: Headers) -> None:
    """No foreign page knows the key, so a call that carries it is its holder's: through a proxy, or from a console elsewhere."""
    assert judge(rules, ADMIN, "adm", headers) is None


@pytest.mark.parametrize("headers", FOREIGN)
def test_an_infer_key_does_not_replace_being_local(headers: Headers) -> None:
    """A key for inference proves nothing about calls that change the server."""
    assert kind(judge(LOCAL, ADMIN, "inf", headers)) is NO


@pytest.mark.parametrize("rules", [LOCAL_STRICT, REMOTE, REMOTE_STRICT])
def test_a_password_of_the_browser_does_not_serve_foreign_pages(rules: Rules) -> None:
    """Browsers add a Basic password that they remember to requests of any page, so such calls must come from the server's own pages."""
    password = (b"authorization", b"Basic " + base64.b64encode(b"me:adm"))
    host = (b"host", b"localhost:3000")
    assert judge(rules, ADMIN, None, [host, password]) is None
    assert judge(rules, ADMIN, None, [host, password, (b"origin", b"http://localhost:3000")]) is None
    assert kind(judge(rules, ADMIN, None, [host, password, (b"origin", b"https://evil.example")])) is NO
    assert kind(judge(rules, ADMIN, None, [host, password, (b"sec-fetch-site", b"cross-site")])) is NO
    assert judge(rules, ADMIN, None, [host, password, (b"x-api-key", b"adm"), (b"origin", b"https://console.example")]) is None


def test_refusals_of_pages_are_short_and_printable() -> None:
    """A header of a megabyte, or one with control characters, does not end up in the answer."""
    error = judge(LOCAL, ADMIN, None, [(b"host", b"\x1b[2J" + b"x" * 10**6)])
    assert error is not None
    assert error.message.isprintable()
    assert len(error.message) < 400


HEADER = st.tuples(
    st.sampled_from([b"host", b"origin", b"sec-fetch-site", b"authorization", b"x-api-key"]),
    st.sampled_from([b"localhost", b"http://localhost", b"evil.example", b"http://evil.example", b"Bearer adm", b"Bearer inf", b"adm"])
    | st.binary(max_size=20),
)


@given(st.sampled_from(ALL_RULES), st.lists(HEADER, max_size=5))
def test_no_header_opens_what_needs_a_key(rules: Rules, headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever is sent, a call that changes a guarded server passes only with the admin key; and nothing ever crashes."""
    token = tokens_from(headers)
    error = refusal(rules, ADMIN, "POST", headers, token, KEYS.get(token or ""))
    if rules.keys_in_force and token != "adm":
        assert error is not None


# --- the rules themselves


@pytest.mark.parametrize(
    ("host", "no_auth", "require_key", "rules"),
    [
        ("127.0.0.1", False, False, LOCAL),
        ("localhost", False, False, LOCAL),
        ("::1", False, False, LOCAL),
        ("0.0.0.0", False, False, REMOTE),
        ("::", False, False, REMOTE),
        ("", False, False, REMOTE),
        ("models.example", False, False, REMOTE),
        ("127.0.0.1", True, False, LOCAL_OPEN),
        ("0.0.0.0", False, True, REMOTE_STRICT),
    ],
)
def test_rules_follow_from_flags(host: str, rules: Rules, *, no_auth: bool, require_key: bool) -> None:
    """The address and the two flags decide; whatever is not plainly loopback counts as elsewhere."""
    assert Rules.of(host, no_auth=no_auth, require_key=require_key) == rules


def test_contradicting_flags_are_refused() -> None:
    """--no-auth with --require-key is asked back instead of guessed."""
    with pytest.raises(ServingError) as caught:
        Rules.of("0.0.0.0", no_auth=True, require_key=True)
    assert caught.value.kind is Kind.INVALID_INPUT


@given(st.text(max_size=20))
def test_no_text_breaks_the_look_at_a_host(host: str) -> None:
    """Any text is a host or not, without an error."""
    assert is_local(host) in {True, False}


# --- CORS

CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]


def test_cors_is_for_inference_only() -> None:
    """Pages may read answers of inference where CORS is on, and nothing else; there are never credentials in it."""
    assert cors_headers(INFER, enabled=True) == CORS
    assert cors_headers(PUBLIC, enabled=True) == cors_headers(ADMIN, enabled=True) == cors_headers(INFER, enabled=False) == []


@pytest.mark.parametrize(
    ("origin", "access", "expected"),
    [
        (b"https://page.example", INFER, CORS),
        (b"http://localhost:8080", INFER, CORS),
        (b"HTTPS://page.example", INFER, CORS),
        (b"null", INFER, None),
        (b"ftp://page.example", INFER, None),
        (b"", INFER, None),
        (None, INFER, None),
        (b"https://page.example", ADMIN, None),
        (b"https://page.example", PUBLIC, None),
    ],
)
def test_preflights(origin: bytes | None, access: Access, expected: Headers | None) -> None:
    """OPTIONS of a web page on an inference route is answered; with CORS off the answer allows nothing."""
    assert preflight(origin, access, enabled=True) == expected
    assert preflight(origin, access, enabled=False) == (None if expected is None else [])

"""`fetch` over http and https against real servers on loopback: addresses, redirects, credentials, certificates."""

import asyncio
import base64
import contextlib
import socket
import ssl
from dataclasses import replace

import pytest
import trustme

from dragoman.core.errors import Kind
from dragoman.serving.fetch import Fetched, FetchPolicy, fetch
from tests.unit.fetch_site import LOOPBACK, names, ok, redirect, refused, run, site


def test_a_url_is_fetched() -> None:
    """Bytes, type without parameters, name without escapes, and the URL without its query come back."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"pixels", "Content-Type: Image/PNG; q=1")) as it:
            fetched = await fetch(it.url("/a/my%20cat.png?size=2"), LOOPBACK)
            assert fetched == Fetched(b"pixels", "image/png", "my cat.png", it.url("/a/my%20cat.png"))
            assert it.heads[0].startswith("GET /a/my%20cat.png?size=2 HTTP/1.1\r\n")
            assert f"\r\nHost: 127.0.0.1:{it.port}\r\n" in it.heads[0]
            assert "Authorization" not in it.heads[0]

    run(scenario())


def test_a_type_is_guessed_where_none_is_sent() -> None:
    """Without a Content-Type the name decides."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"x")) as it:
            assert (await fetch(it.url("/x.csv"), LOOPBACK)).media_type == "text/csv"

    run(scenario())


def test_chunked_and_unbounded_answers_are_read() -> None:
    """Bodies come chunked, or end with the connection, as well as with a length."""

    async def scenario() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        async with site(lambda path: chunked if path == "/chunked" else b"HTTP/1.0 200 OK\r\n\r\nabcde") as it:
            assert (await fetch(it.url("/chunked"), LOOPBACK)).data == b"abcde"
            assert (await fetch(it.url("/closed"), LOOPBACK)).data == b"abcde"

    run(scenario())


def test_credentials_of_the_url_are_sent_to_its_host() -> None:
    """user:password@ becomes Basic authorization, escapes undone, and is in neither the URL nor the Host that is used."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"x")) as it:
            fetched = await fetch(it.url("/x", host="me:p%40ss@127.0.0.1"), LOOPBACK)
            assert fetched.url == it.url("/x")
            token = base64.b64encode(b"me:p@ss").decode()
            assert f"\r\nAuthorization: Basic {token}\r\n" in it.heads[0]
            assert f"\r\nHost: 127.0.0.1:{it.port}\r\n" in it.heads[0]

    run(scenario())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect where it likes; one in the environment is ignored."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"direct")) as it, site(lambda path: ok(b"proxy")) as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url())
            assert (await fetch(it.url(), LOOPBACK)).data == b"direct"
            assert proxy.heads == []

    run(scenario())


# --- addresses


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.0.0.1.", "127。0。0。1", "user@127.0.0.1"),
        *("1.1.1.1@127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "0", "[::]"),
    ],
)
def test_loopback_is_refused_in_every_spelling(host: str) -> None:
    """However the address of this machine is written, no connection is made: the server behind it hears nothing."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"secret")) as it:
            error = await refused(it.url(host=host), FetchPolicy())
            assert error.kind is Kind.FORBIDDEN
            assert "--allow-fetch" in error.message
            assert it.heads == []

    run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "127.0.0.1."])
def test_an_opened_network_is_reached_in_every_spelling(host: str) -> None:
    """--allow-fetch 127.0.0.0/8 opens the address, not one way to write it."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"open")) as it:
            assert (await fetch(it.url(host=host), LOOPBACK)).data == b"open"

    run(scenario())


def test_a_host_name_is_opened_by_name() -> None:
    """--allow-fetch HOST lets that name point into private networks, and no other name that points to the same address."""

    async def scenario() -> None:
        resolver = names(minio_internal=["127.0.0.1"], evil_example=["127.0.0.1"])
        policy = FetchPolicy.parse(["minio.internal"])
        async with site(lambda path: ok(b"bucket")) as it:
            assert (await fetch(it.url(host="Minio.Internal."), policy, resolver=resolver)).data == b"bucket"
            assert f"\r\nHost: minio.internal:{it.port}\r\n" in it.heads[0]
            error = await refused(it.url(host="evil.example"), policy, resolver=resolver)
            assert error.kind is Kind.FORBIDDEN
            assert "loopback" in error.message
            assert "127.0.0.1" not in error.message
            assert len(it.heads) == 1

    run(scenario())


def test_the_checked_address_is_the_one_connected_to() -> None:
    """A name that points elsewhere at its second look-up (DNS rebinding) gains nothing: there is no second look-up."""

    async def scenario() -> None:
        answers = [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]]

        async def rebinding(host: str, port: int) -> list[str]:
            return answers.pop(0)

        policy = FetchPolicy.parse(["127.0.0.2/32"])
        async with site(lambda path: ok(b"outer"), host="127.0.0.2") as outer:
            fetched = await fetch(outer.url(host="rebind.example"), policy, resolver=rebinding)
            assert fetched.data == b"outer"
            assert len(answers) == 2
            assert (await refused(outer.url(host="rebind.example"), policy, resolver=rebinding)).kind is Kind.FORBIDDEN

    run(scenario())


def test_a_redirect_to_the_same_name_is_checked_again() -> None:
    """Rebinding between two hops is caught too: every hop resolves and judges its host anew."""

    async def scenario() -> None:
        answers = [["127.0.0.2"], ["127.0.0.1"]]

        async def rebinding(host: str, port: int) -> list[str]:
            return answers.pop(0)

        async with site(lambda path: redirect("/again"), host="127.0.0.2") as it:
            error = await refused(it.url(host="rebind.example"), FetchPolicy.parse(["127.0.0.2"]), resolver=rebinding)
            assert error.kind is Kind.FORBIDDEN
            assert len(it.heads) == 1

    run(scenario())


def test_one_bad_address_condemns_the_host() -> None:
    """A host with an allowed and a forbidden address is refused before any of them is tried."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"x")) as it:
            resolver = names(mixed_example=["127.0.0.1", "10.0.0.1"])
            assert (await refused(it.url(host="mixed.example"), resolver=resolver)).kind is Kind.FORBIDDEN
            assert it.heads == []

    run(scenario())


def test_the_next_address_is_tried() -> None:
    """A host whose first address answers nobody is reached at its second."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"second")) as it:
            resolver = names(two_example=["127.0.0.3", "127.0.0.1"])
            assert (await fetch(it.url(host="two.example"), LOOPBACK, resolver=resolver)).data == b"second"

    run(scenario())


@pytest.mark.parametrize(("code", "kind"), [(socket.EAI_NONAME, Kind.INVALID_INPUT), (socket.EAI_AGAIN, Kind.UNAVAILABLE)])
def test_names_that_do_not_resolve(code: int, kind: Kind) -> None:
    """An unknown name is the caller's mistake; a resolver that fails for now is not."""

    async def failing(host: str, port: int) -> list[str]:
        raise socket.gaierror(code, "no")

    async def scenario() -> None:
        error = await refused("http://models.example/x?token=hunter2", resolver=failing)
        assert error.kind is kind
        assert "http://models.example/x" in error.message
        assert "hunter2" not in error.message

    run(scenario())


def test_a_name_without_addresses_is_invalid() -> None:
    """A resolver that answers with nothing is the same as an unknown name."""

    async def scenario() -> None:
        assert (await refused("http://empty.example/", resolver=names(empty_example=[]))).kind is Kind.INVALID_INPUT

    run(scenario())


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/end/cat.png", "end/cat.png", "//127.0.0.1:{port}/end/cat.png", "http://127.1:{port}/end/cat.png#x"])
def test_redirects_are_followed(status: int, location: str) -> None:
    """Each kind of redirect leads on, relative or absolute; name and URL are those of the last hop."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"end") if path == "/end/cat.png" else redirect(location.format(port=it.port), status)) as it:
            fetched = await fetch(it.url("/start"), LOOPBACK)
            assert (fetched.data, fetched.name) == (b"end", "cat.png")
            assert fetched.url.endswith("/end/cat.png")

    run(scenario())


def test_redirects_are_counted() -> None:
    """Five redirects are followed, a sixth is not, and a policy may say fewer."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"end") if path == "/0" else redirect(f"/{int(path[1:]) - 1}")) as it:
            assert (await fetch(it.url("/5"), LOOPBACK)).data == b"end"
            error = await refused(it.url("/6"))
            assert error.kind is Kind.INVALID_INPUT
            assert "more than 5 times" in error.message
            assert (await refused(it.url("/1"), replace(LOOPBACK, max_redirects=0))).kind is Kind.INVALID_INPUT

    run(scenario())


@pytest.mark.parametrize("target", ["10.255.255.1", "[::1]", "169.254.169.254", "2852039166", "[::ffff:10.0.0.1]", "0.0.0.0"])
def test_a_redirect_to_a_forbidden_address_is_refused(target: str) -> None:
    """An allowed host cannot send the server on to one that is not."""

    async def scenario() -> None:
        async with site(lambda path: redirect(f"http://{target}/latest/meta-data")) as it:
            error = await refused(it.url())
            assert error.kind is Kind.FORBIDDEN
            assert target in error.message

    run(scenario())


@pytest.mark.parametrize("location", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://127.0.0.1/", "data:,x", "gopher://127.0.0.1:70/_x"])
def test_a_redirect_leaves_http_never(location: str) -> None:
    """A redirect to a file or another scheme is refused, also where files are open: only the caller may name those."""

    async def scenario() -> None:
        async with site(lambda path: redirect(location)) as it:
            assert (await refused(it.url(), FetchPolicy.parse(["127.0.0.0/8", "file:///"]))).kind is Kind.FORBIDDEN

    run(scenario())


@pytest.mark.parametrize("location", ["", "http://", "http://[::1", "http://host:99999/", "http:///x", "//", "http://a\\b/", "http://a b/"])
def test_a_broken_redirect_is_invalid(location: str) -> None:
    """A redirect without a target, or to something that is no URL, is an answer and not a crash."""

    async def scenario() -> None:
        async with site(lambda path: redirect(location)) as it:
            assert (await refused(it.url())).kind is Kind.INVALID_INPUT

    run(scenario())


def test_credentials_stay_with_their_host() -> None:
    """Credentials go along within the host and port that the caller named, and never to another, even if it sends the client back."""

    async def scenario() -> None:
        async with (
            site(lambda path: redirect(first.url("/back"))) as other,
            site(lambda path: ok(b"x") if path == "/back" else moved(path)) as first,
        ):

            def moved(path: str) -> bytes:
                return redirect("/second") if path == "/first" else redirect(other.url("/other"))

            await fetch(first.url("/first", host="me:hunter2@127.0.0.1"), LOOPBACK)
            assert ["Authorization" in head for head in first.heads] == [True, True, True]
            assert "Authorization" not in other.heads[0]

    run(scenario())


def test_credentials_in_a_redirect_are_not_used() -> None:
    """A server cannot make this one log in elsewhere with words of its choice."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"x")) as other, site(lambda path: redirect(other.url("/", host="a:b@127.0.0.1"))) as first:
            await fetch(first.url(), LOOPBACK)
            assert "Authorization" not in other.heads[0]

    run(scenario())


# --- TLS


@pytest.fixture
def authority() -> trustme.CA:
    """A certificate authority of the test."""
    return trustme.CA()


def tls_of(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, list[str | None]]:
    """A server context for one name, and the list of names that clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, wanted, _context: asked.append(wanted)
    return context, asked


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client context that believes this authority only."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_https_is_checked_by_name(authority: trustme.CA) -> None:
    """The connection goes to the checked address, while the certificate and the name asked for are those of the host."""

    async def scenario() -> None:
        tls, asked = tls_of(authority, "models.example")
        resolver = names(models_example=["127.0.0.1"], other_example=["127.0.0.1"])
        async with site(lambda path: ok(b"sealed"), tls=tls) as it:
            fetched = await fetch(it.url(host="models.example.", scheme="https"), LOOPBACK, resolver=resolver, trust=trusting(authority))
            assert fetched.data == b"sealed"
            assert asked == ["models.example"]
            error = await refused(it.url(host="other.example", scheme="https"), resolver=resolver, trust=trusting(authority))
            assert error.kind is Kind.UNAVAILABLE
            assert "certificate" in error.message
            assert "other.example" in error.message

    run(scenario())


def test_unknown_authorities_are_not_trusted(authority: trustme.CA) -> None:
    """With the authorities of the system a certificate that anybody made is refused."""

    async def scenario() -> None:
        tls, _ = tls_of(authority, "127.0.0.1")
        async with site(lambda path: ok(b"x"), tls=tls) as it:
            error = await refused(it.url(scheme="https"))
            assert error.kind is Kind.UNAVAILABLE
            assert "certificate" in error.message
            assert it.heads == []

    run(scenario())


def test_https_to_a_plain_server_is_unavailable(authority: trustme.CA) -> None:
    """A server without TLS under an https URL is reported as such."""

    async def scenario() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            error = await refused(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", trust=trusting(authority))
            assert error.kind is Kind.UNAVAILABLE
            assert "TLS" in error.message

    run(scenario())


def test_credentials_do_not_follow_from_https_to_http(authority: trustme.CA) -> None:
    """The same host without TLS is another place: credentials stay behind."""

    async def scenario() -> None:
        tls, _ = tls_of(authority, "127.0.0.1")
        async with site(lambda path: ok(b"x")) as plain, site(lambda path: redirect(plain.url("/plain")), tls=tls) as sealed:
            await fetch(sealed.url("/", host="me:hunter2@127.0.0.1", scheme="https"), LOOPBACK, trust=trusting(authority))
            assert "Authorization" in sealed.heads[0]
            assert "Authorization" not in plain.heads[0]

    run(scenario())

"""Which addresses and files may be fetched, and how `--allow-fetch` is read."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.fetch_policy import FetchPolicy, plain_host

CLOSED = FetchPolicy()


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.127.255.255", "carrier-grade NAT"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("169.254.169.254", "link-local"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.8", "reserved"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4 relay"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "benchmarking"),
        ("198.51.100.7", "documentation"),
        ("203.0.113.9", "documentation"),
        ("224.0.0.251", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.1.2.3", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b:1::1", "reserved"),
        ("100::1", "reserved"),
        ("2001::1", "Teredo"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
        ("2001:2::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"),
        ("2002:a00:1::1", "6to4"),
        ("3fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("5f00::1", "reserved"),
        ("fc00::1", "private"),
        ("fdff::1", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str, word: str) -> None:
    """Each kind of special address is refused, with the word for its kind, also where it hides inside an IPv6 address."""
    assert CLOSED.refusal("models.example", ipaddress.ip_address(address)) == word


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "126.255.255.255", "128.0.0.1", "11.0.0.1", "223.255.255.255"),
        *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2001:200::1"),
    ],
)
def test_public_addresses_pass(address: str) -> None:
    """Public addresses pass without any entry, those just beside special blocks and IPv4 ones inside IPv6 included."""
    assert CLOSED.refusal("models.example", ipaddress.ip_address(address)) == ""


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_special_passes(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Whatever `ipaddress` knows to be private, loopback, link-local, multicast or reserved is refused by our tables too."""
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    if special and not (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped):
        assert CLOSED.refusal("models.example", address)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_every_wrapping(address: ipaddress.IPv4Address) -> None:
    """IPv4-mapped and NAT64 forms of an address get the verdict of the address itself."""
    verdict = CLOSED.refusal("", address)
    assert CLOSED.refusal("", ipaddress.ip_address(f"::ffff:{address}")) == verdict
    assert CLOSED.refusal("", ipaddress.ip_address(f"64:ff9b::{address}")) == verdict


@pytest.mark.parametrize(
    ("entry", "host", "address", "opened"),
    [
        ("127.0.0.0/8", "x", "127.0.0.9", True),
        ("127.0.0.0/8", "x", "::ffff:127.0.0.9", True),
        ("10.0.0.0/8", "x", "64:ff9b::10.2.3.4", True),
        ("127.0.0.0/8", "x", "10.0.0.1", False),
        ("127.0.0.0/8", "x", "::1", False),
        ("10.1.2.3", "x", "10.1.2.3", True),
        ("10.1.2.3", "x", "10.1.2.4", False),
        ("::1", "x", "::1", True),
        ("[::1]", "x", "::1", True),
        ("fd00::/8", "x", "fd12::1", True),
        ("0.0.0.0/0", "x", "169.254.169.254", True),
        ("minio.internal", "minio.internal", "10.9.9.9", True),
        ("minio.internal", "MINIO.Internal.", "10.9.9.9", True),
        ("Minio.Internal.", "minio.internal", "10.9.9.9", True),
        ("minio.internal", "evil.minio.internal", "10.9.9.9", False),
        ("minio.internal", "minio.internal.evil.example", "10.9.9.9", False),
        ("localhost", "localhost", "::1", True),
    ],
)
def test_entries_open_exactly_what_they_name(entry: str, host: str, address: str, *, opened: bool) -> None:
    """A network opens its addresses under any name, a host name opens itself wherever it points, and neither opens more."""
    policy = FetchPolicy.parse([entry])
    assert (policy.refusal(host, ipaddress.ip_address(address)) == "") is opened


@pytest.mark.parametrize(
    "entry",
    [
        *("", ".", "http://host", "host:80", "host/path", "*.example.com", "2130706433", "0x7f000001", "127.1", "10.0.0.0/33", "a b"),
        *("-x.com", "user@host", "host..name", "10.0.0.1.", "x" * 64, "a." * 130 + "a", "host\n", "[::1", "fe80::/10/1"),
    ],
)
def test_entries_that_name_nothing_are_refused(entry: str) -> None:
    """An entry that is no host, address, network or directory stops the start with its own text."""
    with pytest.raises(ServingError) as caught:
        FetchPolicy.parse([entry])
    assert caught.value.kind is Kind.INVALID_INPUT
    assert repr(entry) in caught.value.message


def test_a_network_with_stray_bits_is_refused_with_the_likely_one() -> None:
    """10.1.2.3/8 is more likely a slip than a wish to open all of 10.0.0.0/8, so it is asked back."""
    with pytest.raises(ServingError, match=r"10\.0\.0\.0/8"):
        FetchPolicy.parse(["10.1.2.3/8"])


def test_limits_are_taken_over() -> None:
    """Size, time and redirect limits given beside the entries are the policy's."""
    policy = FetchPolicy.parse(["localhost", "10.0.0.0/8"], max_bytes=7, timeout_s=1.5, max_redirects=0)
    assert (policy.max_bytes, policy.timeout_s, policy.max_redirects) == (7, 1.5, 0)
    assert policy.hosts == {"localhost"}
    assert [str(network) for network in policy.networks] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    "entry", ["file:", "file:///no/such/place", "file://host/srv", "file:///dev/null", "file:///dev?y", "file:///dev#y", "file:relative"]
)
def test_a_file_entry_must_be_a_directory(entry: str) -> None:
    """Missing directories, plain files, other hosts and relative paths are refused at the start, not at the first fetch."""
    with pytest.raises(ServingError) as caught:
        FetchPolicy.parse([entry])
    assert caught.value.kind is Kind.INVALID_INPUT


def test_paths_are_confined_to_their_root(tmp_path: Path) -> None:
    """Paths outside, beside or above a root have no place; those below it do, however they are written."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "database").mkdir()
    policy = FetchPolicy.parse([f"file://{tmp_path}/data"])
    data = tmp_path / "data"
    assert policy.inside(f"{data}/deep/x") == (data, "deep/x")
    assert policy.inside(f"{data}//deep/../deep/./x") == (data, "deep/x")
    assert policy.inside(str(data)) == (data, "")
    for outside in (f"{data}/../secret", f"{tmp_path}/database/x", f"{tmp_path}", "/etc/passwd", f"{data}/../../data/x"):
        assert policy.inside(outside) is None


def test_links_are_judged_by_where_they_lead(tmp_path: Path) -> None:
    """A link inside a root that leads out of it has no place; one that stays inside has; a root may itself be a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "escape").symlink_to(tmp_path / "out")
    (tmp_path / "real" / "alias").symlink_to("target")
    policy = FetchPolicy.parse([f"file://{tmp_path}/link"])
    assert policy.inside(f"{tmp_path}/link/alias") == (tmp_path / "real", "target")
    assert policy.inside(f"{tmp_path}/link/escape/x") is None
    assert policy.inside(f"{tmp_path}/real/alias") is None


def test_a_root_with_escapes_in_its_name_is_read(tmp_path: Path) -> None:
    """Percent escapes in --allow-fetch file:///DIR are undone, as they are in the URLs it is compared with."""
    (tmp_path / "with space").mkdir()
    policy = FetchPolicy.parse([f"file://{tmp_path}/with%20space"])
    assert policy.inside(f"{tmp_path}/with space/x") == (tmp_path / "with space", "x")


def test_the_whole_disk_can_be_a_root(tmp_path: Path) -> None:
    """file:/// opens everything that the server can read, which is how containers with only data in them are run."""
    policy = FetchPolicy.parse(["file:///"])
    assert policy.inside(f"{tmp_path}/x") == (Path("/"), f"{tmp_path}/x"[1:])


def test_only_one_final_dot_is_no_part_of_a_host() -> None:
    """`a.example.` is `a.example`; a second dot stays and makes the name wrong."""
    assert plain_host("A.Example.") == "a.example"
    assert plain_host("a..") == "a."


def test_the_public_internet_can_be_closed() -> None:
    """`none` leaves what the other entries name; private addresses keep their words."""
    policy = FetchPolicy.parse(["none", "models.example.com", "10.0.0.0/8"])
    public, private = ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("192.168.0.1")
    assert policy.refusal("www.example.com", public) == "public"
    assert policy.refusal("www.example.com", ipaddress.ip_address("2606:2800:220:1::1")) == "public"
    assert policy.refusal("www.example.com", ipaddress.ip_address("::ffff:93.184.216.34")) == "public"
    assert policy.refusal("www.example.com", private) == "private"
    assert policy.refusal("models.example.com", public) == ""
    assert policy.refusal("x", ipaddress.ip_address("10.1.2.3")) == ""
    assert CLOSED.refusal("www.example.com", public) == ""

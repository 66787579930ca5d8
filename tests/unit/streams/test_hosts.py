"""How brokers are reached: the parts of what an address names, and the files that TLS asks for."""

from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.streams.addresses import parse_stream
from dragoman.streams.hosts import host_port, tls_context


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("broker", ("broker", 1883)),
        ("broker:7", ("broker", 7)),
        ("10.0.0.1:7", ("10.0.0.1", 7)),
        ("[::1]", ("::1", 1883)),
        ("[fe80::1%eth0]:7", ("fe80::1%eth0", 7)),
    ],
)
def test_a_host_has_a_port_of_its_own_or_the_usual_one(where: str, found: tuple[str, int]) -> None:
    """Brackets of IPv6 belong to the address, and not to the host."""
    assert host_port(where, 1883) == found


@pytest.mark.parametrize("scheme", ["kafka", "mqtts"])
@pytest.mark.parametrize("option", ["ca", "cert"])
def test_files_that_are_no_certificates_are_refused(scheme: str, option: str, tmp_path: Path) -> None:
    """Every kind of stream says of its certificates the same: which stream, and that they cannot be used."""
    file = tmp_path / "letters.pem"
    file.write_text("no certificate")
    for path in (file, tmp_path / "absent.pem"):
        address = parse_stream(f"{scheme}://user:secret@broker/in?{option}={path}")
        with pytest.raises(ServingError, match=rf"certificates of the stream {scheme}://broker/in") as caught:
            tls_context(address)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert "secret" not in caught.value.message


def test_the_systems_authorities_are_trusted_without_an_own_one() -> None:
    """A context that looks at certificates and names, whatever the address says."""
    context = tls_context(parse_stream("mqtts://broker/in"))
    assert context.check_hostname

"""How brokers are reached: the parts of HOST:PORT, and TLS with files of our own."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dragoman.core.errors import Kind, ServingError
from dragoman.streams import Surroundings
from dragoman.streams.addresses import parse_stream
from dragoman.streams.hosts import host_port, tls_context
from dragoman.streams.mqtt import Mqtt


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With ca.pem, cert.pem, key.pem, and in locked.pem the key with a passphrase."""
    authority = trustme.CA()
    issued = authority.issue_cert("client@broker.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "locked.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    return tmp_path


def test_who_is_trusted(folder: Path) -> None:
    """The authority that is named and nobody else, by name; a certificate of one's own is shown."""
    address = parse_stream(f"mqtts://broker/in?ca={folder}/ca.pem&cert={folder}/cert.pem&key={folder}/key.pem")
    context = tls_context(address)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


def test_the_systems_authorities_are_trusted_without_one_of_our_own() -> None:
    """Certificates and names are looked at all the same."""
    context = tls_context(parse_stream("mqtts://broker/in"))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("options", ["ca={}/nothing.pem", "cert={}/cert.pem", "cert={}/cert.pem&key={}/locked.pem"])
def test_files_that_are_wrong(folder: Path, options: str) -> None:
    """They are refused when the server starts, by streams of every kind; nobody is asked for a passphrase at a terminal."""
    address = parse_stream("mqtts://user:hidden@broker/in?" + options.replace("{}", str(folder)))
    for make in (tls_context, lambda address: Mqtt(address, Surroundings("tests"))):
        with pytest.raises(ServingError, match="certificates of the stream") as caught:
            make(address)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert "hidden" not in caught.value.message

"""The TLS context of the listeners: what it agrees to, whom it believes, and how it explains files that are wrong."""

import re
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from dragoman.core.errors import Kind, ServingError
from dragoman.server.tls import server_context

NAME = "models.example"


class Files:
    """An authority and the files that it made: a certificate, its key, both in one, and the authority's own certificate."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        issued = self.ca.issue_cert(NAME)
        self.cert, self.key = str(folder / "cert.pem"), str(folder / "key.pem")
        self.both, self.authority = str(folder / "both.pem"), str(folder / "ca.pem")
        issued.private_key_pem.write_to_path(self.key)
        issued.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.ca.cert_pem.write_to_path(self.authority)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)

    def client(self, identity: trustme.CA | None = None) -> ssl.SSLContext:
        """A client that believes the authority and, on demand, shows a certificate of its own."""
        context = ssl.create_default_context(cafile=self.authority)
        if identity is not None:
            identity.issue_cert("client@models.example").configure_cert(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Fresh files in a directory of the test."""
    return Files(tmp_path)


def connect(server: ssl.SSLContext | None, client: ssl.SSLContext) -> ssl.SSLObject:
    """Both ends of a handshake in memory, and one byte over it: TLS 1.3 refuses a client's certificate only then. Raises as either end does."""
    assert server is not None
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=NAME)
    there = server.wrap_bio(up, down, server_side=True)
    pending = [here, there]
    while pending:
        for end in list(pending):
            try:
                end.do_handshake()
                pending.remove(end)
            except ssl.SSLWantReadError:
                continue
    there.write(b"x")
    assert here.read(1) == b"x"
    return here


def test_clients_connect(files: Files) -> None:
    """A client that believes the authority gets TLS 1.3, and HTTP/1.1 when it asks what is spoken."""
    client = files.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    connection = connect(server_context(files.cert, files.key), client)
    assert connection.version() == "TLSv1.3"
    assert connection.selected_alpn_protocol() == "http/1.1"


def test_key_and_certificate_may_share_a_file(files: Files) -> None:
    """Without --tls-key the private key is looked for beside the certificate."""
    assert connect(server_context(files.both), files.client()).version() == "TLSv1.3"


def test_tls_1_2_has_forward_secrecy(files: Files) -> None:
    """Older clients get TLS 1.2 with an ephemeral key exchange and authenticated encryption."""
    client = files.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    cipher = connect(server_context(files.cert, files.key), client).cipher()
    assert cipher is not None
    assert re.match(r"ECDHE-.*(GCM|CHACHA20)", cipher[0])


def test_weak_clients_are_refused(files: Files) -> None:
    """A client that offers only ciphers without forward secrecy finds none in common."""
    client = files.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES128-SHA256:AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError):
        connect(server_context(files.cert, files.key), client)


def test_tls_1_1_is_not_spoken(files: Files) -> None:
    """The lowest version is 1.2, whatever the library would allow."""
    context = server_context(files.cert, files.key)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_clients_can_be_asked_for_certificates(files: Files) -> None:
    """With --tls-client-ca only clients of these authorities connect: not those without a certificate, nor those of another authority."""
    assert connect(server_context(files.cert, files.key, files.authority), files.client(files.ca)).version()
    for stranger in (None, trustme.CA()):
        with pytest.raises(ssl.SSLError):
            connect(server_context(files.cert, files.key, files.authority), files.client(stranger))


def test_no_certificate_means_no_tls() -> None:
    """Without flags there is no context and the server speaks plain HTTP."""
    assert server_context("") is None


@pytest.mark.parametrize(("key", "client_ca"), [("key.pem", ""), ("", "ca.pem")])
def test_a_key_or_authority_alone_is_refused(key: str, client_ca: str) -> None:
    """Somebody who gives only these expects TLS, so a plain server would be worse than none."""
    assert "--tls-cert" in explained("", key, client_ca)


def explained(cert: str, key: str, client_ca: str = "") -> str:
    """The text about files that cannot be used."""
    with pytest.raises(ServingError) as caught:
        server_context(cert, key, client_ca)
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def test_missing_files_are_named(files: Files, tmp_path: Path) -> None:
    """Each of the three files is named with its flag when it is not there or is a directory."""
    gone = str(tmp_path / "gone.pem")
    assert explained(gone, files.key).startswith(f"--tls-cert {gone}: the file cannot be read: No such file")
    assert explained(files.cert, gone).startswith(f"--tls-key {gone}: the file cannot be read")
    assert explained(files.cert, files.key, gone).startswith(f"--tls-client-ca {gone}: the file cannot be read")
    assert "directory" in explained(str(tmp_path), files.key)


def test_swapped_and_wrong_files_are_explained(files: Files, tmp_path: Path) -> None:
    """A key in the place of the certificate and the reverse, empty files and binary ones are told what was expected."""
    der = tmp_path / "cert.der"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(Path(files.authority).read_text()))
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    assert f"--tls-cert {files.key}: expected a certificate in PEM form" in explained(files.key, files.cert)
    assert f"--tls-key {files.cert}: expected a private key in PEM form" in explained(files.cert, files.cert)
    assert f"--tls-cert {der}: expected a certificate in PEM form" in explained(str(der), files.key)
    assert f"--tls-client-ca {empty}: expected a certificate" in explained(files.cert, files.key, str(empty))
    assert f"--tls-cert {files.cert}: expected a private key" in explained(files.cert, "")


def test_damaged_files_are_named(files: Files, tmp_path: Path) -> None:
    """A file that has the lines of PEM and nonsense between them is named, whichever of the three it is."""
    cert = tmp_path / "broken-cert.pem"
    cert.write_text("-----BEGIN CERTIFICATE-----\nMIIBnonsense\n-----END CERTIFICATE-----\n")
    key = tmp_path / "broken-key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMIIBnonsense\n-----END PRIVATE KEY-----\n")
    assert f"--tls-cert {cert}: the certificate is damaged" in explained(str(cert), files.key)
    assert f"--tls-key {key}" in explained(files.cert, str(key))
    assert f"--tls-client-ca {cert}: the certificate is damaged" in explained(files.cert, files.key, str(cert))


def test_a_key_of_another_certificate_is_explained(files: Files, tmp_path: Path) -> None:
    """The commonest slip, a renewed certificate with the old key, is said in these words."""
    (tmp_path / "other").mkdir()
    other = Files(tmp_path / "other")
    assert explained(files.cert, other.key) == f"--tls-key {other.key}: the private key does not belong to the certificate {files.cert}"


def test_an_encrypted_key_is_refused_without_asking(files: Files, tmp_path: Path) -> None:
    """A key with a password would make the server wait at the terminal for ever; it is refused with the reason."""
    plain = serialization.load_pem_private_key(Path(files.key).read_bytes(), password=None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hunter2"))
    sealed = str(tmp_path / "sealed.pem")
    Path(sealed).write_bytes(plain.private_bytes(*form))
    text = explained(files.cert, sealed)
    assert f"--tls-key {sealed}: the private key is encrypted" in text

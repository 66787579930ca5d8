"""TLS for the listeners: one server context from the files of the command line, with errors that say which file is wrong and how."""

import ssl

from dragoman.core.errors import ServingError, invalid

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else."""


def server_context(cert: str, key: str = "", client_ca: str = "", *, flags: str = "--tls") -> ssl.SSLContext | None:
    """The context for --tls-cert, --tls-key and --tls-client-ca; None where no certificate is named.

    Without `key` the private key is in the certificate's file. With `client_ca` only clients with a certificate signed by one of these
    authorities can connect. INVALID_INPUT names the file that is missing, damaged, encrypted or does not fit.
    """
    if not cert:
        if key or client_ca:
            raise invalid(f"{flags}-key and {flags}-client-ca need {flags}-cert: the certificate that the server shows")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    key_flag, key_file = (f"{flags}-key", key) if key else (f"{flags}-cert", cert)
    _check_pem(f"{flags}-cert", cert, b"CERTIFICATE-----", "a certificate")
    _check_pem(key_flag, key_file, b"PRIVATE KEY-----", "a private key")
    _check_certificates(f"{flags}-cert", cert, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def encrypted() -> str:
        # Without this the library would ask for a password on the terminal and wait for ever.
        raise invalid(f"{key_flag} {key_file}: the private key is encrypted; give one without a password, readable by the server only")

    try:
        context.load_cert_chain(cert, key_file, encrypted)
    except ssl.SSLError as exc:
        raise _chain_error(exc, f"{flags}-cert {cert}", key_flag, key_file) from exc
    if client_ca:
        _check_pem(f"{flags}-client-ca", client_ca, b"CERTIFICATE-----", "a certificate")
        _check_certificates(f"{flags}-client-ca", client_ca, context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_pem(flag: str, path: str, marker: bytes, what: str) -> None:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as exc:
        raise invalid(f"{flag} {path}: the file cannot be read: {exc.strerror}") from exc
    if marker not in content:
        raise invalid(f"{flag} {path}: expected {what} in PEM form (text with a line -----BEGIN ...{marker.decode()})")


def _check_certificates(flag: str, path: str, context: ssl.SSLContext) -> None:
    """Reads every certificate of a file into the context as an authority."""
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as exc:
        raise invalid(f"{flag} {path}: the certificate is damaged: {_reason(exc)}") from exc


def _chain_error(exc: ssl.SSLError, cert: str, key_flag: str, key_file: str) -> ServingError:
    if exc.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
        return invalid(f"{key_flag} {key_file}: the private key does not belong to the certificate {cert.partition(' ')[2]}")
    return invalid(f"{cert} and {key_flag} {key_file} cannot be used: {_reason(exc)}")


def _reason(exc: ssl.SSLError) -> str:
    return exc.reason.lower().replace("_", " ") if exc.reason else "it cannot be parsed"

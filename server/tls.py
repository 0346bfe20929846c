"""TLS on the port of the server: certificates from files, which are read again when they change."""

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from runtime.actions import LogAction
from runtime.configuration import Configuration

logger = logging.getLogger(__name__)


class BadCertificate(Exception):
    """The files of the certificate cannot be used; the message says which and why."""


@dataclass(frozen=True)
class _Content:
    """The certificate chain, its key, and the authorities of client certificates, each in PEM."""

    chain: bytes
    key: bytes
    client_authorities: bytes | None

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        """The same for gRPC."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.client_authorities)


class CertificateFiles:
    """The files of a server's certificate.

    gRPC asks for changes at each handshake. So the next connection uses a new certificate, and connections that exist
    go on with the old one. Files that do not fit together change nothing; so the two may be replaced one by one.
    """

    def __init__(self, certificate: Path, key: Path, client_authorities: Path | None) -> None:
        """client_authorities: every client needs a certificate of one of these authorities; None: none needs one."""
        self._certificate = certificate
        self._key = key
        self._client_authorities = client_authorities
        self._state = self._read_state()
        self._content = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._content.for_grpc(),
            self._changed,  # type: ignore[arg-type]  # None: no change, as gRPC's documentation says
            require_client_authentication=self._client_authorities is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration if a file has changed since the last call; a thread of gRPC calls it."""
        state = self._read_state()
        if state == self._state:
            return None
        self._state = state
        try:
            content = self._read()
        except BadCertificate as error:
            logger.error("%s; the certificate before it stays in use", error, extra={"action": LogAction.CERTIFICATE})
            return None
        if content == self._content:
            return None
        self._content = content
        logger.info("the certificate was read again", extra={"action": LogAction.CERTIFICATE})
        return content.for_grpc()

    def _read_state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file is replaced or written."""
        states: list[tuple[int, int, int] | None] = []
        for path in (self._certificate, self._key, self._client_authorities):
            try:
                found = path.stat() if path is not None else None
            except OSError:
                found = None
            states.append(None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(states)

    def _read(self) -> _Content:
        """Reads the files. Raises BadCertificate where they cannot be used."""
        chain, key = _bytes_of(self._certificate), _bytes_of(self._key)
        authorities = None if self._client_authorities is None else _bytes_of(self._client_authorities)
        certificate = _first_certificate(chain, self._certificate)
        if authorities is not None and self._client_authorities is not None:
            _first_certificate(authorities, self._client_authorities)
        try:
            private = load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise BadCertificate(f"{self._key} has no private key in PEM without a password: {error}") from None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
            raise BadCertificate(f"the key in {self._key} is not the one of the certificate in {self._certificate}")
        return _Content(chain, key, authorities)


def certificate_files(configuration: Configuration) -> CertificateFiles | None:
    """The certificate of the configuration; None where the port has no TLS. Raises BadCertificate."""
    if configuration.tls_certificate is None or configuration.tls_key is None:
        return None
    return CertificateFiles(configuration.tls_certificate, configuration.tls_key, configuration.tls_client_ca)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from None


def _first_certificate(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise BadCertificate(f"{path} has no certificate in PEM") from None

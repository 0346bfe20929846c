"""TLS on the port of the server: certificates from files, which are read again when they change."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from runtime.actions import LogAction
from runtime.configuration import Configuration

logger = logging.getLogger(__name__)


class BadCertificate(Exception):
    """The files of the certificate cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate is valid."""

    start: datetime
    end: datetime


# The names of the files in metrics.
CHAIN, CLIENT_AUTHORITIES = "certificate", "client_ca"


@dataclass(frozen=True)
class _Content:
    """The certificate chain, its key, and the authorities of client certificates, each in PEM.

    validity: by the name of the file, of its certificate that ends first.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes | None
    validity: Mapping[str, Validity]

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
        self._certificate = self.certificate = certificate
        self._key = self.key = key
        self._client_authorities = client_authorities
        self._state = self._read_state()
        self._content = self._read()
        self._problem = ""  # what was logged last, so that not every handshake logs it
        # What `validity` has read. It shares nothing with `_changed`, which another thread calls.
        self._shown_state, self._shown = self._state, self._content.validity

    def validity(self) -> Mapping[str, Validity]:
        """By CHAIN and CLIENT_AUTHORITIES, the validity of the certificate that ends first, of the next connection.

        It asks the operating system for the state of the files, and reads them only if they have changed.
        """
        state = self._read_state()
        if state != self._shown_state:
            try:
                self._shown = self._read().validity
            except BadCertificate:
                return self._content.validity  # stays in use
            self._shown_state = state
        return self._shown

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._content.for_grpc(),
            self._changed,  # type: ignore[arg-type]  # None: no change, as gRPC's documentation says
            require_client_authentication=self._client_authorities is not None,
        )

    def client_authorities(self) -> bytes | None:
        """The authorities of client certificates, in PEM, as last read."""
        return self._content.client_authorities

    def have_changed(self) -> bool:
        """Whether usable files have changed since the last call; the new ones are read then."""
        return self._changed() is not None

    def forget(self) -> None:
        """Has the next call of `have_changed` read the files again."""
        self._state, self._content = (), _Content(b"", b"", self._content.client_authorities, self._content.validity)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration if a file has changed since the last call; a thread of gRPC calls it."""
        state = self._read_state()
        if state == self._state:
            return None
        try:
            content = self._read()
        except BadCertificate as error:
            # Read again at the next handshake: a reason such as too many open files changes no file when it ends.
            if str(error) != self._problem:
                self._problem = str(error)
                logger.error(
                    "%s; the certificate before it stays in use", error, extra={"action": LogAction.CERTIFICATE}
                )
            return None
        self._state, self._problem = state, ""
        if content == self._content:
            return None
        self._content = content
        logger.info("the certificate was read again", extra={"action": LogAction.CERTIFICATE})
        return content.for_grpc()

    def _read_state(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        """What changes when a file is replaced or written, or gets other permissions."""
        states: list[tuple[int, int, int, int] | None] = []
        for path in (self._certificate, self._key, self._client_authorities):
            try:
                found = path.stat() if path is not None else None
            except OSError:
                found = None
            states.append(
                None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            )
        return tuple(states)

    def _read(self) -> _Content:
        """Reads the files. Raises BadCertificate where they cannot be used."""
        chain, key = _bytes_of(self._certificate), _bytes_of(self._key)
        authorities = None if self._client_authorities is None else _bytes_of(self._client_authorities)
        certificates = _certificates(chain, self._certificate)
        validity = {CHAIN: _first_to_end(certificates)}
        if authorities is not None and self._client_authorities is not None:
            validity[CLIENT_AUTHORITIES] = _first_to_end(_certificates(authorities, self._client_authorities))
        public = _public_key(key, self._key)
        matching = [certificate for certificate in certificates if _der(certificate.public_key()) == public]
        if not matching:
            raise BadCertificate(f"the key in {self._key} is not the one of the certificate in {self._certificate}")
        if matching[0] is not certificates[0]:
            raise BadCertificate(
                f"{self._certificate} does not begin with the server's certificate: put those of its issuers after it"
            )
        return _Content(chain, key, authorities, validity)


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


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadCertificate(f"{path} has no certificate in PEM") from None


def _first_to_end(certificates: Sequence[x509.Certificate]) -> Validity:
    first = min(certificates, key=lambda one: one.not_valid_after_utc)
    return Validity(first.not_valid_before_utc, first.not_valid_after_utc)


def _public_key(pem: bytes, path: Path) -> bytes:
    """The public key of a private one, of a kind with which gRPC serves all its clients."""
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"{path} has no private key in PEM without a password: {error}") from None
    if isinstance(private, ec.EllipticCurvePrivateKey):
        is_usable = isinstance(private.curve, (ec.SECP256R1, ec.SECP384R1))
    else:
        is_usable = isinstance(private, rsa.RSAPrivateKey)
    if not is_usable:
        raise BadCertificate(
            f"gRPC cannot use the key in {path}: create an RSA key, or one of the curve P-256 or P-384"
        )
    return _der(private.public_key())


def _der(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

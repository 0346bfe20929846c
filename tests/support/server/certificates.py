"""Certificates for tests: an authority, and what it signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "localhost"

ServerKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Signed:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, certificate: Path, key: Path) -> None:
        """Writes both files."""
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)


class Authority:
    """Signs certificates of servers and clients."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        self._certificate = self._sign(self._name, self._key.public_key(), (), timedelta(days=2), authority=True)

    @property
    def pem(self) -> bytes:
        """The certificate of the authority."""
        return self._certificate.public_bytes(Encoding.PEM)

    def server(self, key: ServerKey | None = None, lifetime: timedelta = timedelta(days=1)) -> Signed:
        """A certificate for HOST. key: None: a new one of the curve P-256."""
        return self._signed("server", (x509.DNSName(HOST),), lifetime, key)

    def client(self, *names: str, lifetime: timedelta = timedelta(days=1)) -> Signed:
        """A certificate with these names: URIs, where they contain ://, and DNS names."""
        return self.client_with([_general_name(name) for name in names], lifetime)

    def client_with(self, names: Sequence[x509.GeneralName], lifetime: timedelta = timedelta(days=1)) -> Signed:
        """A certificate with names of any kind."""
        return self._signed("client", names, lifetime)

    def _signed(
        self, name: str, names: Sequence[x509.GeneralName], lifetime: timedelta, key: ServerKey | None = None
    ) -> Signed:
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(name), key.public_key(), names, lifetime)
        return Signed(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def _sign(
        self,
        name: x509.Name,
        key: CertificatePublicKeyTypes,
        names: Sequence[x509.GeneralName],
        lifetime: timedelta,
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)  # TLS compares it with the time of the machine
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)

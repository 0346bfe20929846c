"""TLS for a port that is not gRPC's, from the same files, which are read again when they change."""

import logging
import ssl

from runtime.actions import LogAction
from server.tls import CertificateFiles

logger = logging.getLogger(__name__)


def renewed_context(files: CertificateFiles) -> ssl.SSLContext:
    """A context for a port: each handshake uses the files as they are then.

    Files that cannot be used change nothing. The files must be an object of their own: each notices a change once.
    """
    newest = _context(files)

    def renew(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        nonlocal newest
        if files.have_changed():
            try:
                newest = _context(files)
            except (
                OSError,
                ValueError,
            ) as error:  # ssl.SSLError is an OSError; the files changed since they were read
                files.forget()
                logger.warning(
                    "the certificate cannot be loaded: %s; the one before it stays in use",
                    error,
                    extra={"action": LogAction.CERTIFICATE},
                )
        connection.context = newest

    # OpenSSL calls it at each handshake, also where the client names no server.
    shown = _context(files)
    shown.sni_callback = renew
    return shown


def _context(files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key)
    authorities = files.client_authorities()
    if authorities is not None:
        context.load_verify_locations(cadata=authorities.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    # A session that is resumed would not check the client's certificate against authorities that changed since.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context

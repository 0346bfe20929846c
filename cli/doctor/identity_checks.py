"""Checks of identity: API keys that expire, and certificates that end."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from cli.doctor.findings import Check, Examined, Finding, NotChecked, ok, problem, shown_age, warning
from server.tls import BadCertificate, certificate_files
from store.diagnosis import credentials

KEY_WARNING = timedelta(days=14)
KEY_PROBLEM = timedelta(days=1)
EXPIRED_IN_USE = timedelta(days=1)  # a key that was used this short before it expired is missed by its caller
CERTIFICATE_WARNING, CERTIFICATE_PROBLEM = timedelta(days=21), timedelta(days=3)
# And so much of its lifetime is left: certificates that live for hours are replaced often.
WARNING_PART, PROBLEM_PART = 5, 20


async def keys(examined: Examined) -> Sequence[Finding]:
    """API keys that expire soon, or have just expired while they were in use."""
    if not await credentials.has_keys(examined.connection):
        return [ok("no API key was ever created: servers listen on loopback only, and callers need none")]
    now = examined.now()
    found = await credentials.expiring_keys(examined.connection, now - EXPIRED_IN_USE, now + KEY_WARNING)
    findings = []
    for one in found[: credentials.SHOWN]:
        left = one.expire_time - now
        name = f"{one.key_id} of {one.organization}{f' ({one.display_name})' if one.display_name else ''}"
        todo = f"tidemark keys rotate {one.key_id} --organization {one.organization} --overlap 7d"
        if left <= timedelta():
            if one.last_use_time is None or one.last_use_time < one.expire_time - EXPIRED_IN_USE:
                continue
            text = f"the key {name} expired {shown_age(-left)} ago, and was in use"
            findings.append(problem(text, "its callers are refused with UNAUTHENTICATED", todo))
            continue
        text = f"the key {name} expires in {shown_age(left)}"
        why = "from then on its callers are refused with UNAUTHENTICATED"
        findings.append(problem(text, why, todo) if left < KEY_PROBLEM else warning(text, why, todo))
    if len(found) > credentials.SHOWN:
        text = f"more than {credentials.SHOWN} keys expire within {KEY_WARNING.days} days"
        findings.append(warning(text, "as above", "tidemark keys list"))
    return findings or [ok(f"no API key expires within {KEY_WARNING.days} days")]


async def certificates(examined: Examined) -> Sequence[Finding]:
    """Whether the certificate files of this configuration can be used, and for how long."""
    settings = examined.settings
    if settings.tls_certificate is None:
        return [ok("TIDEMARK_TLS_CERTIFICATE is not set here: the port of a server has no TLS, or a proxy has")]
    try:
        certificate_files(settings)
    except BadCertificate as error:
        why = "a server with these files does not start; one that runs goes on with the former certificate"
        return [
            problem(str(error), why, "put files that fit together into TIDEMARK_TLS_CERTIFICATE and TIDEMARK_TLS_KEY")
        ]
    findings = _of_file(settings.tls_certificate, "TIDEMARK_TLS_CERTIFICATE", examined.now())
    if settings.tls_client_ca is not None:
        findings += _of_file(settings.tls_client_ca, "TIDEMARK_TLS_CLIENT_CA", examined.now())
    return findings


def _of_file(path: Path, variable: str, now: datetime) -> list[Finding]:
    """The certificate of a file that ends first."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NotChecked(f"{path} cannot be read: {error}") from None
    first = min(found, key=lambda one: one.not_valid_after_utc)
    left = first.not_valid_after_utc - now
    name = f"{variable} ({first.subject.rfc4514_string()})"
    starts = max(one.not_valid_before_utc for one in found)
    why = "clients refuse the connection" if "CLIENT" not in variable else "no client certificate is accepted"
    todo = f"replace {path}: servers read it again at the next connection"
    if starts > now:
        return [problem(f"{name} is valid only from {starts:%Y-%m-%d}", why, todo)]
    if left <= timedelta():
        return [problem(f"{name} ended {shown_age(-left)} ago", why, todo)]
    text, lifetime = f"{name} ends in {shown_age(left)}", first.not_valid_after_utc - first.not_valid_before_utc
    if left >= min(CERTIFICATE_WARNING, lifetime / WARNING_PART):
        return [ok(text)]
    is_problem = left < min(CERTIFICATE_PROBLEM, lifetime / PROBLEM_PART)
    return [problem(text, why, todo) if is_problem else warning(text, why, todo)]


CHECKS = (
    Check("keys.expiry", "API keys that expire soon", keys),
    Check("certificates.expiry", "certificates of the server and of client authorities that end soon", certificates),
)

"""Checks of webhooks: endpoints that fail or were disabled, and the keys of their secrets."""

from collections.abc import Sequence
from datetime import timedelta

from cli.doctor.findings import Check, Examined, Finding, by_age, ok, problem, shown_age, warning
from runtime.master_keys import KEY_FILE, LOCAL_KEY_ID, KeyFileUnusable, master_keys
from store.diagnosis import credentials, endpoints
from webhooks.health import BREAKER_THRESHOLD, DISABLE_AFTER

FAILING_WARNING, FAILING_PROBLEM = timedelta(minutes=5), timedelta(days=1)


async def failing(examined: Examined) -> Sequence[Finding]:
    """Endpoints whose attempts fail."""
    found = await endpoints.failing(examined.connection)
    findings = []
    for one in found[: endpoints.SHOWN]:
        age = timedelta() if one.since is None else examined.now() - one.since
        error = f"; the last one: {one.error}" if one.error else ""
        findings.append(
            by_age(
                age,
                f"{one.endpoint_id} of {one.organization} fails for {shown_age(age)}, {one.failures:,} times{error}",
                f"after {BREAKER_THRESHOLD} failures attempts pause; after {DISABLE_AFTER.days} days it is disabled",
                f"repair the receiver; ListAttempts shows its answers; then RecoverEndpoint {one.endpoint_id}",
                warn=FAILING_WARNING,
                act=FAILING_PROBLEM,
            )
        )
    if len(found) > endpoints.SHOWN:
        findings.append(
            warning(
                f"more than {endpoints.SHOWN} endpoints fail",
                "perhaps this network cannot be left",
                "check proxies and DNS of the notifiers",
            )
        )
    return findings or [ok("no enabled endpoint fails")]


async def disabled(examined: Examined) -> Sequence[Finding]:
    """Endpoints that Tidemark disabled."""
    found = await endpoints.disabled(examined.connection)
    findings = [
        warning(
            f"{one.endpoint_id} of {one.organization} was disabled: {one.disable_reason}",
            "it gets no notifications" + (", its receiver answered 410" if one.disable_reason == "GONE" else ""),
            f"EnableEndpoint {one.endpoint_id}, then RecoverEndpoint; or DeleteEndpoint",
        )
        for one in found[: endpoints.SHOWN]
    ]
    if len(found) > endpoints.SHOWN:
        findings.append(warning(f"more than {endpoints.SHOWN} endpoints were disabled", "as above", "ListEndpoints"))
    return findings or [ok("Tidemark has disabled no endpoint")]


async def secret_keys(examined: Examined) -> Sequence[Finding]:
    """Secrets that no configured key decrypts."""
    try:
        given = _key_ids(examined)
    except KeyFileUnusable as error:
        return [problem(str(error), "no webhook can be signed", "restore the file from a backup")]
    found = await credentials.stored_secrets(examined.connection, given)
    findings = [
        problem(
            f"{number:,} secrets are encrypted with the key {key_id!r}, which is not given here",
            "a notifier without the key cannot sign their webhooks, and does not send them",
            f"add {key_id}:… to TIDEMARK_SECRET_KEYS of servers and notifiers; then tidemark secrets reencrypt",
        )
        for key_id, number in found.without_key.items()
    ]
    if found.in_plain_text:
        text = f"{found.in_plain_text:,} secrets are stored in plain text"
        findings.append(warning(text, "a backup contains them", "tidemark secrets reencrypt"))
    return findings or [
        ok(f"{found.number:,} secrets are encrypted with the keys that are given here ({len(given)})")
    ]


def _key_ids(examined: Examined) -> list[str]:
    """The ids of the given master keys. Makes no key file."""
    settings = examined.settings
    if examined.is_embedded and not (settings.data_directory / KEY_FILE).exists():
        return [key_id for key_id, _ in settings.secret_keys] or [LOCAL_KEY_ID]
    return [key_id for key_id, _ in master_keys(settings)]


CHECKS = (
    Check("endpoints.failing", "endpoints whose attempts fail, and why", failing),
    Check("endpoints.disabled", "endpoints that Tidemark disabled", disabled),
    Check("secrets.keys", "webhook secrets that no given key decrypts", secret_keys),
)

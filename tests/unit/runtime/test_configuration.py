"""Settings: defaults, units, checks, and their documentation."""

import base64
import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from runtime.configuration import CLIENT_SETTINGS, Configuration, ConfigurationError, load

KEY = base64.b64encode(b"k" * 32).decode()
DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_empty_environment_gives_the_defaults() -> None:
    assert load({}) == Configuration()
    assert load({"TIDEMARK_LISTEN": "", "TIDEMARK_POOL_SIZE": "  "}) == Configuration()


def test_settings_are_read_in_their_units() -> None:
    configuration = load(
        {
            "TIDEMARK_DATABASE_URL": "postgresql://tide@db.internal/tidemark",
            "TIDEMARK_LISTEN": "[::1]:0",
            "TIDEMARK_GRACE_DAYS": "10",
            "TIDEMARK_HEARTBEAT_SECONDS": "0.5",
            "TIDEMARK_REFLECTION": "off",
            "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "10.1.0.0/16, fd00::/8",
            "TIDEMARK_LOG_LEVEL": "DEBUG",
        }
    )
    assert (configuration.listen_host, configuration.listen_port) == ("::1", 0)
    assert configuration.grace == timedelta(days=10)
    assert configuration.heartbeat == 0.5
    assert configuration.reflection is False
    assert configuration.webhook_allow_networks == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert configuration.log_level == "debug"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TIDEMARK_DATABASE_URL", "mysql://x", "is not the URL of a PostgreSQL server"),
        ("TIDEMARK_LISTEN", "50051", "write host:port"),
        ("TIDEMARK_LISTEN", "localhost:70000", "write host:port"),
        ("TIDEMARK_POOL_SIZE", "many", "write a number of connections"),
        ("TIDEMARK_POOL_SIZE", "0", "between 4 and 200"),
        ("TIDEMARK_REFLECTION", "perhaps", "write true or false"),
        ("TIDEMARK_WEBHOOK_ALLOW_CIDRS", "10.1.2.3/16", "has host bits set"),
        ("TIDEMARK_NOTIFIER_LISTEN", "9464", "write host:port"),
        ("TIDEMARK_SECRET_KEYS", "2026:dG9vIHNob3J0", "its key number 1 is not"),
        ("TIDEMARK_SECRET_KEYS", KEY, "its key number 1 is not"),
        ("TIDEMARK_SECRET_KEYS", f"a:{KEY},a:{KEY}", "its key number 2 is not"),
        ("TIDEMARK_LOG_FORMAT", "xml", "choose one of json, text"),
        ("TIDEMARK_RETENTION_DAYS", "3", "between 35"),
        ("TIDEMARK_NOTIFICATION_RETENTION_DAYS", "29", "must not be less than TIDEMARK_DELIVERY_RETENTION_DAYS"),
        ("TIDEMARK_LISTN", "127.0.0.1:1", "did you mean TIDEMARK_LISTEN?"),
        ("TIDEMARK_SOMETHING_ELSE_ALTOGETHER", "1", "is not a setting of Tidemark"),
    ],
)
def test_invalid_setting_is_named_with_a_correction(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load({name: value})
    (problem,) = raised.value.problems
    assert name in problem
    assert message in problem


def test_master_keys_keep_their_order_and_are_never_shown() -> None:
    settings = load({"TIDEMARK_SECRET_KEYS": f"new:{KEY}, old:{KEY}"})
    assert [key_id for key_id, _ in settings.secret_keys] == ["new", "old"]
    assert settings.secret_keys[0][1] == b"k" * 32
    assert "kkkk" not in repr(settings)
    with pytest.raises(ConfigurationError) as raised:
        load({"TIDEMARK_SECRET_KEYS": f"{KEY}:x"})
    assert KEY not in str(raised.value)


def test_all_invalid_settings_are_listed_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load({"TIDEMARK_LISTEN": "x", "TIDEMARK_POOL_SIZE": "y", "TIDEMARK_LOG_LEVEL": "z"})
    assert len(raised.value.problems) == 3
    assert all(problem in str(raised.value) for problem in raised.value.problems)


def test_retention_must_exceed_the_grace() -> None:
    with pytest.raises(ConfigurationError, match="RETENTION_DAYS must exceed"):
        load({"TIDEMARK_GRACE_DAYS": "60", "TIDEMARK_RETENTION_DAYS": "60"})


def test_document_lists_every_setting_and_no_other() -> None:
    source = (Path(__file__).parents[3] / "runtime" / "configuration.py").read_text()
    read = set(re.findall(r'\.(?:raw|flag|choice|number|path|texts|optional_address)\(\s*"([A-Z_]+)"', source))
    documented = set(re.findall(r"^\| `TIDEMARK_([A-Z_]+)`", DOCUMENT.read_text(), re.MULTILINE))
    of_clients = {"SERVER", "KEY", "CONTEXT", "TLS", "SERVER_CA", "CLIENT_CERTIFICATE", "CLIENT_KEY"}
    assert documented - of_clients == read
    assert {f"TIDEMARK_{name}" for name in of_clients} == CLIENT_SETTINGS


@pytest.mark.parametrize("given", ["TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA"])
def test_files_of_tls_belong_together(given: str) -> None:
    with pytest.raises(ConfigurationError, match="TLS_CERTIFICATE and TIDEMARK_TLS_KEY"):
        load({f"TIDEMARK_{given}": "/tls.pem"})


SERVICE_LINKS = {
    "SERVICE_HOST": "10.96.0.7",
    "SERVICE_PORT": "50051",
    "SERVICE_PORT_GRPC": "50051",
    "PORT": "tcp://10.96.0.7:50051",
    "PORT_50051_TCP": "tcp://10.96.0.7:50051",
    "PORT_50051_TCP_PROTO": "tcp",
    "PORT_50051_TCP_PORT": "50051",
    "PORT_50051_TCP_ADDR": "10.96.0.7",
    "PORT_53_UDP": "udp://[fd00::7]:53",
}


@pytest.mark.parametrize("service", ["TIDEMARK", "TIDEMARK_SERVER", "TIDEMARK_NOTIFIER", "TIDEMARK_LISTEN"])
def test_service_links_of_kubernetes_are_not_settings(service: str) -> None:
    links = {f"{service}_{end}": value for end, value in SERVICE_LINKS.items()}
    loaded = load({**links, "TIDEMARK_NOTIFIER_LISTEN": "127.0.0.1:9464", "TIDEMARK_POOL_SIZE": "7"})
    assert loaded.notifier_listen == ("127.0.0.1", 9464)
    assert loaded.pool_size == 7
    assert loaded.listen_port == 50051


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEMARK_PORT", "50051"),
        ("TIDEMARK_PORT", "tcp://server.internal:50051"),
        ("TIDEMARK_SERVICE_HOST", "0.0.0.0:50051"),
        ("TIDEMARK_SERVICE_PORT", "grpc"),
        ("TIDEMARK_PORT_50051_TCP_PROTO", "http"),
        ("TIDEMARK_LISTN", "10.96.0.7"),
        ("TIDEMARK_NOTIFIER_LISTENS", "tcp://10.96.0.7:9464"),
    ],
)
def test_setting_that_only_resembles_a_service_link_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is not a setting"):
        load({name: value})


def test_no_setting_has_the_name_of_a_service_link() -> None:
    documented = set(re.findall(r"`(TIDEMARK_[A-Z_]+)`", DOCUMENT.read_text()))
    ends = ("_PORT", "_SERVICE_HOST", "_PROTO", "_ADDR", "_TCP", "_UDP")
    assert not [name for name in documented if name.endswith(ends) or "_SERVICE_PORT" in name]

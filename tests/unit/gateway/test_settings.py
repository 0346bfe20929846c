"""The settings of the HTTP port: what cannot be used is named before anything starts."""

import pytest

from cli.console import ConfigurationProblem
from cli.serving.http_options import http_front
from runtime.configuration import ConfigurationError, load


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"TIDEMARK_HTTP_LISTEN": "8080"}, "TIDEMARK_HTTP_LISTEN is '8080'"),
        ({"TIDEMARK_HTTP_LISTEN": ":0"}, "write host:port"),
        ({"TIDEMARK_HTTP_ALLOW_ORIGINS": "app.example"}, "write origins such as"),
        ({"TIDEMARK_HTTP_ALLOW_ORIGINS": "https://app.example/"}, "write origins such as"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        load(settings)


def test_settings() -> None:
    read = load(
        {
            "TIDEMARK_HTTP_LISTEN": "[::1]:0",
            "TIDEMARK_HTTP_ALLOW_ORIGINS": "https://app.example, http://localhost:3000,*",
        }
    )
    assert read.http_listen == ("::1", 0)
    assert read.http_allow_origins == ("https://app.example", "http://localhost:3000", "*")
    assert load({}).http_listen is None


def test_a_mapping_that_cannot_be_used_is_named() -> None:
    settings = load({"TIDEMARK_HTTP_LISTEN": "127.0.0.1:0", "TIDEMARK_CLOUDEVENTS_MAPPING": "/nowhere"})
    with pytest.raises(ConfigurationProblem, match="TIDEMARK_CLOUDEVENTS_MAPPING: /nowhere cannot be read"):
        http_front(settings, lambda host, port: None)
    assert http_front(load({}), lambda host, port: None) is None

"""Contexts: their file, which server is chosen, and where a key goes."""

import json
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.console import ConfigurationProblem
from cli.contexts.choice import choose, key_of
from cli.contexts.storage import Context, load, path_of_file
from cli.main import tidemark
from runtime.configuration import CLIENT_SETTINGS, DEFAULT_LISTEN


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without contexts, and an environment without settings."""
    for name in (*CLIENT_SETTINGS, "TIDEMARK_LISTEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str, text: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(tidemark, ["context", *arguments], input=text)
    assert result.exit_code == code, result.output
    return result


def test_contexts_are_set_listed_used_shown_and_deleted() -> None:
    assert "there are no contexts" in run("list").stderr
    assert "is set and in use" in run("set", "local", "--server", "127.0.0.1:50051").stderr
    run("set", "prod", "--server", "prod.example:443", "--key", "-", "--tls", text="tmk_0123456789abcdef\n")
    listed = run("list").stdout.splitlines()
    assert listed == ["* local  127.0.0.1:50051", "  prod   prod.example:443  key, TLS"]
    run("use", "prod")
    shown = run("show").stdout
    assert "prod.example:443" in shown
    assert "tmk_0123456789" not in shown + run("show", "prod").stdout
    assert "…cdef" in shown
    run("set", "prod", "--key-command", "pass show tidemark")
    assert load().by_name["prod"] == Context("prod.example:443", key_command="pass show tidemark", tls=True)
    assert "no context is in use now" in run("delete", "prod").stderr
    assert load().current == ""
    run("use", "local")
    run("use", "-")
    assert load().current == ""


def test_a_context_with_a_key_is_not_deleted_unasked() -> None:
    run("set", "prod", "--server", "prod.example:443", "--key", "tmk_secret")
    assert "add --yes" in run("delete", "prod", code=2).stderr
    assert load().by_name["prod"].key == "tmk_secret"
    run("delete", "prod", "--yes")
    assert not load().by_name


@pytest.mark.parametrize("form", ["--json", "--yaml"])
def test_programs_read_the_list_without_keys(form: str) -> None:
    assert yaml.safe_load(run("list", form).stdout) == {"contexts": []}
    run("set", "local", "--server", "127.0.0.1:50051")
    run("set", "prod", "--server", "prod.example:443", "--key", "tmk_0123456789abcdef", "--tls")
    printed = run("list", form).stdout
    assert "tmk_0123456789" not in printed
    assert yaml.safe_load(printed) == {
        "contexts": [
            {"name": "local", "server": "127.0.0.1:50051", "in_use": True},
            {"name": "prod", "server": "prod.example:443", "key": "…cdef", "tls": True, "in_use": False},
        ]
    }


def test_the_file_is_readable_by_its_user_only_and_refused_otherwise() -> None:
    run("set", "prod", "--server", "prod.example:443", "--key", "tmk_secret")
    path = path_of_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["contexts.json"]
    path.chmod(0o640)
    assert f"chmod 600 {path}" in run("list", code=2).stderr


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"contexts": []}', '{"contexts": {"a": {"server": 5}}}', '{"contexts": {}, "current": 1}'],
)
def test_a_damaged_file_is_reported(text: str) -> None:
    path_of_file().parent.mkdir(parents=True)
    path_of_file().write_text(text)
    assert "is damaged" in run("list", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "bad name", "--server", "a:1"), "write 1 to 63 letters"),
        (("set", "a"), "needs --server"),
        (("set", "a", "--server", "nowhere"), "is not an address"),
        (("set", "a", "--server", "a:1", "--key", "tmk x"), "this is not an API key"),
        (("set", "a", "--server", "a:1", "--key", "k", "--key-command", "c"), "exclude each other"),
        (("set", "a", "--server", "a:1", "--client-key", "f"), "belong together"),
        (("use", "none"), "there is no context 'none'"),
        (("delete", "none"), "there is no context 'none'"),
    ],
)
def test_what_cannot_be_a_context_is_refused(arguments: tuple[str, ...], words: str) -> None:
    assert words in run(*arguments, code=2).stderr


A = {"server": "a:1", "key": "ka", "tls": True}
B = {"server": "b:1", "key": "kb"}


@pytest.mark.parametrize(
    ("options", "name", "environment", "server", "key", "tls"),
    [
        ({}, None, {}, "a:1", "ka", True),
        ({}, "b", {}, "b:1", "kb", False),
        ({}, None, {"CONTEXT": "b"}, "b:1", "kb", False),
        ({}, "a", {"CONTEXT": "b"}, "a:1", "ka", True),
        # The environment replaces the context in use, whose key does not go to another server.
        ({}, None, {"SERVER": "c:1"}, "c:1", "", False),
        ({}, None, {"SERVER": "c:1", "KEY": "kc"}, "c:1", "kc", False),
        ({}, None, {"KEY": "kc"}, "a:1", "kc", True),
        # A context that an option names replaces the environment.
        ({}, "b", {"SERVER": "c:1", "KEY": "kc"}, "b:1", "kb", False),
        # Options replace both.
        ({"server": "d:1"}, None, {"KEY": "kc"}, "d:1", "kc", False),
        ({"server": "d:1"}, "a", {}, "d:1", "", False),
        ({"server": "a:1"}, "a", {}, "a:1", "ka", True),
        ({"key": "kd"}, "a", {}, "a:1", "kd", True),
        ({"key": "kd"}, None, {"SERVER": "c:1"}, "c:1", "kd", False),
    ],
)
def test_options_the_environment_and_contexts_name_the_server_in_this_order(
    options: dict[str, str],
    name: str | None,
    environment: dict[str, str],
    server: str,
    key: str,
    tls: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path_of_file().parent.mkdir(parents=True)
    path_of_file().write_text(json.dumps({"current": "a", "contexts": {"a": A, "b": B}}))
    path_of_file().chmod(0o600)
    for variable, value in environment.items():
        monkeypatch.setenv(f"TIDEMARK_{variable}", value)
    chosen = choose(Context(**options), name).context  # type: ignore[arg-type]
    assert (chosen.server, chosen.key, chosen.tls) == (server, key, tls)


def test_without_a_context_the_server_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(Context(), None).context.server == DEFAULT_LISTEN
    monkeypatch.setenv("TIDEMARK_LISTEN", "127.0.0.1:7")
    assert choose(Context(), None).context.server == "127.0.0.1:7"
    monkeypatch.setenv("TIDEMARK_CONTEXT", "none")
    with pytest.raises(ConfigurationProblem, match="there is no context 'none'"):
        choose(Context(), None)


def test_a_key_command_runs_without_a_shell_and_must_print_a_key(tmp_path: Path) -> None:
    assert key_of(Context(key_command="printf '%s\n' tmk_abc")) == "tmk_abc"
    assert key_of(Context(key="tmk_own")) == "tmk_own"
    marker = tmp_path / "marker"
    key_of(Context(key_command=f"echo key; touch {marker}"))
    assert not marker.exists()
    for command in ("false", "true", "no-such-program-anywhere", "echo 'unclosed"):
        with pytest.raises(ConfigurationProblem, match="key command"):
            key_of(Context(key_command=command))


def test_a_probe_of_a_user_without_a_readable_home_uses_no_context(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "tidemark").write_text("a file in place of the folder")
    assert choose(Context(), None).context.server == DEFAULT_LISTEN
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", without_a_home)
    assert choose(Context(), None).context.server == DEFAULT_LISTEN
    assert "this user has no home" in run("list", code=2).stderr


def without_a_home() -> Path:
    raise RuntimeError("Could not determine home directory.")

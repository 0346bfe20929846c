"""The group of commands, and the errors that it reports before a command starts."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from cli.client.connection import Address, ClientTls
from cli.client.errors import error_reason
from cli.connection.options import call_problem
from cli.main import COMMANDS, tidemark
from cli.serving.settings import first_line
from cli.serving.up import grpcurl_tls
from runtime.configuration import Configuration
from store.postgres.addresses import shown


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(tidemark, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name: str) -> None:
    result = CliRunner().invoke(tidemark, [name, "--help"])
    assert result.exit_code == 0
    assert f"tidemark {name}" in result.output


def test_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(tidemark, ["fly"]).exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "worker-1"], "--nodes needs --citus"),
        (["--plan", "--citus"], "--plan shows migrations only"),
        (["--citus", "--nodes", "worker-1:0"], "'worker-1:0' is not host or host:port"),
    ],
)
def test_options_of_migrate_that_contradict_each_other_are_a_usage_error(options: list[str], message: str) -> None:
    result = CliRunner().invoke(tidemark, ["migrate", *options])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("command", [["up"], ["serve"], ["notify"], ["migrate"], ["keys", "list"]])
def test_invalid_settings_are_all_listed_and_the_command_ends_with_2(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_LISTEN", "nowhere")
    monkeypatch.setenv("TIDEMARK_POOL_SIZE", "many")
    monkeypatch.setenv("TIDEMARK_LISTENN", "1")
    result = CliRunner().invoke(tidemark, command)
    assert result.exit_code == 2
    for name in ("TIDEMARK_LISTEN is 'nowhere'", "TIDEMARK_POOL_SIZE is 'many'", "did you mean TIDEMARK_LISTEN?"):
        assert name in result.output


@pytest.mark.parametrize("command", [["serve"], ["notify"], ["migrate"], ["keys", "list"], ["up"]])
def test_unreachable_database_is_shown_without_its_password(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", "postgresql://operator:hunter2@127.0.0.1:1/usage")
    monkeypatch.setenv("TIDEMARK_LISTEN", "127.0.0.1:0")  # `up` refuses a port that another process has
    monkeypatch.setenv("TIDEMARK_CONSOLE_LISTEN", "127.0.0.1:0")
    result = CliRunner().invoke(tidemark, command)
    assert result.exit_code == 1
    assert "127.0.0.1:1/usage" in result.output
    assert "check TIDEMARK_DATABASE_URL" in result.output
    assert "hunter2" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://user:secret@db.example:6432/usage?sslmode=require", "db.example:6432/usage"),
        ("postgresql://db.example/usage", "db.example/usage"),
        ("postgresql://postgres:@/postgres?host=/run/pg", "/run/pg/postgres"),
        ("postgresql://db.example:no/usage", "the address in TIDEMARK_DATABASE_URL"),
    ],
)
def test_database_address_is_shown_without_credentials(url: str, where: str) -> None:
    assert shown(url) == where


def test_first_line_of_an_error_is_its_message_or_its_class() -> None:
    assert first_line(ValueError("\n one\n two")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_replay_lists_the_columns_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text("account,tokens\nacme,1\n")
    result = CliRunner().invoke(tidemark, ["replay", str(path), "--customer", "accounts", "--metric", "=tokens"])
    assert result.exit_code == 2
    assert "there is no column 'accounts'" in result.output
    assert "no column gives the field quantity" in result.output
    assert "account, tokens" in result.output


@pytest.mark.parametrize("text", ["region", "=eu", "region="])
def test_replay_refuses_a_property_without_a_name_or_a_column(text: str, tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text("a\n1\n")
    result = CliRunner().invoke(tidemark, ["replay", str(path), "--property", text])
    assert result.exit_code == 2
    assert "NAME=COLUMN or NAME==VALUE" in result.output


def failed_call(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, details)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, "no server answers at 127.0.0.1:1"),
        (grpc.StatusCode.UNAUTHENTICATED, "does not accept the credentials"),
        (grpc.StatusCode.INTERNAL, "answered INTERNAL: details"),
    ],
)
def test_failed_call_becomes_a_problem_with_a_message(code: grpc.StatusCode, words: str) -> None:
    error = failed_call(code, "details")
    assert error_reason(error) == ""
    assert words in call_problem(error, Address("127.0.0.1:1")).message


@pytest.mark.parametrize(
    ("tls", "option"),
    [
        (None, "--server-ca"),
        (ClientTls(), "--client-certificate"),
        (ClientTls(b"ca", b"certificate", b"key"), "check --server-ca, --client-certificate"),
    ],
)
def test_connection_that_fails_names_the_options_of_tls(tls: ClientTls | None, option: str) -> None:
    problem = call_problem(failed_call(grpc.StatusCode.UNAVAILABLE, "details"), Address("127.0.0.1:1", tls=tls))
    assert option in problem.hints[-1]


def test_grpcurl_gets_the_options_of_the_port() -> None:
    plain = Configuration()
    tls = replace(plain, tls_certificate=Path("tls.crt"), tls_key=Path("tls.key"))
    shown = [grpcurl_tls(one) for one in (plain, tls, replace(tls, tls_client_ca=Path("ca.crt")))]
    assert shown == ["-plaintext", "-cacert FILE", "-cacert FILE -cert FILE -key FILE"]


def shell(redirected: str) -> "subprocess.CompletedProcess[str]":
    """The command with streams as a shell redirects them."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m cli.main {redirected}', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        ("alerts list --server 127.0.0.1:1 >&-", 5, "no server answers"),
        ("context list >&-", 0, ""),
        ("replay --server 127.0.0.1:1 - <&-", 2, "standard input is empty"),
        ("alerts list --server 127.0.0.1:1 2>&-", 5, ""),
    ],
)
def test_a_closed_stream_is_no_traceback(redirected: str, code: int, said: str) -> None:
    finished = shell(redirected)
    assert (finished.returncode, said in finished.stderr) == (code, True), finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_full_disk_is_a_problem_with_a_message() -> None:
    finished = shell("completion bash >/dev/full")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr == "error the output cannot be written: No space left on device\n"


def test_many_mistakes_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text("alerts:\n" + "- labells: {a: b}\n" * 1_234)
    result = CliRunner().invoke(tidemark, ["apply", "-f", str(path)])
    lines = result.output.splitlines()
    assert (result.exit_code, lines[0]) == (2, "error the files have 1,234 mistakes; nothing is applied")
    assert (len(lines), lines[-1].strip()) == (42, "… and 1,194 more")

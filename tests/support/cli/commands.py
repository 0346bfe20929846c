"""Runs commands in this process, as a user of an organization of the test."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from cli.main import tidemark
from tests.support.usage.caller import Caller


@dataclass(frozen=True)
class Ended:
    """A command when it has ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document of the output."""
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents of the output, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass(frozen=True)
class Shell:
    """Where commands run: a server with the key of an organization, and a home of their own."""

    caller: Caller
    home: Path

    async def run(
        self, *arguments: str, text: str | None = None, code: int = 0, env: Mapping[str, str] | None = None
    ) -> Ended:
        """Runs a command; `text` is its standard input. Checks its exit code."""
        environment = {
            "TIDEMARK_SERVER": f"127.0.0.1:{self.caller.server.port}",
            "TIDEMARK_KEY": self.caller.key,
            "XDG_CONFIG_HOME": str(self.home),
            "COLUMNS": "",  # tables as wide as they are, whatever the terminal of the tests
            **(env or {}),
        }
        # In a thread, because the server is in the loop of this one.
        result = await asyncio.to_thread(
            CliRunner(env=environment).invoke, tidemark, list(arguments), input=text, catch_exceptions=True
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (arguments, result.exit_code, result.output)
        return Ended(result.exit_code, result.stdout, result.stderr)

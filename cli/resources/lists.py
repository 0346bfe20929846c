"""Lists: page by page, to the end or to a limit; and again and again with --watch."""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
import grpc
from google.protobuf.descriptor import MethodDescriptor

from cli.connection.channels import Caller
from cli.connection.problems import as_failed, problem_of
from cli.console import named, print_progress, print_result, quiet, warn
from cli.resources.printing import Format, Printer
from cli.resources.tables.model import Column

PAGE = 1_000  # items of a page at most
DEFAULT_ROWS = 1_000  # of a table
CLEAR_LINE, CLEAR_BELOW, HOME, CLEAR_ALL = "\x1b[K", "\x1b[J", "\x1b[H", "\x1b[2J\x1b[H"


@dataclass(frozen=True)
class Listing:
    """A list command: its RPC, the request with its filters, the field with the items, and what they are called."""

    caller: Caller
    method: MethodDescriptor
    request: Any
    items: str
    what: str
    columns: tuple[Column, ...]
    printer: Printer
    ids: tuple[str, ...] = ()

    @property
    def has_pages(self) -> bool:
        """Whether the RPC answers pages."""
        return "next_page_token" in self.method.output_type.fields_by_name

    def pages(self, limit: int | None) -> Iterator[tuple[list[Any], str]]:
        """The items of each page, and the token of the next one; empty at the end. limit: items in all."""
        if not self.has_pages:
            yield list(getattr(self.caller.call(self.method, self.request), self.items))[:limit], ""
            return
        left = limit
        while True:
            self.request.page_size = PAGE if left is None else min(PAGE, left)
            answer = self.caller.call(self.method, self.request)
            found = list(getattr(answer, self.items))
            yield found, answer.next_page_token
            if left is not None:
                left -= len(found)
            if not answer.next_page_token or left == 0:
                return
            self.request.page_token = answer.next_page_token

    def show(self, limit: int | None) -> None:
        """Prints the list. limit: items at most; None: all for programs, DEFAULT_ROWS for people; 0: all."""
        people = self.printer.format is Format.PEOPLE
        most = DEFAULT_ROWS if limit is None and people else limit or None
        gathered: list[Any] = []
        token = ""
        for found, after in self.pages(most):
            token = after
            if people:
                gathered += found
            else:
                self.printer.rows(self.columns, found)
        if people:
            if gathered:
                self.printer.rows(self.columns, gathered)
            else:
                print_progress(
                    f"there are no such {self.what}" if self._has_filters() else f"there are no {self.what}"
                )
        if token:
            print_progress(
                f"{warn('note')} there are more {self.what}: --limit 0 lists all; the next ones come with\n"
                f"     --page-token {named(token)}"
            )

    def _has_filters(self) -> bool:
        return any(field.name not in ("page_size", "page_token") for field, _ in self.request.ListFields())

    def count(self) -> None:
        """Prints how many items there are."""
        self.request.page_size, self.request.include_total_size = 1, True
        answer = self.caller.call(self.method, self.request)
        print_result(str(answer.total_size))

    def watch(self, limit: int | None, interval: float) -> None:
        """Prints the list again after each interval, until Ctrl-C; for programs the items that are new or changed."""
        first = type(self.request)()
        first.CopyFrom(self.request)
        seen: dict[Any, bytes] = {}
        painted = False
        while True:
            problem = ""
            try:
                self.request.CopyFrom(first)
                found = [one for page, _ in self.pages(limit or DEFAULT_ROWS) for one in page]
            except grpc.RpcError as error:
                if not painted:
                    raise
                problem = problem_of(as_failed(error), self.caller.address).message
            if self.printer.format is Format.PEOPLE:
                self._paint(found, problem, interval, first=not painted)
            else:
                self._print_changed(found, seen)
            painted = True
            time.sleep(interval)

    def _print_changed(self, found: Sequence[Any], seen: dict[Any, bytes]) -> None:
        for one in found:
            key = tuple(getattr(one, name, "") for name in self.ids) or one.SerializeToString(deterministic=True)
            data = one.SerializeToString(deterministic=True)
            if seen.get(key) != data:
                seen[key] = data
                self.printer.program(one, inline=True)
        sys.stdout.flush()

    def _paint(self, found: Sequence[Any], problem: str, interval: float, *, first: bool) -> None:
        lines = list(self.printer.table(self.columns, found)) if found else [quiet(f"there are no {self.what}")]
        moment = f"{self.printer.clock.now().astimezone():%H:%M:%S}"
        status = warn(f"{moment} no answer: {problem}") if problem else quiet(f"{moment}, every {interval:g} s")
        if not sys.stdout.isatty():
            for line in (status, *lines):
                print_result(line)
            sys.stdout.flush()
            return
        room = shutil.get_terminal_size().lines - 2
        if len(lines) > room:
            lines = [*lines[: room - 1], quiet(f"… and {len(lines) - room + 1:,} more")]
        screen = "".join(f"{line}{CLEAR_LINE}\n" for line in (status, *lines))
        click.echo((CLEAR_ALL if first else HOME) + screen + CLEAR_BELOW, nl=False)

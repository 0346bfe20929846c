"""Streams: a line for each item as it comes; a stream that the server ends is opened again where it ended."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from cli.connection.channels import Caller
from cli.connection.problems import as_failed, problem_of
from cli.console import DurableProgress, named, print_result, warn
from cli.resources import grid
from cli.resources.cells import Times, cell, style_of
from cli.resources.printing import Format, Printer
from cli.resources.tables.model import Column, Form
from tidemark_client.errors.status import PASSING
from tidemark_client.tasks.backoff import Backoff

# Columns of the terminal for a cell, where the rows to come are not known.
WIDTHS = {Form.ID: 30, Form.TIME: 20, Form.STATE: 18, Form.NUMBER: 10}
OTHER = 24
TOKEN = "resume_token"


@dataclass
class Following:
    """A command that follows a stream. item: the field of an answer that is shown."""

    caller: Caller
    method: MethodDescriptor
    request: Any
    item: str
    columns: tuple[Column, ...]
    printer: Printer
    pause: Callable[[float], None] = time.sleep
    _token: str = field(default="", init=False)

    def run(self, limit: int | None) -> None:
        """Prints items until `limit` are printed, or until Ctrl-C. Raises grpc.RpcError."""
        progress, printed, backoff = DurableProgress(), 0, Backoff()
        if self.printer.format is Format.PEOPLE:
            self._line(None)
        resumes = TOKEN in self.method.input_type.fields_by_name
        try:
            while True:
                call = self.caller.stream(self.method, self.request)
                try:
                    for answer in call:
                        backoff.reset()
                        self._token = getattr(answer, TOKEN, "") or self._token
                        for one in self._items(answer):
                            self._print(one)
                            printed += 1
                            if limit is not None and printed >= limit:
                                call.cancel()
                                return
                except grpc.RpcError as error:
                    failed = as_failed(error)
                    if failed.code() not in PASSING:
                        raise
                    if not self._token and resumes:
                        raise
                    progress(f"{warn('note')} {problem_of(failed, self.caller.address).message}; trying again")
                    self.pause(backoff.next())
                if resumes and self._token:
                    self.request.ClearField("start_time")
                    self.request.resume_token = self._token
        finally:
            if self._token:
                progress(f"continue after the last line with --resume-token {named(self._token)}")

    def _items(self, answer: Any) -> list[Any]:
        found = getattr(answer, self.item)
        if answer.DESCRIPTOR.fields_by_name[self.item].is_repeated:
            return list(found)
        return [found] if answer.HasField(self.item) else []

    def _print(self, one: Any) -> None:
        if self.printer.format is Format.PEOPLE:
            self._line(one)
        else:
            self.printer.program(one, inline=True)
        sys.stdout.flush()

    def _line(self, one: Any) -> None:
        """Prints the line of an item; of None the headings."""
        columns = [column for column in self.columns if column.rank < 3]
        widths = [WIDTHS.get(column.form, OTHER) for column in columns]
        rows = [] if one is None else [[cell(one, column, Times()) for column in columns]]
        lines = list(grid.lines(columns, rows, style_of, None, widths))
        print_result(lines[0] if one is None else lines[1])

"""The options of `tidemark replay`, and what follows from them: the file, the mapping, the function of a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from cli.console import ConfigurationProblem
from cli.replay.cloud_events import of_cloud_events
from cli.replay.compiled import ToEvent, amount_columns, compiled
from cli.replay.focus import CATEGORIES, COUNTED, focus_mapping, is_focus
from cli.replay.mapping import FieldSource, RowMapping, quoted
from cli.replay.numbers import AmbiguousNumbers, NumberForm, form_of
from cli.replay.row_file import CLOUDEVENTS, CSV, RowFile
from cli.replay.source import STANDARD_INPUT, FileProblem
from cli.replay.times import TimeReader
from gateway.cloudevents.mapping import BadMapping, default_mapping, load_mapping

if TYPE_CHECKING:
    from cli.client.connection import Address

MAX_COLUMNS_LENGTH = 1_000  # characters of a header that a message shows
FOCUS, NO_PRESET = "focus", "none"
PRESETS = (FOCUS, NO_PRESET)


@dataclass(frozen=True)
class Options:
    """The options, as click names and checks them. columns: those of fields, by field."""

    file: Path
    columns: Mapping[str, str | None]
    properties: tuple[str, ...]
    shift_days: int
    time_zone: ZoneInfo | None
    form: str | None
    preset: str | None
    charges: tuple[str, ...]
    delimiter: str | None
    quote: str | None
    decimal: str | None
    thousands: str | None
    source: str
    cloudevents_mapping: Path | None
    batch_size: int
    window: int
    patience: float
    rejected: Path | None
    state: Path | None
    resume: bool
    dry_run: bool
    as_json: bool
    address: Address

    def mapping(self) -> RowMapping:
        """How rows become events. Raises BadParameter."""
        return RowMapping(
            sources={name: FieldSource.parse(text) for name, text in self.columns.items() if text is not None},
            properties=_properties(self.properties),
            salt=self.source,
        )

    def open_file(self, mapping: RowMapping) -> RowFile:
        """The file. Raises ConfigurationProblem when it cannot be used."""
        try:
            return RowFile(self.file, self.form, self.delimiter, self.quote, mapping.wanted)
        except FileProblem as error:
            raise ConfigurationProblem(str(error), error.hints) from None

    @property
    def digest(self) -> str:
        """A digest of the options that make events of rows."""
        stated = [
            sorted((name, text) for name, text in self.columns.items() if text is not None),
            sorted(self.properties),
            self.shift_days,
            str(self.time_zone),
            self.form,
            self.preset,
            sorted(self.charges),
            self.delimiter,
            self.quote,
            self.decimal,
            self.thousands,
            self.source,
            str(self.cloudevents_mapping),
        ]
        return blake2b(json.dumps(stated).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass
class Plan:
    """How the rows of a file become events. remarks: what a user should know about it, a sentence each."""

    to_event: ToEvent
    times: TimeReader
    remarks: list[str]


def plan(options: Options, rows: RowFile, mapping: RowMapping) -> Plan:
    """Reads the header and the first rows. Raises ConfigurationProblem, BadParameter."""
    times = TimeReader(options.time_zone, _shift(options.shift_days))
    if rows.form == CLOUDEVENTS:
        return Plan(_cloud_events(options), times, ["the rows are CloudEvents"])
    if options.cloudevents_mapping is not None:
        raise click.BadParameter("the rows are no CloudEvents", param_hint="--cloudevents-mapping")
    remarks = []
    columns = rows.columns
    if options.preset == FOCUS or (options.preset is None and is_focus(columns or ())):
        categories = options.charges or COUNTED
        if "all" in categories:
            categories = CATEGORIES
        mapping = focus_mapping(mapping, columns or (), categories)
        remarks.append(f"it is a FOCUS export; charges that count: {', '.join(categories)}")
    elif options.charges:
        raise click.BadParameter("it needs a FOCUS export", param_hint="--charges")
    form = NumberForm()
    if columns is not None:
        _check_columns(rows, columns, mapping)
        if rows.form == CSV:
            form = _number_form(options, rows, columns, mapping, remarks)
    try:
        to_event = compiled(mapping, columns, form.reader(), times, are_texts=rows.form == CSV)
    except UnicodeEncodeError:
        raise click.BadParameter("a constant or the name of a property is no text in UTF-8") from None
    return Plan(to_event, times, remarks)


def _cloud_events(options: Options) -> ToEvent:
    named = [name for name, text in options.columns.items() if text is not None]
    if named or options.properties:
        raise click.UsageError(
            "the rows are CloudEvents, which have no columns: write rules into a file, and name it with"
            " --cloudevents-mapping"
        )
    try:
        path = options.cloudevents_mapping
        mapping = default_mapping() if path is None else load_mapping(path)
    except BadMapping as error:
        raise ConfigurationProblem(str(error)) from None
    return of_cloud_events(mapping, options.shift_days)


def _number_form(
    options: Options, rows: RowFile, columns: list[str], mapping: RowMapping, remarks: list[str]
) -> NumberForm:
    if options.decimal is not None:
        return NumberForm(options.decimal, options.thousands or "")
    places = amount_columns(mapping, columns)
    cells = (row[place] for row in rows.sample() for place in places)
    try:
        form = form_of(cells, point_is_usual=rows.delimiter == ",")
    except AmbiguousNumbers as error:
        raise ConfigurationProblem(
            f"the numbers of {rows.name} are not certain: {error}",
            [
                "say which is the decimal sign: --decimal . or --decimal ,",
                "and with --thousands what separates thousands",
            ],
        ) from None
    if form.decimal == ",":
        remarks.append("numbers have a decimal comma" + (" and thousands with points" if form.thousands else ""))
    elif form.thousands:
        remarks.append("numbers have thousands with commas")
    return form


def _check_columns(rows: RowFile, columns: list[str], mapping: RowMapping) -> None:
    """Raises ConfigurationProblem when a file does not have the columns that the mapping needs."""
    problems = mapping.missing(columns)
    if not problems:
        return
    hints = [
        f"its columns: {quoted(', '.join(columns), MAX_COLUMNS_LENGTH)[1:-1]}",
        "name a column with --customer, --metric, --quantity, --time …, or give a constant as =VALUE",
    ]
    if len(columns) == 1 and rows.path != STANDARD_INPUT:
        hints.append("if its cells have another delimiter, name it with --delimiter")
    raise ConfigurationProblem(f"{rows.name} does not have the required columns: {'; '.join(problems)}", hints)


def _shift(days: int) -> timedelta:
    try:
        return timedelta(days=days)
    except OverflowError:
        raise click.BadParameter("the number of days is too large", param_hint="--shift-days") from None


def _properties(texts: tuple[str, ...]) -> Mapping[str, FieldSource]:
    properties = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise click.BadParameter(f"{text!r}: write NAME=COLUMN or NAME==VALUE", param_hint="--property")
        properties[name] = FieldSource.parse(source)
    return properties

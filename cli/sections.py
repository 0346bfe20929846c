"""Options and helps with sections: those of the fields first, then output, then the connection."""

import difflib
from typing import Any

import click
from click.shell_completion import CompletionItem

LAST = ("Options", "Pages", "Output", "Connection")  # sections that come after all others


class SectionOption(click.Option):
    """An option that the help shows below the heading `section`, with its first name only."""

    def __init__(self, *positional: Any, section: str = "", **named: Any) -> None:
        super().__init__(*positional, **named)
        self.section = section

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The row of the help."""
        every, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What the help adds in brackets: the default, but not the range of a number, which the text says."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class SectionCommand(click.Command):
    """A command whose help shows its options below their headings."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The options that begin with the word, by their first names only."""
        others = {
            name
            for parameter in self.get_params(ctx)
            if isinstance(parameter, SectionOption)
            for name in parameter.opts[1:]
        }
        return [item for item in super().shell_complete(ctx, incomplete) if item.value not in others]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options of each section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue  # the usage line has them
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "") or "Options", []).append(record)
        for name in [*(each for each in sections if each not in LAST), *LAST]:
            if name in sections:
                with formatter.section(name):
                    formatter.write_dl(sections[name], col_max=34)


class SuggestingGroup(click.Group):
    """A group whose error of an unknown command names those that are spelt alike."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the arguments. Raises click.UsageError."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 3)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(close)}?", ctx) from None

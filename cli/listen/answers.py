"""The answers of the receiver and how they are written: `204`, `503,retry-after=30*2`, `200,delay=3`, `hang`."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

HANG = "hang"  # never answer
CLOSE = "close"  # end the connection without an answer
MAX_DELAY = 3_600.0  # seconds
MAX_TIMES = 100_000

_TIMES = re.compile(r"(?P<answer>.*?)\*(?P<times>[0-9]{1,6})")
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")


class MalformedAnswer(ValueError):
    """An answer is not written correctly; the message says how to write it."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    status: None to hang or to close, see `silent`. delay: seconds before it. retry_after: the header's value.
    """

    status: int | None = 204
    delay: float = 0.0
    retry_after: str = ""
    silent: str = ""  # HANG or CLOSE

    def __str__(self) -> str:
        shown = self.silent or str(self.status)
        if self.retry_after:
            shown += f", retry-after {self.retry_after}"
        return shown + (f" after {self.delay:g} s" if self.delay else "")


def parse_answer(text: str) -> list[Answer]:
    """The answers that `text` stands for: one, repeated as often as `text` says. Raises MalformedAnswer."""
    times = 1
    if match := _TIMES.fullmatch(text):
        text, times = match["answer"], int(match["times"])
        if not 1 <= times <= MAX_TIMES:
            raise MalformedAnswer(f"{times} times: write 1 to {MAX_TIMES}")
    first, *options = text.split(",")
    if first in (HANG, CLOSE):
        answer = Answer(status=None, silent=first)
    elif re.fullmatch(r"[2-5][0-9]{2}", first):
        answer = Answer(status=int(first))
    else:
        raise MalformedAnswer(f"{first!r} is no answer: write a status from 200 to 599, {HANG} or {CLOSE}")
    for option in options:
        name, _, value = option.partition("=")
        if name == "delay" and _SECONDS.fullmatch(value) and float(value) <= MAX_DELAY and first != HANG:
            answer = replace(answer, delay=float(value))
        elif name == "retry-after" and value and value.isascii() and value.isprintable() and not answer.silent:
            answer = replace(answer, retry_after=value)
        else:
            raise MalformedAnswer(
                f"{option!r} does not go with {first}: write delay=SECONDS (at most {MAX_DELAY:g}, not with {HANG})"
                " or retry-after=SECONDS (with a status)"
            )
    return [answer] * times


def in_turn(answers: Sequence[Answer]) -> Iterator[Answer]:
    """The answers in their order, then the last one without end; 204 when there are none."""
    return itertools.chain(answers[:-1], itertools.repeat(answers[-1] if answers else Answer()))

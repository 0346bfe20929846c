"""How many elements the lists and maps of a request have, counted before the request is decoded.

A message of 4 MB has space for millions of elements. Protobuf takes half a microsecond for an entry of a map, and the
check of an element takes up to ten: one message would keep the event loop for many seconds. So the elements are
counted in the encoded message, in slices, up to a limit that is far above those of the methods themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from server.calls.errors import FieldViolation
from server.calls.wire import LENGTH, fields_of

EXAMINED = 4_096  # bytes of a message from which on its elements are counted
MAX_ELEMENTS = 2_000  # of one list or map; no method accepts more than 1,000
# Fields of one message, those of the messages in it included. A list of messages at the top of a request, such as the
# requests of a batch, has no other limit: its method answers with a reason of its own.
MAX_FIELDS = 200_000
AT_ONCE = 500  # fields that are counted without a pause

_CONTINUED = bytes(range(128, 256))  # the bytes of packed numbers that another byte follows


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that is a list or a map, or has a message in which something may be one.

    number_bytes: of the numbers of a list, which the wire may have packed together; 0: of each as many as it needs;
    None: they are no numbers. message: the type of that message.
    """

    name: str
    is_repeated: bool
    number_bytes: int | None
    message: Descriptor | None

    @property
    def is_list_of_messages(self) -> bool:
        """Whether it is a list whose elements may have lists."""
        return self.is_repeated and self.message is not None


@dataclass(slots=True)
class _Found:
    """What was counted in one message, of which the wire may have several parts. path: of the message."""

    path: str = ""
    elements: dict[int, int] = field(default_factory=dict)
    inner: "dict[int, _Found]" = field(default_factory=dict)

    def of_field(self, number: int, known: _Field) -> "_Found":
        """What is counted in the message of a field; in the last element of a list."""
        path = f"{self.path}.{known.name}" if self.path else known.name
        if known.is_repeated:
            return _Found(f"{path}[{self.elements[number] - 1}]")
        return self.inner.setdefault(number, _Found(path))


def excess(message: bytes, kind: Descriptor) -> Iterator[FieldViolation | None]:
    """Counts the elements of an encoded message of this kind: None after each slice, and at the end the violation.

    There is no violation where the elements are few enough. Raises DecodeError where protobuf does, too.
    """
    found, known, fields = _Found(), _fields(kind), fields_of(message, 0, len(message))
    if not known:
        return
    outer: list[tuple[_Found, Mapping[int, _Field], Iterator[tuple[int, int, int, int, int]]]] = []
    number_of_fields = 0
    while True:
        for number, wire_kind, _, value, after in fields:
            number_of_fields += 1
            if number_of_fields % AT_ONCE == 0:
                if number_of_fields > MAX_FIELDS:
                    yield FieldViolation(
                        found.path, f"the message has more than {MAX_FIELDS:,} fields: send less in one message"
                    )
                    return
                yield None
            if (this := known.get(number)) is None:
                continue
            if this.is_repeated:
                count = found.elements.get(number, 0) + _elements(message, this, wire_kind, value, after)
                found.elements[number] = count
                if count > MAX_ELEMENTS and (outer or not this.is_list_of_messages):
                    yield FieldViolation(
                        f"{found.path}.{this.name}" if found.path else this.name,
                        f"it has more than {MAX_ELEMENTS:,} elements: give fewer",
                    )
                    return
            if this.message is not None and wire_kind == LENGTH and after > value:
                outer.append((found, known, fields))
                found, known = found.of_field(number, this), _fields(this.message)
                fields = fields_of(message, value, after)
                break
        else:
            if not outer:
                return
            found, known, fields = outer.pop()


@cache
def _fields(message: Descriptor) -> Mapping[int, _Field]:
    """The fields that are counted, by their numbers."""
    found = {}
    for each in message.fields:
        inner = each.message_type
        if inner is not None and not any(one.is_repeated or one.message_type is not None for one in inner.fields):
            inner = None
        if each.is_repeated or inner is not None:
            found[each.number] = _Field(each.name, each.is_repeated, _number_bytes(each), inner)
    return found


def _number_bytes(each: FieldDescriptor) -> int | None:
    if each.type in (FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FLOAT):
        return 4
    if each.type in (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE):
        return 8
    texts_or_messages = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
    return None if each.type in texts_or_messages else 0


def _elements(message: bytes, known: _Field, wire_kind: int, value: int, after: int) -> int:
    """How many elements of a list one field on the wire has."""
    if known.number_bytes is None or wire_kind != LENGTH:
        return 1
    if known.number_bytes:
        return (after - value) // known.number_bytes
    return len(message[value:after].translate(None, _CONTINUED))

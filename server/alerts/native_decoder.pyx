# cython: language_level=3, cdivision=True
"""The native decoder of usage: it makes events from the bytes of a request, without a message in between.

It accepts *plain* requests only: every event is valid, and every field is there at most once, in the form in which
encoders write it (`native_encoding`). For anything else it returns None. The caller then decodes the request with
protobuf and checks it in Python (`usage_reading.py`), so errors and rare encodings have one meaning.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.datetime cimport datetime_new, import_datetime
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from server.alerts.native_encoding cimport (
    BATCH_ID_OF_BATCH,
    COST,
    CURRENCY,
    CUSTOMER_ID,
    EVENT_ID,
    EVENT_NAME,
    EVENT_OF_BATCH,
    EVENT_TIME,
    INCLUDE_GAUGES_OF_BATCH,
    MAX_ANSWER_BYTES_OF_BATCH,
    METRIC_ID,
    NUMBER_BYTES,
    QUANTITY,
    RESERVATION_ID,
    SUBSCRIPTION_ID,
    Fields,
    Span,
    read_fields,
    size_of,
    take_batch,
    take_number,
    take_part,
    take_property,
)
from server.alerts.native_known_texts cimport PLACES, is_known, keep, place_of
from server.alerts.native_strings cimport ascii_string, decoded, is_utf8, new_id, texts_are_utf8, valid_string
from server.alerts.native_texts cimport (
    MAX_ID_LENGTH,
    MAX_PROPERTIES,
    MAX_PROPERTY_LENGTH,
    date_of,
    is_amount,
    is_ascii,
    is_currency,
)

from datetime import UTC
from decimal import Decimal
from types import MappingProxyType

from evaluator.events import SettlingEvent, UsageEvent

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject*)

cdef extern from *:
    const char* _DIGEST "SOURCES_DIGEST"

import_datetime()

SOURCES_DIGEST = _DIGEST.decode()  # see `runtime/compiled.py`

cdef enum:
    MAX_KNOWN_AMOUNT = 16  # bytes

cdef uint64_t LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
cdef uint64_t MAX_NANOS = 999_999_999
cdef uint64_t MAX_INT32 = 0x7FFF_FFFF

cdef object _UTC = UTC
cdef object _NOTHING = MappingProxyType({})  # the properties of an event without any: they cannot be changed
cdef object _ONE = Decimal(1)
cdef type _EVENT = UsageEvent
cdef object _settling = SettlingEvent.of
cdef PyTypeObject* _TUPLE = <PyTypeObject*>tuple

# Ids and amounts that came before, each in the place that follows from its bytes, which a later one takes.
cdef PyObject* _known_ids[PLACES]
cdef PyObject* _known_amount_texts[PLACES]
cdef PyObject* _known_amounts[PLACES]


def scan(bytes message not None):
    """What a request says beside its events: batch_id, include_gauges, max_answer_bytes, where the batch begins in the
    message, and how many events it has. None if its encoding is not plain.

    Protobuf decodes every request for which this returns a result.
    """
    cdef Span request = _all_of(message), batch, part, batch_id
    cdef const unsigned char* first = request.at
    cdef Fields fields
    cdef uint64_t include_gauges = 0, max_answer_bytes = 0
    cdef Py_ssize_t start, events = 0
    cdef unsigned char tag
    cdef unsigned int seen = 0
    if not take_batch(&request, &batch):
        return None
    start = batch.at - first
    batch_id.at = batch_id.end = NULL
    while batch.at < batch.end:
        tag = batch.at[0]
        batch.at += 1
        if tag == EVENT_OF_BATCH:
            if not take_part(&batch, &part) or not read_fields(part, &fields) or not texts_are_utf8(&fields):
                return None
            events += 1
            continue
        if seen & (1u << (tag & 31)):
            return None
        seen |= 1u << (tag & 31)
        if tag == BATCH_ID_OF_BATCH:
            if not take_part(&batch, &batch_id) or not is_utf8(batch_id):
                return None
        elif tag == INCLUDE_GAUGES_OF_BATCH:
            if not take_number(&batch, NUMBER_BYTES, &include_gauges) or include_gauges > 1:
                return None
        elif tag == MAX_ANSWER_BYTES_OF_BATCH:
            if not take_number(&batch, NUMBER_BYTES, &max_answer_bytes) or max_answer_bytes > MAX_INT32:
                return None
        else:
            return None
    if events == 0:
        return None
    return decoded(batch_id), include_gauges == 1, max_answer_bytes, start, events


def read(bytes message not None, Py_ssize_t start, Py_ssize_t most, int64_t earliest, int64_t latest):
    """The next events of a request that `scan` accepted, at most `most`, and where the ones after them begin.

    start: where the batch begins, or what the call before returned. earliest, latest: microseconds since 1970; the
    time of an event is later than the first, and not later than the second. None if one of the events is not valid.
    """
    cdef Span batch = _all_of(message), part
    cdef const unsigned char* first = batch.at
    cdef Fields fields
    cdef unsigned char tag
    cdef uint64_t ignored
    cdef list events = []
    if start < 0 or start > size_of(batch):
        raise ValueError("start lies outside of the message")
    batch.at += start
    while batch.at < batch.end and len(events) < most:
        tag = batch.at[0]
        batch.at += 1
        if tag == EVENT_OF_BATCH:
            if not take_part(&batch, &part) or not read_fields(part, &fields):
                return None
            event = _event(&fields, earliest, latest)
            if event is None:
                return None
            events.append(event)
        elif tag == BATCH_ID_OF_BATCH:
            if not take_part(&batch, &part):
                return None
        elif tag == INCLUDE_GAUGES_OF_BATCH or tag == MAX_ANSWER_BYTES_OF_BATCH:
            if not take_number(&batch, NUMBER_BYTES, &ignored):
                return None
        else:
            return None
    return events, batch.at - first


cdef inline Span _all_of(bytes message) noexcept:
    cdef Span span
    span.at = <const unsigned char*>PyBytes_AS_STRING(message)
    span.end = span.at + PyBytes_GET_SIZE(message)
    return span


# --- texts that come again and again ------------------------------------------------------------------------

cdef str _id(Span text):
    """A valid id that may have come before, such as that of a customer, or None."""
    cdef uint32_t place
    if size_of(text) == 0 or size_of(text) > MAX_ID_LENGTH:
        return new_id(text)
    place = place_of(text)
    if is_known(_known_ids[place], text):
        return <str>_known_ids[place]
    found = new_id(text)
    if found is not None and is_ascii(text):
        keep(&_known_ids[place], found)
    return found


cdef object _amount(Span text):
    """An exact amount, or None."""
    cdef uint32_t place = 0
    cdef bint short = size_of(text) <= MAX_KNOWN_AMOUNT
    if not is_amount(text):
        return None
    if short:
        place = place_of(text)
        if is_known(_known_amount_texts[place], text):
            return <object>_known_amounts[place]
    written = ascii_string(text)
    amount = Decimal(written)
    if short:
        keep(&_known_amount_texts[place], written)
        keep(&_known_amounts[place], amount)
    return amount


# --- events -------------------------------------------------------------------------------------------------

cdef object _event(Fields* fields, int64_t earliest, int64_t latest):
    """The event, or None if it is not valid or its time is out of bounds."""
    cdef Span* texts = fields.texts
    cdef bint raw = size_of(texts[EVENT_NAME]) > 0
    if raw == (size_of(texts[METRIC_ID]) > 0):
        return None
    event_id = new_id(texts[EVENT_ID])
    customer_id = _id(texts[CUSTOMER_ID])
    named = _id(texts[EVENT_NAME if raw else METRIC_ID])
    time = _time(fields, earliest, latest)
    quantity = _ONE if raw and size_of(texts[QUANTITY]) == 0 else _amount(texts[QUANTITY])
    if event_id is None or customer_id is None or named is None or time is None or quantity is None:
        return None
    subscription_id = cost = currency = None
    if size_of(texts[SUBSCRIPTION_ID]):
        subscription_id = _id(texts[SUBSCRIPTION_ID])
        if subscription_id is None:
            return None
    if size_of(texts[COST]):
        cost = _amount(texts[COST])
        if cost is None:
            return None
    if size_of(texts[CURRENCY]):
        if cost is None or not is_currency(texts[CURRENCY]):
            return None
        currency = _id(texts[CURRENCY])
    properties = _properties(fields.properties) if size_of(fields.properties) else _NOTHING
    if properties is None:
        return None
    row = (
        event_id,
        customer_id,
        time,
        "" if raw else named,
        quantity,
        subscription_id,
        cost,
        currency,
        properties,
        named if raw else None,
    )
    # What UsageEvent._make does, without a call of a Python function.
    arguments = (row,)
    event = _TUPLE.tp_new(_EVENT, <PyObject*>arguments, NULL)
    # An event refers to nothing that refers to it. The garbage collector would traverse all events that wait, again
    # and again.
    PyObject_GC_UnTrack(<PyObject*>event)
    if size_of(texts[RESERVATION_ID]):
        reservation_id = new_id(texts[RESERVATION_ID])
        return None if reservation_id is None else _settling(event, reservation_id)
    return event


cdef object _properties(Span rest):
    """The properties, or None if one of them is not valid."""
    cdef Span key, value
    cdef int entries = 0
    cdef dict found = {}
    while rest.at < rest.end:
        entries += 1
        if entries > MAX_PROPERTIES or not take_property(&rest, &key, &value):
            return None
        name, stated = _id(key), valid_string(value, MAX_PROPERTY_LENGTH)
        if name is None or stated is None:
            return None
        found[name] = stated
    return found


cdef object _time(Fields* fields, int64_t earliest, int64_t latest):
    """The time, rounded down to the microsecond, or None if it is out of bounds."""
    cdef int64_t microseconds
    cdef int year = 0, month = 0, day = 0, second
    if fields.seconds > LAST_SECOND or fields.nanos > MAX_NANOS:
        return None
    microseconds = <int64_t>(fields.seconds * 1_000_000 + fields.nanos // 1000)
    if microseconds <= earliest or microseconds > latest:
        return None
    date_of(<uint32_t>(fields.seconds // 86_400), &year, &month, &day)
    second = <int>(fields.seconds % 86_400)
    return datetime_new(
        year, month, day, second // 3600, second // 60 % 60, second % 60, <int>(fields.nanos // 1000), _UTC
    )

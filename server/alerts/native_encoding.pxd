# cython: language_level=3
"""The encoding of usage requests in bytes, as far as the native decoder accepts it: spans, numbers, lengths, fields.

The bytes come from callers, so nothing in them is trusted. A `Span` bounds what may be read, and no function moves its
beginning past its end.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

cdef enum:
    # Field numbers of UsageEvent.
    EVENT_ID = 1
    CUSTOMER_ID = 2
    SUBSCRIPTION_ID = 3
    METRIC_ID = 4
    QUANTITY = 5
    COST = 6
    CURRENCY = 7
    EVENT_TIME = 8
    PROPERTIES = 9
    EVENT_NAME = 10
    RESERVATION_ID = 11
    FIELDS = 12  # the numbers are below it

    # The first byte of a field: its number, and whether a number or a length follows.
    BATCH_OF_REQUEST = 0x0A
    BATCH_ID_OF_BATCH = 0x0A
    EVENT_OF_BATCH = 0x12
    INCLUDE_GAUGES_OF_BATCH = 0x18
    MAX_ANSWER_BYTES_OF_BATCH = 0x20
    PROPERTY_OF_EVENT = 0x4A
    KEY_OF_PROPERTY = 0x0A
    VALUE_OF_PROPERTY = 0x12
    SECONDS_OF_TIME = 0x08
    NANOS_OF_TIME = 0x10

    # Bytes of a length, and of another number. Protobuf accepts more, but writes more only for negative numbers.
    LENGTH_BYTES = 4
    NUMBER_BYTES = 9

cdef struct Span:  # from `at` to before `end`
    const unsigned char* at
    const unsigned char* end

cdef struct Fields:  # of one event
    Span texts[FIELDS]  # by field number; an unset one is empty
    Span properties  # all entries, each with its first byte and its length
    uint64_t seconds
    uint64_t nanos


cdef inline Py_ssize_t size_of(Span span) noexcept:
    return span.end - span.at


cdef inline bint take_number(Span* span, int most, uint64_t* value) noexcept:
    """Takes a number of at most `most` bytes, which are at most 9 (63 bits)."""
    cdef uint64_t result = 0
    cdef unsigned char byte
    cdef int taken
    for taken in range(most):
        if span.at >= span.end:
            return False
        byte = span.at[0]
        span.at += 1
        result |= <uint64_t>(byte & 0x7F) << (7 * taken)
        if byte < 0x80:
            value[0] = result
            return True
    return False


cdef inline bint take_part(Span* span, Span* part) noexcept:
    """Takes a length, and so many bytes."""
    cdef uint64_t size = 0
    if not take_number(span, LENGTH_BYTES, &size) or size > <uint64_t>(span.end - span.at):
        return False
    part.at = span.at
    part.end = span.at + size
    span.at += size
    return True


cdef inline bint take_batch(Span* request, Span* batch) noexcept:
    """Takes the one field of a request."""
    if request.at >= request.end or request.at[0] != BATCH_OF_REQUEST:
        return False
    request.at += 1
    return take_part(request, batch) and request.at == request.end


cdef inline bint take_property(Span* properties, Span* key, Span* value) noexcept:
    """Takes one entry, which has a key and, unless it is empty, a value."""
    cdef Span entry
    if properties.at >= properties.end or properties.at[0] != PROPERTY_OF_EVENT:
        return False
    properties.at += 1
    if not take_part(properties, &entry) or entry.at >= entry.end or entry.at[0] != KEY_OF_PROPERTY:
        return False
    entry.at += 1
    if not take_part(&entry, key):
        return False
    value.at = value.end = entry.at
    if entry.at < entry.end:
        if entry.at[0] != VALUE_OF_PROPERTY:
            return False
        entry.at += 1
        if not take_part(&entry, value):
            return False
    return entry.at == entry.end


cdef inline bint read_fields(Span event, Fields* fields) noexcept:
    """Finds the fields of an event: each at most once, the entries of the properties one after the other."""
    cdef const unsigned char* start
    cdef unsigned char tag
    cdef unsigned int number, before = 0, seen = 0
    cdef Span part
    memset(fields, 0, sizeof(Fields))
    while event.at < event.end:
        start = event.at
        tag = start[0]
        event.at += 1
        number = tag >> 3
        # Each field has a length. The first byte of a field number of two bytes is 0x80 or more.
        if (tag & 0x87) != 2 or number == 0 or number >= FIELDS or not take_part(&event, &part):
            return False
        if number == PROPERTIES:
            if fields.properties.at == NULL:
                fields.properties.at = start
            elif before != PROPERTIES:
                return False
            fields.properties.end = event.at
        elif seen & (1u << number):
            return False
        fields.texts[number] = part
        seen |= 1u << number
        before = number
    return (seen & (1u << EVENT_TIME)) != 0 and read_time(fields.texts[EVENT_TIME], fields)


cdef inline bint read_time(Span time, Fields* fields) noexcept:
    cdef unsigned char tag
    cdef unsigned int seen = 0
    while time.at < time.end:
        tag = time.at[0]
        time.at += 1
        if seen & (1u << (tag & 31)):
            return False
        seen |= 1u << (tag & 31)
        if tag == SECONDS_OF_TIME:
            if not take_number(&time, NUMBER_BYTES, &fields.seconds):
                return False
        elif tag == NANOS_OF_TIME:
            if not take_number(&time, NUMBER_BYTES, &fields.nanos):
                return False
        else:
            return False
    return True

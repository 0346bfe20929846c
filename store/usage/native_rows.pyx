# cython: language_level=3, cdivision=True
"""The rows of COPY, written natively: `lines` does the same as `_lines` in `events.py`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.datetime cimport datetime, datetime_tzinfo, import_datetime
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcpy

from datetime import UTC

import orjson

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    object PyUnicode_New(Py_ssize_t, Py_UCS4)
    void* PyUnicode_DATA(object)

cdef extern from *:
    const char* _DIGEST "SOURCES_DIGEST"

import_datetime()

SOURCES_DIGEST = _DIGEST.decode()  # see `runtime/compiled.py`

cdef enum:
    EVENT_ID = 0  # the fields of UsageEvent
    CUSTOMER_ID = 1
    EVENT_TIME = 2
    METRIC_ID = 3
    QUANTITY = 4
    SUBSCRIPTION_ID = 5
    COST = 6
    CURRENCY = 7
    PROPERTIES = 8
    EVENT_NAME = 9
    FIELDS = 10

    MONTH_BYTES = 7  # 2026-03
    TIME_BYTES = 32  # 2026-03-15T12:00:00.000001+00:00

    TAB = 0x09
    LINE_FEED = 0x0A

cdef struct Row:  # that is being written
    char* data
    Py_ssize_t size
    Py_ssize_t room

cdef object _UTC = UTC
cdef object _dumps = orjson.dumps


def lines(str head not None, str ingested not None, events not None):
    """The months of the events, and their rows without escapes.

    head: with which each row begins. ingested: the time of the commit. Raises TypeError or ValueError for what is no
    event.
    """
    cdef Row row
    cdef Py_ssize_t head_size
    cdef list months = [], written = []
    cdef object month = ""
    row.data = NULL
    row.size = row.room = 0
    try:
        _append(&row, head)
        head_size = row.size
        for event in events:
            if not isinstance(event, tuple) or len(<tuple>event) != FIELDS:
                raise TypeError("not an event")
            row.size = head_size
            month = _write(&row, <tuple>event, ingested, month)
            months.append(month)
            written.append(_text_of(&row))
    finally:
        PyMem_Free(row.data)
    return months, written


cdef str _write(Row* row, tuple event, str ingested, str month):
    """Writes a row behind its head. month: that of the row before. Returns that of this one."""
    cdef Py_ssize_t at
    _append(row, event[CUSTOMER_ID])
    _end_field(row, TAB)
    _append(row, event[EVENT_ID])
    _end_field(row, TAB)
    at = row.size
    _append_time(row, event[EVENT_TIME])
    month = _month_of(row.data + at, month)
    _end_field(row, TAB)
    _append(row, ingested)
    _end_field(row, TAB)
    if event[SUBSCRIPTION_ID] is not None:
        _append(row, event[SUBSCRIPTION_ID])
    _end_field(row, TAB)
    _append(row, event[METRIC_ID])
    _end_field(row, TAB)
    _append(row, str(event[QUANTITY]))
    _end_field(row, TAB)
    if event[COST] is not None:
        _append(row, str(event[COST]))
    _end_field(row, TAB)
    if event[CURRENCY] is not None:
        _append(row, event[CURRENCY])
    _end_field(row, TAB)
    if event[PROPERTIES]:
        encoded = <bytes?>_dumps(event[PROPERTIES])
        _append_bytes(row, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
    _end_field(row, TAB)
    if event[EVENT_NAME] is not None:
        _append(row, event[EVENT_NAME])
    _end_field(row, LINE_FEED)
    return month


cdef str _text_of(Row* row):
    cdef unsigned char bits = 0
    cdef Py_ssize_t index
    for index in range(row.size):
        bits |= <unsigned char>row.data[index]
    if bits >= 0x80:
        return PyUnicode_DecodeUTF8(row.data, row.size, NULL)
    text = PyUnicode_New(row.size, 0x7F)
    memcpy(PyUnicode_DATA(text), row.data, <size_t>row.size)
    return text


cdef int _reserve(Row* row, Py_ssize_t more) except -1:
    """Makes room for so many bytes more."""
    cdef char* data
    if row.data == NULL or more > row.room - row.size:
        data = <char*>PyMem_Realloc(row.data, <size_t>(2 * (row.size + more) + 256))
        if data == NULL:
            raise MemoryError
        row.data = data
        row.room = 2 * (row.size + more) + 256
    return 0


cdef int _append_bytes(Row* row, const char* data, Py_ssize_t size) except -1:
    _reserve(row, size)
    memcpy(row.data + row.size, data, <size_t>size)
    row.size += size
    return 0


cdef int _append(Row* row, object text) except -1:
    """Raises TypeError for what is no text."""
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    return _append_bytes(row, data, size)


cdef inline int _end_field(Row* row, char byte) except -1:
    return _append_bytes(row, &byte, 1)


cdef int _append_time(Row* row, datetime time) except -1:
    cdef char* at
    cdef int microsecond
    if time is None:  # a parameter of this type may be None, whose memory is smaller than that of a time
        raise TypeError("an event has a time")
    microsecond = time.microsecond
    if datetime_tzinfo(time) is not _UTC:
        raise ValueError("the time of an event is in UTC")
    _reserve(row, TIME_BYTES)
    at = row.data + row.size
    at = _two_digits(at, time.year // 100)
    at = _two_digits(at, time.year % 100)
    at = _two_digits(_byte(at, 0x2D), time.month)  # hyphens
    at = _two_digits(_byte(at, 0x2D), time.day)
    at = _two_digits(_byte(at, 0x54), time.hour)  # T
    at = _two_digits(_byte(at, 0x3A), time.minute)  # colons
    at = _two_digits(_byte(at, 0x3A), time.second)
    if microsecond:
        at = _two_digits(_byte(at, 0x2E), microsecond // 10_000)  # a point
        at = _two_digits(at, microsecond // 100 % 100)
        at = _two_digits(at, microsecond % 100)
    memcpy(at, b"+00:00", 6)
    row.size = at + 6 - row.data
    return 0


cdef inline char* _byte(char* at, char byte) noexcept:
    at[0] = byte
    return at + 1


cdef inline char* _two_digits(char* at, int number) noexcept:
    at[0] = <char>(0x30 + number // 10)
    at[1] = <char>(0x30 + number % 10)
    return at + 2


cdef str _month_of(const char* time, str before):
    """The year and the month at the beginning of a time; mostly they are those of the row before."""
    cdef Py_ssize_t size = 0
    cdef const char* known = PyUnicode_AsUTF8AndSize(before, &size)
    cdef Py_ssize_t index
    if size == MONTH_BYTES:
        for index in range(MONTH_BYTES):
            if known[index] != time[index]:
                break
        else:
            return before
    return PyUnicode_DecodeUTF8(time, MONTH_BYTES, NULL)

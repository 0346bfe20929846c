# cython: language_level=3
"""Strings of Python, made from the bytes of texts in UTF-8 and checked."""

from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8

from server.alerts.native_encoding cimport (
    EVENT_ID,
    EVENT_NAME,
    EVENT_TIME,
    RESERVATION_ID,
    Fields,
    Span,
    size_of,
    take_property,
)
from server.alerts.native_texts cimport (
    MAX_CHARACTER,
    MAX_ID_LENGTH,
    has_control_characters,
    is_ascii,
    is_ascii_id,
)

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object)


cdef inline str decoded(Span text):
    """Raises UnicodeDecodeError."""
    return PyUnicode_DecodeUTF8(<const char*>text.at, size_of(text), NULL) if size_of(text) else ""


cdef inline str ascii_string(Span text):
    """The string of a text that is in ASCII."""
    return PyUnicode_DecodeASCII(<const char*>text.at, size_of(text), NULL)


cdef inline bint is_utf8(Span text) except -1:
    if is_ascii(text):
        return True
    try:
        decoded(text)
    except UnicodeDecodeError:
        return False
    return True


cdef inline bint texts_are_utf8(Fields* fields) except -1:
    """Whether protobuf accepts all texts of an event."""
    cdef Span rest = fields.properties, key, value
    cdef int number
    for number in range(EVENT_ID, EVENT_TIME):
        if not is_utf8(fields.texts[number]):
            return False
    while rest.at < rest.end:
        if not take_property(&rest, &key, &value) or not is_utf8(key) or not is_utf8(value):
            return False
    return is_utf8(fields.texts[EVENT_NAME]) and is_utf8(fields.texts[RESERVATION_ID])


cdef inline str valid_string(Span text, Py_ssize_t most):
    """The string, or None if it has more than `most` characters or control characters, or is not in UTF-8."""
    if size_of(text) > most * MAX_CHARACTER or has_control_characters(text):
        return None
    try:
        found = decoded(text)
    except UnicodeDecodeError:
        return None
    return found if PyUnicode_GET_LENGTH(found) <= most else None


cdef inline str new_id(Span text):
    """A valid id, or None."""
    if is_ascii(text):
        return ascii_string(text) if is_ascii_id(text) else None
    found = valid_string(text, MAX_ID_LENGTH)
    return found if found is not None and found == found.strip() else None

# cython: language_level=3, cdivision=True
"""Tables of texts that come again and again: a text is found by its bytes, without a new object.

A table has 4,096 places. A text has the place that follows from its bytes, and the next text of that place takes it, so
tables do not grow. The table owns a reference to each object in it.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from server.alerts.native_encoding cimport Span, size_of

cdef extern from "Python.h":
    const char* PyUnicode_1BYTE_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)

cdef enum:
    PLACES = 4096  # a power of two


cdef inline uint32_t place_of(Span text) noexcept:
    cdef uint64_t mixed = <uint64_t>size_of(text), word
    while size_of(text) >= 8:
        memcpy(&word, text.at, 8)
        mixed = (mixed ^ word) * 0x9E37_79B9_7F4A_7C15u
        mixed ^= mixed >> 32
        text.at += 8
    word = 0
    memcpy(&word, text.at, <size_t>size_of(text))
    mixed = (mixed ^ word) * 0x9E37_79B9_7F4A_7C15u
    return <uint32_t>(mixed >> 40) & (PLACES - 1)


cdef inline bint is_known(PyObject* known, Span text) noexcept:
    """Whether a text is the known one, which is in ASCII. NULL: there is none."""
    return (
        known != NULL
        and PyUnicode_GET_LENGTH(<object>known) == size_of(text)
        and memcmp(PyUnicode_1BYTE_DATA(<object>known), text.at, <size_t>size_of(text)) == 0
    )


cdef inline void keep(PyObject** place, object value) noexcept:
    """Puts an object into a place, and lets go of the one before."""
    cdef PyObject* before = place[0]
    Py_INCREF(value)
    place[0] = <PyObject*>value
    Py_XDECREF(before)

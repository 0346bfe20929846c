# cython: language_level=3, cdivision=True
"""The checks of the texts and times of usage, as the native decoder does them, on their bytes."""

from libc.stdint cimport uint32_t

from server.alerts.native_encoding cimport Span, size_of

# The limits of `usage_reading.py`, `server/calls/validation.py` and `evaluator/amounts.py`.
cdef enum:
    MAX_ID_LENGTH = 128  # characters
    MAX_CURRENCY_LENGTH = 64
    MAX_PROPERTIES = 64
    MAX_PROPERTY_LENGTH = 256  # characters of a value
    MAX_DIGITS = 38
    MAX_DECIMALS = 18
    MAX_CHARACTER = 4  # bytes of a character in UTF-8


cdef inline bint is_ascii(Span text) noexcept:
    cdef unsigned char bits = 0
    while text.at < text.end:
        bits |= text.at[0]
        text.at += 1
    return bits < 0x80


cdef inline bint has_control_characters(Span text) noexcept:
    """Whether a text in UTF-8 has any of U+0000 to U+001F and U+007F to U+009F."""
    cdef Py_ssize_t index
    cdef unsigned char byte
    for index in range(size_of(text)):
        byte = text.at[index]
        if byte < 0x20 or byte == 0x7F:
            return True
        # U+0080 to U+009F: 0xC2 begins a character of two bytes, and no other byte of a character is 0xC2.
        if byte == 0xC2 and index + 1 < size_of(text) and text.at[index + 1] < 0xA0:
            return True
    return False


cdef inline bint is_ascii_id(Span text) noexcept:
    """Whether a text in ASCII is an id: 1 to 128 characters, no control characters, no blank at either end."""
    cdef Py_ssize_t size = size_of(text), index
    cdef unsigned char byte
    cdef bint control = False
    if size == 0 or size > MAX_ID_LENGTH or text.at[0] == 0x20 or text.at[size - 1] == 0x20:
        return False
    # Without a branch in the loop, the compiler checks several bytes at once.
    for index in range(size):
        byte = text.at[index]
        control |= byte < 0x20 or byte == 0x7F
    return not control


cdef inline bint is_currency(Span text) noexcept:
    """1 to 64 letters, digits, dots, hyphens and underscores. If it is three letters, they are capitals."""
    cdef Py_ssize_t index, capital = 0, small = 0
    cdef unsigned char byte
    for index in range(size_of(text)):
        byte = text.at[index]
        if 0x61 <= byte <= 0x7A:
            small += 1
        elif 0x41 <= byte <= 0x5A:
            capital += 1
        elif not (0x30 <= byte <= 0x39 or byte == 0x2E or byte == 0x2D or byte == 0x5F):
            return False
    return 0 < size_of(text) <= MAX_CURRENCY_LENGTH and not (size_of(text) == 3 == small + capital and small > 0)


cdef inline Py_ssize_t take_digits(Span* text) noexcept:
    cdef const unsigned char* start = text.at
    while text.at < text.end and 0x30 <= text.at[0] <= 0x39:
        text.at += 1
    return text.at - start


cdef inline bint is_amount(Span text) noexcept:
    """An optional minus, digits, and optionally a point and digits; at most 38 digits, 18 of them after the point."""
    cdef Py_ssize_t whole, decimals = 0
    if text.at < text.end and text.at[0] == 0x2D:  # a minus
        text.at += 1
    whole = take_digits(&text)
    if text.at < text.end:
        if text.at[0] != 0x2E:  # a point
            return False
        text.at += 1
        decimals = take_digits(&text)
        if decimals == 0:
            return False
    return text.at == text.end and whole > 0 and decimals <= MAX_DECIMALS and whole + decimals <= MAX_DIGITS


cdef inline void date_of(uint32_t days, int* year, int* month, int* day) noexcept:
    """The date of a day that is so many days after 1970-01-01."""
    # Years begin in March, so that the day that only some of them have is their last one. 400 of them have 146,097 days.
    cdef uint32_t since = days + 719_468  # 0000-03-01
    cdef uint32_t of_era = since % 146_097
    cdef uint32_t year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    cdef uint32_t of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint32_t month_from_march = (5 * of_year + 2) // 153
    day[0] = <int>(of_year - (153 * month_from_march + 2) // 5 + 1)
    month[0] = <int>(month_from_march + 3 if month_from_march < 10 else month_from_march - 9)
    year[0] = <int>(year_of_era + since // 146_097 * 400 + (1 if month[0] <= 2 else 0))

"""x"""


class TraceRun:
    pass

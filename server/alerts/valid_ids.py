"""Ids that were found valid: the same customers, metrics and property keys come again and again."""

from collections.abc import Set

from server.calls.validation import id_problem

MAX_KNOWN_IDS = 500_000


class ValidIds:
    """Remembers valid ids, up to a limit; beyond it, it forgets all of them and starts again."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def contain(self, text: str) -> bool:
        """Whether a text is a valid id."""
        if text in self._known:
            return True
        if id_problem(text) is not None:
            return False
        if len(self._known) >= MAX_KNOWN_IDS:
            self._known.clear()
        self._known.add(text)
        return True

    def contain_all(self, texts: Set[str]) -> bool:
        """Whether all of these texts are valid ids."""
        return texts <= self._known or all(map(self.contain, texts - self._known))

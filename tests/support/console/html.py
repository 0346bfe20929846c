"""A small reader of HTML: a tree of elements, and what tests ask of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"input", "meta", "link", "br", "img", "hr"}


@dataclass
class Element:
    """An element. content: its texts and elements, in their order."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, with single blanks."""
        parts = [one if isinstance(one, str) else one.text for one in self.content]
        return " ".join(" ".join(parts).split())

    def walk(self) -> "Iterator[Element]":
        """The element and all in it."""
        yield self
        for one in self.content:
            if isinstance(one, Element):
                yield from one.walk()

    def all(self, tag: str, **attributes: str) -> "list[Element]":
        """The elements in it with a tag and attributes; `class_` is one of the classes."""
        return [one for one in self.walk() if one.tag == tag and one.has(attributes)]

    def first(self, tag: str, **attributes: str) -> "Element":
        """The first of `all`."""
        found = self.all(tag, **attributes)
        assert found, f"there is no <{tag}> with {attributes}"
        return found[0]

    def has(self, attributes: dict[str, str]) -> bool:
        """Whether it has these attributes."""
        for name, value in attributes.items():
            if name == "class_":
                if value not in self.attributes.get("class", "").split():
                    return False
            elif self.attributes.get(name.replace("_", "-")) != value:
                return False
        return True


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].content.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].content.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].content.append(data)


def parse(text: str) -> Element:
    """The tree. Every element must be closed in its order."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader._open) == 1, f"<{reader._open[-1].tag}> is not closed"
    return reader.root

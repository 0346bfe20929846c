"""Elements of SVG. Lengths along the x axis are shares of the width, so that a plot fits every screen."""

from decimal import Decimal

from markupsafe import Markup, escape

ZERO, ONE, HUNDRED = Decimal(0), Decimal(1), Decimal(100)


def percent(share: Decimal) -> str:
    """A share of the width as SVG writes it."""
    return f"{(min(max(share, ZERO), ONE) * HUNDRED).quantize(Decimal('0.01')):f}%"


def number(value: Decimal) -> str:
    """A coordinate with two digits."""
    return f"{value.quantize(Decimal('0.01')):f}"


def element(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """An element. Attributes: `_` in their names stands for `-`, a trailing one is left out; None leaves one out."""
    written = Markup("").join(
        Markup(' {0}="{1}"').format(key.rstrip("_").replace("_", "-"), escape(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, content)


def title(text: str) -> Markup:
    """The title of the element around it: browsers show it, and screen readers read it."""
    return element("title", text)

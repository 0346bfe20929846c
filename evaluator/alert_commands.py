"""Commands on alerts: what a caller asks for, read and checked, before the store applies it."""

from dataclasses import dataclass, replace

from evaluator.alerts import Scope
from evaluator.definitions import AlertDefinition, Condition
from evaluator.overrides import Override
from evaluator.prices import PriceFilter
from evaluator.thresholds import Threshold


@dataclass(frozen=True)
class NewAlert:
    """The alert to create. The condition's currency is None where the store takes it from the scope."""

    display_name: str
    scope: Scope
    condition: Condition
    thresholds: tuple[Threshold, ...]
    uniqueness_key: str | None
    evaluate_on_create: bool


@dataclass(frozen=True)
class AlertPatch:
    """New values of what can be edited of an alert; None leaves a value as it is.

    overrides, prices: of the condition. reset: the alert forgets which thresholds are reached.
    """

    display_name: str | None = None
    thresholds: tuple[Threshold, ...] | None = None
    overrides: tuple[Override, ...] | None = None
    prices: tuple[PriceFilter, ...] | None = None
    reset: bool = False

    def apply(self, definition: AlertDefinition) -> AlertDefinition:
        """The definition with the new values; its version, epochs and times stay. Equal if nothing is different."""
        condition = definition.condition
        return replace(
            definition,
            display_name=definition.display_name if self.display_name is None else self.display_name,
            thresholds=definition.thresholds if self.thresholds is None else self.thresholds,
            condition=replace(
                condition,
                overrides=condition.overrides if self.overrides is None else self.overrides,
                prices=condition.prices if self.prices is None else self.prices,
            ),
        )

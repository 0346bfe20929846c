"""Commands on alerts: what a caller asks for, read and checked, before the store applies it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from evaluator.alerts import Scope
from evaluator.definitions import AlertDefinition, Condition, DefinitionState
from evaluator.overrides import Override
from evaluator.prices import PriceFilter
from evaluator.thresholds import Threshold


@dataclass(frozen=True)
class NewAlert:
    """The alert to create.

    state: ACTIVE or DISABLED. The condition's currency is None where the store takes it from the scope.
    """

    display_name: str
    scope: Scope
    condition: Condition
    thresholds: tuple[Threshold, ...]
    uniqueness_key: str | None
    evaluate_on_create: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    state: DefinitionState = DefinitionState.ACTIVE


@dataclass(frozen=True)
class AlertPatch:
    """New values of what can be edited of an alert; None leaves a value as it is.

    overrides, prices, counts_held: of the condition. reset: the alert forgets which thresholds are reached.
    release_uniqueness_key: other alerts can use the key; only with the state ARCHIVED.
    """

    display_name: str | None = None
    thresholds: tuple[Threshold, ...] | None = None
    overrides: tuple[Override, ...] | None = None
    prices: tuple[PriceFilter, ...] | None = None
    counts_held: bool | None = None
    reset: bool = False
    labels: Mapping[str, str] | None = None
    state: DefinitionState | None = None
    release_uniqueness_key: bool = False

    def apply(self, definition: AlertDefinition) -> AlertDefinition:
        """The definition with the new values; its version, epochs and times stay. Equal if nothing is different."""
        condition = definition.condition
        return replace(
            definition,
            display_name=definition.display_name if self.display_name is None else self.display_name,
            thresholds=definition.thresholds if self.thresholds is None else self.thresholds,
            labels=definition.labels if self.labels is None else self.labels,
            state=definition.state if self.state is None else self.state,
            uniqueness_key_held=definition.uniqueness_key_held and not self.release_uniqueness_key,
            condition=replace(
                condition,
                overrides=condition.overrides if self.overrides is None else self.overrides,
                prices=condition.prices if self.prices is None else self.prices,
                counts_held=condition.counts_held if self.counts_held is None else self.counts_held,
            ),
        )

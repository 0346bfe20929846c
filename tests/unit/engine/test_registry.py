"""The registry of rules: one entry for each recently used organization."""

from engine.rules.registry import RulesRegistry


def test_the_registry_returns_the_same_rules_to_every_caller() -> None:
    registry = RulesRegistry()
    assert registry.of(1) is registry.of(1)
    assert registry.of(1) is not registry.of(2)


def test_the_registry_removes_the_organization_that_is_unused_for_longest() -> None:
    registry = RulesRegistry(limit=2)
    first, second = registry.of(1), registry.of(2)
    assert registry.of(1) is first
    registry.of(3)
    assert registry.of(1) is first
    assert registry.of(2) is not second

"""The addresses of the nodes of a cluster, as operators name them."""

import pytest

from store.citus.nodes import Node, parse_nodes


@pytest.mark.parametrize(
    ("named", "nodes"),
    [
        ("worker-1:5433", [Node("worker-1", 5433)]),
        ("worker-1, worker-2:6000", [Node("worker-1", 5432), Node("worker-2", 6000)]),
        ("10.0.0.7:5432", [Node("10.0.0.7", 5432)]),
        ("[fd00::7]:5432", [Node("fd00::7", 5432)]),
    ],
)
def test_nodes_are_named_by_host_and_port(named: str, nodes: list[Node]) -> None:
    assert parse_nodes(named) == nodes


@pytest.mark.parametrize(
    "named", ["", "worker-1,", ":5432", "worker-1:0", "worker-1:70000", "worker-1:", "a b", "/tmp"]
)
def test_what_is_no_node_is_refused(named: str) -> None:
    with pytest.raises(ValueError, match="is not host or host:port"):
        parse_nodes(named)

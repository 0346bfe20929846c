"""The queries of docs/operating.md run on the schema as it is."""

import re
from pathlib import Path

import psycopg
import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "operating.md"
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_has_queries() -> None:
    assert len(QUERIES) >= 5


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_query_of_the_page_runs_and_changes_nothing(database_url: str, query: str) -> None:
    with psycopg.connect(database_url, options="-c default_transaction_read_only=on") as connection:
        cursor = connection.execute(query.encode())
        assert cursor.description

"""Statements of other programs, as the doctor shows them."""

import pytest

from store.diagnosis.activity import shown_statement


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT\n  1,\t$1", "SELECT 1, $1"),
        ("ALTER ROLE tidemark PASSWORD 'secret'", "ALTER ROLE tidemark PASSWORD '…'"),
        ("SELECT 'it''s secret', 2", "SELECT '…', 2"),
        (r"SELECT E'it\'s secret', 2", "SELECT '…', 2"),
        (r"SELECT 'back\', 'secret'", "SELECT '…', '…'"),
        ("SELECT 'secret that is cut o", "SELECT '…'"),
        (r"SELECT E'cut \\"[:-1], "SELECT '…'"),
        ("DO $body$ 'secret' $$ secret $body$; SELECT 1", "DO '…'; SELECT 1"),
        ("DO $$ secret that is cut o", "DO '…'"),
        ("SELECT $1, $2 FROM a WHERE b = $3", "SELECT $1, $2 FROM a WHERE b = $3"),
        ("SELECT 1 -- it's a comment\n, 'secret'", "SELECT 1 , '…'"),
        ("SELECT /* it's */ 'secret' /* cut o", "SELECT '…'"),
        ("""SELECT "it's", 'secret', "a""b's", 'secret'""", """SELECT "it's", '…', "a""b's", '…'"""),
        ('SELECT 1 AS "\x1b[31m\u202e"', 'SELECT 1 AS "?[31m?"'),
    ],
)
def test_shown_statement_has_no_texts_and_no_control_characters(statement: str, shown: str) -> None:
    assert shown_statement(statement) == shown

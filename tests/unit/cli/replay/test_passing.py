"""A replay that continues: rows that are acknowledged are passed without being read, whatever the file looks like."""

import json
from pathlib import Path

import pytest

from cli.replay.batches import Batches, RowsDiffer
from cli.replay.compiled import compiled
from cli.replay.mapping import FieldSource, RowMapping
from cli.replay.numbers import NumberForm
from cli.replay.row_file import CSV, RowFile
from cli.replay.times import TimeReader

MAPPING = RowMapping({"metric_id": FieldSource(constant="calls")})
HEADER = "customer_id,quantity,time,note\n"
TIME = "2026-03-01T10:00:00Z"
CSV_ROWS = [
    f"acme,1,{TIME},plain\n",
    f'acme,2,{TIME},"two\nlines"\n',
    "\r\n",
    f'acme,3,{TIME},"open\n',
    f"acme,four,{TIME},\u00e9\r\n",
    "too,few\n",
    f"acme,6,{TIME},last",
]
JSON_ROWS = [
    json.dumps({"customer_id": "acme", "quantity": 1, "time": TIME}) + "\n",
    "  \n",
    "{broken\n",
    "x" * 3_000 + "\n",
    json.dumps({"customer_id": "acme", "quantity": 2.5, "time": TIME, "properties": {"a": "b"}}) + "\r\n",
    "#tidemark-rejected: row 17, line 3: why\n",
    json.dumps({"customer_id": "acme", "quantity": 3, "time": TIME}),
]
ARRAY = "[\n" + ",\n".join(row.strip() for row in (JSON_ROWS[0], JSON_ROWS[2], JSON_ROWS[4], JSON_ROWS[6])) + "\n]"
FILES = {
    "plain.csv": HEADER + CSV_ROWS[0] * 9,
    "mixed.csv": HEADER + "".join(CSV_ROWS),
    "rows.ndjson": "".join(JSON_ROWS),
    "array.json": ARRAY,
}
Found = list[tuple[bytes, int]]


def read(path: Path, start: int = 0, digest: str = "") -> tuple[Found, dict[int, str]]:
    """The events with the numbers of their rows, and the digest at the end of each batch of one row."""
    with RowFile(path, wanted=MAPPING.wanted, max_line_length=2_000) as rows:
        to_event = compiled(MAPPING, rows.columns, NumberForm().reader(), TimeReader(), are_texts=rows.form == CSV)
        batches = Batches(rows, to_event, 1, start=start, digest=digest)
        found, digests = [], {}
        for batch in batches.all():
            found += [(content, row.number) for content, row in zip(batch.events, batch.rows, strict=True)]
            digests[batch.end] = batch.digest
        return found, digests


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_rows_after_the_passed_ones_give_the_same_events(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    whole, digests = read(path)
    assert len(digests) > 1
    for start, digest in digests.items():
        # A mark above a row gives it another number, so that events are counted here.
        done = sum(1 for end in digests if end <= start)
        assert read(path, start, digest)[0] == whole[done:]


@pytest.mark.parametrize("name", sorted(FILES))
def test_passed_rows_of_another_file_are_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    _, digests = read(path)
    start, digest = max(digests.items())
    path.write_bytes(FILES[name].replace("acme", "acne", 1).encode())
    with pytest.raises(RowsDiffer, match="other rows"):
        read(path, start, digest)
    with pytest.raises(RowsDiffer, match="rows"):
        read(path, start + 100, digest)


def test_rows_of_parquet_are_passed_by_row_groups(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    columns = {"customer_id": ["acme"] * 10, "quantity": list(range(1, 11)), "time": [TIME] * 10}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=4)
    whole, digests = read(path)
    assert [number for _, number in whole] == list(range(1, 11))
    for start, digest in digests.items():
        assert read(path, start, digest)[0] == whole[start:]

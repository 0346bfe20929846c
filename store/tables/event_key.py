"""The key of an event: 16 bytes that stand for its organization, customer and id in the index that makes it unique.

| bytes | of |
|---|---|
| 4 | the customer: a hash of organization and customer id |
| 4 | 19 bits of the organization's number, 12 bits of a second hash of the event's id |
| 8 | a hash of the event's id, seeded with organization and customer |

The index of the texts themselves is 2.5 times as large, and each event goes to a random place of it. The customer
comes first, so that the events of one customer are one range of the index. Two events of a customer have one key by
chance once in 2^76 pairs; then the later one is refused. The hashes can be forged, but not across organizations,
because the number of the organization is a part of the key.

The functions make SQL conditions on a row `e` of `event`. Each also compares the columns themselves: that makes it
right whatever the hashes are, and finds the rows of a partition that still has the key of texts (see `partitions`).
"""

_OF_CUSTOMER = "hashtextextended({customer}, {organization})"
_PARTS = (
    f"({_OF_CUSTOMER} >> 32)::integer",
    f"((({{organization}} & 524287) << 12) | (hashtextextended({{event}}, ~{_OF_CUSTOMER}) & 4095))::integer",
    f"hashtextextended({{event}}, {_OF_CUSTOMER})",
)
_COLUMNS = {"organization": "organization_id", "customer": "customer_id", "event": "event_id"}
_COLUMNS_OF_E = {name: f"e.{column}" for name, column in _COLUMNS.items()}

PARTS_OF_SAMPLE = 4096  # see `in_sample`

# The columns of the unique index of a partition.
INDEX = ", ".join(f"({part.format_map(_COLUMNS)})" for part in _PARTS)
# The same where the table is distributed: Citus requires the column itself, which the first hash stands for.
DISTRIBUTED_INDEX = ", ".join(["customer_id", *(f"({part.format_map(_COLUMNS)})" for part in _PARTS[1:])])
# How a row is named in the changes that Citus copies while it moves a shard; see `store.citus.event_keys`.
REPLICA_IDENTITY = "REPLICA IDENTITY FULL"


def of_customer(organization: str, customer: str) -> str:
    """A condition that the events of a customer meet. organization, customer: SQL expressions, of bigint and text."""
    same_part = _same(_PARTS[0], {"organization": organization, "customer": customer})
    return f'e.organization_id = {organization} AND e.customer_id = {customer} COLLATE "C" AND {same_part}'


def in_sample(organization: str, parts: str) -> str:
    """A condition that some of a customer's events meet: `parts` of PARTS_OF_SAMPLE, by the hashes of their ids.

    Together with `of_customer`, the events that meet it are a range of the index of each partition.
    """
    second = _PARTS[1].format_map(_COLUMNS_OF_E)
    first = f"(({organization} & 524287) << 12)::integer"
    return f"{second} >= {first} AND {second} < {first} + {parts}"


def of_event(organization: str, customer: str, event: str) -> str:
    """A condition that the events of a customer with one id meet. The same in each month; see `of_customer`."""
    values = {"organization": organization, "customer": customer, "event": event}
    same_parts = " AND ".join(_same(part, values) for part in _PARTS[1:])
    return f'{of_customer(organization, customer)} AND e.event_id = {event} COLLATE "C" AND {same_parts}'


def _same(part: str, values: dict[str, str]) -> str:
    return f"{part.format_map(_COLUMNS_OF_E)} = {part.format_map(values)}"

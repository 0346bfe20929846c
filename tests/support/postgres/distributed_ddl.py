"""What a migration may do to a table that is distributed, or is on each node: forms that Citus carries out.

Citus refuses what it does not know, so a form that is not listed here has to be tried on a cluster first.
"""

import re

from store.migration_effects import statements
from store.tables.placement import DISTRIBUTION_COLUMN, Placement, placements
from tests.support.postgres.statement_scan import offences

_TARGET = re.compile(
    r"(?:ALTER TABLE (?:IF EXISTS )?(?:ONLY )?|CREATE (?:UNIQUE )?INDEX .*? ON (?:ONLY )?|CREATE TRIGGER .*? ON |"
    r"CREATE RULE .*? TO |LOCK (?:TABLE )?|TRUNCATE (?:TABLE )?)\"?(?P<table>\w+)",
    re.I,
)
_ALLOWED = tuple(
    re.compile(form, re.I)
    for form in (
        r"CREATE INDEX (CONCURRENTLY )?(IF NOT EXISTS )?\w+ ON ",
        rf"CREATE UNIQUE INDEX (CONCURRENTLY )?(IF NOT EXISTS )?\w+ ON .*\b{DISTRIBUTION_COLUMN}\b",
        r"ALTER TABLE \S+ (ADD COLUMN (?!.*\b(GENERATED|IDENTITY|\w*SERIAL|REFERENCES|UNIQUE|PRIMARY KEY)\b)[^;]*)$",
        rf"ALTER TABLE \S+ DROP COLUMN (?!{DISTRIBUTION_COLUMN}\b)\w+$",
        r"ALTER TABLE \S+ ALTER COLUMN \w+ (SET|DROP) (DEFAULT|NOT NULL)",
        r"ALTER TABLE \S+ ADD CONSTRAINT \w+ CHECK ",
        r"ALTER TABLE \S+ (DROP|VALIDATE) CONSTRAINT \w+$",
        r"ALTER TABLE \S+ RENAME COLUMN ",
    )
)


def ddl_offences(sql: str) -> list[str]:
    """The statements of a migration that cannot be carried out on a cluster, each with the reason."""
    found = list[str]()
    for statement in statements(sql):
        found += [f"{statement[:90]}: {offence}" for offence in offences(statement)]
        target = _TARGET.match(statement)
        if target is None or placements().get(target["table"]) not in (Placement.BY_CUSTOMER, Placement.EVERY_NODE):
            continue
        if not any(form.match(statement) for form in _ALLOWED):
            found.append(f"{statement[:90]}: a form that was not tried on distributed tables")
    return found

"""The names of the files of migrations say their revisions, which `store.migrate` reads there."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from store import migrate


def test_names_of_migrations_say_their_revisions_and_the_newest_has_the_greatest() -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(migrate._MIGRATIONS))
    scripts = ScriptDirectory.from_config(configuration)
    assert migrate._revisions() == {script.revision for script in scripts.walk_revisions()}
    assert [migrate.head()] == scripts.get_heads()

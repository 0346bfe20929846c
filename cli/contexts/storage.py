"""The file of the contexts: `tidemark/contexts.json` below XDG_CONFIG_HOME, readable by its user only."""

import json
import os
import re
import secrets
import stat
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cli.console import ConfigurationProblem, Problem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
FOLDER_MODE, FILE_MODE = 0o700, 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Context:
    """One server. key_command: a program and its arguments, whose output is the key. Files are paths."""

    server: str = ""
    key: str = field(default="", repr=False)
    key_command: str = ""
    tls: bool = False
    server_ca: str = ""
    client_certificate: str = ""
    client_key: str = ""


@dataclass(frozen=True)
class Contexts:
    """All contexts by name, and the name of the one in use; empty: none is."""

    current: str = ""
    by_name: dict[str, Context] = field(default_factory=dict)


def path_of_file() -> Path:
    """Where the file is, whether it exists or not. Raises Problem for a user without a home."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    except RuntimeError:  # a container may run as a user that its machine does not know
        raise ConfigurationProblem(
            "this user has no home for the file of contexts", ["name a folder with XDG_CONFIG_HOME"]
        ) from None
    return folder / "tidemark" / "contexts.json"


def load_if_readable() -> Contexts:
    """The contexts; none if this user has no home, or may not read it, as a probe in a container. Raises Problem."""
    try:
        path_of_file().open().close()
    except (OSError, ConfigurationProblem):
        return Contexts()
    return load()


def load() -> Contexts:
    """The contexts; none if there is no file. Raises Problem."""
    path = path_of_file()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError:
        return Contexts()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationProblem(f"the contexts in {path} cannot be read: {error}") from None
    try:
        found = _read(json.loads(text))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ConfigurationProblem(
            f"{path} is damaged: {error}", ["mend it, or delete it and make the contexts anew"]
        ) from None
    if mode & OTHERS and any(context.key for context in found.by_name.values()):
        raise ConfigurationProblem(
            f"{path} has API keys, and other users of this machine may read it", [f"chmod 600 {path}"]
        )
    return found


def _read(document: Any) -> Contexts:
    known = {one.name: one.type for one in fields(Context)}
    by_name = {}
    for name, values in document["contexts"].items():
        for key, value in values.items():
            if key in known and not isinstance(value, bool if key == "tls" else str):
                raise ValueError(f"the {key} of the context {name} is no text")
        by_name[str(name)] = Context(**{key: value for key, value in values.items() if key in known})
    current = document.get("current", "")
    if not isinstance(current, str):
        raise ValueError("`current` is no text")
    return Contexts(current, by_name)


def save(contexts: Contexts) -> None:
    """Replaces the file, at once and as a whole. Raises Problem."""
    path = path_of_file()
    document = {
        "current": contexts.current,
        "contexts": {
            name: {key: value for key, value in asdict(context).items() if value}
            for name, context in sorted(contexts.by_name.items())
        },
    }
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Problem(f"the contexts cannot be written to {path}: {error.strerror}") from None


def find(contexts: Contexts, name: str) -> Context:
    """The context of that name. Raises Problem."""
    if name not in contexts.by_name:
        known = ", ".join(sorted(contexts.by_name)) or "there are none"
        raise ConfigurationProblem(
            f"there is no context {name!r}", [f"known: {known}", f"tidemark context set {name} --server HOST:PORT"]
        )
    return contexts.by_name[name]

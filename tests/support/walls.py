"""The walls of the house: what a module of each room may import and call."""

import ast
import re
import sys
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The rooms that a room may import, besides itself.
ROOMS = {
    "evaluator": set[str](),
    "runtime": set[str](),
    "webhooks": {"evaluator", "runtime.configuration"},  # the lengths of master keys and of their ids
    "store": {"evaluator", "runtime", "webhooks"},
    "engine": {"evaluator", "runtime", "store", "webhooks"},
    "server": {"engine", "evaluator", "generated", "runtime", "store", "webhooks"},
    "notifier": {"evaluator", "runtime", "store", "webhooks"},
    "gateway": {"generated", "runtime"},
    # It is a client: what it shows, it asks the API for.
    "console": {"generated", "runtime"},
    "cli": {
        "console",
        "evaluator",
        "gateway",
        "generated",
        "notifier",
        "runtime",
        "server",
        "store",
        "tidemark_client",
        "webhooks",
    },
    "tidemark_client": set[str](),
}
# Where a room stands that is not in the root.
ELSEWHERE = {"tidemark_client": ROOT / "clients" / "python"}
# What `make proto` writes into the Python client.
GENERATED_FOR_CLIENT = ("tidemark_client/carried/", "tidemark_client/imported/", "tidemark_client/v1/")
# These test and measure the product, and may use raw SQL and the wall clock for it. The product imports
# none of them.
OUTSIDE = {
    "bench": {*ROOMS, "generated", "tests.support"},
    "demo": {*ROOMS, "generated", "tests.reference", "tests.support"},
    "examples": {"generated", "tidemark_client"},
    "tests": {*ROOMS, "generated", "demo", "examples"},
}
# The only tests that may import the benchmarks: those of their pure parts.
TESTS_OF_BENCH = "tests/unit/bench/"
# What modules of tests/ may import from each other. The rings (unit, integration, acceptance) hold tests only, and
# pytest finds the conftest.py of a folder by itself.
SHARED_BY_TESTS = {"tests.support", "tests.reference"}
# The model that the product is compared with: it shares no code with the product, nor with other tests.
REFERENCE = "tests/reference/"
# All that the pure rooms may import besides rooms: nothing that reads a clock, a file or a network.
PURE_MODULES = {
    "__future__",
    "abc",
    "base64",
    "bisect",
    "calendar",
    "collections",
    "contextlib",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "types",
    "typing",
    "unicodedata",
    "uuid",
    "zoneinfo",
}
# The domain of webhooks also encrypts, signs, and reads addresses. Its callers give it a generator of random numbers;
# only new keys and nonces come from the system.
CRYPTOGRAPHY_AND_ADDRESSES = {"binascii", "cryptography", "email", "hmac", "ipaddress", "random", "secrets", "yarl"}
PURE_ROOMS = {"evaluator": PURE_MODULES, "webhooks": PURE_MODULES | CRYPTOGRAPHY_AND_ADDRESSES}
IMPURE_CALLS = {
    "__import__",
    "eval",
    "exec",
    "input",
    "open",
    "print",
    "random.random",
    "random.uniform",
    "uuid.uuid1",
    "uuid.uuid4",
}
GRPC_MODULES = {"grpc", "grpc_health", "grpc_reflection", "grpc_status"}
WITHOUT_GRPC = {"engine", "evaluator", "notifier", "runtime", "store", "webhooks"}
# What the package for users knows: the dependencies that it declares.
PACKAGE_MODULES = {"google", "grpc", "tidemark_client", *sys.stdlib_module_names}
# What it uses where a user has installed it: for signatures with public keys.
OPTIONAL_MODULES = {"tidemark_client/webhooks/verification.py": {"cryptography"}}
SQL_MODULES = {"alembic", "asyncpg", "psycopg", "psycopg_pool", "sqlalchemy", "sqlite3"}
SQL_METHODS = {"execute", "executemany", "exec_driver_sql", "copy_expert"}
# Cython compiles these. Of a package, it takes the declarations in a .pxd when another module says `cimport`.
COMPILED = (".pyx", ".pxd")
DOCSTRING = re.compile(r'^""".*?"""$', re.MULTILINE | re.DOTALL)
COMPILED_IMPORT = re.compile(r"^(?:from [\w.]+ c?import (?:\([^)]*\)|.+)|c?import .+)$", re.MULTILINE)
# The only modules that may read the wall clock: of the service, and of programs with the client.
CLOCKS = {"runtime/clock.py", "tidemark_client/tasks/clock.py"}
CLOCK_CALLS = {
    "date.today",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "time.time",
    "time.time_ns",
}
# The same functions as `from … import` can name them.
CLOCK_IMPORTS = {("time", "time"), ("time", "time_ns")}


@dataclass(frozen=True)
class Module:
    """One source file: its path from the folder of its room, with slashes, and its text."""

    path: str
    text: str

    @property
    def room(self) -> str:
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The dotted name; a package's own file is `package.__init__`, so that its folder is the package."""
        return self.path.rpartition(".")[0].replace("/", ".")

    @property
    def is_compiled(self) -> bool:
        """Whether Cython compiles it."""
        return self.path.endswith(COMPILED)

    @property
    def tree(self) -> ast.Module:
        """Its syntax; of a module that Cython compiles only its docstring and its imports, as those of Python."""
        if not self.is_compiled:
            return ast.parse(self.text)
        docstring = DOCSTRING.search(self.text)
        imports = [found.replace("cimport", "import") for found in COMPILED_IMPORT.findall(self.text)]
        return ast.parse("\n".join([docstring[0] if docstring else "", *imports]))


def modules() -> Iterator[Module]:
    """Every file of every room that is written by hand, in Python or for Cython."""
    for room in ROOMS:
        base = ELSEWHERE.get(room, ROOT)
        for path in sorted((base / room).rglob("*.p*")):
            name = path.relative_to(base).as_posix()
            if path.suffix in (".py", *COMPILED) and not name.startswith(GENERATED_FOR_CLIENT):
                yield Module(name, path.read_text())


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """All nodes of a syntax, as `ast.walk` finds them, in half of the time: it reads thousands of modules."""
    found = [tree]
    for node in found:  # it grows meanwhile
        for value in vars(node).values():
            if isinstance(value, list):
                found += [one for one in value if isinstance(one, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return found


def imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """The line and full name of every imported module, wherever in the file the import stands."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression of only names and dots, otherwise an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def calls(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """The calls among the nodes."""
    return (node for node in nodes if isinstance(node, ast.Call))


def offences(module: Module) -> list[str]:
    """The violations of the walls in a module, each as `path:line: what`."""
    tree = module.tree
    nodes = nodes_of(tree)
    found = list(import_offences(module, nodes))
    found += docstring_offences(module, tree)
    if module.room == "tidemark_client":
        found += package_offences(module, nodes)
    if module.room not in OUTSIDE:
        found += clock_offences(module, nodes)
        found += sql_offences(module, nodes)
    if module.room in PURE_ROOMS:
        found += purity_offences(module.room, nodes)
    if module.room == "evaluator":
        found += float_offences(nodes)
    if module.room == "tests":
        found += ring_offences(nodes)
    if module.path.startswith(REFERENCE):
        found += reference_offences(nodes)
    return [f"{module.path}:{line}: {what}" for line, what in found]


def import_offences(module: Module, nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    for line, name in imports(nodes):
        top = name.partition(".")[0]
        if not top:
            yield line, f"imports {name} relatively: write the room's name"
        elif top == "bench" and module.path.startswith(TESTS_OF_BENCH):
            continue
        elif top in ROOMS.keys() | {"generated"} and not may_import(module.room, name):
            yield line, f"{module.room} must not import {name}"
        elif top in GRPC_MODULES and module.room in WITHOUT_GRPC:
            yield line, f"imports {name}: {module.room} knows nothing of gRPC"


def package_offences(module: Module, nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    allowed = PACKAGE_MODULES | OPTIONAL_MODULES.get(module.path, set())
    for line, name in imports(nodes):
        if name.partition(".")[0] not in allowed:
            yield line, f"imports {name}: tidemark_client depends on grpcio and protobuf only"


def may_import(room: str, name: str) -> bool:
    """Whether a room may import a module of this repository."""
    return is_below(name, ROOMS[room] | {room})


def is_below(name: str, packages: Iterable[str]) -> bool:
    """Whether a name is that of one of the packages, or of a module in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def folders_imported(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Which other folders the modules of each folder import from."""
    known = {module.name for module in modules}
    found: dict[str, set[str]] = {}
    for module in modules:
        for name in imported_modules(nodes_of(module.tree), known):
            if (target := folder(name)) != folder(module.name):
                found.setdefault(folder(module.name), set()).add(target)
    return found


def imported_modules(nodes: Iterable[ast.AST], known: Container[str]) -> Iterator[str]:
    """The full names of the imported modules that are `known`; `from a import b` may name the module a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names = (f"{node.module}.{alias.name}", node.module, f"{node.module}.__init__")
                yield from [name for name in names if name in known][:1]


def folder(name: str) -> str:
    return name.rpartition(".")[0]


def circle(arrows: Mapping[str, Collection[str]]) -> list[str]:
    """Folders that import each other in a circle, in its order; empty when there is none."""
    done: set[str] = set()

    def walk(path: list[str]) -> list[str]:
        for target in sorted(arrows.get(path[-1], ())):
            if target in path:
                return [*path[path.index(target) :], target]
            if target not in done and (found := walk([*path, target])):
                return found
        done.add(path[-1])
        return []

    return next((found for start in sorted(arrows) if start not in done and (found := walk([start]))), [])


def docstring_offences(module: Module, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if module.path.endswith("/__init__.py") and not module.text:
        return  # an empty package needs no docstring
    if not (ast.get_docstring(tree) or "").partition("\n")[0].strip():
        yield 1, "the module's first line must be a docstring that says what lives in it"


def clock_offences(module: Module, nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    if module.path in CLOCKS:
        return
    for call in calls(nodes):
        if (name := dotted(call.func)) in CLOCK_CALLS:
            yield call.lineno, f"calls {name}: ask the injected clock"
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (node.module, alias.name) in CLOCK_IMPORTS:
                    yield node.lineno, f"imports {node.module}.{alias.name}: ask the injected clock"


def sql_offences(module: Module, nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    if module.room == "store":
        return
    for line, name in imports(nodes):
        if name.partition(".")[0] in SQL_MODULES:
            yield line, f"imports {name}: SQL lives in store"
    for call in calls(nodes):
        if isinstance(call.func, ast.Attribute) and call.func.attr in SQL_METHODS:
            yield call.lineno, f"calls .{call.func.attr}(): SQL lives in store"


def purity_offences(room: str, nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    for line, name in imports(nodes):
        top = name.partition(".")[0]
        if top not in PURE_ROOMS[room] | ROOMS.keys():
            yield line, f"imports {name}: {room} is pure"
    for node in nodes:
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield node.lineno, f"awaits: {room} is pure"
        elif isinstance(node, ast.Call) and (name := dotted(node.func)) in IMPURE_CALLS:
            yield node.lineno, f"calls {name}: {room} is pure"


def float_offences(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.lineno, f"has the float {node.value}: amounts are Decimal"
        elif isinstance(node, ast.Call) and dotted(node.func) == "float":
            yield node.lineno, "makes a float: amounts are Decimal"


def ring_offences(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    for line, name in imports(nodes):
        if is_below(name, ["tests"]) and not is_below(name, SHARED_BY_TESTS):
            yield line, f"imports {name}: a helper of several modules stands in tests.support"


def reference_offences(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    for line, name in imports(nodes):
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("tests.reference"):
            yield line, f"imports {name}: the reference model imports only the standard library"

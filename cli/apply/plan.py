"""What `tidemark apply` will do: each declared item is compared with what the server would make of it."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from cli.apply.comparison import contents, differences
from cli.apply.files import Declared
from cli.apply.kinds import KINDS, OWNER_LABEL, Kind
from cli.connection.channels import Caller
from cli.connection.problems import as_failed, problem_of
from cli.console import Problem
from cli.resources import contract

AT_A_TIME = 8  # calls
BATCH = 200  # alerts of one call
BATCH_TIMEOUT = 120.0  # seconds; a batch that is done unseen would be sent again, alert by alert
PAGE = 1_000  # items
# Of an endpoint, in an update: all that a file declares. Credentials are never read, so that they are never compared.
_ENDPOINT_FIELDS = (
    "url",
    "display_name",
    "labels",
    "event_types",
    "condition_types",
    "headers",
    "rate_per_second",
    "max_in_flight",
)


class Action(Enum):
    """What happens to an item."""

    CREATE = "+"
    CHANGE = "~"
    REMOVE = "-"
    SAME = "="
    FAIL = "!"


@dataclass(frozen=True)
class Step:
    """One item: what happens to it. lines: the differences, or what a new one has. problem: why it fails."""

    action: Action
    kind: Kind
    key: str
    place: str
    lines: tuple[str, ...] = ()
    stored: Any = None
    message: Any = None
    problem: Problem | None = None
    warnings: tuple[Any, ...] = ()
    secret: str = ""
    is_owned: bool = True


_NOT_SENT = (Action.FAIL, Action.REMOVE)
_INDEX = re.compile(r"requests\[(\d+)\]")


@dataclass(frozen=True)
class Answered:
    """What the server answers about one item. secret: of a new endpoint."""

    item: Any
    warnings: tuple[Any, ...] = ()
    superseded: bool = False
    secret: str = ""


@dataclass
class Planner:
    """Compares what is declared with what is stored. owner: the value of the label of what it creates and changes."""

    caller: Caller
    owner: str
    adopt: bool
    _stored: dict[str, dict[str, list[Any]]] = field(default_factory=dict, init=False)
    _all: dict[str, list[Any]] = field(default_factory=dict, init=False)
    _batched: dict[tuple[str, bool], Answered] = field(default_factory=dict, init=False)

    def plan(self, declared: Sequence[Declared], kinds: set[str], *, prune: bool) -> list[Step]:
        """The steps, in the order of their execution. Raises grpc.RpcError if the server cannot be asked at all."""
        for one in {each.kind.name: each.kind for each in declared}.values():
            self._read(one)
        begun = self.each(declared, self._begun)
        self._batch(begun, validate_only=True)
        steps = self.each(begun, self._compared)
        if prune:
            for kind in reversed(_pruned(kinds)):
                self._read(kind)
                steps += self._of_others(kind, steps)
        return steps

    def each(self, items: Iterable[Any], work: Callable[[Any], Step]) -> list[Step]:
        """Does the work for each item, several at a time, kind after kind; the steps in the order of the items."""
        steps: list[Step] = []
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            try:
                for group in _by_kind(items):
                    steps += pool.map(work, group)
            except BaseException:  # Ctrl-C while the work is handed out, too: what has not begun is not done
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return steps

    def _read(self, kind: Kind) -> None:
        if kind.name in self._all:
            return
        method = contract.method(kind.reads)
        request = contract.new(method.input_type)
        request.page_size = PAGE
        items = contract.items_field(method.output_type)
        assert items is not None
        found: list[Any] = []
        while True:
            answer = self.caller.call(method, request)
            found += getattr(answer, items.name)
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        found = [one for one in found if kind.can_be_declared(one)]
        by_key: dict[str, list[Any]] = {}
        for one in found:
            for key in kind.keys(one):
                by_key.setdefault(key, []).append(one)
        self._all[kind.name], self._stored[kind.name] = found, by_key

    def _begun(self, declared: Declared) -> Step:
        """The step of an item, with what is stored of it; a failed one if it is ambiguous, or another owner's."""
        kind = declared.kind
        step = Step(Action.SAME, kind, declared.key, declared.place)
        found = self._stored[kind.name].get(declared.key, [])
        if len(found) > 1:
            names = ", ".join(getattr(one, kind.ids[0]) for one in found)
            return _failed(step, Problem(f"several {kind.name} have this name: {names}; give {kind.ids[0]}"))
        stored = found[0] if found else None
        step = replace(step, stored=stored, message=self._with_owner(kind, declared.message))
        if stored is not None and kind.has_labels:
            owner = stored.labels.get(OWNER_LABEL, "")
            step = replace(step, is_owned=owner == self.owner)
            if owner and owner != self.owner and not self.adopt:
                return _failed(
                    step,
                    Problem(f"{owner!r} applied it; --adopt takes it over, and --owner {owner} applies it as before"),
                )
        return step

    def _compared(self, step: Step) -> Step:
        """The step, with how the stored item differs from what the server would make of the declared one."""
        if step.action is Action.FAIL:
            return step
        kind, stored = step.kind, step.stored
        try:
            answer = self._answer(step, validate_only=True)
        except grpc.RpcError as error:
            return _failed(step, problem_of(as_failed(error), self.caller.address))
        step = replace(step, warnings=answer.warnings)
        if stored is None:
            return replace(step, action=Action.CREATE, lines=tuple(contents(kind.declared(answer.item))))
        if answer.superseded:
            return step
        lines = differences(kind.declared(stored), kind.declared(answer.item))
        if kind.name == "endpoints" and step.message.HasField("credentials") and not stored.has_credentials:
            lines.append("credentials: (none) → (hidden)")
        if not lines and self.adopt and not step.is_owned:
            lines = [f"labels.{OWNER_LABEL}: {stored.labels.get(OWNER_LABEL, '(none)')} → {self.owner}"]
        return replace(step, action=Action.CHANGE, lines=tuple(lines)) if lines else step

    def _with_owner(self, kind: Kind, message: Any) -> Any:
        if not kind.has_labels:
            return message
        owned = type(message)()
        owned.CopyFrom(message)
        owned.labels[OWNER_LABEL] = self.owner
        return owned

    def _answer(self, step: Step, *, validate_only: bool) -> Answered:
        """What the server answers to the request of a step, alone or in a batch. Raises grpc.RpcError."""
        known = self._batched.get((step.key, validate_only)) if step.kind.name == "alerts" else None
        if known is not None:
            return known
        method, request = self._request(step, validate_only=validate_only)
        answer = self.caller.call(method, request)
        return Answered(
            getattr(answer, step.kind.field),
            tuple(getattr(answer, "warnings", ())),
            bool(getattr(answer, "superseded", False)),
            str(getattr(answer, "secret", "")),
        )

    def _batch(self, steps: Iterable[Step], *, validate_only: bool) -> None:
        """Sends the requests of alerts in batches, each all or none. Those of one that fails are sent one by one."""
        wanted = [one for one in steps if one.kind.name == "alerts" and one.action not in _NOT_SENT]
        method = contract.method("AlertService/BatchUpdateAlerts")
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            request = contract.new(method.input_type)
            request.validate_only = validate_only
            for step in part:
                request.requests.append(self._request(step, validate_only=False)[1])
            try:
                answer = self.caller.call(method, request, BATCH_TIMEOUT)
            except grpc.RpcError:
                continue
            warnings: dict[int, list[Any]] = {}
            for warning in answer.warnings:
                if found := _INDEX.match(warning.field):
                    warnings.setdefault(int(found[1]), []).append(warning)
            whole = len(part) - (answer.abridged_alert_count if validate_only else 0)
            for index, (step, alert) in enumerate(zip(part[:whole], answer.alerts[:whole], strict=True)):
                self._batched[step.key, validate_only] = Answered(alert, tuple(warnings.get(index, ())))

    def _request(self, step: Step, *, validate_only: bool) -> tuple[MethodDescriptor, Any]:
        """The RPC that creates or changes an item, and its request."""
        kind = step.kind
        name = kind.puts or (kind.creates if step.stored is None and kind.creates else kind.updates)
        method = contract.method(name)
        request = contract.new(method.input_type)
        request.validate_only = validate_only
        target = getattr(request, kind.field)
        target.CopyFrom(step.message)
        if name == kind.updates:
            if kind.name == "alerts":
                request.update_mask.paths.append("*")
                request.allow_missing = not target.alert_id
                if step.stored is not None:
                    target.etag = step.stored.etag
            else:
                paths = [*_ENDPOINT_FIELDS]
                paths += [path for path in ("state",) if target.state]
                paths += ["credentials"] if target.HasField("credentials") and not step.stored.has_credentials else []
                request.update_mask.paths.extend(paths)
                target.endpoint_id = step.stored.endpoint_id
        elif kind.creates:
            target.ClearField("endpoint_id")
        return method, request

    def _of_others(self, kind: Kind, steps: Sequence[Step]) -> list[Step]:
        """The steps that remove what this owner applied once, and what is declared no more."""
        kept = {id(step.stored) for step in steps}
        return [
            Step(Action.REMOVE, kind, kind.key(one), "", stored=one)
            for one in self._all[kind.name]
            if one.labels.get(OWNER_LABEL) == self.owner and id(one) not in kept
        ]

    def carry_out(self, steps: Sequence[Step]) -> list[Step]:
        """Does the steps; returns them in the order of their kinds, with what came of each."""
        self._batch(steps, validate_only=False)
        return self.each(steps, self._do)

    def _do(self, step: Step) -> Step:
        try:
            if step.action is Action.REMOVE:
                method = contract.method(step.kind.removes)
                request = contract.new(method.input_type)
                setattr(request, step.kind.ids[0], getattr(step.stored, step.kind.ids[0]))
                self.caller.call(method, request)
                return step
            answer = self._answer(step, validate_only=False)
        except grpc.RpcError as error:
            return _failed(step, problem_of(as_failed(error), self.caller.address))
        return replace(step, warnings=answer.warnings, secret=answer.secret)


def _failed(step: Step, problem: Problem) -> Step:
    return replace(step, action=Action.FAIL, problem=problem)


def _pruned(kinds: set[str]) -> list[Kind]:
    return [kind for kind in KINDS if kind.has_labels and kind.name in kinds]


def _by_kind(items: Iterable[Any]) -> Iterator[list[Any]]:
    every = list(items)
    for kind in KINDS:
        group = [item for item in every if item.kind is kind]
        if group:
            yield group

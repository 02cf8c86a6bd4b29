"""What people have decided, and to which windows it applies (`contracts.md` 8).

A decision applies to windows that close after it in the log and start at or after its `effective_at`. A mute lasts
until its end; relearn and resolve are carried out once, with the first such window of the model version they name.
Whatever can apply no more is forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, get_args

from msgspec import Struct, field
from msgspec.structs import replace

from stream.wire.control import ControlEvent, Mute, Relearn, Resolve, Retrained
from stream.wire.outbound import Kind, fingerprint

ALL_KINDS: Final[frozenset[Kind]] = frozenset(get_args(Kind))
_SHARED: Final = ("data_quality", "silence")
RETRAINED_MAX: Final = 256
"""Answers to retrain requests that are remembered, the newest."""

Name: TypeAlias = tuple[str, str]
"""Model id and version; of an event source and id."""


class Held(Struct, frozen=True):
    """A decision that is in force, or still to come."""

    decision: Mute | Relearn | Resolve
    over_ms: int
    """Windows that end later are none of its."""


class Decisions(Struct, frozen=True):
    """All that is remembered of control events. Markers are not: they change nothing here."""

    held: dict[Name, Held] = field(default_factory=dict)
    """By source and id, as they came: an event that is repeated is one event."""
    retrained: dict[str, Retrained] = field(default_factory=dict)
    """By the alert id of the request, the newest last."""


class Subject(Struct, frozen=True):
    """What a window may tell of."""

    name: Name
    segments: Sequence[str]
    kinds: Sequence[Kind]
    scope: str = ""
    """Of those kinds that inputs and outcomes both have."""


class Orders(Struct, frozen=True):
    """What applies to one window of one model version."""

    muted: frozenset[Kind] = frozenset()
    relearn_ms: int | None = None
    """From this time on, or the first window that ingest can still be told of, a new reference is to be learned."""
    resolved: frozenset[str] = frozenset()
    """Fingerprints of alerts that end by hand."""


def heard(decisions: Decisions, event: ControlEvent, watermark_ms: int | None, size_ms: int) -> Decisions:
    """One event more; `watermark_ms` is how far all sources had come when it was heard."""
    name, decision = (event.source, event.id), event.decision
    if isinstance(decision, Retrained):
        answers = {key: one for key, one in decisions.retrained.items() if key != decision.alert_id}
        newest = [*answers.items(), (decision.alert_id, decision)][-RETRAINED_MAX:]
        return replace(decisions, retrained=dict(newest))
    if name in decisions.held or not isinstance(decision, Mute | Relearn | Resolve):
        return decisions
    if isinstance(decision, Mute):
        over_ms = decision.until_ms + size_ms
    else:
        # By then every version here has closed a window that the decision applies to.
        over_ms = max(decision.effective_at_ms, watermark_ms or 0) + 2 * size_ms
    return replace(decisions, held={**decisions.held, name: Held(decision, over_ms)})


def orders(decisions: Decisions, subject: Subject, *, start_ms: int, from_ms: int) -> tuple[Orders, Decisions]:
    """What applies to a window that starts at `start_ms`, and the decisions without those that are carried out now.

    `from_ms` is from when on a reference is in force that is published with this window.
    """
    name = subject.name
    if not decisions.held:
        return Orders(), decisions
    muted: frozenset[Kind] = frozenset()
    relearn_ms: int | None = None
    resolved, done = set[str](), set[Name]()
    own = _fingerprints(subject) if _any_resolves(decisions.held) else frozenset()
    for event, held in decisions.held.items():
        match held.decision:
            case Mute() as mute if mute.model_id in {None, name[0]}:
                if mute.effective_at_ms <= start_ms < mute.until_ms:
                    muted |= ALL_KINDS.intersection(mute.kinds) or ALL_KINDS
            case Relearn(model_id=model_id, model_version=version, effective_at_ms=at_ms):
                if (model_id, version) == name and at_ms <= from_ms:
                    relearn_ms = max(at_ms, relearn_ms or at_ms)
                    done.add(event)
            case Resolve(fingerprint=alert, effective_at_ms=at_ms):
                if alert in own and at_ms <= start_ms:
                    resolved.add(alert)
                    done.add(event)
    left = {event: held for event, held in decisions.held.items() if event not in done}
    return Orders(muted, relearn_ms, frozenset(resolved)), replace(decisions, held=left) if done else decisions


def kept(decisions: Decisions, closed_ms: int) -> Decisions:
    """The decisions that still concern a window, where all that end at or before `closed_ms` are closed."""
    left = {event: held for event, held in decisions.held.items() if held.over_ms > closed_ms}
    return decisions if len(left) == len(decisions.held) else replace(decisions, held=left)


def _any_resolves(held: Mapping[Name, Held]) -> bool:
    return any(isinstance(one.decision, Resolve) for one in held.values())


def _fingerprints(subject: Subject) -> frozenset[str]:
    """Of all alerts that a window may tell of."""
    return frozenset(
        fingerprint(*subject.name, segment, kind, subject.scope if kind in _SHARED else "")
        for segment in subject.segments
        for kind in subject.kinds
    )

"""A reference of outcomes says on the wire what it was made of, and refuses what contradicts itself."""

import numpy as np
import pytest
from labelled import START_MS, Labelled, total
from makings import plain
from msgspec.structs import replace

from stream.profiles import outcome_reference
from stream.profiles.outcome_tables import Serving, compile_outcomes
from stream.profiles.reference import References, reference_key
from stream.wire import codec
from stream.wire.internal import Reference
from stream.wire.record import Record
from stream.wire.times import rfc3339

SERVING: Serving = {"all": {"outcome:error rate": (1.5, 300.0), "outcome:residual mean": (2.0, 300.0)}}


def reference(stream: Labelled, serving: Serving | None = None) -> Reference:
    return outcome_reference.written(
        total(stream.windows(20)),
        SERVING if serving is None else serving,
        origin="built",
        data_ms=(START_MS, START_MS + 1),
        effective_from_ms=START_MS,
        window_size_ms=60_000,
    )


@pytest.mark.parametrize("stream", [Labelled(), Labelled(regression=True)], ids=["classification", "regression"])
def test_what_is_read_is_what_was_written(stream: Labelled) -> None:
    data = codec.encode_reference(reference(stream))
    found = codec.decode_reference(data)
    assert isinstance(found, Reference)
    assert found.scope == "outcomes"
    assert plain(outcome_reference.read(found)) == plain(compile_outcomes(total(stream.windows(20)), SERVING))


def test_its_public_part_can_be_read_without_ours() -> None:
    found = reference(Labelled()).signals
    right, wrong = found["outcome:error"].counts
    assert right + wrong == 20 * 300
    unlabelled, labelled = found["outcome:coverage"].counts
    assert labelled / (labelled + unlabelled) == pytest.approx(0.8, abs=0.02)
    assert len(found["outcome:delay"].edges or ()) + 1 == len(found["outcome:delay"].counts)
    regression = reference(Labelled(regression=True)).signals["outcome:error"]
    assert regression.mean == pytest.approx(np.sqrt(2 / np.pi), abs=0.02)
    assert sum(regression.counts) == 6000


def test_what_is_unknown_of_serving_stays_unknown() -> None:
    found = reference(Labelled(), {})
    assert found.window_rows is None
    assert np.isnan(outcome_reference.read(found).phi).all()
    assert reference(Labelled()).window_rows == 300


def test_a_range_of_scores_without_overdispersion_of_its_own_spreads_like_all() -> None:
    tables = outcome_reference.read(reference(Labelled()))
    ranges = [index for index, member in enumerate(tables.members) if member.measure.startswith("range_")]
    assert len(ranges) == 4
    assert (tables.phi[0, ranges] == 2.0).all()


def test_a_reference_that_contradicts_itself_is_refused() -> None:
    good = reference(Labelled())
    assert good.outcomes is not None
    broken = [
        replace(good, scope="inputs"),
        replace(good, outcomes=None),
        replace(good, outcomes=replace(good.outcomes, classes=["0"])),
        replace(good, outcomes=replace(good.outcomes, scores={"all": [(192, 1, 1)]})),
        replace(good, signals={**good.signals, "outcome:delay": replace(good.signals["outcome:delay"], counts=[1])}),
    ]
    for one in broken:
        with pytest.raises(ValueError, match="outcomes"):
            outcome_reference.read(one)


def heard(*records: Record) -> References:
    return References.empty().apply_all(records)


def at(offset: int, one: Reference, *, gone: bool = False) -> Record:
    return Record("drift.references", 0, offset, 0, reference_key(one), None if gone else codec.encode_reference(one))


def dated(effective_from_ms: int) -> Reference:
    return codec.named(replace(reference(Labelled()), effective_from=rfc3339(effective_from_ms)))


def id_of(one: Reference) -> str:
    return one.reference_id


def test_the_one_in_force_is_the_latest_that_was_heard_of_by_then() -> None:
    old, new = dated(START_MS), dated(START_MS + 60_000)
    view = heard(at(3, old), at(7, new))
    found = {
        (window, offset): view.outcomes_at("credit", "3", START_MS + window * 60_000, offset, id_of)
        for window in (-1, 0, 1)
        for offset in (3, 4, 7, 8)
    }
    assert [found[1, offset] for offset in (3, 4, 7, 8)] == [None, old.reference_id, old.reference_id, new.reference_id]
    assert [found[0, offset] for offset in (3, 4, 7, 8)] == [None] + [old.reference_id] * 3
    assert not any(found[-1, offset] for offset in (3, 4, 7, 8))
    assert view.outcome_reference(old.reference_id, id_of) == old.reference_id


def test_a_retired_one_is_in_force_until_its_tombstone_and_after_it_was_published_again() -> None:
    one = dated(START_MS)
    view = heard(at(0, one), at(5, one, gone=True), at(9, one))
    assert heard(at(0, one), at(5, one, gone=True)).outcomes_at("credit", "3", START_MS, 6, id_of) is None
    assert heard(at(0, one), at(5, one, gone=True)).outcomes_at("credit", "3", START_MS, 5, id_of) == one.reference_id
    assert view.outcomes_at("credit", "3", START_MS, 10, id_of) == one.reference_id
    assert heard(at(0, one), at(4, one)).outcomes_at("credit", "3", START_MS, 1, id_of) == one.reference_id


def test_one_that_cannot_be_read_is_passed_over_and_inputs_have_their_own() -> None:
    good, bad = dated(START_MS), dated(START_MS + 1)

    def read(one: Reference) -> str:
        if one == bad:
            raise ValueError(one.reference_id)
        return one.reference_id

    view = heard(at(0, good), at(1, bad))
    assert view.outcomes_at("credit", "3", START_MS + 60_000, 9, read) == good.reference_id
    assert view.at("credit", "3", START_MS + 60_000) is None
    assert view.by_id(good.reference_id) is None
    assert view.versions() == []
    assert view.errors == 0

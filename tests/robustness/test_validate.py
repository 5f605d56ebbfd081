"""Each validator catches what it is there for, in histories made by hand."""

from __future__ import annotations

import json

from strongbox.store import keyspace
from strongbox.store.etcd.watch import Event, Kind
from tests.robustness import probe, validate
from tests.robustness.faults.fault import Fault, nothing
from tests.robustness.history import AWAY, BROKEN, OK, History, Op
from tests.robustness.run import Struck
from tests.robustness.witness import Witness


def _op(begun: float, ended: float, **changes: object) -> Op:
    values: dict[str, object] = {
        "subject": "secret:a", "kind": "read", "given": (None,), "begun": begun, "ended": ended,
        "outcome": OK, "request_id": f"r{begun}", "audit": ("ReadSecret", "secret/a"),
    }  # fmt: skip
    return Op(**{**values, **changes})  # type: ignore[arg-type]


def _line(request_id: str, **changes: object) -> bytes:
    entry = {
        "request_id": request_id, "op": "ReadSecret", "path": "secret/a", "outcome": "ok", "producer": "kv/1",
        "producer_seq": request_id,
    }  # fmt: skip
    return json.dumps({**entry, **changes}).encode()


def _struck(begun: float, recovered: float, **changes: object) -> Struck:
    fault = Fault("kill kv", "node-1", nothing, nothing, 1.0, **changes)  # type: ignore[arg-type]
    return Struck(fault, begun, begun + 1, recovered, silence=0.5, etcd_silence=0.1)


def test_an_answer_that_was_not_recorded_is_found() -> None:
    history = History([_op(1, 2), _op(3, 4)])
    assert list(validate.audited(history, [_line("r1"), _line("r3")])) == []
    (found,) = validate.audited(history, [_line("r1")])
    assert "not in the chain" in found


def test_a_refusal_recorded_as_a_success_is_found() -> None:
    refused = _op(1, 2, outcome="refused", output=(403,))
    assert any("not in the chain" in one for one in validate.audited(History([refused]), [_line("r1")]))
    assert list(validate.audited(History([refused]), [_line("r1", outcome="refused")])) == []


def test_a_record_that_is_chained_twice_is_found() -> None:
    assert len(list(validate.audited(History([]), [_line("r1"), _line("r1")]))) == 1


def test_an_operation_that_one_producer_carried_out_twice_is_found() -> None:
    lines = [_line("r1"), _line("r1", producer_seq="later")]
    assert any("2 times" in one for one in validate.audited(History([_op(1, 2)]), lines))
    by_another = [_line("r1"), _line("r1", producer="kv/2")]  # the gateway asked again when the first died
    assert list(validate.audited(History([_op(1, 2)]), by_another)) == []


def test_a_revision_that_goes_back_is_found() -> None:
    assert list(validate.in_order(History([_op(1, 2, revision=7), _op(3, 4, revision=7)]))) == []
    assert len(list(validate.in_order(History([_op(1, 2, revision=7), _op(3, 4, revision=6)])))) == 1
    assert list(validate.in_order(History([_op(1, 5, revision=7), _op(3, 4, revision=6)]))) == []


def test_an_answer_while_sealed_is_found() -> None:
    assert len(list(validate.sealed(History([_op(2, 3)]), [(1, 4)]))) == 1
    assert list(validate.sealed(History([_op(0.5, 1.2), _op(2, 3, outcome=AWAY)]), [(1, 4)])) == []


def test_a_value_that_comes_after_sealing_is_found_whenever_it_was_asked_for() -> None:
    window = [(1.0, 4.0)]
    assert len(list(validate.sealed(History([_op(0.5, 3)]), window))) == 1
    assert list(validate.sealed(History([_op(0.5, 1.2)]), window)) == []  # it had left before
    assert list(validate.sealed(History([_op(0.5, 3, kind="write")]), window)) == []


def test_a_request_that_outlives_its_deadline_is_found() -> None:
    slow = History([_op(1, 9)])
    assert len(list(validate.in_time(slow, []))) == 1
    assert list(validate.in_time(slow, [_struck(0, 10, silent=[0])])) == []
    assert len(list(validate.in_time(slow, [_struck(0, 10, silent=[1])]))) == 1


def test_an_internal_error_is_found() -> None:
    assert len(list(validate.nothing_broken(History([_op(1, 2, outcome=BROKEN)])))) == 1


def test_a_run_that_did_little_is_no_success() -> None:
    assert any("operations" in one for one in validate.enough(History([]), [], 10, 0))
    assert any("faults" in one for one in validate.enough(History([]), [_struck(0, 1)], 0, 2))


def test_the_silence_of_a_node_is_measured_by_answers_to_what_was_begun_within() -> None:
    history = History([_op(0, 3), _op(3.5, 4, node=0), _op(3.5, 9, node=1)])
    assert history.longest_silence(1, 10, [0]) == 6
    assert history.longest_silence(1, 10, [0, 1]) == 5


def test_the_witness_sees_an_effect_out_of_office_and_time_going_back() -> None:
    witness = Witness([], None)  # type: ignore[arg-type]  # not started
    office, audit = probe.OFFICE, keyspace.election("audit", "audit")
    for event in (
        Event(Kind.PUT, office, b"1 node-1", 1),
        Event(Kind.PUT, probe.EFFECT, b"1 0", 2),
        Event(Kind.PUT, audit, b"4 node-1", 3),
        Event(Kind.PUT, keyspace.CLUSTER_TIME, b"%020d" % 100, 4),
    ):
        witness.see(event)
    assert witness.violations == []
    witness.see(Event(Kind.DELETE, office, b"", 5))
    witness.see(Event(Kind.PUT, probe.EFFECT, b"1 1", 6))
    witness.see(Event(Kind.PUT, office, b"2 node-2", 7))
    witness.see(Event(Kind.PUT, probe.EFFECT, b"1 2", 8))
    witness.see(Event(Kind.PUT, keyspace.CLUSTER_TIME, b"%020d" % 99, 9))
    witness.see(Event(Kind.DELETE, audit, b"", 10))
    witness.see(Event(Kind.PUT, keyspace.CLUSTER_TIME, b"%020d" % 101, 11))
    assert len(witness.violations) == 4

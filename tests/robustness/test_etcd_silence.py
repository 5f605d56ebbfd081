"""What counts as etcd's own silence, and what the report gets out of logs."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tests.robustness import diagnosis
from tests.robustness.etcd_silence import SEALS_AFTER, EtcdSilence


def _silence() -> EtcdSilence:
    return EtcdSilence(cast(Any, None))


def test_a_silence_is_from_the_question_that_was_answered_to_the_next_answer() -> None:
    silence, now = _silence(), time.monotonic()
    silence._answered = now - 30
    silence.note(now - 12, now - 11)
    silence.note(now - 1, now)
    assert silence.longest(now - 20) == 19.0
    assert silence.longest(now - 5) == 12.0 > SEALS_AFTER


def test_a_silence_that_was_over_before_does_not_count_and_one_that_lasts_does() -> None:
    silence, now = _silence(), time.monotonic()
    silence._answered = now - 30
    silence.note(now - 21, now - 20)
    silence.note(now - 9, now - 8.5)
    silence.note(now - 8.5, now - 8.4)
    assert 8.5 <= silence.longest(now - 5) < 9.5
    assert silence.longest(now - 8.6) == 12.5


def test_warnings_are_counted_from_the_moment_on_and_junk_is_passed_over(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    logs = tmp_path / "node-1" / "logs"
    logs.mkdir(parents=True)
    old, new = (now - timedelta(seconds=60)).isoformat(), now.isoformat()
    etcd = [
        {"level": "warn", "ts": old, "msg": "slow"},
        {"level": "warn", "ts": new, "msg": "slow"},
        {"level": "warn", "ts": new, "msg": "slow"},
        {"level": "info", "ts": new, "msg": "quick"},
    ]
    (logs / "etcd.log").write_text("no JSON\n[]\n" + "\n".join(map(json.dumps, etcd)) + "\n")
    seal = {"level": "warning", "timestamp": new, "event": "the keys are wiped"}
    (logs / "seal.log").write_text(json.dumps(seal) + "\n")
    told = list(diagnosis.lines(tmp_path, ["node-1", "node-2"], now - timedelta(seconds=1)))
    assert [line.split(maxsplit=4)[:3] for line in told] == [["node-1", "etcd", "2"], ["node-1", "seal", "1"]]
    assert told[1].endswith("the keys are wiped")

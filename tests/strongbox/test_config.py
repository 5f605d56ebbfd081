"""Settings from the environment and from files, as they come from any system."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.config import SERVICES, ConfigError, Settings, load

ENOUGH = {
    "STRONGBOX_NODE_ID": "node-1",
    "STRONGBOX_ETCD_ENDPOINTS": "127.0.0.1:2379, 127.0.0.1:2380",
    "STRONGBOX_TLS_CERT": "kv.crt",
    "STRONGBOX_TLS_KEY": "kv.key",
    "STRONGBOX_TLS_CA": "ca.crt",
}
AS_FILE = "\n".join(f"{name}={value}" for name, value in ENOUGH.items())


def from_file(folder: Path, content: bytes, **environ: str) -> Settings:
    file = folder / "strongbox.conf"
    file.write_bytes(content)
    return load("kv", {"STRONGBOX_CONFIG": str(file), **environ})


@pytest.mark.parametrize("service", SERVICES)
def test_the_environment_is_enough_for_every_service(service: str) -> None:
    settings = load(service, ENOUGH)
    assert settings.service == service
    assert settings.etcd_endpoints == ("127.0.0.1:2379", "127.0.0.1:2380")


@pytest.mark.parametrize("host", ["https://api:99999", "https://api:x", "http://api", "https://a/b"])
def test_a_reviewers_host_that_is_none_is_refused_in_words(host: str) -> None:
    with pytest.raises(ConfigError, match="REVIEWER_HOST"):
        load("auth", {**ENOUGH, "STRONGBOX_REVIEWER_HOST": host})


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(ConfigError, match="SERVICE"):
        load("nonsense", ENOUGH)


def test_carriage_returns_of_another_system_are_never_part_of_a_setting(tmp_path: Path) -> None:
    settings = from_file(tmp_path, AS_FILE.replace("\n", "\r\n").encode() + b"\r\n")
    assert settings == load("kv", ENOUGH)


def test_carriage_returns_in_the_environment_are_harmless_too() -> None:
    assert load("kv", {name: f"{value}\r\n" for name, value in ENOUGH.items()}) == load("kv", ENOUGH)


def test_a_carriage_return_inside_a_list_is_no_part_of_an_address() -> None:
    endpoints = "127.0.0.1:2379\r,\r\n127.0.0.1:2380"
    assert load("kv", {**ENOUGH, "STRONGBOX_ETCD_ENDPOINTS": endpoints}) == load("kv", ENOUGH)


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    assert from_file(tmp_path, b"\xef\xbb\xbf" + AS_FILE.encode()) == load("kv", ENOUGH)


def test_comments_blank_lines_and_names_without_the_prefix_are_understood(tmp_path: Path) -> None:
    bare = AS_FILE.replace("STRONGBOX_", "")
    assert from_file(tmp_path, f"# ours\n\n  {bare}\n   # end".encode()) == load("kv", ENOUGH)


def test_a_value_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert from_file(tmp_path, f"{AS_FILE}\nDATA_DIR=a=b".encode()).data_dir == Path("a=b")


@pytest.mark.parametrize(
    "line", ["STRONGBOX_LISTN=127.0.0.1:1", "no equals sign", "SERVICE=seal", "CONFIG=x", "=x"]
)
def test_what_is_no_setting_is_refused_by_its_line_and_not_quoted(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"strongbox\.conf:7: not a setting") as caught:
        from_file(tmp_path, f"{AS_FILE}\n\n{line}".encode())
    assert line not in str(caught.value)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = from_file(tmp_path, AS_FILE.encode(), STRONGBOX_NODE_ID="node-2")
    assert settings.node_id == "node-2"
    assert settings.tls_ca == Path("ca.crt")


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert from_file(tmp_path, AS_FILE.encode(), STRONGBOX_NODE_ID="").node_id == "node-1"


def test_a_file_that_is_missing_or_no_text_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: FileNotFoundError"):
        load("kv", {"STRONGBOX_CONFIG": str(tmp_path / "nothing")})
    with pytest.raises(ConfigError, match="cannot be read: UnicodeDecodeError"):
        from_file(tmp_path, b"\xff\xfe\x00")


@pytest.mark.parametrize("missing", sorted(ENOUGH))
def test_a_setting_without_a_default_is_asked_for_by_its_name(missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        load("kv", {name: value for name, value in ENOUGH.items() if name != missing})


@pytest.mark.parametrize("node", ["a/b", "a b", "", "x" * 64, "nöde"])
def test_a_node_is_named_as_etcd_keys_and_host_names_allow(node: str) -> None:
    with pytest.raises(ConfigError, match="STRONGBOX_NODE_ID"):
        load("kv", {**ENOUGH, "STRONGBOX_NODE_ID": node})


def test_a_wrong_value_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        load("kv", {**ENOUGH, "STRONGBOX_PROFILE": "hunter2hunter2"})
    assert "hunter2" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40))
def test_no_text_in_the_environment_raises_anything_but_a_config_error(text: str) -> None:
    for name in (*ENOUGH, "STRONGBOX_PROFILE", "STRONGBOX_PEER_UNSEAL", "STRONGBOX_LOG_LEVEL"):
        try:
            load("kv", {**ENOUGH, name: text})
        except ConfigError:
            continue


def test_log_levels_are_understood_in_any_case() -> None:
    assert load("kv", {**ENOUGH, "STRONGBOX_LOG_LEVEL": "WARNING"}).log_level == "warning"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("kv", ENOUGH).node_id = "node-9"

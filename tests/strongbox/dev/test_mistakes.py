"""`strongbox dev` asked for what cannot be: a sentence and exit 1, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from strongbox.config import SERVICES
from strongbox.dev.cli import app
from strongbox.gateway.configuration import Endpoint, GatewaySettings, envoy_configuration
from tests.support.gateway import running_gateway


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--base-port", "70000"), "ports end at 65535: a --base-port is 0 to 65532"),
        (("up", "--base-port", "65535", "--nodes", "1"), "ports end at 65535: a --base-port is 0 to 65534"),
        (("up", "--base-port", "-1"), "ports end at 65535"),
        (("up", "--data", "/dev/null"), "/dev/null: File exists"),
        (("up", "--data", "/dev/null/x"), "/dev/null/x: Not a directory"),
        (("up", "--data", "/proc/x"), "/proc/x: No such file or directory"),
        (("up", "--data", "/dev/null", "--detach"), "/dev/null: File exists"),
        (("up", "--data", "/proc/x", "--detach"), "/proc/x: No such file or directory"),
        (("up", "--data", "/dev/null", "--node", "node-1"), "there is no cluster in /dev/null"),
        (("up", "--hosts", "/nowhere"), "/nowhere: No such file or directory"),
        (("up", "--hosts", "/etc/passwd"), "/etc/passwd is not JSON"),
        (("status", "--data", "/dev/null"), "there is no cluster in /dev/null"),
        (("certs", "rotate", "--data", "/dev/null"), "there is no cluster in /dev/null"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, list(words))
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"strongbox dev: {said}")
    assert answer.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_file_of_a_cluster_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    for command in ("down", "status"):
        answer = CliRunner().invoke(app, [command, "--data", str(tmp_path)])
        assert answer.exit_code == 1
        assert answer.stderr == f"strongbox dev: {tmp_path}/cluster.json is not what was written there\n"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\\", "a: b, c", "é𝄞", "@NODE@ #x", "%PATH%{}", "a\tb"])
def test_a_folder_of_any_name_reaches_envoy_as_it_is(name: str, tmp_path: Path) -> None:
    where = tmp_path / name / "envoy.yaml"
    endpoint = {service: [Endpoint("127.0.0.1", 1, own=True)] for service in SERVICES}
    files = (where, where, where, where, where.parent)
    text = envoy_configuration(GatewaySettings(name, 1, 1, endpoint, *files))
    read = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert read["node"]["id"] == name
    (cluster, *_) = read["static_resources"]["clusters"]
    tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    (identity,) = tls["tls_certificate_sds_secret_configs"]
    assert identity["sds_config"]["path_config_source"]["path"] == str(where.with_name("sds-identity.json"))


def test_envoy_starts_from_a_folder_with_quotes_and_backslashes(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" \\n name 𝄞'
    folder.mkdir()
    with running_gateway(folder) as gateway:
        assert gateway.rest("GET", "/v1/secrets/a").status == 200

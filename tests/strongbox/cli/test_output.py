"""What is printed: told when it cannot be, exact in a pipe, harmless on a terminal."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from strongbox.cli.output import visible
from tests.strongbox.cli.conftest import Run
from tests.support.fake_strongbox import TOKEN, World

Env = dict[str, str]
Words = tuple[str, ...]
EVIL = "\x1b[31m\x1b]0;owned\x07\x9b31m\u202e\u2066\x7f\rend\tof\nit"


@pytest.fixture
def environment(world: World) -> Env:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGBOX_")}
    return {**kept, "STRONGBOX_ADDR": f"http://{world.target}", "STRONGBOX_TOKEN": TOKEN}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "strongbox.cli", *words]


@pytest.mark.parametrize(
    "words", [("kv", "get", "a"), ("kv", "get", "a", "--raw"), ("kv", "list"), ("--help",)]
)
def test_a_full_disk_is_told_in_a_sentence(run: Run, environment: Env, words: tuple[str, ...]) -> None:
    run("kv", "put", "a", said="x")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*words), env=environment, stdout=full, stderr=subprocess.PIPE, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (
        1, b"strongbox: the output cannot be written: No space left on device\n",
    )  # fmt: skip


def test_a_character_that_the_output_lacks_is_told_in_a_sentence(run: Run, environment: Env) -> None:
    run("kv", "put", "a", said="\N{GRINNING FACE}")
    done = subprocess.run(
        command("kv", "get", "a"), env={**environment, "PYTHONIOENCODING": "cp1252"}, capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "strongbox: the output's encoding, charmap, lacks a character: set PYTHONIOENCODING=utf-8\n"
    )


PRINTED_LATER = "from strongbox.cli import app; app.build = lambda with_dev: lambda: print('x'); app.main()"


@pytest.mark.parametrize(
    "words",
    [
        command("kv", "get", "a", "--raw"),
        command("--help"),
        [sys.executable, "-c", PRINTED_LATER],  # in the output's buffer until the command is over
    ],
    ids=["raw", "help", "later"],
)
def test_a_reader_who_leaves_is_not_told_anything(run: Run, environment: Env, words: list[str]) -> None:
    run("kv", "put", "a", said="x" * 500_000)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as left:
        done = subprocess.run(
            words, env=environment, stdout=left, stderr=subprocess.PIPE, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("words", [(), ("--raw",), ("-o", "json")])
def test_a_value_commands_no_terminal(run: Run, environment: Env, words: tuple[str, ...]) -> None:
    run("kv", "put", "a", "--file", "-", said=EVIL)
    seen = on_terminal(command("kv", "get", "a", *words), environment)
    assert "owned" in seen
    assert "end" in seen
    left = seen.replace("\r\n", "\n")  # as the terminal's driver writes a line end
    assert visible(left) == left


def test_a_value_in_a_pipe_is_not_altered(run: Run) -> None:
    run("kv", "put", "a", "--file", "-", said=EVIL)
    assert EVIL in run("kv", "get", "a").stdout_bytes.decode()
    assert run("kv", "get", "a", "--raw").stdout_bytes.decode() == EVIL


def on_terminal(words: list[str], environment: Env) -> str:
    """What the command writes when its output is a terminal."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(words, env=environment, stdout=theirs, stderr=subprocess.DEVNULL) as process:
            os.close(theirs)
            parts: list[bytes] = []
            try:
                while part := os.read(ours, 4096):
                    parts.append(part)
            except OSError:
                pass  # EIO: the other side has closed
            process.wait(30)
    finally:
        os.close(ours)
    return b"".join(parts).decode()


@pytest.fixture
def plain_server() -> Iterator[str]:
    """Something that speaks no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_https_to_a_plain_port_asks_whether_it_speaks_tls(environment: Env, plain_server: str) -> None:
    done = subprocess.run(
        command("kv", "list"), env={**environment, "STRONGBOX_ADDR": f"https://{plain_server}"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        f"strongbox: no TLS handshake with https://{plain_server}: does it speak TLS? (UNAVAILABLE)\n"
    )

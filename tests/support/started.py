"""Which tests start etcd, Envoy, PostgreSQL or a service: by their code, and by what is run while they run.

Used by tests/conftest.py, so it imports nothing that takes long.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

# What starts them for tests.
STARTERS = {"Cluster", "EtcdCluster", "PostgresServer", "SealNodes", "Gateway", "running_gateway", "Lab"}
_PROGRAMS = {"etcd", "envoy", "postgres", "initdb"}
_MODULES = re.compile(r"services\.\w+|strongbox\.dev\.demo")


def starts(function: Callable[..., Any]) -> bool:
    """Whether it, or a function of the same file that it calls, names one of STARTERS."""
    return _starts(inspect.unwrap(function), set())


def program_of(command: str | bytes | os.PathLike[str] | Sequence[Any]) -> str:
    """Which of the programs, or of our modules, `subprocess.Popen` is about to run; empty when it is none.

    A question for its version starts nothing.
    """
    words = [os.fsdecode(one) for one in ([command] if isinstance(command, str | bytes | Path) else command)]
    if "--version" in words:
        return ""
    if "strongbox.dev" in words and "up" in words:
        return "strongbox.dev up"
    return next((word for word in words if Path(word).name in _PROGRAMS or _MODULES.fullmatch(word)), "")


def _starts(function: Any, seen: set[CodeType]) -> bool:
    code = getattr(function, "__code__", None)
    if code is None or code in seen:
        return False
    seen.add(code)
    names = set(_names(code))
    if names & STARTERS:
        return True
    called = (inspect.unwrap(function.__globals__[name]) for name in names & function.__globals__.keys())
    return any(
        _starts(one, seen)
        for one in called
        if isinstance(one, FunctionType) and one.__module__ == function.__module__
    )


def _names(code: CodeType) -> Iterator[str]:
    """Of globals and attributes, in functions inside it as well. Annotations are none."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)

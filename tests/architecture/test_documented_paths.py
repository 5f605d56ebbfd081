"""Files that the docs name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = [*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md"), *(_ROOT / "tests").rglob("*.md")]
_PATH = re.compile(
    r"(?<![\w/.{-])((?:services|strongbox|tests|tools|bench|gateway|k8s|protos|docs)/[\w/-]+\.(?:py|yaml|md|proto|lua|json))\b"
)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = set(_PATH.findall(page.read_text("utf-8")))
    assert sorted(name for name in named if not (_ROOT / name).exists()) == []

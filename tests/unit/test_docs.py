"""What the documents say is held by a test is held by one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/server-behavior.md"])
def test_every_test_that_is_named_exists(page: str) -> None:
    sources = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text()))
    assert named
    assert not {name for name in named if f"def {name}(" not in sources}

"""What several unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import make_tables


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `make_tables`, to be read only."""
    return make_tables(tmp_path_factory.mktemp("tables"))

"""requirements.lock is what constraints.txt and pyproject.toml say."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "lock_requirements.py"))


def test_the_lock_covers_a_plain_install_with_the_pinned_versions_and_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = TOOL["read_lock"](text)
    pinned = TOOL["pinned"]()
    assert sorted(locked) == TOOL["needed"](), "run make lock"
    assert {name: version for name, (version, _) in locked.items()} == {
        name: pinned[name] for name in locked
    }, "run make lock"
    assert {"grpcio", "numpy", "onnxruntime", "pydantic-core", "setuptools"} <= set(locked)
    lines = text.count("==") + sum(len(hashes) for _, hashes in locked.values()) + 2
    assert lines == len(text.splitlines()), "something in it is not understood"
    for name, (_, hashes) in locked.items():
        assert hashes, name


def test_both_forms_of_an_index_are_read() -> None:
    digest = "a" * 64
    html = f'<a href="https://x/grpcio-1.85.1%2Bcpu-py3-none-any.whl#sha256={digest}">y</a>'
    assert TOOL["_from_html"](html) == [("grpcio-1.85.1+cpu-py3-none-any.whl", digest)]
    page = f'{{"files": [{{"filename": "a-1.tar.gz", "hashes": {{"sha256": "{digest}"}}}}]}}'
    assert TOOL["_from_json"](page) == [("a-1.tar.gz", digest)]
    assert [TOOL["_version"](name) for name in ("a-1.2.tar.gz", "a_b-1.2-py3-none-any.whl")] == [
        "1.2",
        "1.2",
    ]
    assert TOOL["_version"]("a-1.2.exe") == ""

"""Which photographs are held out: decided by content alone, so everywhere the same."""

from __future__ import annotations

import hashlib

TEST_FRACTION = 0.2
"""Share of source images held out for testing (the paper's 80-20, section V)."""


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` and on nothing else."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(source_digest: str, test_fraction: float = TEST_FRACTION) -> str:
    """The side of a source image, "test" or "train", from the SHA-256 of its file.

    All degraded copies of a source share its digest and so its side. Adding images to a set
    moves none across, and a file that is held out in one table is held out in every other, and
    from pretraining. The same photograph encoded anew is another file: do not mix a set with
    re-encoded copies of itself.
    """
    return "test" if unit_hash("split", source_digest) < test_fraction else "train"

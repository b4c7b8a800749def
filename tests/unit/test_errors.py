"""Status codes that no error stands for."""

import pytest
from grpc import StatusCode

from serving.errors import given_up


@pytest.mark.parametrize(
    ("left", "code"),
    [
        (None, StatusCode.CANCELLED),
        (3.0, StatusCode.CANCELLED),
        (0.2, StatusCode.CANCELLED),
        (0.01, StatusCode.DEADLINE_EXCEEDED),  # the caller's clock began earlier than ours
        (0.0, StatusCode.DEADLINE_EXCEEDED),
        (-1.0, StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_a_caller_whose_deadline_passes_cancels_a_little_before(
    left: float | None, code: StatusCode
) -> None:
    assert given_up(left) is code

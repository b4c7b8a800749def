"""Several images of one request, judged side by side."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from server.counted import Deadline
from server.gate import Gate
from server.servicer import Policy, Question
from utility_gate.errors import ImageError
from utility_gate.streams import map_unordered
from utility_gate.types import Verdict


class Judge(Protocol):
    """What is asked for verdicts; see `UtilityGateServicer`."""

    def ready(self) -> Gate:
        """The gate, once there is one."""

    async def judge(
        self,
        method: str,
        request: Question,
        context: Deadline,
        *,
        patient: bool = False,
        policy: Policy = ...,
    ) -> Verdict:
        """The verdict on one image."""

    def let_through(self, method: str, task: str, note: str) -> Verdict:
        """The verdict on an image that nobody can find."""


async def judge_all(
    judge: Judge,
    method: str,
    images: Sequence[Question],
    context: Deadline,
    policy: Policy,
    concurrency: int,
) -> list[Verdict]:
    """Verdicts in the order of the images, `concurrency` of them under way at a time.

    The first image is admitted or shed like a call of its own; those behind it wait for a worker,
    so that a request is not shed by its own images.

    Raises:
        ImageError: with the index of the image that cannot be judged, if there are several.
        UtilityGateError: the first error of another kind.
    """

    async def one(index: int) -> tuple[int, Verdict | Exception]:
        try:
            return index, await judge.judge(
                method, images[index], context, patient=index > 0, policy=policy
            )
        except Exception as error:  # noqa: BLE001 - several may fail at once, one is raised
            return index, error

    verdicts: dict[int, Verdict] = {}
    answers = map_unordered(_indices(images), one, concurrency)
    async with contextlib.aclosing(answers):
        async for index, answer in answers:
            if isinstance(answer, ImageError) and len(images) > 1:
                raise type(answer)(f"image {index}: {answer}") from answer
            if isinstance(answer, Exception):
                raise answer
            verdicts[index] = answer
    return [verdicts[index] for index in range(len(images))]


async def _indices(images: Sequence[Question]) -> AsyncIterator[int]:
    for index in range(len(images)):
        yield index

"""Whether a request goes on: its images found, judged, and what follows for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from server.counted import Deadline
from server.gate import Gate
from server.routes.fields import Found, ImageField
from server.routes.metadata import notes
from server.routes.settings import RouteSettings
from server.servicer import Policy
from server.several import Judge, judge_all
from serving.errors import AnsweredError
from utility_gate.errors import ImageError, NotReadyError, NotUsefulError, TooLateError
from utility_gate.interceptors.refusals import to_refusal
from utility_gate.interceptors.rules import Rules
from utility_gate.types import Mode, Verdict

log = logging.getLogger(__name__)


class StoppedError(AnsweredError):
    """The end of a call whose images were judged and do not go on."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that goes on, the very bytes unless images were filtered out; and what was judged,
    nothing if it has no image."""

    request: bytes
    verdicts: Sequence[Verdict] = ()

    @property
    def outcome(self) -> str:
        """The metric's word for it."""
        judged = any(verdict.utility is not None for verdict in self.verdicts)
        return "forwarded" if judged else "unjudged"


@dataclass(frozen=True, slots=True)
class _Image:
    """See `servicer.Question`."""

    image: bytes
    task: str


class RequestJudge:
    """The rules of one route. `field` says where its images are, None as long as nobody knows;
    `unknown` says why."""

    def __init__(
        self, settings: RouteSettings, judge: Judge, max_images: int, concurrency: int
    ) -> None:
        """`max_images` may be in one request, `concurrency` of them are under way at a time."""
        self._settings, self._judge = settings, judge
        self._max_images, self._concurrency = max_images, concurrency
        self._rules = Rules(settings.image_field, review=settings.review)
        fail_open = settings.on_gate_failure and settings.on_gate_failure == "open"
        self._policy = Policy(settings.mode and Mode(settings.mode), fail_open)
        self.field: ImageField | None = None
        self.unknown = f"the upstream {settings.upstream} was not asked yet"

    def lose(self, why: str) -> None:
        """Nobody knows any more where the images are."""
        if why != self.unknown:
            log.error("%s cannot be judged: %s", self._settings.method, why)
        self.field, self.unknown = None, why

    @property
    def serves(self) -> bool:
        """Whether requests pass, judged or not, once the gate is ready."""
        unjudged = self._policy.mode is Mode.OFF or bool(self._policy.fail_open)
        return self.field is not None or unjudged

    def ready(self) -> None:
        """Return if requests could be judged, or pass unjudged.

        Raises:
            ServiceError: if they could not.
        """
        self._known_task()

    def _known_task(self) -> tuple[str, Mode]:
        gate = self._judge.ready()
        task = gate.find(self._settings.task)
        mode = self._policy.mode or gate.mode(task)
        if self.field is None and mode is not Mode.OFF and not self._fails_open(gate, task):
            raise NotReadyError(f"{self._note}; try again in a moment")
        return task, mode

    async def check(self, request: bytes, context: Deadline) -> Passed:
        """Let a request pass.

        Raises:
            AnsweredError: if it is stopped, or has an image that cannot be judged.
            InputError: if it is no message of the method.
            ServiceError: if the gate is in trouble and the route closes then.
        """
        task, mode = self._known_task()
        if mode is Mode.OFF:
            return Passed(request, await self._ask([Found(0, b"")], task, context))
        field = self.field  # another one may be known before the images are judged
        if field is None:
            method = self._settings.method
            return Passed(request, [self._judge.let_through(method, task, self._note)])
        found = field.find(request, self._max_images)
        if not found:
            return Passed(request)
        verdicts = await self._ask(found, task, context)
        left = context.time_remaining()
        if left is not None and left <= 0:  # short deadlines must not get images past the gate
            raise TooLateError("the deadline passed while the image was judged")
        return self._decide(request, field, found, verdicts)

    @property
    def _note(self) -> str:
        return f"it is not known where the image is in {self._settings.method}: {self.unknown}"

    def _fails_open(self, gate: Gate, task: str) -> bool:
        known = self._policy.fail_open
        return gate.fails_open(task) if known is None else known

    async def _ask(self, found: Sequence[Found], task: str, context: Deadline) -> Sequence[Verdict]:
        images = [_Image(one.data, task) for one in found]
        try:
            return await judge_all(
                self._judge, self._settings.method, images, context, self._policy, self._concurrency
            )
        except ImageError as error:
            refusal = to_refusal(error, self._settings.image_field)
            raise AnsweredError(refusal.code, refusal.message, refusal.trailers) from error

    def _decide(
        self,
        request: bytes,
        field: ImageField,
        found: Sequence[Found],
        verdicts: Sequence[Verdict],
    ) -> Passed:
        stopped = {index: error for index, one in enumerate(verdicts) if (error := self._stop(one))}
        rule = self._settings.images
        if stopped and (rule == "all" or len(stopped) == len(verdicts)):
            # One is told of: the first that stopped all, or the best, which came nearest.
            told = next(iter(stopped))
            if rule != "all":
                told = max(stopped, key=lambda index: verdicts[index].utility or 0.0)
            where = self._settings.image_field
            if len(found) > 1:
                where += f"[{found[told].position}]"
            refusal = to_refusal(stopped[told], where)
            trailers = (*refusal.trailers, *notes(verdicts))
            raise StoppedError(refusal.code, refusal.message, trailers) from stopped[told]
        if stopped and rule == "filter":
            request = field.without(request, {found[index].position for index in stopped})
        return Passed(request, verdicts)

    def _stop(self, verdict: Verdict) -> NotUsefulError | None:
        try:
            self._rules.require(verdict)
        except NotUsefulError as error:
            return error
        return None

"""What methods take, asked of a pipeline when it connects, and again until it answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection

from server.routes.address import Address
from server.routes.descriptors import MethodTypes, read_types
from server.routes.reflection import ReflectionError, fetch_files
from server.routes.upstream import Upstream
from utility_gate.errors import ConfigError

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0


class Learner:
    """Asks in the background; `learned` is told of the types, `failed` why there are none."""

    def __init__(
        self,
        upstream: Upstream,
        services: Collection[str],
        learned: Callable[[MethodTypes], None],
        failed: Callable[[str], None],
    ) -> None:
        self._upstream, self._services = upstream, services
        self._learned, self._failed = learned, failed
        self._wanted = asyncio.Event()
        self._address: Address | None = None
        self._asking = asyncio.ensure_future(self._ask())

    def connected(self, address: Address) -> None:
        """A connection was made: who is there may be somebody else than before."""
        self._address = address
        self._wanted.set()

    async def close(self) -> None:
        """Ask no more."""
        self._asking.cancel()
        await asyncio.wait({self._asking})

    async def _ask(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while not await self._fetch():
                # Again after a while, or as soon as somebody connects.
                jitter = random.uniform(0.8, 1.2)  # noqa: S311 - so that gates do not ask together
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), pause * jitter)
                self._wanted.clear()
                pause = min(2 * pause, _LONGEST_PAUSE)
            pause = _FIRST_PAUSE

    async def _fetch(self) -> bool:
        """Ask who connected last, or who is there otherwise; False without an answer."""
        candidates = (self._address, *self._upstream.addresses)
        address = next((one for one in candidates if one is not None and one.connected), None)
        name = self._upstream.name
        if address is None:
            return False
        try:
            metadata = tuple(self._upstream.added.items())
            files = await fetch_files(address.channel, self._services, metadata)
            types = read_types(files, self._services)
        except (ReflectionError, ConfigError) as error:
            self._failed(f"the upstream {name} does not say ({error})")
            return False
        except Exception:
            log.exception("the types of the upstream %s cannot be had", name)
            self._failed(f"the upstream {name} does not say")
            return False
        log.info("upstream %s: %d methods are known", name, len(types))
        self._learned(types)
        return True

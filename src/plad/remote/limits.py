"""How hard a provider may be worked: requests in flight, requests and tokens a minute, and pauses it asks for."""

import asyncio
import time
from collections import deque
from typing import Protocol

_SLOWEST = 1.0  # requests in flight, however often a provider says "too many"


class Clock(Protocol):
    """Time as the client sees it; tests bring their own."""

    def now(self) -> float:
        """Monotonic seconds: a machine's clock may jump, this one doesn't."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Come back after so many seconds."""
        ...


class RealClock:
    """Real time."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Gate:
    """Lets requests through one by one, as fast as the limits allow.

    Additive increase, multiplicative decrease: a rate limit halves what may be in flight, every answer adds a little.
    Requests and tokens a minute are spaced evenly.

    Args:
        concurrency: most requests in flight.
        rpm, tpm: most requests and tokens a minute.
    """

    def __init__(self, concurrency: int, clock: Clock, rpm: int | None = None, tpm: int | None = None) -> None:
        self.most = float(concurrency)
        self.limit = float(concurrency)
        self.in_flight = 0
        self.round = 0  # a rate limit begins the next one
        self._clock = clock
        self._request_s = 60 / rpm if rpm else 0.0
        self._token_s = 60 / tpm if tpm else 0.0
        self._paused_until = 0.0
        self._next_request = self._next_token = clock.now()
        self._queue: deque[asyncio.Future[None]] = deque()

    def try_enter(self) -> bool:
        """Take a place where nothing has to be waited for; `leave` gives it back."""
        paced = self._request_s or self._token_s
        if paced or self._queue or self.in_flight >= int(self.limit) or self._clock.now() < self._paused_until:
            return False
        self.in_flight += 1
        return True

    async def enter(self, tokens: int) -> None:
        """Wait for a place, the pace and the end of a pause; `leave` gives the place back."""
        while self.in_flight >= int(self.limit):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(place)
            await place
        self.in_flight += 1
        try:
            await self._pace(tokens)
        except BaseException:
            self.leave()
            raise

    async def _pace(self, tokens: int) -> None:
        due = max(self._next_request, self._next_token) if self._request_s or self._token_s else 0.0
        if due:
            start = max(due, self._clock.now())
            self._next_request = start + self._request_s
            self._next_token = start + tokens * self._token_s
        while True:  # a pause may be prolonged while somebody waits for its end
            wait = max(due, self._paused_until) - self._clock.now()
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        for _ in range(int(self.limit) - self.in_flight):
            while self._queue:
                place = self._queue.popleft()
                if not place.done():
                    place.set_result(None)
                    break

    def slow_down(self, seconds: float, sent_in: int) -> bool:
        """Nobody sends for so long, and only half as many at once; one halving for all that were in flight together.

        Args:
            sent_in: the round in which the refused request was sent.

        Returns:
            Whether this began a new round.
        """
        self._paused_until = max(self._paused_until, self._clock.now() + seconds)
        if sent_in < self.round:
            return False
        self.limit = max(_SLOWEST, self.limit / 2)
        self.round += 1
        return True

    def speed_up(self) -> None:
        """A request was answered: one more in flight for every `limit` answers."""
        if self.limit < self.most:
            self.limit = min(self.most, self.limit + 1 / self.limit)
            self._wake()

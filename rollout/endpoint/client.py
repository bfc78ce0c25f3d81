"""JSON over HTTP to one server: some requests at a time, each with a deadline, tried again while the server is busy.

post --> a turn (requests at once) --> the budget (requests, tokens a minute) --> attempt --answer--> returned
                                            ^                                        | 429, 5xx, no answer
                                            +--- backoff, no sooner than Retry-After-+
"""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from rollout.endpoint.budget import Backoff, Budget, seconds_of
from rollout.errors import ShoalError

NOT_FOUND = 404
TOO_MANY_REQUESTS = 429
SERVER_ERRORS = 500
MAX_ANSWER_BYTES = 64 * 2**20
"""A longer answer is read no further."""
_SHOWN_CHARACTERS = 200
_REFUSED_FOR_GOOD = (401, 403, 404)
"""Wrong key, wrong address or a model that is not there: the next request would get the same answer."""


class EndpointError(ShoalError):
    """A server did not give what it was asked for."""

    def __init__(
        self, message: str, *, is_final: bool = False, is_late: bool = False, is_missing: bool = False
    ) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether every other request would end the same way."""
        self.is_late = is_late
        """Whether an answer might have come later."""
        self.is_missing = is_missing
        """Whether nothing is at the address."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _endpoint_error, (str(self), self.is_final, self.is_late, self.is_missing)


def _endpoint_error(message: str, is_final: bool, is_late: bool, is_missing: bool) -> EndpointError:
    return EndpointError(message, is_final=is_final, is_late=is_late, is_missing=is_missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointManners:
    """How a server is asked."""

    requests_at_once: int
    attempt_s: float
    """Time for one answer."""
    max_attempts: int | None = None
    """None: until the request's own deadline."""
    longest_retry_after_s: float = float("inf")
    """A server that asks for a longer wait is not waited for."""
    mend: str
    """What to look at where the server refuses for good: "mend learner.teacher.base_url, or model or key"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Busy:
    """Why an attempt may be made again."""

    why: str
    retry_after_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Effort:
    """What a request has cost so far; for who asks to look at, also where it came to nothing."""

    num_attempts: int = 0
    waited_s: float = 0.0
    """For a turn, for the budget, and between attempts: not for the server's answers."""
    why: str = "its turn did not come"
    """Why the last attempt gave no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request, and what is known of it besides."""

    method: str
    address: str
    body: Any = None
    tokens: int = 0
    took: Callable[[Any], int | None] = lambda _: None
    effort: Effort = field(default_factory=Effort)
    until_s: float = float("inf")


class EndpointClient:
    """One server. To be used from one event loop, and closed there."""

    def __init__(
        self,
        base_url: str,
        manners: EndpointManners,
        api_key: str | None,
        *,
        budget: Budget | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Nothing is sent yet; `api_key` goes into the header of every request. `chance` spreads the waits."""
        self._base_url = base_url
        self._manners = manners
        self._api_key = api_key
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._budget = budget or Budget()
        self._chance = chance or random.Random()
        self._turns = asyncio.Semaphore(manners.requests_at_once)
        self._in_order = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Any:
        """The JSON at an address below `base_url`. Errors: `EndpointError`."""
        return await self._ask(_Call(method="GET", address=self._base_url + path))

    async def post(self, path: str, body: Any, *, beside: bool = False) -> Any:
        """The JSON that answers a body; `beside`: the address is beside a `base_url` that ends with `/v1`, not below.

        Errors: `EndpointError`.
        """
        base = self._base_url.removesuffix("/v1") if beside else self._base_url
        return await self._ask(_Call(method="POST", address=base + path, body=body))

    async def post_until(
        self,
        path: str,
        body: Any,
        *,
        until_s: float,
        tokens: int,
        took: Callable[[Any], int | None],
        effort: Effort,
    ) -> Any:
        """As `post`, within the budget, until the loop's clock says `until_s`. `tokens` is what it may take, `took`
        reads from an answer what it did.

        Errors: `EndpointError`; it `is_late` where there was no answer by then.
        """
        never = self._budget.why_never(tokens)
        if never is not None:
            raise EndpointError(f"a request to {self._base_url} was not sent: {never}")
        try:
            async with asyncio.timeout_at(until_s):
                return await self._ask(
                    _Call(
                        method="POST",
                        address=self._base_url + path,
                        body=body,
                        tokens=tokens,
                        took=took,
                        effort=effort,
                        until_s=until_s,
                    )
                )
        except TimeoutError:
            raise EndpointError(
                f"{self._base_url}{path} gave no answer in time, after {_times(effort.num_attempts)}: {effort.why}",
                is_late=True,
            ) from None

    async def close(self) -> None:
        """Ends its connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, call: _Call) -> Any:
        effort, backoff = call.effort, Backoff(self._chance, self._manners.max_attempts)
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        try:
            async with self._turns:
                while True:
                    if not effort.num_attempts:
                        effort.why = "the limits had no room for it"
                    spent = await self._when_allowed(call.tokens)
                    effort.num_attempts += 1
                    effort.waited_s += loop.time() - since_s
                    since_s = float("inf")
                    effort.why = "no answer yet"
                    found = await self._attempt(call)
                    since_s = loop.time()
                    if not isinstance(found, _Busy):
                        used = call.took(found)
                        if used is not None:
                            self._budget.settle(spent, used)
                        return found
                    effort.why = found.why
                    await self._wait(call, found, backoff)
        finally:
            effort.waited_s += max(0.0, loop.time() - since_s)

    async def _wait(self, call: _Call, busy: _Busy, backoff: Backoff) -> None:
        """Errors: `EndpointError` where there is no further attempt."""
        loop = asyncio.get_running_loop()
        longest_s = min(self._manners.longest_retry_after_s, call.until_s - loop.time())
        if busy.retry_after_s is not None and busy.retry_after_s <= longest_s:
            # What is not waited for holds nobody: each is told at once that there is nothing to wait for.
            self._budget.hold(loop.time() + busy.retry_after_s)
        wait_s = backoff.after_attempt(busy.retry_after_s)
        if wait_s is not None and (busy.retry_after_s or 0.0) > self._manners.longest_retry_after_s:
            raise EndpointError(f"{call.address} asks to come back in {busy.retry_after_s:g} s: {busy.why}")
        if wait_s is None:
            raise EndpointError(
                f"{call.address} gave no answer in {_times(backoff.num_attempts)}, the last: {busy.why}"
            )
        if loop.time() + wait_s > call.until_s:
            raise TimeoutError
        await asyncio.sleep(wait_s)

    def _without_key(self, text: str) -> str:
        """A server that refuses a key may repeat it."""
        return text if self._api_key is None else text.replace(self._api_key, "<key>")

    async def _when_allowed(self, tokens: int) -> Any:
        loop = asyncio.get_running_loop()
        async with self._in_order:
            # Until it is the time that the budget says: nobody could tell of it sooner.
            while (wait_s := self._budget.wait_s(loop.time(), tokens)) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait_s)
            return self._budget.spend(loop.time(), tokens)

    async def _attempt(self, call: _Call) -> Any:
        """The answer, or why it may come later. Errors: `EndpointError` where it will not."""
        manners, address = self._manners, call.address
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=manners.attempt_s)
            # A connection for each turn: to wait for one would count as waiting for the server.
            connector = aiohttp.TCPConnector(limit=manners.requests_at_once)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, connector=connector)
        try:
            # A redirect would carry the key to whoever is named there.
            async with self._session.request(call.method, address, json=call.body, allow_redirects=False) as response:
                text = await _text_of(response)
                status, retry_after = response.status, response.headers.get("Retry-After")
        except TimeoutError:
            return _Busy(why=f"no answer within {manners.attempt_s:g} s")
        except aiohttp.ClientError as error:
            return _Busy(why=f"{type(error).__name__}: {error}")
        if text is None:
            raise EndpointError(f"{address} answered with more than {MAX_ANSWER_BYTES} bytes")
        said = " ".join(self._without_key(text).split())[:_SHOWN_CHARACTERS]
        if status == TOO_MANY_REQUESTS or status >= SERVER_ERRORS:
            return _Busy(why=f"status {status}: {said}", retry_after_s=seconds_of(retry_after))
        if status != 200:  # the one status that has an answer
            is_final = status in _REFUSED_FOR_GOOD
            mend = f"; {manners.mend}" if is_final else ""
            raise EndpointError(
                f"{address} answered with status {status}: {said}{mend}",
                is_final=is_final,
                is_missing=status == NOT_FOUND,
            )
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise EndpointError(f"{address} answered with something that is no JSON: {said}") from None


async def _text_of(response: aiohttp.ClientResponse) -> str | None:
    """The body; None where it is too long."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            return None
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def _times(number: int) -> str:
    return f"{number} attempt{'' if number == 1 else 's'}"

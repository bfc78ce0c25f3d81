"""JSON over HTTP to one server: some requests at a time, each with a deadline, tried again while the server is busy."""

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any

import aiohttp

from learner.teacher import LONGEST_RETRY_AFTER_S, EndpointConfig
from rollout.errors import ShoalError

FIRST_WAIT_S = 0.5
"""Before the second attempt; each wait after it is twice as long, up to `LONGEST_WAIT_S`, less up to half by chance."""
LONGEST_WAIT_S = 30.0
TOO_MANY_REQUESTS = 429
SERVER_ERRORS = 500
_SHOWN_CHARACTERS = 200
_REFUSED_FOR_GOOD = (401, 403, 404)
"""Wrong key, wrong address or a model that is not there: the next request would get the same answer."""


class EndpointError(ShoalError):
    """A server did not give what it was asked for."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether every other request would end the same way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _endpoint_error, (str(self), self.is_final)


def _endpoint_error(message: str, is_final: bool) -> EndpointError:
    return EndpointError(message, is_final=is_final)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Busy:
    """Why an attempt may be made again."""

    why: str
    retry_after_s: float | None = None


class EndpointClient:
    """One server. To be used from one event loop, and closed there."""

    def __init__(self, base_url: str, config: EndpointConfig, api_key: str | None) -> None:
        """Nothing is sent yet; `api_key` goes into the header of every request."""
        self._base_url = base_url
        self._config = config
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._turns = asyncio.Semaphore(config.max_requests)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Any:
        """The JSON at an address below `base_url`. Errors: `EndpointError`."""
        return await self._ask("GET", self._base_url + path, None)

    async def post(self, path: str, body: Any, *, beside: bool = False) -> Any:
        """The JSON that answers a body; `beside`: the address is beside a `base_url` that ends with `/v1`, not below.

        Errors: `EndpointError`.
        """
        base = self._base_url.removesuffix("/v1") if beside else self._base_url
        return await self._ask("POST", base + path, body)

    async def close(self) -> None:
        """Ends its connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, address: str, body: Any) -> Any:
        async with self._turns:
            for attempt in range(1, self._config.max_attempts + 1):
                found = await self._attempt(method, address, body)
                if not isinstance(found, _Busy):
                    return found
                wait_s = _wait_s(attempt, found.retry_after_s)
                if wait_s > LONGEST_RETRY_AFTER_S:
                    raise EndpointError(f"{address} asks to come back in {wait_s:g} s: {found.why}")
                if attempt < self._config.max_attempts:
                    await asyncio.sleep(wait_s)
        raise EndpointError(f"{address} gave no answer in {self._config.max_attempts} attempts, the last: {found.why}")

    async def _attempt(self, method: str, address: str, body: Any) -> Any:
        """The answer, or why it may come later. Errors: `EndpointError` where it will not."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._config.deadline_s)
            # A connection for each turn: to wait for one would count as waiting for the server.
            connector = aiohttp.TCPConnector(limit=self._config.max_requests)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, connector=connector)
        try:
            # A redirect would carry the key to whoever is named there.
            async with self._session.request(method, address, json=body, allow_redirects=False) as response:
                text = await response.text(errors="replace")
                status, retry_after = response.status, response.headers.get("Retry-After")
        except TimeoutError:
            return _Busy(why=f"no answer within {self._config.deadline_s:g} s")
        except aiohttp.ClientError as error:
            return _Busy(why=f"{type(error).__name__}: {error}")
        said = " ".join(text.split())[:_SHOWN_CHARACTERS]
        if status == TOO_MANY_REQUESTS or status >= SERVER_ERRORS:
            return _Busy(why=f"status {status}: {said}", retry_after_s=_seconds(retry_after))
        if status != 200:  # the one status that has an answer
            is_final = status in _REFUSED_FOR_GOOD
            mend = "; mend learner.teacher.base_url, or model or key of learner.teacher.endpoint" if is_final else ""
            raise EndpointError(f"{address} answered with status {status}: {said}{mend}", is_final=is_final)
        try:
            return json.loads(text)
        except ValueError:
            raise EndpointError(f"{address} answered with something that is no JSON: {said}") from None


def _wait_s(attempt: int, retry_after_s: float | None) -> float:
    backoff_s: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    return backoff_s if retry_after_s is None else max(backoff_s, retry_after_s)


def _seconds(retry_after: str | None) -> float | None:
    """Of the header; a date is not read, as servers of models send seconds."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None

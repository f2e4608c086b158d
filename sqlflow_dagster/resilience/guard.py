"""One call to the outside, or one read of a stream, under the rules of its account.

Only `RetryLater` is tried again. Waits grow exponentially, each a random part of its bound ("full
jitter", Brooker, AWS Architecture Blog, 2015); one that the far side asks for is kept to. While an
account's circuit is open nobody asks: waiting for it counts as no try, but as time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, NoReturn, TypeVar

from sqlflow_dagster.errors import RetryLater, SourceError
from sqlflow_dagster.resilience.account import Account, Entry
from sqlflow_dagster.resilience.clock import clock
from sqlflow_dagster.resilience.counts import counter
from sqlflow_dagster.resilience.policy import Policy

log = logging.getLogger(__name__)

T = TypeVar("T")
# Who asks for a longer wait than a day has not been asked a sensible question.
_LONGEST_BELIEVED = 86_400.0


class _Closed(RetryLater):
    """The account's circuit is open, or its bucket is empty and nobody waits for it."""


class Guard:
    """The rules for one account, shared by the streams that read from it."""

    def __init__(self, name: str, policy: Policy, account: Account | None = None) -> None:
        """Keep the rules; `name` is for people. Without `account` there is no breaker and no limit."""
        self.name = name
        self.policy = policy
        self.account = account
        self._stopped = threading.Event()

    def call(self, work: Callable[[], T]) -> T:
        """Return what one request gives, made again where waiting mends its failure.

        A thread of a connector's own calls this in a copy of the context that it was started in, so
        that its requests are counted.

        Raises RetryLater once the tries are used up, with `tries` set; and what `work` raises else.
        """
        return self.retry(lambda: self.once(work))

    def once(self, work: Callable[[], T]) -> T:
        """Return what one request gives, made when the account may make one.

        Raises RetryLater where the circuit is open or a limited request is dropped; and what `work`
        raises.
        """
        if self.account is None:
            counter().add(requests=1)
            return work()
        calm = self._enter(self.account)
        counter().add(requests=1)
        try:
            result = work()
        except BaseException as error:
            self._note(self.account, error)
            raise
        if not calm:
            self.account.answered()
        return result

    def retry(self, work: Callable[[], T], again: Callable[[RetryLater], None] | None = None) -> T:
        """Return what `work` gives, tried again where it raises RetryLater; `again` is told before each.

        Raises RetryLater once the tries are used up, with `tries` set; one whose tries are used up
        already is not tried again.
        """
        try:
            return work()
        except RetryLater as error:
            if error.tries:
                raise
            return _Tries(self, work, again, error).result()

    def once_only(self) -> Guard:
        """Return a guard that tries once, and asks nobody's leave: for a person who wants to know now."""
        return Guard(self.name, replace(self.policy, attempts=1))

    def stop(self) -> None:
        """Cut short what is waited for: those who wait raise what they waited because of."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether what is under way is to end."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait; False where `stop` cut it short."""
        clock().sleep(seconds, self._stopped)
        counter().add(seconds_waited=seconds)
        return not self._stopped.is_set()

    def _enter(self, account: Account) -> bool:
        """Wait for leave to ask; return whether all is calm."""
        while (entry := account.enter()).wait > 0:
            if entry.why == "open":
                raise _Closed(self._said(entry), after=entry.wait)
            if entry.why == "limited" and self.policy.when_limited == "drop":
                raise _Closed(self._said(entry), after=entry.wait, tries=1)
            if not self.wait(entry.wait):
                raise RetryLater(f"{self.name}: stopped while it waited for its turn", tries=1)
            if entry.reserved:
                break
        return entry.calm

    def _said(self, entry: Entry) -> str:
        if entry.why == "open":
            return (
                f"{self.name}: it failed {self.policy.breaker_failures} times in a row and is left alone for "
                f"{entry.wait:.0f} s more"
            )
        return f"{self.name}: its limit of {self.policy.rate:g} requests a minute is used up for {entry.wait:.1f} s"

    def _note(self, account: Account, error: BaseException) -> None:
        match error:
            case RetryLater(tries=tries) if tries:
                account.left()
            case RetryLater(after=after) if after is not None:
                # It is there, and says when: all who call it wait until then.
                account.answered()
                account.hold(min(_asked(after, self.policy), self.policy.total))
            case RetryLater():
                if account.failed():
                    counter().add(breaker_openings=1)
                    log.warning("%s: failed too often in a row; nobody asks it for a while", self.name)
            case SourceError():
                account.answered()
            case _:
                account.left()


class _Tries(Generic[T]):
    """The tries after the first one, which failed with `error`."""

    def __init__(
        self,
        guard: Guard,
        work: Callable[[], T],
        again: Callable[[RetryLater], None] | None,
        error: RetryLater,
    ) -> None:
        self._guard = guard
        self._work = work
        self._again = again
        self._first: RetryLater | None = error
        self._failure = self._last = error
        self._made = 0
        self._begin = clock().now()

    def result(self) -> T:
        import tenacity  # noqa: PLC0415 - slow, and only what failed needs it

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, RetryLater) and not error.tries
            ),
            wait=lambda state: self._wait(state.outcome.exception() if state.outcome else None),
            stop=lambda state: self._over(state.upcoming_sleep),
            before_sleep=lambda state: self._tell(state.upcoming_sleep),
            sleep=self._sleep,
            retry_error_callback=lambda _: self._give_up(),
        )
        return tries(self._attempt)

    def _attempt(self) -> T:
        if self._first:
            error, self._first = self._first, None
            raise error
        if self._again and not isinstance(self._last, _Closed):
            self._again(self._last)
        return self._work()

    def _wait(self, error: BaseException | None) -> float:
        """How long to wait after this failure, in seconds."""
        if not isinstance(error, RetryLater):
            return 0.0
        self._last = error
        if isinstance(error, _Closed):
            return error.after or 0.0
        self._failure = error
        self._made += 1
        policy, chance = self._guard.policy, clock().chance()
        if error.after is not None:
            # Not all who were told the same come back in the same moment.
            return _asked(error.after, policy) + chance * policy.first_wait
        return chance * min(policy.longest_wait, policy.first_wait * policy.factor ** (self._made - 1))

    def _over(self, wait: float) -> bool:
        policy = self._guard.policy
        return self._made >= policy.attempts or clock().now() - self._begin + wait > policy.total

    def _tell(self, wait: float) -> None:
        if isinstance(self._last, _Closed):
            log.info("%s; waiting", self._last)
            return
        counter().add(retries=1)
        made, most = self._made, self._guard.policy.attempts
        log.warning(
            "%s: try %d of %d failed, the next in %.1f s: %s", self._guard.name, made, most, wait, self._last
        )

    def _sleep(self, seconds: float) -> None:
        if not self._guard.wait(seconds):
            self._give_up()

    def _give_up(self) -> NoReturn:
        """Raise the last failure, with how often it was tried and when it may be tried next."""
        error = self._failure
        text = str(error)
        if self._made > 1:
            text += f"; tried {self._made} times in {clock().now() - self._begin:.0f} s"
        if self._last is not error:
            text += f"; {self._last}"
        raise RetryLater(text, after=self._last.after, tries=max(1, self._made)) from error.__cause__


def _asked(after: float, policy: Policy) -> float:
    """The wait that a far side asks for, bounded where it cannot be meant."""
    return after if after <= _LONGEST_BELIEVED else policy.longest_wait

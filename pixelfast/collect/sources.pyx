"""Look up write keys, their sources, and the rules of each source."""

from libc.math cimport ceil
from libc.stdint cimport int64_t

from pixelfast.collect.budgets cimport RateBudget, RateBudgets
from pixelfast.event.decoder cimport Rules

from pixelfast.errors import RequestError

__all__ = ["ActiveSource", "RateLimited", "Sources"]


cdef class ActiveSource:

    def __init__(self, str name, int number, settings=None, RateBudgets budgets=None):
        self.name = name
        self.number = number
        self.rejected = {}
        self.warned = {}
        if settings is not None:
            self.follow(settings, budgets)

    def follow(self, settings not None, RateBudgets budgets not None):
        self.rules = Rules(
            numbers=settings.numbers,
            booleans=settings.booleans,
            strings=settings.strings,
            force_numbers=settings.force_numbers,
            ignore=settings.ignore,
            fill=settings.fill,
            keeps_placeholders=settings.placeholders == "keep",
        )
        self.is_enabled = settings.enabled
        self.budget = budgets.budget(self.name, settings.rate_limit) if settings.rate_limit else None

    cdef int take_budget(self, double now_s) except -1:
        # Called before the query is decoded; the caller returns the budget if no event is stored.
        cdef double wait_s = self.budget.take_at(now_s)
        if wait_s > 0.0:
            raise RateLimited(ceil(wait_s))
        return 0

    cdef count_rejection(self, str reason):
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    cdef count_warnings(self, list warnings):
        for reason, _ in warnings:
            self.warned[reason] = self.warned.get(reason, 0) + 1


cdef class ActiveKey:

    cdef int check(self, int64_t now_ms) except -1:
        # Raise RequestError if pixels with this key are rejected now.
        if self.expires_ms and now_ms >= self.expires_ms:
            raise RequestError(401, "expired-write-key", "the write key has expired")
        if not self.source.is_enabled:
            raise RequestError(404, "source-disabled", "the source is disabled")
        return 0


class RateLimited(RequestError):

    def __init__(self, retry_after_s):
        super().__init__(429, "rate-limited", "the source is over its rate limit")
        self.retry_after_s = retry_after_s


cdef class Sources:

    def __init__(self, settings, RateBudgets budgets=None):
        self.all = []
        self.unknown = ActiveSource("", -1)
        self.follow(settings, budgets)

    def follow(self, settings not None, RateBudgets budgets=None):
        # Sources keep their numbers, because events that wait for the disk refer to them.
        cdef ActiveSource source
        cdef ActiveKey key
        cdef dict keys = {}
        cdef dict all_rules = {}
        cdef dict known = {source.name: source for source in self.all}
        settings = tuple(settings)
        if budgets is None:
            budgets = RateBudgets.private(each.name for each in settings)
        for settings_of_one in settings:
            source = known.get(settings_of_one.name)
            if source is None:
                source = ActiveSource(settings_of_one.name, len(self.all), settings_of_one, budgets)
                self.all.append(source)
            else:
                source.follow(settings_of_one, budgets)
            # Sources with equal rules share one object, which finds their templates without a
            # comparison.
            source.rules = all_rules.setdefault(source.rules, source.rules)
            for write_key in settings_of_one.write_keys:
                key = ActiveKey.__new__(ActiveKey)
                key.source = source
                if write_key.expires is not None:
                    key.expires_ms = int(write_key.expires.timestamp() * 1000)
                keys[write_key.key] = key
        self._keys = keys

    cdef ActiveKey find(self, str write_key):
        return <ActiveKey>self._keys.get(write_key)

    def check(self, str write_key not None, now_ms):
        cdef ActiveKey key = self.find(write_key)
        if key is None:
            raise RequestError(401, "unknown-write-key", "no source has this write key")
        key.check(now_ms)
        return key.source

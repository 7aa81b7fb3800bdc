"""Who sends: write keys and the sources they name."""

from libc.math cimport ceil
from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Rules

from pixelfast.errors import RequestError

__all__ = ["RateLimited", "Source", "Sources"]


cdef class Source:

    def __init__(self, str name, int number, settings=None, int workers=1):
        self.name = name
        self.number = number
        self.refused = {}
        self.warned = {}
        if settings is None:
            return
        self.rules = Rules(
            numbers=settings.numbers,
            booleans=settings.booleans,
            strings=settings.strings,
            force_numbers=settings.force_numbers,
            ignore=settings.ignore,
        )
        self.is_enabled = settings.enabled
        self.fills_ip = "ip" in settings.fill
        self.fills_referer = "referer" in settings.fill
        self.fills_locale = "locale" in settings.fill
        self.fills = bool(settings.fill)
        # Each collector lets its share through; the kernel spreads connections evenly.
        self._rate = settings.rate_limit / workers
        self._burst = max(1.0, self._rate)
        self._tokens = self._burst

    cdef int check_rate(self, double now_s) except -1:
        # Before the work of decoding; `take` comes after it, so that a refused pixel costs nothing.
        if self._rate == 0.0:
            return 0
        self._tokens = min(self._burst, self._tokens + (now_s - self._refilled_s) * self._rate)
        self._refilled_s = now_s
        if self._tokens < 1.0:
            raise RateLimited(ceil((1.0 - self._tokens) / self._rate))
        return 0

    cdef void take(self) noexcept:
        if self._rate != 0.0:
            self._tokens -= 1.0

    cdef count_refused(self, str reason):
        self.refused[reason] = self.refused.get(reason, 0) + 1

    cdef count_warnings(self, list warnings):
        for reason, _ in warnings:
            self.warned[reason] = self.warned.get(reason, 0) + 1


cdef class WriteKey:

    cdef int check(self, int64_t now_ms) except -1:
        # A RequestError where pixels with this key are not taken now.
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

    def __init__(self, settings, int workers=1):
        cdef WriteKey key
        self._keys = {}
        self.all = []
        self.nobody = Source("", -1)
        for number, settings_of_one in enumerate(settings):
            source = Source(settings_of_one.name, number, settings_of_one, workers)
            self.all.append(source)
            for write_key in settings_of_one.write_keys:
                key = WriteKey.__new__(WriteKey)
                key.source = source
                if write_key.expires is not None:
                    key.expires_ms = int(write_key.expires.timestamp() * 1000)
                self._keys[write_key.key] = key

    cdef WriteKey find(self, str text):
        return <WriteKey>self._keys.get(text)

    def check(self, str text not None, now_ms):
        # For Python: the name of the source whose pixels are taken with this key.
        cdef WriteKey key = self.find(text)
        if key is None:
            raise RequestError(401, "unknown-write-key", "no source has this write key")
        key.check(now_ms)
        return key.source

# A histogram as a fixed array of counters. Bounds are powers of two, so that the bucket of a value
# is found by counting leading zeros. `histograms.py` has the bounds as numbers.

from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    int leading_zeros "__builtin_clzll"(uint64_t value) noexcept nogil

cdef enum:
    BUCKETS = 21                # `histograms.BUCKETS`; the last is for values above all bounds
    FIRST_DURATION_BITS = 6     # the first bound of durations is 2**6 µs
    FIRST_COUNT_BITS = 0        # the first bound of counts is 1

cdef struct Histogram:
    uint64_t counts[21]         # by bucket; not cumulative
    uint64_t sum                # of counts, or of nanoseconds


cdef inline int bucket_of(uint64_t value, int first_bits) noexcept nogil:
    # The first bucket whose bound is at least the value.
    cdef int place
    if value <= (<uint64_t>1 << first_bits):
        return 0
    place = 64 - leading_zeros(value - 1) - first_bits
    return place if place < BUCKETS else BUCKETS - 1


cdef inline void add_count(Histogram* histogram, uint64_t value) noexcept nogil:
    histogram.counts[bucket_of(value, FIRST_COUNT_BITS)] += 1
    histogram.sum += value


cdef inline void add_duration(Histogram* histogram, int64_t duration_ns) noexcept nogil:
    cdef uint64_t value_ns = <uint64_t>duration_ns if duration_ns > 0 else 0
    histogram.counts[bucket_of((value_ns + 999) // 1000, FIRST_DURATION_BITS)] += 1
    histogram.sum += value_ns


cdef inline dict figures_of(const Histogram* histogram, double unit):
    # As `histograms.DurationHistogram.figures`; `unit`: of the sum.
    cdef int place
    return {
        "counts": [histogram.counts[place] for place in range(BUCKETS)],
        "sum": histogram.sum * unit,
    }

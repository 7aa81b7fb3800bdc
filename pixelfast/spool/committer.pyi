from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.histograms import HistogramFigures

__all__ = ["Committer"]

class Committer:
    """A thread that writes and syncs, one job at a time, without the GIL.

    Attributes:
        done_fd: an eventfd that becomes readable when the job is done.
        is_busy: whether a job was submitted whose end `finish` has not reported yet.
    """

    done_fd: int
    is_busy: bool

    def submit(self, fd: int, batch: CommitBatch | None, offset: int, sync: bool) -> None:
        """Write a sealed batch at `offset` of a file, then fdatasync it if `sync`. Does not block.

        The batch must not change until `finish`. Without a batch, the file is only synced.

        Raises:
            RuntimeError: a job is under way.
        """

    def finish(self) -> int | None:
        """Return 0 or the errno of a failure once the job is done, None before. Does not block."""

    def figures(self) -> dict[str, HistogramFigures]:
        """Return histograms of successful jobs.

        commit_durations: of commits, from `submit` to `finish`, in seconds.
        commit_events: of the events of each commit.
        sync_durations: of fdatasync alone, in seconds.
        """

    def close(self) -> None:
        """Wait for the job that is under way, then end the thread."""

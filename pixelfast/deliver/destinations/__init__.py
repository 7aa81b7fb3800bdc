"""One module for each kind of destination.

A module is imported when a destination needs it: the libraries of some kinds are extras, and the
import of others takes longer than the rest of a start.
"""

from __future__ import annotations

from pathlib import Path

from pixelfast import config as settings
from pixelfast.deliver.archive.quota import DiskQuota, SpoolNeeds
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir

__all__ = ["make_sender"]


def make_sender(
    destination: settings.Destination,
    data: DataDir,
    clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    needs: SpoolNeeds = SpoolNeeds(0, 0),  # noqa: B008 - immutable
    *,
    is_shared: bool = False,
) -> Sender:
    """Return the sender of a configured destination.

    `needs` is the disk space that must be left for the spool. If `is_shared`, other machines
    deliver to the same destination.
    """
    match destination:
        case settings.FileDestination():
            return _file_sender(destination, data, clock, needs, is_shared=is_shared)
        case settings.RudderstackDestination():
            from pixelfast.deliver.destinations.rudderstack import RudderstackSender

            return RudderstackSender(destination)
        case settings.SegmentDestination():
            from pixelfast.deliver.destinations.segment import segment_sender

            return segment_sender(destination)
        case settings.PosthogDestination():
            from pixelfast.deliver.destinations.posthog import PosthogSender

            return PosthogSender(destination)
        case settings.ClickhouseDestination():
            from pixelfast.deliver.destinations.clickhouse import ClickhouseSender

            return ClickhouseSender(destination)
        case settings.ElasticsearchDestination():
            from pixelfast.deliver.destinations.elasticsearch import ElasticsearchSender

            return ElasticsearchSender(destination)
        case settings.KafkaDestination():
            from pixelfast.deliver.destinations.kafka import KafkaSender

            return KafkaSender(destination)
        case settings.PostgresDestination():
            from pixelfast.deliver.destinations.postgres import PostgresSender

            return PostgresSender(destination)
        case settings.HttpDestination():
            from pixelfast.deliver.destinations.http import http_sender

            return http_sender(destination, clock)
        case settings.S3Destination():
            from pixelfast.deliver.destinations.s3 import S3Sender

            return S3Sender(destination, clock)


def _file_sender(
    destination: settings.FileDestination,
    data: DataDir,
    clock: DeliveryClock,
    needs: SpoolNeeds,
    *,
    is_shared: bool,
) -> Sender:
    from pixelfast.deliver.archive.keeper import ArchiveKeeper
    from pixelfast.deliver.destinations.file import FileSender

    folder = Path(destination.path or data.events_dir(destination.name))
    # With `keep_bytes`, the oldest files are deleted instead.
    max_share = 0.0 if destination.keep_bytes else destination.max_disk_share
    return FileSender(
        folder,
        destination.rotate_bytes,
        destination.rotate_s,
        mode=int(destination.archive_mode, 8),
        machine=data.node.hex()[:8] if is_shared else "",
        clock=clock,
        keeper=ArchiveKeeper(folder, destination, clock),
        quota=DiskQuota(data, needs, max_share),
    )

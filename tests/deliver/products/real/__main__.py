"""Download the jars of the products that run on Java; `make products` runs this."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.deliver.products.real.kafka_broker import kafka_jars
from tests.deliver.products.real.processes import Absent
from tests.deliver.products.real.search_node import PRODUCTS, search_jars


def main() -> None:
    """Download all jars; print what cannot be downloaded, because its tests are then skipped."""
    downloads: list[Callable[[], str]] = [kafka_jars]
    downloads += [partial(search_jars, each) for each in PRODUCTS]
    for download in downloads:
        try:
            download()
        except Absent as why:
            print(why)


if __name__ == "__main__":
    main()

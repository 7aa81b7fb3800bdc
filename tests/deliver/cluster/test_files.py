"""File destinations of several machines."""

from __future__ import annotations

from pathlib import Path

from pixelfast.config import FileDestination
from pixelfast.deliver.archive.names import archive_files
from pixelfast.deliver.destinations import make_sender
from pixelfast.deliver.outcomes import Accepted
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event, numbers_in
from tests.spools import open_data


def test_files_of_several_machines_can_be_collected_in_one_folder(tmp_path: Path) -> None:
    async def main() -> None:
        for number in (1, 2):
            data = open_data(tmp_path / str(number))
            for _ in range(2):  # the second one continues the file of the first one
                settings = FileDestination(name="archive")
                sender = make_sender(settings, data, is_shared=True)
                await sender.open({})
                outcome = await sender.send(batch_of([event(number)]))
                await sender.close()
                assert isinstance(outcome, Accepted)

    run(main())
    folder = tmp_path / "all"
    folder.mkdir()
    for number in (1, 2):
        (path,) = (tmp_path / str(number)).glob("events/archive/*.ndjson")
        path.rename(folder / path.name)
    assert [1, 2] == sorted(set(numbers_in(folder)))
    assert [1, 1] == [each.number for each in archive_files(folder)]

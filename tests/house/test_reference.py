"""The generated reference pages are up to date. If they are not, run `make reference`."""

from __future__ import annotations

from tests.house.reference import COMMANDS, SETTINGS, commands_page, settings_page


def test_the_settings_in_the_documentation_are_up_to_date() -> None:
    assert settings_page() == SETTINGS.read_text("utf-8")


def test_the_commands_in_the_documentation_are_up_to_date() -> None:
    assert commands_page() == COMMANDS.read_text("utf-8")

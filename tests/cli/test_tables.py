"""Tables truncate nothing, however narrow the terminal is."""

from __future__ import annotations

from pixelfast.commands.tables import table_lines

HEADERS = ("name", "events", "reason")
ROWS = [("mail", 1234, "status 400"), ("日本", 5, "no such index")]


def test_in_a_pipe_columns_are_aligned_and_numbers_are_plain() -> None:
    assert [
        "name  events  reason",
        "mail    1234  status 400",
        "日本       5  no such index",
    ] == table_lines(HEADERS, ROWS, None)


def test_a_terminal_that_is_wide_enough_shows_the_same_with_separators() -> None:
    expected = ["name  events  reason", "mail   1,234  status 400", "日本       5  no such index"]
    assert expected == table_lines(HEADERS, ROWS, 27, has_note=True)


def test_a_note_is_printed_below_its_row_if_the_row_is_too_wide() -> None:
    expected = ["name  events", "    reason", "mail   1,234", "    status 400", "日本       5"]
    assert [*expected, "    no such index"] == table_lines(HEADERS, ROWS, 26, has_note=True)


def test_a_note_is_wrapped_between_words() -> None:
    lines = table_lines(HEADERS, [("a", 1, "no such index here")], 16, has_note=True)
    assert ["a          1", "    no such", "    index here"] == lines[2:]


def test_each_row_is_a_block_if_the_table_is_too_wide() -> None:
    assert [
        "name    mail",
        "events  1,234",
        "reason  status 400",
        "",
        "name    日本",
        "events  5",
        "reason  no such index",
    ] == table_lines(HEADERS, ROWS, 26)


def test_each_row_is_a_block_if_the_table_is_too_wide_without_its_notes() -> None:
    rows = [("x" * 12, 1234567, "status 400")]
    expected = [f"name    {'x' * 12}", "events  1,234,567", "reason  status 400"]
    assert expected == table_lines(HEADERS, rows, 22, has_note=True)


def test_the_values_of_a_block_are_wrapped_between_words() -> None:
    lines = table_lines(("a", "reason"), [("https://example.com/long", "not that long")], 18)
    assert ["a       https://example.com/long", "reason  not that", "        long"] == lines


def test_a_table_without_rows_shows_its_headers() -> None:
    assert ["name  events  reason"] == table_lines(HEADERS, [], None)
    assert ["name  events  reason"] == table_lines(HEADERS, [], 5)


def test_one_very_long_cell_does_not_widen_the_others() -> None:
    rows = [("x" * 1000, 1), ("mail", 2)]
    assert ["name  events", f"{'x' * 1000}       1", "mail       2"] == table_lines(
        ("name", "events"), rows, None
    )


def test_control_characters_are_escaped() -> None:
    assert "\\x1b[31m" == table_lines(("name",), [("\x1b[31m",)], 80)[1]

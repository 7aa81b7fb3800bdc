"""The published cases of the pixel dialect, by the decoder and by the oracle."""

from __future__ import annotations

import json
from typing import Any

from pixelfast.commands.decode import Explainer
from tests import oracle

Vector = dict[str, Any]


def canonical(event: object) -> str:
    """Return JSON, in which 1, 1.0 and true differ."""
    return json.dumps(event, sort_keys=True)


def test_a_vector_decodes_as_published(vector: Vector) -> None:
    result = Explainer().explain(vector["target"].encode())
    assert vector["status"] == result["status"]
    assert canonical(vector.get("event")) == canonical(result.get("event"))
    assert vector.get("warnings", 0) == len(result.get("warnings", []))


def test_a_repeated_vector_decodes_as_the_first_time(vector: Vector) -> None:
    """A template writes it from the fourth time on, if the shape can have one."""
    explainer = Explainer()
    found = [explainer.explain(vector["target"].encode()) for _ in range(6)]
    assert found[:1] * 6 == found


def test_a_vector_decodes_as_published_after_other_pixels_of_its_shape(vector: Vector) -> None:
    """The template is made from other values, so it must not contain any of them."""
    explainer = Explainer()
    target = vector["target"].encode()
    start, mark, query = target.partition(b"?")
    pairs = [pair.partition(b"=") for pair in query.split(b"&")]
    others = b"&".join(key + equals + (b"other" if equals else b"") for key, equals, _ in pairs)
    for _ in range(5):
        explainer.explain(start + mark + others)
    result = explainer.explain(target)
    assert vector["status"] == result["status"]
    assert canonical(vector.get("event")) == canonical(result.get("event"))
    assert vector.get("warnings", 0) == len(result.get("warnings", []))


def test_the_oracle_agrees_with_a_vector(vector: Vector) -> None:
    expected = oracle.expect(vector["target"])
    assert vector["status"] == expected.status
    assert canonical(vector.get("event")) == canonical(expected.event)
    assert vector.get("warnings", 0) == len(expected.warnings)


def test_a_rejected_vector_has_an_error(vector: Vector) -> None:
    result = Explainer().explain(vector["target"].encode())
    assert (vector["status"] != 200) == ("error" in result)

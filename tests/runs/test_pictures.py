"""A picture of an evaluation is drawn only where it is what it says."""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image

from ssl_lightning.evaluation.pictures import Picture, bars, curves, image, matrix, points, radar
from ssl_lightning.runs.kinds import check_results
from ssl_lightning.runs.pictures import MAX_NUMBERS, check_pictures

NAN = float("nan")


def png(width: int = 3, height: int = 2) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format="png")
    return file.getvalue()


def claiming(width: int, height: int) -> str:
    """A small file that says it is of this size."""
    content = bytearray(png())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return base64.b64encode(content).decode()


def of_every_kind() -> dict[str, Picture]:
    return {
        "curves": curves("c", "x", "y", {"a": ([0, 1], [0.5, NAN]), "b": ([], [])}, diagonal=True),
        "points": points("p", [[0, 1], [NAN, 2]], [0, 7], "2 of 9"),
        "matrix": matrix("m", "label", "named", [[1, 0], [NAN, 0.5]]),
        "bars": bars("b", "%", {"0": 1, "1": -3}),
        "radar": radar("r", {"u": 0.5, "v": NAN}, {"u": 0.25}),
        "image": image("i", png()),
    }


@pytest.mark.parametrize("kind", of_every_kind())
def test_what_is_made_can_be_drawn(kind):
    (made,) = json.loads(json.dumps([of_every_kind()[kind]]))
    assert made["kind"] == kind
    check_pictures([made])


def test_a_radar_without_the_untrained():
    check_pictures([radar("r", {"u": 0.5})])


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("curves", "title", 5),
        ("curves", "x", None),
        ("curves", "diagonal", 1),
        ("curves", "lines", {}),
        ("curves", "lines", [{"name": "a", "x": [1], "y": [1, 2]}]),
        ("curves", "lines", [{"name": "a", "x": [1]}]),
        ("curves", "lines", [{"name": 1, "x": [], "y": []}]),
        ("curves", "lines", [{"name": "", "x": [1], "y": [float("inf")]}]),
        ("curves", "lines", 3 * [{"name": "", "x": [1] * (MAX_NUMBERS // 2), "y": [1] * (MAX_NUMBERS // 2)}]),
        ("points", "points", [[0, 1], [2]]),
        ("points", "points", [[0, 1], ["0", "1"]]),
        ("points", "points", [[0, 1], [True, 1]]),
        ("points", "points", [[0, 1]] * (MAX_NUMBERS + 1)),
        ("points", "classes", [0, 1.5]),
        ("points", "classes", [0, 10**400]),
        ("points", "classes", [0]),
        ("points", "note", []),
        ("matrix", "rows", 1),
        ("matrix", "values", [[0, 1]]),
        ("matrix", "values", [[0], [1]]),
        ("matrix", "values", [0]),
        ("matrix", "values", [[0] * 200] * 200),
        ("bars", "unit", 1),
        ("bars", "names", ["0", 1]),
        ("bars", "names", ["0"]),
        ("bars", "values", [0, 1e101]),
        ("bars", "values", [0, 10**400]),
        ("bars", "values", [0, None]),
        ("bars", "values", "01"),
        ("radar", "untrained", [0.5]),
        ("radar", "untrained", None),
        ("image", "png", ""),
        ("image", "png", "data:image/png;base64,"),
        ("image", "png", base64.b64encode(b"<svg onload='alert(1)'/>").decode()),
        ("image", "png", base64.b64encode(png()[:20]).decode()),
        ("image", "png", base64.b64encode(png()).decode() + '" onerror="alert(1)'),
        ("image", "png", "é" + base64.b64encode(png()).decode()),
        ("image", "png", claiming(2**16, 2**16)),
        ("image", "png", claiming(0, 5)),
        ("image", "png", 5),
        ("image", "note", None),
    ],
)
def test_what_cannot_be_drawn_is_named(kind, key, value):
    whole = of_every_kind()
    with pytest.raises(ValueError, match=rf"its pictures\.1\b.*\b{key}"):
        check_pictures([whole["bars"], {**whole[kind], key: value}])


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ({}, "no list"),
        (None, "no list"),
        (["x"], "pictures.0 is no mapping"),
        ([{}], "pictures.0.kind is None, and none of curves"),
        ([{"kind": ["bars"]}], "pictures.0.kind"),
        ([{"kind": "video", "title": ""}], "pictures.0.kind is 'video'"),
        ([{"kind": "bars", "title": "", "unit": "", "names": []}], "but for 'values'"),
        ([{**bars("", "", {}), "onclick": ""}], "but for 'onclick'"),
    ],
)
def test_what_is_no_picture_is_named(pictures: Any, said: str):
    with pytest.raises(ValueError, match=said):
        check_results({"pictures": pictures})


@pytest.mark.parametrize(("columns", "said"), [(["a"], "columns is no mapping"), ({"a": 1}, "columns.a is 1")])
def test_headings_are_texts(columns: Any, said: str):
    content: Mapping[str, Any] = {"columns": {"linear/top1": "linear %"}, "pictures": []}
    check_results(content)
    with pytest.raises(ValueError, match=said):
        check_results({**content, "columns": columns})

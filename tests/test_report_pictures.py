"""Which annotated frames the report shows."""

from __future__ import annotations

import av
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.boxes import Detections
from pipeline.frames.report_pictures import Picture, Sight, pictures_in, select_pictures
from pipeline.frames.snapshots import Snapshots
from tests.conftest import gray

NAMES = ("light", "shade")


def seen(*found: tuple[int, float]) -> Detections:
    ordered = sorted(found, key=lambda pair: -pair[1])
    return Detections(
        np.zeros((len(found), 4), np.float32),
        np.array([confidence for _, confidence in ordered], np.float32),
        np.array([class_id for class_id, _ in ordered], np.int64),
    )


def pictures_of(*frames: Detections, moments: tuple[float, ...] = (0.0, 5.0)) -> list[Picture]:
    snapshots = Snapshots(moments, NAMES)
    for index, detections in enumerate(frames):
        image = av.VideoFrame.from_ndarray(gray(20 * index), format="bgr24")
        snapshots.look(float(index), image.reformat(format="yuv420p"), detections)
    return snapshots.pictures()


def test_each_class_is_shown_where_it_is_found_best_at_each_moment() -> None:
    none = seen()
    found = pictures_of(
        none, seen((0, 0.4)), seen((0, 0.9)), seen((0, 0.7), (1, 0.5)), none, seen((0, 0.3)), none
    )
    assert [(picture.seconds, picture.caption) for picture in found] == [
        (2.0, "light 0.90 at 2.0 s"),
        (3.0, "shade 0.50 at 3.0 s"),
        (5.0, "light 0.30 at 5.0 s"),
    ]
    assert all(picture.url.startswith("data:image/jpeg;base64,") for picture in found)


def test_where_nothing_is_found_the_first_frame_is_shown() -> None:
    (picture,) = pictures_of(seen(), seen())
    assert picture.caption == "no boxes at 0.0 s"
    assert pictures_of(seen((0, 0.9)), moments=()) == []  # Without an annotated file.


sights = st.builds(Sight, st.sampled_from("abc"), st.integers(0, 3), st.floats(0, 1))
many = st.lists(st.lists(sights, max_size=3), max_size=20).map(
    lambda found: [Picture(float(i), tuple(s), f"url {i}") for i, s in enumerate(found)]
)


@given(many)
def test_pictures_are_few_and_every_class_has_one_first(pictures: list[Picture]) -> None:
    chosen = select_pictures(pictures)
    assert len(chosen) <= 8
    names = {sight.class_name for picture in pictures for sight in picture.sights}
    assert {sight.class_name for picture in chosen for sight in picture.sights} == names
    # Of what is chosen once, the same is chosen again; so segments may choose before the clip.
    assert select_pictures(chosen) == chosen


def test_a_page_gives_back_its_pictures() -> None:
    picture = Picture(1.5, (Sight('a "b" <c>', 2, 0.5),), "data:image/jpeg;base64,AAAA")
    from pipeline.run.page import templates

    page = templates().from_string(
        '<img src="{{ p.url }}" alt="{{ p.caption }}" data-picture="{{ p.facts }}">'
    )
    assert pictures_in(page.render(p=picture)) == [picture]

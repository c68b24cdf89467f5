"""Which annotated frames the report shows: of each class and moment, as far as there is room.

Imports nothing heavy: the parent process of a batch reads the pictures of pages.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

MOST_PICTURES = 8
_PICTURE = re.compile('<img src="(data:image/[^"]+)" alt="[^"]*" data-picture="([^"]*)"')
"""A frame in the page, with what it shows."""

STEPS = 20
"""A sight is better than another one if it is more confident by a step of so many."""


class Sight(NamedTuple):
    """A class as a frame shows it. moment: the part of the clip, counted from 0."""

    class_name: str
    moment: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Picture:
    """An annotated frame.

    seconds: when it is shown. sights: for which it was chosen; none if nothing was found in any
    frame. url: a data: URL of a JPEG picture.
    """

    seconds: float
    sights: tuple[Sight, ...]
    url: str

    @property
    def caption(self) -> str:
        """What it shows, and when."""
        names = [f"{sight.class_name} {sight.confidence:.2f}" for sight in self.sights]
        return f"{', '.join(names) or 'no boxes'} at {self.seconds:.1f} s"

    @property
    def facts(self) -> str:
        """All but the picture itself, as JSON."""
        return json.dumps({"seconds": self.seconds, "sights": self.sights})

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Picture:
        """Raises KeyError or TypeError for what is none."""
        sights = tuple(Sight(*sight) for sight in record["sights"])
        return cls(record["seconds"], sights, record["url"])


def select_pictures(pictures: Iterable[Picture], most: int = MOST_PICTURES) -> list[Picture]:
    """At most so many pictures to be shown, by time, each with the sights for which it was chosen.

    For each class and moment the best one, of those that are alike the first; each class has one
    before any has a second. Where nothing was found, the first one.
    """
    ordered = sorted(pictures, key=lambda picture: picture.seconds)
    best: dict[tuple[str, int], tuple[Sight, Picture]] = {}
    for picture in ordered:
        for sight in picture.sights:
            key = (sight.class_name, sight.moment)
            if key not in best or _step(sight) > _step(best[key][0]):
                best[key] = (sight, picture)
    if not best:
        return ordered[:1]
    chosen: dict[float, list[Sight]] = {}
    urls = {}
    for sight, picture in _in_turns(list(best.values())):
        if len(chosen) >= most and picture.seconds not in chosen:
            continue
        chosen.setdefault(picture.seconds, []).append(sight)
        urls[picture.seconds] = picture.url
    return [Picture(seconds, tuple(chosen[seconds]), urls[seconds]) for seconds in sorted(chosen)]


def _in_turns(found: list[tuple[Sight, Picture]]) -> list[tuple[Sight, Picture]]:
    """The best of each class, then the second of each, and so on."""
    turns: dict[str, int] = {}
    placed = []
    for sight, picture in sorted(found, key=lambda pair: -pair[0].confidence):
        turn = turns[sight.class_name] = turns.get(sight.class_name, -1) + 1
        placed.append((turn, sight, picture))
    return [(sight, picture) for _, sight, picture in sorted(placed, key=lambda entry: entry[0])]


def _step(sight: Sight) -> int:
    return int(sight.confidence * STEPS)


def pictures_in(page: str) -> list[Picture]:
    """The frames that a page shows, as far as it was written by this version."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return [
            Picture.from_record({**json.loads(html.unescape(record)), "url": url})
            for url, record in _PICTURE.findall(page)
        ]
    return []

"""The tiles of --tile: overlapping parts of a frame, each inferred on its own."""

from __future__ import annotations

from pipeline.core.region import STEP_PX, Window

OVERLAP = 0.2
"""The share of a tile's side by which neighbours overlap at least: what is smaller is whole in one
of them."""


def tiles_of(area: Window, side_px: int) -> tuple[Window, ...]:
    """The tiles of a part of the frame, row by row, and behind them the part itself.

    They are squares of this side or a little more, evenly spread; less high or wide where the part
    is. A part that is hardly larger than a tile is the only one.
    """
    side_px = -(-side_px // STEP_PX) * STEP_PX
    columns, rows = (_intervals(side, side_px) for side in area.size_wh)
    tiles = tuple(
        Window(area.left + left, area.top + top, (right - left, bottom - top))
        for top, bottom in rows
        for left, right in columns
    )
    return tiles if len(tiles) == 1 else (*tiles, area)


def _intervals(length_px: int, side_px: int) -> list[tuple[int, int]]:
    """Begin and end of each tile along one side of the area."""
    if length_px < side_px + STEP_PX:
        return [(0, length_px)]
    overlap_px = round(OVERLAP * side_px)
    number = -(-(length_px - overlap_px) // (side_px - overlap_px))
    room_px = length_px - side_px
    # Rounded down: the tile before reaches further into the next one.
    begins = [i * room_px // (number - 1) // STEP_PX * STEP_PX for i in range(number)]
    return [(begin, begin + side_px) for begin in begins[:-1]] + [(begins[-1], length_px)]

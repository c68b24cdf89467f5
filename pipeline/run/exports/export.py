"""Results and names of formats -> files in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.run.exports.clip import ExportedClip
from pipeline.run.exports.coco import write_coco
from pipeline.run.exports.csv_table import write_csv
from pipeline.run.exports.cvat import write_cvat
from pipeline.run.exports.formats import EXPORT_FORMATS
from pipeline.run.exports.label_studio import write_label_studio
from pipeline.run.exports.megadetector import write_megadetector
from pipeline.run.exports.mot import write_mot
from pipeline.run.exports.pictures import PICTURE_NAMES, write_pictures
from pipeline.run.exports.yolo import write_yolo

Exporter = Callable[[Sequence[ExportedClip], Path], None]

_EXPORTERS: dict[str, Exporter] = {
    "coco": write_coco,
    "csv": write_csv,
    "cvat": write_cvat,
    "labelstudio": write_label_studio,
    "megadetector": write_megadetector,
    "mot": write_mot,
    "yolo": write_yolo,
}


def require_free(folder: Path, formats: Sequence[str]) -> None:
    """Raise InputError if an export is there already."""
    for name in formats:
        target = folder / EXPORT_FORMATS[name]
        if target.exists():
            raise InputError(f"{target} exists already: --overwrite replaces it")


def export(
    clips: Sequence[ExportedClip],
    formats: Sequence[str],
    folder: Path,
    sources: Sequence[Path] | None = None,
) -> list[Path]:
    """Write each format into the folder, in place of an earlier export; returns what was written.

    Files and folders appear under their names when all are complete. sources: the files of the
    clips, whose frames are written as pictures too, for formats with pictures. Raises InputError.
    """
    targets = {name: folder / EXPORT_FORMATS[name] for name in dict.fromkeys(formats)}
    unfinished = {name: folder / f".{target.name}.unfinished" for name, target in targets.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in unfinished.items():
            _remove(path)
            _EXPORTERS[name](clips, path)
        with_pictures = {name: path for name, path in unfinished.items() if name in PICTURE_NAMES}
        if sources is not None and with_pictures:
            write_pictures(clips, sources, with_pictures)
        for name, target in targets.items():
            _remove(target)
            unfinished[name].replace(target)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from error
    finally:
        for path in unfinished.values():
            _remove(path)
    return list(targets.values())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

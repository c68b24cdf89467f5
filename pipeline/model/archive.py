"""The archive that torch.save writes -> plain values, tensors and layers. Nothing in it is called.

Every size is checked before memory is allocated.
"""

from __future__ import annotations

import itertools
import mmap
import re
import zipfile
from pathlib import Path

from pipeline.model.pickle_machine import Machine
from pipeline.model.stored_tensors import Refused, Tensors

_MOST_PICKLE_BYTES = 4 << 20
_MOST_ENTRIES = 20_000


def read_archive(path: Path, layers: frozenset[str], ignored: frozenset[str]) -> object:
    """The object given to torch.save; floating point tensors are float32.

    layers: names of the classes whose objects may be in it, a `Layer` each. ignored: names whose
    objects are left out, an `Ignored` each.
    Raises Refused; for damaged files ValueError, OSError, zipfile.BadZipFile and many others.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # A directory of millions of entries would take gigabytes, and is read first.
        if _has_more(content, b"PK\x01\x02", _MOST_ENTRIES):
            raise Refused(f"it has more than {_MOST_ENTRIES} entries")
        with zipfile.ZipFile(file) as archive:
            root = _checked_root(archive, len(content))
            data = archive.read(f"{root}/data.pkl")
            tensors = Tensors(archive, root, len(content))
            return Machine(layers, ignored, tensors).run(data)


def _has_more(content: mmap.mmap, marker: bytes, number: int) -> bool:
    found = re.finditer(re.escape(marker), content)
    return sum(1 for _ in itertools.islice(found, number + 1)) > number


def _checked_root(archive: zipfile.ZipFile, num_bytes: int) -> str:
    """The top folder. Raises Refused for an archive that torch.save did not write."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or len(set(names)) != len(names):
        raise Refused(f"it has {len(pickles)} pickles or a name twice, not one of each")
    root = pickles[0].partition("/")[0]
    if any(name.startswith((f"{root}/code/", f"{root}/constants.pkl")) for name in names):
        raise Refused("it is TorchScript, a program: give the checkpoint it was made from")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Refused("its entries are compressed, which torch.save does not do")
    if sum(entry.file_size for entry in entries) > num_bytes:
        raise Refused("its entries claim more bytes than it has")
    if archive.getinfo(pickles[0]).file_size > _MOST_PICKLE_BYTES:
        raise Refused(f"its pickle has more than {_MOST_PICKLE_BYTES} bytes")
    if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
        raise Refused("it was written on a machine of another byte order")
    return root

"""NumPy's .npz: the embeddings of all recordings as arrays, in constant memory."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from audioset.files import explain_os_errors
from audioset.formats.output import Stream
from audioset.formats.rows import EmbeddingRow

if TYPE_CHECKING:
    import zipfile

SPOOLED = {"embeddings": "<f4", "start_s": "<f8", "end_s": "<f8", "recording": "<i4"}
TEXTS = ("paths", "errors", "model")
COPY_BYTES = 1 << 20


class NpzWriter:
    """Arrays of patches: ``embeddings`` (n, size), ``start_s``, ``end_s``, ``recording`` (n,).

    ``recording`` says which of ``paths`` a patch belongs to. ``errors`` has a text for each path, empty
    where all went well, and ``model`` is one text. The arrays of patches wait in temporary files, beside the
    output, until ``close``. ``embeddings`` are float32, or uint8 if they are quantised.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._n_patches = 0
        self._size = 0
        self._dtypes = dict(SPOOLED)
        self._model = ""
        self._indices: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._files = ExitStack()
        with self._explained():
            folder = getattr(stream, "folder", None)
            self._spools = {name: self._new_file(folder) for name in SPOOLED}

    def write(self, row: EmbeddingRow) -> None:
        """Put the row's patches into the temporary files."""
        import numpy as np

        index = self._indices.setdefault(row.path, len(self._indices))
        self._model = row.model
        if row.error_code is not None:
            self._errors[row.path] = f"{row.error_code}: {row.error}"
            return
        self._n_patches += len(row.embeddings)
        self._size = row.embeddings.shape[1]
        self._dtypes["embeddings"] = "|u1" if row.is_quantised else SPOOLED["embeddings"]
        arrays = (row.embeddings, row.start_s, row.end_s, np.full(len(row.embeddings), index))
        with self._explained():
            for (name, dtype), array in zip(self._dtypes.items(), arrays, strict=True):
                self._spools[name].write(np.ascontiguousarray(array, dtype).data)

    def close(self) -> None:
        """Assemble the archive, and drop the temporary files."""
        import zipfile

        import numpy as np

        paths = tuple(self._indices)
        errors = [self._errors.get(path, "") for path in paths]
        texts = zip(TEXTS, (np.array(text, np.str_) for text in (paths, errors, self._model)), strict=True)
        with self._explained(), self._files, zipfile.ZipFile(self._stream, "w") as archive:
            for name, spool in self._spools.items():
                with _member(archive, name) as member:
                    self._copy(name, spool, member)
            for name, text in texts:
                with _member(archive, name) as member:
                    np.lib.format.write_array(member, text, allow_pickle=False)

    def _new_file(self, folder: Path | None) -> IO[bytes]:
        return self._files.enter_context(tempfile.TemporaryFile(dir=folder))

    def _copy(self, name: str, spool: IO[bytes], member: IO[bytes]) -> None:
        import numpy as np

        shape = (self._n_patches, self._size) if name == "embeddings" else (self._n_patches,)
        header = {"descr": self._dtypes[name], "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        spool.seek(0)
        shutil.copyfileobj(spool, member, COPY_BYTES)

    def _explained(self) -> AbstractContextManager[None]:
        return explain_os_errors(f"temporary files for {getattr(self._stream, 'name', 'the output')}")


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    import zipfile

    # A ZipInfo of its own has a fixed date: the same results make the same bytes.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def is_npz(file: BinaryIO) -> bool:
    """Whether a file is an archive of these arrays, and of no others."""
    import zipfile

    with zipfile.ZipFile(file) as archive:
        return archive.namelist() == [f"{name}.npy" for name in (*SPOOLED, *TEXTS)]

"""Take over audio that other tools have left on disk: recognised by its name, decoded, and noted in the ledger."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audioset.audio.resampling import check_rates
from audioset.dataset.download.clips import Clip, Key, place
from audioset.dataset.download.cutter import Cutter
from audioset.dataset.download.download import PARTIAL_FOLDER, clean_up
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.machine import new_owner
from audioset.dataset.download.media import MediaFile, MediaSettings, check_file, write_clip
from audioset.dataset.download.serving import put_file
from audioset.dataset.lists.clip_names import ClipName, clip_names
from audioset.errors import AudioError, DataError, UsageError
from audioset.files import check_regular, confined, is_file, is_folder
from audioset.records import DAMAGE, problem_of

WAYS = ("link", "copy", "register")
LEASE_S = 600.0
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


@dataclass
class Adoption:
    """What became of the files of a folder."""

    n_adopted: int = 0
    n_cut: int = 0  # of these, how many were whole videos, and were cut
    n_done_before: int = 0  # files of clips that the ledger has as done
    n_unknown: int = 0  # files whose names belong to no clip of the ledger
    n_empty: int = 0  # rows of HDF5 files that stand for missing clips
    # Files that are not what their names promise, and why
    rejected: list[tuple[str, str]] = field(default_factory=list)


class Adopter:
    """Takes over files into a dataset.

    Files of clips that the ledger does not have are left alone. ``way`` is ``link``: a second name for the same
    file, or a copy where that cannot be; ``copy``; or ``register``: the file stays where it is, and the ledger says
    so.
    """

    def __init__(self, ledger: Ledger, folder: Path, media: MediaSettings, way: str = "link") -> None:
        if way not in WAYS:
            raise UsageError(f"the way is {way!r}; expected one of {', '.join(WAYS)}")
        self.result = Adoption()
        self._ledger = ledger
        self._folder = folder
        self._media = media
        self._way = way
        self._owner = new_owner()
        self._scratch = folder / PARTIAL_FOLDER / self._owner.replace(":", "=")

    def adopt(self, source: Path, watch: Callable[[Path], None] = lambda path: None) -> Adoption:
        """Take over all files of a folder and those below it, or one HDF5 file of PANNs; killed runs' clips as well."""
        clean_up(self._ledger, self._folder, LEASE_S)
        self._scratch.mkdir(parents=True, exist_ok=True)
        try:
            with Cutter() as cutter:
                for path in [source] if is_file(source) else _files(source):
                    watch(path)
                    if path.suffix.lower() in HDF5_SUFFIXES:
                        self._adopt_hdf5(path)
                    else:
                        self._adopt_file(path, cutter)
        finally:
            self._ledger.release(self._owner)
            shutil.rmtree(self._scratch, ignore_errors=True)
            with suppress(OSError):
                self._scratch.parent.rmdir()
        return self.result

    def _adopt_file(self, path: Path, cutter: Cutter) -> None:
        clip, has_times = self._clip_of(path.name)
        if clip is None or not self._take(clip):
            return
        try:
            self._adopt_audio(path, clip, has_times, cutter)
        except AudioError as error:
            self._reject(path.name, clip, str(error))

    def _adopt_audio(self, path: Path, clip: Clip, has_times: bool, cutter: Cutter) -> None:
        duration_s, slack_s = cutter.duration_of(path), self._media.tolerance_s
        scratch = self._scratch / f"clip{path.suffix.lower()}"
        if not has_times and duration_s > clip.key.duration_s + slack_s and duration_s >= clip.key.end_s - slack_s:
            scratch = scratch.with_suffix(self._media.encoding.suffix)
            media = cutter.cut(path, scratch, clip.key.start_s, clip.key.end_s, self._media, None)
            self._finish(clip, scratch, media, path.name)
            self.result.n_cut += 1
            return
        media = cutter.check(path, clip.key.duration_s, slack_s)
        if self._way == "register":
            inside = path.resolve().is_relative_to(self._folder.resolve())
            name = path.resolve().relative_to(self._folder.resolve()).as_posix() if inside else str(path.resolve())
            self._ledger.finish(clip.key, self._owner, replace(media, file=name, source_format=path.name), lambda: None)
            self.result.n_adopted += 1
            return
        _link_or_copy(path, scratch, is_link=self._way == "link")
        self._finish(clip, scratch, media, path.name)

    def _adopt_hdf5(self, path: Path) -> None:
        """Unpack the clips of a file of PANNs. Rows without a name, or of silence only, stand for missing clips."""
        for name, waveform, sample_rate in _hdf5_rows(path):
            clip, _ = self._clip_of(Path(name).name)
            if clip is None or not self._take(clip):
                continue
            if waveform is None:
                self.result.n_empty += 1
                self._ledger.give_back(clip, self._owner)
                continue
            scratch = self._scratch / f"clip{self._media.encoding.suffix}"
            samples = waveform[: round(clip.key.duration_s * sample_rate), None].astype("float32") / 32_768
            try:
                write_clip(scratch, samples, sample_rate, replace(self._media, bit_depth=16))
                media = check_file(scratch, clip.key.duration_s, self._media.tolerance_s, sample_rate, 1)
            except AudioError as error:
                self._reject(f"{path.name}: {name}", clip, str(error))
                continue
            self._finish(clip, scratch, media, f"{path.name}: {name}")

    def _clip_of(self, name_of_file: str) -> tuple[Clip | None, bool]:
        """The clip that a file's name means, and whether the name has times."""
        for name in clip_names(name_of_file):
            clips = [clip for clip in self._ledger.clips_of(name.video_id) if _is_meant(clip.key, name)]
            if len(clips) == 1:
                return clips[0], name.start_ms is not None
        self.result.n_unknown += 1
        return None, False

    def _take(self, clip: Clip) -> bool:
        if self._ledger.take(clip.key, self._owner, LEASE_S):
            return True
        self.result.n_done_before += 1
        return False

    def _reject(self, name: str, clip: Clip, reason: str) -> None:
        self.result.rejected.append((name, reason))
        self._ledger.give_back(clip, self._owner)

    def _finish(self, clip: Clip, scratch: Path, media: MediaFile, source: str) -> None:
        name = place(clip.key, clip.subset, scratch.suffix)
        found = replace(media, file=name, source_format=f"adopted: {source}")
        if self._ledger.finish(clip.key, self._owner, found, lambda: put_file(scratch, confined(self._folder, name))):
            self.result.n_adopted += 1


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order, but not half-written ones."""
    if not is_folder(folder):
        raise UsageError(f"{folder} is neither a folder nor an HDF5 file. Next step: correct its name")
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != PARTIAL_FOLDER)
        yield from (Path(parent, name) for name in sorted(names))


def _is_meant(key: Key, name: ClipName) -> bool:
    return name.start_ms in (None, key.start_ms) and name.end_ms in (None, key.end_ms)


def _link_or_copy(source: Path, target: Path, *, is_link: bool) -> None:
    target.unlink(missing_ok=True)
    if is_link:
        with suppress(OSError):  # another disk, or one without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _hdf5_rows(path: Path) -> Iterator[tuple[str, Any, int]]:
    """Name, int16 samples (None for a missing clip) and rate of each row of a file of waveforms."""
    import h5py

    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            names, waveforms = _own_data(file, "audio_name", path), _own_data(file, "waveform", path)
            sample_rate = int(file.attrs["sample_rate"])
            check_rates(sample_rate)
            if waveforms.ndim != 2 or waveforms.dtype.name != "int16" or len(names) != len(waveforms):
                raise DataError(
                    f"{path}: waveform has shape {waveforms.shape} and dtype {waveforms.dtype}; expected int16 "
                    "samples, one row for each of audio_name"
                )
            for row, name in enumerate(names):
                samples = waveforms[row]
                yield name.decode("ascii", "replace"), samples if name and samples.any() else None, sample_rate
    except (RuntimeError, *DAMAGE) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as waveforms of PANNs ({error}); expected audio_name, waveform and the attribute "
            "sample_rate. Likely cause: a damaged file, or one of another kind"
        ) from error


def _own_data(file: Any, name: str, path: Path) -> Any:
    """A dataset whose values are in this file: HDF5 can point at any other file."""
    import h5py

    link, data = file.get(name, getlink=True), file[name]
    if not isinstance(link, h5py.HardLink) or not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise DataError(f"{path}: {name} points at another file; expected its own data")
    if problem := problem_of(data):
        raise DataError(f"{path}: {name} {problem}")
    return data

"""Join the ledgers of several machines: the same rows come out, whatever the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audioset.dataset.download.clips import Clip, file_path
from audioset.dataset.download.download import is_in_place
from audioset.dataset.download.failures import BY_STATE
from audioset.dataset.download.ledger import Ledger

NO_MEDIA = dict.fromkeys(
    (
        "file",
        "n_bytes",
        "sha256",
        "duration_s",
        "sample_rate",
        "n_channels",
        "codec",
        "source_format",
        "fetched_at",
        "host",
        "video_file",
    )
)
DONE, FINAL, FAILED, PENDING = 3, 2, 1, 0


@dataclass
class Merge:
    """What a merge changed."""

    # n_new, n_changed, n_same: rows that were not there, that are different now, and that stayed
    n_new: int = 0
    n_changed: int = 0
    n_same: int = 0
    n_lost: int = 0  # rows that said done, of whose file there is no trace
    # Rows that said done, whose file is neither below the dataset nor beside its ledger: such a name is not believed,
    # as it may be that of any file of this machine
    n_outside: int = 0


def merge(target: Ledger, folder: Path, sources: Sequence[Path]) -> Merge:
    """Take over from other ledgers what they know better.

    Of two rows for a clip, the one wins that comes first here: done, with its file in place; failed for good; failed;
    pending. Among equals, the one with more attempts, then the later one, then the one whose text is greater, so that
    neither the order of the ledgers nor that of merges matters. What is in work elsewhere counts as pending.
    """
    result = Merge()
    for source in sources:
        with Ledger(source) as other, target.transaction():
            for clip in other.clips():
                _merge_row(target, folder, _settled(clip, folder, source.parent, result), result)
    return result


def rank(clip: Clip) -> tuple[int, int, float, str]:
    """How much a row knows; the greater one wins."""
    if clip.state == "done":
        level = DONE
    elif clip.state in BY_STATE:
        level = FINAL if clip.due_at is None else FAILED
    else:
        level = PENDING
    return level, clip.attempts, clip.fetched_at or clip.due_at or 0.0, repr(clip)


def _merge_row(target: Ledger, folder: Path, clip: Clip, result: Merge) -> None:
    own = next((known for known in target.clips_of(clip.key.video_id) if known.key == clip.key), None)
    if own is None:
        target.put_row(clip)
        result.n_new += 1
        return
    if own.state == "running":
        result.n_same += 1
        return
    if own.state == "done" and not is_in_place(own, folder):
        own = _pending(own)
    # Both name the same subset and labels, or the one that was first keeps its own.
    clip = replace(clip, subset=own.subset, label_ids=own.label_ids)
    if rank(clip) > rank(own):
        target.put_row(clip)
        result.n_changed += 1
    else:
        result.n_same += 1


def _settled(clip: Clip, folder: Path, beside: Path, result: Merge) -> Clip:
    """A row as it counts here: with a file that is there, or none."""
    if clip.state == "running":
        return _pending(clip)
    if clip.state != "done":
        return clip
    if _is_outside(clip, folder, beside):
        result.n_outside += 1
        return _pending(clip)
    if is_in_place(clip, folder):
        return clip
    if is_in_place(clip, beside):
        video = clip.video_file and str(file_path(beside, clip.video_file).resolve())
        return replace(clip, file=str(file_path(beside, str(clip.file)).resolve()), video_file=video)
    result.n_lost += 1
    return _pending(clip)


def _is_outside(clip: Clip, *folders: Path) -> bool:
    """Whether one of its files has an absolute name that is below none of the folders."""
    absolute = [Path(name) for name in (clip.file, clip.video_file) if name and Path(name).is_absolute()]
    roots = [folder.resolve() for folder in folders]
    return any(not any(path.resolve().is_relative_to(root) for root in roots) for path in absolute)


def _pending(clip: Clip) -> Clip:
    return replace(clip, state="pending", owner=None, due_at=0.0, reason="", **NO_MEDIA)  # type: ignore[arg-type]

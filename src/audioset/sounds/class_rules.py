"""What may be wrong with classes and their labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from audioset.sounds.collection import Clip
from audioset.sounds.findings import Finding, Rule, Survey, count_of, grouped, names_of

FEW_FILES = 5  # of a class
MOST_UNEQUAL = 20  # times as many clips
MIN_OVERLAP = 0.5  # of the shorter clip


def find_few_classes(survey: Survey) -> Iterator[Finding]:
    """Nothing to tell apart."""
    present = [name for name in survey.classes if survey.of(name)]
    n_background = sum(not item.clip.labels for item in survey.heard)
    if survey.heard and len(present) < (1 if n_background else 2):
        found = f"only one class, {present[0]!r}" if present else "only background"
        step = "add a second class, or sounds of none as a folder or label named background"
        yield Finding("one_class", "error", f"there is {found}: nothing to tell it from. Next step: {step}")


def find_lost_classes(survey: Survey) -> Iterator[Finding]:
    """Classes of which nothing is left."""
    lost = [name for name in survey.classes if not survey.of(name)]
    if lost and survey.heard:
        yield Finding(
            "lost_class",
            "error",
            f"no clip is left of {names_of(lost)}: what is learned will not know "
            f"{'it' if len(lost) == 1 else 'them'}. Next step: repair the clips above, or add others",
        )


def find_small_classes(survey: Survey) -> Iterator[Finding]:
    """Classes with few recordings: pieces of one recording sound alike, so files are counted."""
    n_files = {name: len({item.clip.path for item in survey.of(name)}) for name in survey.classes}
    single = [name for name, count in n_files.items() if count == 1]
    few = [name for name, count in n_files.items() if 1 < count < FEW_FILES]
    if single:
        yield Finding(
            "single",
            "warning",
            f"one recording alone of {names_of(single)}: it can be learned or tested, not both. Next step: add "
            f"recordings, {FEW_FILES} or more",
            tuple(item.clip for name in single for item in survey.of(name)),
        )
    if few:
        yield Finding(
            "few",
            "warning",
            f"fewer than {FEW_FILES} recordings of {names_of(few)}: what is measured of "
            f"{'it' if len(few) == 1 else 'them'} will be uncertain. Next step: add recordings",
        )


def find_imbalance(survey: Survey) -> Iterator[Finding]:
    """One class with many times the clips of another."""
    counts = {name: count for name in survey.classes if (count := len(survey.of(name)))}
    if not counts:
        return
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] > MOST_UNEQUAL * counts[least]:
        yield Finding(
            "imbalance",
            "warning",
            f"{count_of(counts[most], 'clip')} of {most!r} and {counts[least]:,} of {least!r}. Next step: add clips of "
            "the rare class; look at its recall, not at the accuracy",
        )


def find_similar_names(survey: Survey) -> Iterator[Finding]:
    """Names of classes that differ in nothing but case, spaces or hyphens."""
    alike = defaultdict(list)
    for name in survey.classes:
        alike["".join(char for char in name.casefold() if char.isalnum()) or name].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield Finding(
                "similar_names",
                "warning",
                f"{names_of(names)} are different classes. Next step: if they are one, give them one name",
            )


def find_several_labels(survey: Survey) -> Iterator[Finding]:
    """Clips of several classes: they change what is learned."""
    several = [item.clip for item in survey.heard if len(item.clip.labels) > 1]
    if several:
        yield Finding(
            "several_labels",
            "note",
            f"{count_of(len(several), 'clip')} of several classes: each class is learned by itself, and any number may "
            "be heard at once",
            tuple(several),
        )


def find_overlaps(survey: Survey) -> Iterator[Finding]:
    """Labelled stretches that overlap others with other labels."""
    found = [
        clip
        for items in grouped(survey.heard, lambda item: item.clip.path).values()
        for clip in _overlapping([item.clip for item in items])
    ]
    if found:
        yield Finding(
            "overlap",
            "warning",
            f"{count_of(len(found), 'clip')} that overlap another of the same recording with other labels: each is "
            "learned as if the other label were wrong. Next step: give both labels to the stretch that they share",
            tuple(found),
        )


def _overlapping(clips: list[Clip]) -> Iterator[Clip]:
    """Clips of one recording that share half of the shorter one with an earlier clip of other labels."""
    active: list[Clip] = []
    for clip in sorted(clips, key=lambda clip: clip.start_s):
        active = [earlier for earlier in active if _end_s(earlier) > clip.start_s]
        if any(set(earlier.labels) != set(clip.labels) and _do_overlap(earlier, clip) for earlier in active):
            yield clip
        active.append(clip)


def _do_overlap(earlier: Clip, clip: Clip) -> bool:
    shared_s = min(_end_s(earlier), _end_s(clip)) - clip.start_s
    shorter_s = min(_end_s(earlier) - earlier.start_s, _end_s(clip) - clip.start_s)
    return shared_s >= MIN_OVERLAP * shorter_s


def _end_s(clip: Clip) -> float:
    return math.inf if clip.end_s is None else clip.end_s


CLASS_RULES: tuple[Rule, ...] = (
    find_few_classes,
    find_lost_classes,
    find_small_classes,
    find_imbalance,
    find_similar_names,
    find_overlaps,
    find_several_labels,
)

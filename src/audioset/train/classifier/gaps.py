"""Whether a split by file flatters: it does where clips share what is heard before their class."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from audioset.sounds.collection import Collection

LARGE = 0.1  # gap
N_VALUES = (2, 30)  # fewest and most different values of a group in names
LEAST_CLIPS = 3  # of a group, on average
MOST_CLASSES = 0.6  # share of classes that a value has on average: others are names of classes
SEPARATORS = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class NamedGroup:
    """A part of the files' names that looks like a group."""

    pattern: str  # regular expression with one group, for ``--group``
    values: tuple[str, ...]  # of each clip

    def applied_to(self, collection: Collection) -> Collection:
        """The collection with these groups."""
        clips = [replace(clip, group=value) for clip, value in zip(collection.clips, self.values, strict=True)]
        return replace(collection, clips=tuple(clips))


def find_named_groups(collection: Collection) -> Iterator[NamedGroup]:
    """Parts of the names that have few values, each of them with most of the classes."""
    names = [clip.path.name for clip in collection.clips]
    tokens = [[token for token in SEPARATORS.split(name.rpartition(".")[0] or name) if token] for name in names]
    n_tokens = {len(row) for row in tokens}
    if len(n_tokens) != 1:
        return
    for place, column in enumerate(zip(*tokens, strict=True)):
        if _looks_like_group(column, collection) and (pattern := _pattern(names, column, place)):
            yield NamedGroup(pattern, column)


def is_gap(by_file: Mapping[str, Any], by_group: Mapping[str, Any]) -> bool:
    """Whether clips of known groups are told far better than those of unknown ones, and not by chance."""
    accuracies = by_file["accuracy"], by_group["accuracy"]
    variances = [a * (1 - a) / max(1, each["n_clips"]) for a, each in zip(accuracies, (by_file, by_group), strict=True)]
    gap = accuracies[0] - accuracies[1]
    return bool(gap > LARGE and gap > 2 * math.sqrt(sum(variances)))


def gap_warning(by_file: float, by_group: float, group: str = "") -> str:
    """What a reader must know before the numbers."""
    hint = (
        f" The names of the files look as if they hold it: give --group '{group}' to have the model chosen and "
        "measured by it."
        if group
        else ""
    )
    what = "the groups that the names of the files hold" if group else "the groups"
    return (
        f"Expect {by_group:.0%} on new groups, not {by_file:.0%}: with whole files held out {by_file:.1%} of the clips "
        f"are right, with {what} held out {by_group:.1%}. The model hears whose or where a recording is, more than "
        f"what it is.{hint} Next step: record more groups (speakers, sites, devices), or train the network itself: "
        "audioset finetune"
    )


def _looks_like_group(column: Sequence[str], collection: Collection) -> bool:
    values = set(column)
    if not N_VALUES[0] <= len(values) <= N_VALUES[1] or len(column) < LEAST_CLIPS * len(values):
        return False
    pairs = {(value, label) for value, clip in zip(column, collection.clips, strict=True) for label in clip.labels}
    return len(pairs) >= MOST_CLASSES * len(values) * len(collection.classes)


def _pattern(names: Sequence[str], column: Sequence[str], place: int) -> str:
    """The simplest regular expression that finds the values in the names; empty if there is none."""
    word = "[a-z]+" if all(value.isalpha() and value.islower() for value in column) else "[A-Za-z0-9]+"
    kinds = ["[A-Za-z]+", "[0-9]+"] if word != "[a-z]+" else []
    separators = {match for name in names[:1] for match in SEPARATORS.findall(name)}
    around = [
        f"{re.escape(sep)}({kind}){re.escape(end)}"
        for kind in [word, *kinds]
        for sep in separators
        for end in separators
    ]
    starts = [f"^({kind}){re.escape(end)}" for kind in [word, *kinds] for end in separators]
    general = f"^(?:[A-Za-z0-9]+[^A-Za-z0-9]+){{{place}}}([A-Za-z0-9]+)"
    for pattern in [*sorted(around), *sorted(starts), general]:
        found = [re.search(pattern, name) for name in names]
        if all(match and match[1] == value for match, value in zip(found, column, strict=True)):
            return pattern
    return ""

"""What may be wrong with groups, and with a given split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from audioset.sounds.collection import Clip
from audioset.sounds.findings import Finding, Rule, Survey, concerning, count_of, grouped, names_of


def find_group_problems(survey: Survey) -> Iterator[Finding]:
    """Groups that cannot be used to tell what is learned from what is known by heart."""
    groups = {item.clip.group for item in survey.heard} - {None}
    if not groups:
        return
    without = [item for item in survey.heard if item.clip.group is None]
    if without:
        yield concerning(
            "no_group",
            "warning",
            f"{count_of(len(without), 'clip')} without a group. They are spread over the folds, whole files at a time. "
            "Next step: correct the column or the pattern",
            without,
        )
    if len(groups) == 1:
        yield Finding(
            "one_group",
            "warning",
            f"all clips are of one group, {next(iter(groups))!r}: how well others will be recognised cannot be "
            "measured. Next step: add a second group",
        )
        return
    groups_of = {name: {item.clip.group for item in survey.of(name)} - {None} for name in survey.classes}
    bound = [name for name, found in groups_of.items() if len(found) == 1]
    if bound:
        yield Finding(
            "class_in_one_group",
            "warning",
            f"{names_of(bound)} in one group alone: the group may be learned, and not the sound. Next step: add "
            "recordings of other groups",
        )


def find_split_problems(survey: Survey) -> Iterator[Finding]:
    """A given split that shares groups or recordings, or lacks something."""
    parts = grouped([item for item in survey.heard if item.clip.split], lambda item: item.clip.split)
    if not parts:
        return
    for part in ("train", "test"):
        if part not in parts:
            yield Finding("no_part", "error", f"no clip is in {part}. Next step: correct --split, or leave it out")
    shared: tuple[tuple[str, Callable[[Clip], Path | str | None]], ...] = (
        ("group", lambda clip: clip.group),
        ("recording", lambda clip: clip.path),
    )
    for what, key in shared:
        train, test = ({key(item.clip) for item in parts.get(part, ())} for part in ("train", "test"))
        common = (train & test) - {None}
        if common:
            clips = [item for item in survey.heard if key(item.clip) in common]
            names = sorted(_base_name(name) for name in common)
            yield concerning(
                "leak",
                "error",
                f"{count_of(len(common), what)} in both train and test: {names_of(names)}. What is measured will look "
                f"too good. Next step: move each {what} to one of them, or leave out --split",
                clips,
            )
    for name in survey.classes:
        found = {item.clip.split for item in survey.of(name)}
        if found and len(parts) > 1 and len(found) == 1:
            yield Finding(
                "class_in_one_part",
                "warning",
                f"all clips of {name!r} are in {next(iter(found))}. Next step: move some to the other part",
            )


def _base_name(name: Path | str | None) -> str:
    return name.name if isinstance(name, Path) else str(name)


SPLIT_RULES: tuple[Rule, ...] = (find_split_problems, find_group_problems)

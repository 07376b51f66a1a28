"""What may be wrong with the sound of clips that can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from audioset.sounds.findings import N_NAMED, Finding, HeardClip, Rule, Survey, concerning, count_of, is_or_are

SHORT_S = 0.12  # a tenth of a second, and what rounding adds
LONG_S = 600.0
LATE_S = 0.1  # how much later than its recording a label may end
CLIPPED_SHARE = 0.01  # of the samples
LOSSES = ("truncated", "damaged", "what is joined")  # how warnings begin that speak of sound that is gone
LOUDEST_PEAK = 1.01  # what a conversion may overshoot


def find_short(survey: Survey) -> Iterator[Finding]:
    """Clips of a tenth of a second."""
    short = [item for item in survey.heard if item.duration_s < SHORT_S]
    if short:
        yield concerning(
            "short",
            "warning",
            f"{count_of(len(short), 'clip')} of {SHORT_S:g} s or less: networks hear half a second or more at "
            "once, and silence for the rest. Next step: cut with more around the sound",
            short,
            [f"{item.duration_s:.3f} s" for item in short],
        )


def find_long(survey: Survey) -> Iterator[Finding]:
    """Clips of more than ten minutes: a label that is true of so much is rarely true of all of it."""
    long = [item for item in survey.heard if item.duration_s > LONG_S]
    if long:
        yield concerning(
            "long",
            "warning",
            f"{count_of(len(long), 'clip')} of more than {LONG_S / 60:g} minutes, which the label has as a whole. Next "
            "step: say where the sound is, with start_s and end_s in a CSV or with labels in Audacity or Raven",
            long,
            [f"{item.duration_s / 60:,.0f} minutes" for item in long],
        )


def find_late_ends(survey: Survey) -> Iterator[Finding]:
    """Labels that end after their recording."""
    late = [
        item
        for item in survey.heard
        if item.file and item.clip.end_s is not None and item.clip.end_s > item.file.duration_s + LATE_S
    ]
    if late:
        yield concerning(
            "late_end",
            "warning",
            f"{count_of(len(late), 'label')} that {'ends' if len(late) == 1 else 'end'} after the recording. Next "
            "step: compare: they may be of another recording",
            late,
            [f"{item.clip.end_s:g} s of {item.file.duration_s:.2f} s" for item in late if item.file],
        )


def find_damage(survey: Survey) -> Iterator[Finding]:
    """Files that hold less than they promise."""
    damaged = [(item, lost) for item, texts in _warned(survey) if (lost := [text for text in texts if _is_loss(text)])]
    if damaged:
        yield concerning(
            "truncated",
            "warning",
            f"{count_of(len(damaged), 'file')} that {is_or_are(len(damaged))} cut short or damaged; what is there is "
            "used. Next step: copy from the original again",
            [item for item, _ in damaged],
            ["; ".join(lost) for _, lost in damaged],
        )


def find_odd_sound(survey: Survey) -> Iterator[Finding]:
    """Files that hardly mean what they say: of another scale, with channels that cancel, joined of several formats."""
    odd = [
        (item, rest)
        for item, texts in _warned(survey)
        if (rest := [text for text in texts if not _is_loss(text)]) and not _is_too_loud(item)
    ]
    if odd:
        yield concerning(
            "odd_sound",
            "warning",
            f"{count_of(len(odd), 'file')} whose sound may not be what was meant",
            [item for item, _ in odd],
            ["; ".join(rest) for _, rest in odd],
        )


def find_clipped(survey: Survey) -> Iterator[Finding]:
    """Clips that were recorded too loud, and such as are no audio in [-1, 1]."""
    pieces = [(item, item.piece) for item in survey.heard if item.piece and item.piece.n_samples]
    beyond = [item for item, piece in pieces if piece.peak > LOUDEST_PEAK]
    clipped = [
        (item, share)
        for item, piece in pieces
        if piece.peak <= LOUDEST_PEAK and (share := piece.n_clipped / piece.n_samples) > CLIPPED_SHARE
    ]
    if clipped:
        yield concerning(
            "clipped",
            "warning",
            f"{count_of(len(clipped), 'clip')} with more than {CLIPPED_SHARE:.0%} of the samples at full scale. Next "
            "step: record with less gain",
            [item for item, _ in clipped],
            [f"{share:.0%}" for _, share in clipped],
        )
    if beyond:
        yield concerning(
            "too_loud",
            "warning",
            f"{count_of(len(beyond), 'clip')} with samples beyond full scale, which is 1. Likely cause: a faulty "
            "conversion to float. Next step: convert again",
            beyond,
            [f"peak {item.piece.peak:g}" for item in beyond if item.piece],
        )


def find_silent_background(survey: Survey) -> Iterator[Finding]:
    """Background in which nothing is heard: meant, perhaps."""
    silent = [item for item in survey.heard if item.is_silent and not item.clip.labels]
    if silent:
        yield concerning("silent_background", "note", f"{count_of(len(silent), 'silent clip')} of background", silent)


def find_mixed_formats(survey: Survey) -> Iterator[Finding]:
    """Several sample rates or numbers of channels; and classes that could be told apart by them."""
    rates = Counter(item.file.sample_rate for item in survey.heard if item.file)
    channels = Counter(item.file.n_channels for item in survey.heard if item.file)
    if len(rates) > 1 and (told := _told_apart(survey)):
        yield Finding(
            "rate_of_class",
            "warning",
            f"each class has a sample rate of its own: {told}. The network may learn the bandwidth and not the sound. "
            "Next step: record all classes in the same way, or bring all files to the lowest rate",
        )
    elif len(rates) > 1:
        counts = ", ".join(f"{rate:,} Hz ({count:,})" for rate, count in rates.most_common())
        yield Finding("sample_rates", "note", f"several sample rates: {counts}; all are resampled")
    if len(channels) > 1:
        counts = ", ".join(f"{number} ({count:,})" for number, count in channels.most_common())
        yield Finding("channels", "note", f"several numbers of channels: {counts}; all are mixed down to one")


def _warned(survey: Survey) -> list[tuple[HeardClip, tuple[str, ...]]]:
    """One clip of each file that has warnings, and these."""
    items = _one_a_file(item for item in survey.heard if item.file and item.file.warnings)
    return [(item, item.file.warnings) for item in items if item.file]


def _is_loss(warning: str) -> bool:
    return warning.startswith(LOSSES)


def _is_too_loud(item: HeardClip) -> bool:
    return item.piece is not None and item.piece.peak > LOUDEST_PEAK


def _one_a_file(items: Iterable[HeardClip]) -> list[HeardClip]:
    return list({item.clip.path: item for item in items}.values())


def _told_apart(survey: Survey) -> str:
    """Class and rate, if every class has one rate and not all have the same; else nothing."""
    rates_of = {name: {item.file.sample_rate for item in survey.of(name) if item.file} for name in survey.classes}
    single = {name: next(iter(rates)) for name, rates in rates_of.items() if len(rates) == 1}
    if len(single) < sum(map(bool, rates_of.values())) or len(set(single.values())) < 2:
        return ""
    shown = [f"{name!r} {rate:,} Hz" for name, rate in list(single.items())[:N_NAMED]]
    return ", ".join(shown) + (", …" if len(single) > N_NAMED else "")


SOUND_RULES: tuple[Rule, ...] = (
    find_short,
    find_long,
    find_late_ends,
    find_damage,
    find_odd_sound,
    find_clipped,
    find_mixed_formats,
    find_silent_background,
)

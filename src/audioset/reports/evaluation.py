"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from audioset.evaluate.evaluation import Evaluation
from audioset.labels.labels import LabelSet
from audioset.reports.document import Block, Document, Heading, Headline, Paragraph, Picture, Table
from audioset.reports.figures import Bar, draw_ap_by_count, draw_bars, draw_confusions, draw_curves, draw_reliability

N_BEST = 15
N_CONFUSIONS = 20
MOST_MISSING = 200  # that a report names; the record names all
MEASURES = {
    "mean_ap": "mAP",
    "mean_auc": "AUC",
    "d_prime": "d′",
    "d_prime_of_classes": "balanced d′",
    "lwlrap": "lwlrap",
}
REASONS = {"no_scores": "without scores", "no_file": "without a file", "no_embeddings": "without embeddings"}
RELATIONS = {"above": "above it in the ontology", "below": "below it in the ontology", "": ""}


def describe(evaluation: Evaluation) -> Document:
    """The report, for ``to_markdown`` and ``to_html``."""
    blocks = [block for section in SECTIONS for block in section(evaluation)]
    metrics = evaluation.metrics
    subtitle = f"{evaluation.n_clips:,} clips, {metrics['n_classes_used']} classes; audioset {evaluation.version}"
    return Document(evaluation.name, subtitle, blocks)


def number(value: float | None, n_decimals: int = 3) -> str:
    """A number, or a dash where it is not defined."""
    return "–" if value is None else f"{value:.{n_decimals}f}"


def interval(ends: Sequence[float | None] | None, n_decimals: int = 3) -> str:
    """Two ends, or nothing."""
    return "" if not ends or None in ends else f"{number(ends[0], n_decimals)} to {number(ends[1], n_decimals)}"


def _summary(evaluation: Evaluation) -> Iterator[Block]:
    yield Headline(
        [
            (shown, number(evaluation.metrics[name], 4), interval(evaluation.intervals.get(name), 4))
            for name, shown in MEASURES.items()
        ]
    )
    for text in summary_lines(evaluation):
        yield Paragraph(text)


def summary_lines(evaluation: Evaluation) -> Iterator[str]:
    """What must be said beside the numbers: on which clips and classes they are."""
    missing, metrics = evaluation.missing, evaluation.metrics
    n_all = evaluation.n_clips + missing["n_clips"]
    parts = [f"{evaluation.n_clips:,} of {n_all:,} labelled clips were evaluated"]
    if missing["n_clips"]:
        counts = ", ".join(f"{count:,} {REASONS.get(reason, reason)}" for reason, count in missing["counts"].items())
        parts.append(f"missing: {counts}")
    if evaluation.n_extra_clips:
        parts.append(f"{evaluation.n_extra_clips:,} clips with scores have no labels and were left out")
    yield f"{'; '.join(parts)}."
    yield f"SHA-256 of the clips' names: {evaluation.clips_sha256}"
    left_out = evaluation.classes_left_out
    if left_out["only_in_labels"] or left_out["only_in_model"]:
        sides = ((len(left_out["only_in_labels"]), "labels"), (len(left_out["only_in_model"]), "model"))
        where = "; ".join(f"{count} only in the {name}" for count, name in sides if count)
        yield f"Evaluated on the {metrics['n_classes']} classes that model and labels share. Left out: {where}."
    if metrics["n_classes_used"] < metrics["n_classes"]:
        n_without = metrics["n_classes"] - metrics["n_classes_used"]
        yield f"{n_without} of {metrics['n_classes']} classes have no clip here and count in no mean."
    if metrics["n_clips_without_labels"]:
        yield (
            f"{metrics['n_clips_without_labels']:,} clips have none of these labels, and count as negatives of every "
            "class."
        )


def _ap_by_count(evaluation: Evaluation) -> Iterator[Block]:
    has_training = any(row.get("n_training_clips") for row in evaluation.classes)
    key, x_name = (
        ("n_training_clips", "training clips") if has_training else ("n_positives", "evaluation clips with the label")
    )
    rows = [row for row in evaluation.classes if row["ap"] is not None]
    svg = draw_ap_by_count([(row["label"], row[key], row["ap"]) for row in rows], x_name)
    if svg is not None:
        yield Heading("Average precision and number of clips")
        yield Picture(
            svg,
            "Each point is a class; point at one to see its name. The line joins medians over classes with about as "
            f"many {x_name}, where there are at least eight.",
        )


def _best_and_worst(evaluation: Evaluation) -> Iterator[Block]:
    rows = sorted((row for row in evaluation.classes if row["ap"] is not None), key=lambda row: -row["ap"])
    if not rows:
        return
    n = min(N_BEST, max(1, len(rows) // 2))
    yield Heading("Best and worst classes")
    confidence = evaluation.settings.get("confidence", 0.95)
    whiskers = f" Intervals of {confidence:.0%} by resampling the clips." if rows[0]["ap_interval"] else ""
    yield _ap_picture(rows[:n], f"The {n} classes with the highest AP.{whiskers}", "good")
    if len(rows) > 1:
        yield _ap_picture(rows[: -n - 1 : -1], f"The {n} with the lowest.", "bad")


def _confusions(evaluation: Evaluation) -> Iterator[Block]:
    pairs = evaluation.confusions
    if not pairs:
        return
    yield Heading("What is heard instead")
    yield Paragraph(
        "A pair “A → B” counts the clips that are labelled A and not B, in which B scores highest among all classes "
        "that the clip is not labelled with, and higher than A. A clip with several labels counts for each. The "
        "percentage is of all clips labelled A. Where B is above or below A in the ontology, it may be the label that "
        "is missing."
    )
    shown = [tuple(pair[name] for name in ("label", "other", "n_clips", "share")) for pair in pairs[:N_CONFUSIONS]]
    caption = f"The {len(shown)} most frequent pairs." if len(shown) > 1 else "The most frequent pair."
    yield Picture(draw_confusions(shown), caption)
    yield Table(
        ("labelled A", "heard B", "#clips", "#of A", "B is"),
        [
            (
                pair["label"],
                pair["other"],
                f"{pair['n_clips']:,}",
                f"{pair['share']:.1%}",
                RELATIONS[pair["relation"]],
            )
            for pair in pairs
        ],
        summary=f"The {len(pairs)} most frequent pairs",
    )


def _reliability(evaluation: Evaluation) -> Iterator[Block]:
    yield Heading("Calibration")
    found = evaluation.reliability
    if found is None:
        yield Paragraph("The scores are not all within 0 and 1, so they are no probabilities: there is no calibration.")
        return
    yield Paragraph(
        f"The expected calibration error (ECE) is {found['calibration_error']:.4f} over all pairs of clip and class, "
        f"most of which score near 0, and {found['calibration_error_of_classes']:.4f} on average over the classes. "
        "Ten bins of equal width."
    )
    yield Picture(
        draw_reliability(found),
        "Of pairs of clip and class with a score of 0.3, three in ten should have the label: the dashed line. Below: "
        "how many pairs there are, on a logarithmic axis.",
    )
    bins = zip(found["mean_scores"], found["shares"], found["n_pairs"], strict=True)
    yield Table(
        ("#bin", "#mean score", "#share with the label", "#pairs"),
        [
            (f"{index / 10:.1f} to {(index + 1) / 10:.1f}", number(score), number(share), f"{n:,}")
            for index, (score, share, n) in enumerate(bins)
        ],
        summary="The bins",
    )


def _curves(evaluation: Evaluation) -> Iterator[Block]:
    svg = draw_curves(evaluation.curves)
    if svg is not None:
        yield Heading("Course of the training")
        yield Picture(
            svg, "Loss on the clips trained on, and mAP on held-out and on evaluation clips, as the run noted them."
        )


def _classes(evaluation: Evaluation) -> Iterator[Block]:
    has_training = any("n_training_clips" in row for row in evaluation.classes)
    columns = ["class", "id", "#clips", "#AP", "#interval", "#AUC", "#d′", "#lwlrap"]
    if has_training:
        columns.insert(3, "#trained on")
    yield Heading("Classes")
    rows = sorted(evaluation.classes, key=lambda row: (row["ap"] is None, -(row["ap"] or 0)))
    yield Table(columns, [_class_cells(row, has_training) for row in rows], summary=f"All {len(rows)} classes")


def _missing(evaluation: Evaluation) -> Iterator[Block]:
    missing = evaluation.missing
    if not missing["n_clips"]:
        return
    yield Heading("Missing clips")
    yield Paragraph(
        "These clips have labels and were not evaluated. Numbers of systems compare only on the same clips: see "
        "audioset evaluate compare."
    )
    chosen = list(missing["clips"].items())[:MOST_MISSING]
    of_all = "" if len(chosen) == missing["n_clips"] else f"The first {len(chosen)} of "
    yield Table(
        ("clip", "why"),
        [(name, REASONS.get(reason, reason)) for name, reason in chosen],
        summary=f"{of_all}{missing['n_clips']:,} missing clips",
    )
    if of_all:
        yield Paragraph("evaluation.json names all of them.")


def _left_out(evaluation: Evaluation) -> Iterator[Block]:
    left_out = evaluation.classes_left_out
    rows = [
        (_label_name(label_id), label_id, where)
        for where, ids in zip(("the labels", "the model"), left_out.values(), strict=False)
        for label_id in ids
    ]
    if rows:
        yield Heading("Classes left out")
        yield Table(("class", "id", "only in"), rows, summary=f"{len(rows)} classes that are not shared")


def _settings(evaluation: Evaluation) -> Iterator[Block]:
    yield Heading("Settings")
    values = {**_flat(evaluation.settings), **_flat(evaluation.model or {}, "model")}
    yield Table(
        ("setting", "value"), [("audioset", evaluation.version), *((name, str(v)) for name, v in values.items())]
    )


SECTIONS = (
    _summary,
    _ap_by_count,
    _best_and_worst,
    _confusions,
    _reliability,
    _curves,
    _missing,
    _left_out,
    _settings,
    _classes,
)


def _ap_picture(rows: Sequence[Mapping[str, Any]], caption: str, kind: str) -> Picture:
    bars = [
        Bar(row["label"], row["ap"], f"{row['ap']:.3f}, {row['n_positives']:,} clips", *(row["ap_interval"] or ()))
        for row in rows
    ]
    cells = [(row["label"], f"{row['n_positives']:,}", number(row["ap"]), interval(row["ap_interval"])) for row in rows]
    return Picture(draw_bars(bars, caption, kind), caption, Table(("class", "#clips", "#AP", "#interval"), cells))


def _class_cells(row: Mapping[str, Any], has_training: bool) -> list[str]:
    cells = [row["label"], row["label_id"], f"{row['n_positives']:,}", number(row["ap"]), interval(row["ap_interval"])]
    cells += [number(row[name]) for name in ("auc", "d_prime", "lwlrap")]
    if has_training:
        cells.insert(3, f"{row.get('n_training_clips', 0):,}")
    return cells


def _label_name(label_id: str) -> str:
    labels = LabelSet.load("audioset-527")
    return labels.names[labels.ids.index(label_id)] if label_id in labels.ids else label_id


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``outer.inner``; those without a value are left out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        full = f"{prefix}.{name}" if prefix else name
        flat |= _flat(value, full) if isinstance(value, Mapping) else {} if value in (None, "") else {full: value}
    return flat

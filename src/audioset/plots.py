"""Pictures of what a model heard."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from audioset.audio import waveform_to_mono
from audioset.errors import MissingExtraError, UsageError
from audioset.formats.output import open_output
from audioset.formats.rows import one_line, printable
from audioset.formats.table import clock
from audioset.frontend import YAMNET, FrontendSpec, hz_to_mel
from audioset.predict import Prediction, top_indices

Array = np.ndarray[Any, np.dtype[Any]]

SUFFIXES = (".png", ".pdf", ".svg")
SIZE_INCHES = (12, 8)
DOTS_PER_INCH = 120
PANEL_HEIGHTS = (1, 1.6, 2)
MAX_COLUMNS = 3_000  # more than the picture has pixels
TICKS_HZ = {200: "200", 500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 7000: "7k"}
TICKS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400)
MAX_TICKS = 12
INK, LINE = "#333333", "#3b528b"


def plot_prediction(
    prediction: Prediction,
    waveform: Array,
    sample_rate: int,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    n_top: int = 10,
    spec: FrontendSpec = YAMNET,
) -> None:
    """Draw the waveform, what the network saw of it, and the scores of the top classes, over time.

    Parameters
    ----------
    prediction : Prediction
        With scores.
    waveform : ndarray, shape (n_samples,) or (n_samples, n_channels)
        What was predicted from.
    sample_rate : int
        Of the waveform, Hz.
    path : path
        Where the picture goes; its suffix, ``.png``, ``.pdf`` or ``.svg``, says which kind.
    title : str
    n_top : int
        How many classes to show: those with the highest mean score.
    spec : FrontendSpec
        Of the model: its mel limits label the frequency axis.

    Raises
    ------
    UsageError
        Another suffix, a prediction without scores, or no class to show.
    MissingExtraError
        If matplotlib is not installed.
    OutputError
        If the picture cannot be written.

    Source: the three panels of tensorflow/models, research/audioset/yamnet/yamnet_visualization.ipynb.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"a plot cannot be written to {printable(path)}; expected a name with {', '.join(SUFFIXES)}")
    if n_top < 1:
        raise UsageError(f"n_top is {n_top}; expected one class or more")
    figure, (top, middle, bottom) = _panels()
    _draw_waveform(top, waveform_to_mono(waveform), sample_rate)
    _draw_scale(middle, _draw_log_mel(middle, prediction.log_mel, spec), "log mel magnitude")
    _draw_scale(bottom, _draw_scores(bottom, prediction, n_top), "score")
    _draw_time_axis(bottom, prediction.duration_s)
    top.set_title(one_line(title), loc="left", fontsize=14, fontweight="bold", color=INK, pad=10, parse_math=False)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a title in a script that the font lacks is still a plot
        figure.savefig(picture, format=suffix[1:])
    with open_output(path) as output:
        output.write(picture.getvalue())


def _panels() -> Any:
    """A figure of its own, apart from pyplot's state, with three axes that share their time."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a plot", "matplotlib", "plot") from error
    figure: Any = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12, hspace=0.02)
    axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": PANEL_HEIGHTS})
    for panel in axes:
        _style(panel)
    figure.align_ylabels(axes[:2])
    return figure, axes


def _style(panel: Any) -> None:
    panel.spines[:].set_visible(False)
    panel.tick_params(colors=INK, labelsize=10, length=3)
    for axis in (panel.xaxis, panel.yaxis):
        axis.label.set(color=INK, fontsize=11)


def _draw_waveform(panel: Any, samples: Array, sample_rate: int) -> None:
    lowest, highest = (_reduced(samples, function) for function in (np.minimum, np.maximum))
    seconds = np.linspace(0, len(samples) / sample_rate, len(lowest))
    limit = max(1e-4, float(np.abs(samples).max())) * 1.05
    panel.fill_between(seconds, lowest, highest, color=LINE, linewidth=0.6)
    panel.set_ylim(-limit, limit)
    panel.locator_params(axis="y", nbins=4)
    panel.set_ylabel("amplitude")


def _draw_log_mel(panel: Any, log_mel: Array, spec: FrontendSpec) -> Any:
    low, high = hz_to_mel(spec.mel_min_hz), hz_to_mel(spec.mel_max_hz)
    half_band = (high - low) / (spec.n_mels + 1) / 2  # centres lie one band from each other and from the limits
    start_s = (spec.window_samples - spec.hop_samples) / 2 / spec.sample_rate  # a frame is drawn at its middle
    extent = (start_s, start_s + len(log_mel) * spec.frame_hop_s, low + half_band, high - half_band)
    image = panel.imshow(
        _reduced(log_mel, np.maximum).T, origin="lower", aspect="auto", extent=extent, cmap="magma", rasterized=True
    )
    panel.set_yticks(hz_to_mel(list(TICKS_HZ)), TICKS_HZ.values())
    panel.set_ylim(extent[2:])
    panel.set_ylabel("frequency (Hz)")
    return image


def _draw_scores(panel: Any, prediction: Prediction, n_top: int) -> Any:
    if prediction.scores is None:
        raise UsageError("this model only embeds: it has no scores to plot. Next step: choose a tagger, such as yamnet")
    chosen = top_indices(prediction.scores.mean(axis=0, dtype=np.float64), n_top)
    scores = _reduced(prediction.scores[:, chosen], np.maximum)
    edges_s = np.interp(
        np.linspace(0, 1, len(scores) + 1),
        np.linspace(0, 1, len(prediction.scores) + 1),
        _patch_edges_s(prediction),
    )
    image = panel.pcolormesh(
        edges_s, np.arange(len(chosen) + 1), scores.T, cmap="viridis", vmin=0, vmax=1, rasterized=True
    )
    panel.hlines(range(1, len(chosen)), 0, edges_s[-1], colors="white", linewidth=1)
    panel.set_yticks(np.arange(len(chosen)) + 0.5, [prediction.labels.names[index] for index in chosen])
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    return image


def _draw_scale(panel: Any, image: Any, label: str) -> None:
    scale = panel.figure.colorbar(image, ax=panel, label=label, aspect=30, pad=0.01)
    scale.outline.set_visible(False)
    _style(scale.ax)


def _patch_edges_s(prediction: Prediction) -> Array:
    """Where one patch's colour gives way to the next: between their middles, as patches overlap."""
    middles = (prediction.start_s + prediction.end_s) / 2
    edges: Array = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [prediction.duration_s]])
    return edges.clip(max=prediction.duration_s)


def _draw_time_axis(panel: Any, duration_s: float) -> None:
    step = next((step for step in TICKS_S if duration_s / step <= MAX_TICKS), TICKS_S[-1])
    ticks = np.arange(0, duration_s + step / 1000, step)
    in_seconds = duration_s < 120
    n_decimals = 0 if step >= 1 else 1 if step >= 0.1 else 2
    panel.set_xticks(ticks, [f"{tick:.{n_decimals}f}" if in_seconds else clock(tick, 0) for tick in ticks])
    panel.set_xlim(0, duration_s)
    panel.set_xlabel("time (s)" if in_seconds else "time")


def _reduced(values: Array, function: np.ufunc) -> Array:
    """At most ``MAX_COLUMNS`` rows, each the ``function`` (such as the maximum) of those it stands for."""
    if len(values) <= MAX_COLUMNS:
        return values
    starts = np.linspace(0, len(values), MAX_COLUMNS, endpoint=False).astype(int)
    reduced: Array = function.reduceat(values, starts, axis=0)
    return reduced

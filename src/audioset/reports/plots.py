"""Pictures of what a model heard."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from audioset.arrays import Array
from audioset.audio.reading import waveform_to_mono
from audioset.errors import MissingExtraError, UsageError, one_line
from audioset.formats.output import open_output
from audioset.formats.picture import CREATOR, MARKS, check_plot
from audioset.formats.table import clock
from audioset.frontend.mel import MEL_SCALES
from audioset.frontend.spec import FrontendSpec
from audioset.models.prediction import Prediction, top_indices

SIZE_INCHES = (12, 8)
DOTS_PER_INCH = 120
PANEL_HEIGHTS = (1, 1.6, 2)
N_COLUMNS = 1_000  # fewer than the picture has pixels, so that each is seen
TICKS_HZ = (1000, 2000, 4000, 500, 8000, 200, 12_000, 6000, 100, 3000, 50)  # the first ones are wanted most
TICK_DISTANCE = 0.07  # of the axis, so that their numbers do not touch
TICKS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400)
MAX_TICKS = 12
MEL_VALUES = {1: "magnitude", 2: "power"}
INK, LINE = "#333333", "#3b528b"


def plot_prediction(
    prediction: Prediction,
    waveform: Array,
    sample_rate: int,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    n_top: int = 10,
    spec: FrontendSpec | None = None,
) -> None:
    """Draw the waveform, its log-mel spectrogram as the model has it, and the scores of the top classes, over time.

    Each moment is drawn once, where it lies in the audio: where patches overlap, it shows the one whose middle is
    nearest; where they leave gaps, it shows no scores.

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
    spec : FrontendSpec, optional
        Its rate, limits and mel scale make the frequency axis. Default: the prediction's own.

    Raises
    ------
    UsageError
        Another suffix, a prediction without scores or without a frontend, or no class to show.
    MissingExtraError
        If matplotlib is not installed.
    OutputError
        If the picture cannot be written.

    Source: the three panels of tensorflow/models, research/audioset/yamnet/yamnet_visualization.ipynb.
    """
    kind = check_plot(path)
    if n_top < 1:
        raise UsageError(f"n_top is {n_top}; expected one class or more")
    spec = spec or prediction.frontend
    if spec is None:
        raise UsageError("the prediction has no frontend. Next step: spec=model.frontend, of the model that made it")
    figure, (top, middle, bottom) = _panels()
    _draw_waveform(top, waveform_to_mono(waveform), sample_rate)
    _draw_scale(middle, _draw_log_mel(middle, prediction, spec), f"log mel {MEL_VALUES[spec.power]}")
    _draw_scale(bottom, _draw_scores(bottom, prediction, n_top), "score")
    _draw_time_axis(bottom, prediction.duration_s)
    top.set_title(one_line(title), loc="left", fontsize=14, fontweight="bold", color=INK, pad=10, parse_math=False)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a title in a script that the font lacks is still a plot
        figure.savefig(picture, format=kind, metadata={MARKS[kind]: CREATOR})
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


def _draw_log_mel(panel: Any, prediction: Prediction, spec: FrontendSpec) -> Any:
    scale = MEL_SCALES[spec.mel_formula]
    lowest, highest = scale(spec.mel_min_hz), scale(spec.mel_max_hz)
    half_band = (highest - lowest) / (spec.n_mels + 1) / 2  # centres lie one band from each other and from the limits
    limits = lowest + half_band, highest - half_band
    middles_s, log_mel = _frames_once(prediction, spec)
    cells_s = middles_s - spec.frame_hop_s / 2, middles_s + spec.frame_hop_s / 2
    columns = _columns(log_mel, *cells_s, prediction.duration_s)
    image = _draw_columns(panel, columns, prediction.duration_s, limits, "magma")
    ticks = _ticks_hz(*limits, scale)
    panel.set_yticks(scale(ticks), [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks])
    panel.set_ylabel("frequency (Hz)")
    return image


def _frames_once(prediction: Prediction, spec: FrontendSpec) -> tuple[Array, Array]:
    """Seconds to the middles of frames, and the frames: where windows with frames of their own overlap, one of both."""
    if not spec.is_centred:
        return prediction.frame_start_s + spec.window_samples / 2 / spec.sample_rate, prediction.log_mel
    n_patches = len(prediction.start_s)
    from_s, to_s = (edges_s[:, np.newaxis] for edges_s in _shown_s(prediction))
    middles_s = prediction.frame_start_s.reshape(n_patches, -1)
    is_shown = ((from_s <= middles_s) & (middles_s < to_s)).ravel()
    return prediction.frame_start_s[is_shown], prediction.log_mel[is_shown]


def _ticks_hz(low: float, high: float, scale: Callable[[Any], Any]) -> list[int]:
    """Frequencies whose numbers have room on an axis that is even in mel."""
    chosen: list[int] = []
    for tick in TICKS_HZ:
        is_inside = low <= scale(tick) <= high
        if is_inside and all(abs(scale(tick) - scale(one)) >= TICK_DISTANCE * (high - low) for one in chosen):
            chosen.append(tick)
    return sorted(chosen)


def _draw_scores(panel: Any, prediction: Prediction, n_top: int) -> Any:
    if prediction.scores is None:
        raise UsageError("this model only embeds: it has no scores to plot. Next step: choose a tagger, such as yamnet")
    chosen = top_indices(prediction.scores.mean(axis=0, dtype=np.float64), n_top)
    columns = _columns(prediction.scores[:, chosen], *_shown_s(prediction), prediction.duration_s)
    image = _draw_columns(panel, columns, prediction.duration_s, (0, len(chosen)), "viridis")
    image.set_clim(0, 1)
    panel.hlines(range(1, len(chosen)), 0, prediction.duration_s, colors="white", linewidth=1)
    panel.set_yticks(np.arange(len(chosen)) + 0.5, [prediction.labels.names[index] for index in chosen])
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    return image


def _draw_columns(panel: Any, columns: Array, duration_s: float, limits: tuple[float, float], colours: str) -> Any:
    extent = (0, duration_s, *limits)
    return panel.imshow(columns.T, origin="lower", aspect="auto", extent=extent, cmap=colours, interpolation="nearest")


def _draw_scale(panel: Any, image: Any, label: str) -> None:
    scale = panel.figure.colorbar(image, ax=panel, label=label, aspect=30, pad=0.01)
    scale.outline.set_visible(False)
    _style(scale.ax)


def _shown_s(prediction: Prediction) -> tuple[Array, Array]:
    """From when to when each patch is shown: where it overlaps others, as far as between their middles."""
    middles = (prediction.start_s + prediction.end_s) / 2
    between = (middles[1:] + middles[:-1]) / 2
    from_s = np.maximum(prediction.start_s, np.append(0.0, between))
    to_s = np.minimum(prediction.end_s, np.append(between, prediction.duration_s))
    return from_s, to_s


def _draw_time_axis(panel: Any, duration_s: float) -> None:
    step = next((step for step in TICKS_S if duration_s / step <= MAX_TICKS), TICKS_S[-1])
    ticks = np.arange(0, duration_s + step / 1000, step)
    in_seconds = duration_s < 120
    n_decimals = 0 if step >= 1 else 1 if step >= 0.1 else 2
    panel.set_xticks(ticks, [f"{tick:.{n_decimals}f}" if in_seconds else clock(tick, 0) for tick in ticks])
    panel.set_xlim(0, duration_s)
    panel.set_xlabel("time (s)" if in_seconds else "time")


def _columns(values: Array, start_s: Array, end_s: Array, duration_s: float) -> Array:
    """Values over time in ``N_COLUMNS`` rows of equal duration: the largest of those in each, NaN where there is none.

    Those that are shorter than a row have it to themselves or share it with others, so no peak is lost.
    """
    is_inside = start_s < duration_s  # the rest is padding
    # What touches in time touches here: six decimals hide the rounding of seconds.
    first, past = (
        np.floor(np.round(seconds[is_inside] / duration_s * N_COLUMNS, 6) + 0.5) for seconds in (start_s, end_s)
    )
    first = first.clip(0, N_COLUMNS - 1)
    past = np.maximum(past, first + 1)
    columns = np.arange(N_COLUMNS)
    begin, end = np.searchsorted(past, columns, side="right"), np.searchsorted(first, columns, side="right")
    padded = np.pad(values[is_inside], ((0, 1), (0, 0)), constant_values=np.nan)
    largest: Array = np.maximum.reduceat(padded, np.stack([begin, end], axis=1).ravel(), axis=0)[::2]
    largest[begin == end] = np.nan
    return largest


def _reduced(values: Array, function: np.ufunc) -> Array:
    """At most ``N_COLUMNS`` values, each the ``function`` (such as the maximum) of those it stands for."""
    if len(values) <= N_COLUMNS:
        return values
    starts = np.linspace(0, len(values), N_COLUMNS, endpoint=False).astype(int)
    reduced: Array = function.reduceat(values, starts)
    return reduced

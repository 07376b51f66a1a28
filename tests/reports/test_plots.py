"""Pictures: they are drawn from any length of audio, and what the axes say is true."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioset.errors import MissingExtraError, OutputError, UsageError
from audioset.frontend.cutting import n_patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import (
    EFFICIENTAT,
    EFFICIENTAT_2S,
    EFFICIENTAT_VARIANTS,
    PANNS,
    PANNS_VARIANTS,
    VGG16,
    VGGISH,
    YAMNET,
)
from audioset.frontend.spec import FrontendSpec
from audioset.labels.labels import LabelSet
from audioset.models.prediction import Prediction, join_predictions, patch_times
from audioset.reports.plots import MAX_TICKS, N_COLUMNS, _columns, _panels, _reduced, plot_prediction

pytest.importorskip("matplotlib")
LABELS = LabelSet.load("yamnet-521")
SIGNATURES = {".png": b"\x89PNG\r\n", ".pdf": b"%PDF-", ".svg": b"<?xml"}


def made_up(duration_s: float, hop_frames: int = 48) -> tuple[Prediction, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    samples = rng.uniform(-0.5, 0.5, round(duration_s * YAMNET.sample_rate)).astype(np.float32)
    n = n_patches(len(samples), YAMNET, hop_frames)
    start_s = np.arange(n) * hop_frames * YAMNET.frame_hop_s
    prediction = Prediction(
        scores=rng.uniform(size=(n, len(LABELS))).astype(np.float32),
        embeddings=np.zeros((n, 8), np.float32),
        log_mel=rng.uniform(-7, 4, size=((n - 1) * hop_frames + 96, YAMNET.n_mels)).astype(np.float32),
        start_s=start_s,
        end_s=start_s + 0.96,
        duration_s=duration_s,
        labels=LABELS,
        frame_start_s=np.arange((n - 1) * hop_frames + 96) * YAMNET.frame_hop_s,
        frontend=YAMNET,
    )
    return prediction, samples


def heard(samples: np.ndarray[Any, Any], spec: FrontendSpec, hop_frames: int | None = None) -> Prediction:
    """What a model with this frontend would say, but that its first class counts the patches."""
    spec = replace(spec, patch_hop_frames=hop_frames or spec.patch_hop_frames)
    parts = []
    for slab in slabs([samples], spec, 1):
        start_s, end_s = patch_times(slab, spec)
        scores = np.zeros((1, len(LABELS)), np.float32)
        scores[0, 0] = 0.1 * (slab.first_patch + 1)
        parts.append(
            Prediction(
                scores=scores,
                embeddings=np.zeros((1, 8), np.float32),
                log_mel=log_mel(slab.waveform, spec)[-slab.n_frames :],
                start_s=start_s,
                end_s=end_s,
                duration_s=slab.end_sample / spec.sample_rate,
                labels=LABELS,
                frame_start_s=(slab.first_sample + np.arange(slab.n_frames) * spec.hop_samples) / spec.sample_rate,
                frontend=spec,
            )
        )
    return join_predictions(parts)


def tone(frequency_hz: float, duration_s: float, spec: FrontendSpec) -> np.ndarray[Any, Any]:
    seconds = np.arange(round(duration_s * spec.sample_rate)) / spec.sample_rate
    return (0.3 * np.sin(2 * np.pi * frequency_hz * seconds)).astype(np.float32)


def ticks_hz(panel: Any) -> dict[float, float]:
    """Where on the axis each frequency stands, as its labels say."""
    texts = [label.get_text() for label in panel.get_yticklabels()]
    values = [float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1) for text in texts]
    return dict(zip(values, panel.get_yticks(), strict=True))


def brightest(panel: Any, at_s: float) -> tuple[float, float]:
    """The brightest row at a time, in data coordinates: its lower and its upper edge."""
    image = panel.images[0]
    start_s, end_s, low, high = image.get_extent()
    values = np.asarray(image.get_array())
    row = int(np.argmax(values[:, int((at_s - start_s) / (end_s - start_s) * values.shape[1])]))
    height = (high - low) / len(values)
    return low + row * height, low + (row + 1) * height


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of each figure that is drawn, to look at afterwards."""
    seen: list[Any] = []

    def panels() -> Any:
        figure, axes = _panels()
        seen.append(axes)
        return figure, axes

    monkeypatch.setattr("audioset.reports.plots._panels", panels)
    return seen


@pytest.mark.parametrize("suffix", [*SIGNATURES, ".PNG"])
def test_the_suffix_says_the_kind(tmp_path: Path, suffix: str) -> None:
    prediction, samples = made_up(3.0)
    target = tmp_path / f"a{suffix}"
    plot_prediction(prediction, samples, YAMNET.sample_rate, target)
    assert target.read_bytes().startswith(SIGNATURES[suffix.lower()])
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize(("duration_s", "hop_frames"), [(0.05, 48), (0.96, 48), (3.0, 200), (70.0, 96), (700.0, 48)])
def test_any_length_can_be_drawn(tmp_path: Path, drawn: list[Any], duration_s: float, hop_frames: int) -> None:
    prediction, samples = made_up(duration_s, hop_frames)
    plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png")
    for panel in drawn[0]:
        assert panel.get_xlim() == (0, duration_s)
    assert 2 <= len(drawn[0][2].get_xticks()) <= MAX_TICKS + 1


def test_classes_are_the_top_ones_best_first(tmp_path: Path, drawn: list[Any]) -> None:
    prediction, samples = made_up(5.0)
    plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png", n_top=4)
    panel = drawn[0][2]
    assert [label.get_text() for label in panel.get_yticklabels()] == [name for name, _ in prediction.top(4)]
    assert panel.yaxis_inverted()


FRONTENDS = (YAMNET, VGGISH, EFFICIENTAT, *EFFICIENTAT_VARIANTS, EFFICIENTAT_2S, PANNS, *PANNS_VARIANTS, VGG16)


@pytest.mark.parametrize("spec", FRONTENDS, ids=lambda spec: spec.name)
def test_tones_stand_at_their_frequencies(tmp_path: Path, drawn: list[Any], spec: FrontendSpec) -> None:
    """A band's centre is at most half a band from the tone, so the tone's tick is at most that from its row."""
    tones_hz = [tone_hz for tone_hz in (500, 1000, 2000, 3000, 4000, 8000, 12_000) if tone_hz < spec.mel_max_hz * 0.9]
    samples = np.concatenate([tone(tone_hz, 2.5, spec) for tone_hz in tones_hz])
    plot_prediction(heard(samples, spec), samples, spec.sample_rate, tmp_path / "a.png")
    panel = drawn[0][1]
    ticks = ticks_hz(panel)
    assert panel.get_ylim() == pytest.approx(panel.images[0].get_extent()[2:])
    assert len(set(tones_hz) & set(ticks)) >= 4
    boxes = sorted((box.y0, box.y1) for box in (label.get_window_extent() for label in panel.get_yticklabels()))
    assert all(end < start for (_, end), (start, _) in pairwise(boxes))  # no number touches another
    for place, tone_hz in enumerate(tones_hz):
        below, above = brightest(panel, place * 2.5 + 1.25)
        if tone_hz in ticks:
            assert below - (above - below) / 2 < ticks[tone_hz] < above + (above - below) / 2, tone_hz


@pytest.mark.parametrize("spec", [EFFICIENTAT, PANNS, EFFICIENTAT_2S], ids=lambda spec: spec.name)
def test_overlapping_windows_are_drawn_in_time(tmp_path: Path, drawn: list[Any], spec: FrontendSpec) -> None:
    """The tone changes at 11 s, in both of two windows of 10 s, or in several short ones."""
    samples = np.concatenate([tone(500, 11.0, spec), tone(4000, 3.0, spec)])
    plot_prediction(heard(samples, spec), samples, spec.sample_rate, tmp_path / "a.png")
    panel = drawn[0][1]
    ticks = ticks_hz(panel)
    middle = (ticks[500] + ticks[4000]) / 2
    for at_s in np.arange(0.05, 14, 0.1):
        below, above = brightest(panel, at_s)
        assert (above < middle) if at_s < 11 else (below > middle), at_s


def test_a_moment_shows_the_window_whose_middle_is_nearest(tmp_path: Path, drawn: list[Any]) -> None:
    """Windows at 0 to 10, 5 to 15 and 6 to 16 s, of which the middles are 5, 10 and 11 s: borders at 7.5 and 10.5 s."""
    samples = tone(500, 16.0, PANNS)
    plot_prediction(heard(samples, PANNS, 500), samples, PANNS.sample_rate, tmp_path / "a.png", n_top=1)
    (image,) = drawn[0][2].images
    scores = np.asarray(image.get_array())[0]
    borders = np.flatnonzero(np.diff(scores)) + 1
    np.testing.assert_allclose(borders * 16 / N_COLUMNS, [7.5, 10.5], atol=16 / N_COLUMNS / 2)
    np.testing.assert_allclose(np.unique(scores), [0.1, 0.2, 0.3], rtol=1e-6)


def test_what_no_window_heard_is_left_blank(tmp_path: Path, drawn: list[Any]) -> None:
    spec = PANNS.with_window(2.0)
    samples = tone(500, 10.0, spec)
    plot_prediction(heard(samples, spec, 400), samples, spec.sample_rate, tmp_path / "a.png")
    for panel in drawn[0][1:]:
        values = np.ma.filled(np.ma.masked_invalid(panel.images[0].get_array()), np.nan)
        is_blank = np.isnan(values).all(axis=0)
        at_s = (np.arange(N_COLUMNS) + 0.5) * 10 / N_COLUMNS
        np.testing.assert_array_equal(is_blank, ((at_s > 2) & (at_s < 4)) | ((at_s > 6) & (at_s < 8)))


def test_a_prediction_names_the_frontend_that_made_it(tmp_path: Path) -> None:
    prediction, samples = made_up(1.0)
    nameless = Prediction(**{**vars(prediction), "frontend": None})
    with pytest.raises(UsageError, match=r"has no frontend\. Next step: spec=model\.frontend"):
        plot_prediction(nameless, samples, YAMNET.sample_rate, tmp_path / "a.png")
    plot_prediction(nameless, samples, YAMNET.sample_rate, tmp_path / "a.png", spec=YAMNET)


@pytest.mark.parametrize("n_values", [1, 7, N_COLUMNS, N_COLUMNS + 1, 10 * N_COLUMNS + 7])
def test_columns_show_every_peak_at_its_time(n_values: int) -> None:
    values = np.random.default_rng(5).normal(size=(n_values, 2)).astype(np.float32)
    edges_s = np.linspace(0, 30, n_values + 1)
    columns = _columns(values, edges_s[:-1], edges_s[1:], 30.0)
    assert columns.shape == (N_COLUMNS, 2)
    np.testing.assert_array_equal(columns.max(axis=0), values.max(axis=0))
    peak = int(np.argmax(values[:, 0]))
    shown_s = (np.flatnonzero(columns[:, 0] == values[peak, 0]) + 0.5) * 30 / N_COLUMNS
    half_s = 30 / N_COLUMNS
    assert edges_s[peak] - half_s <= shown_s.min() <= shown_s.max() <= edges_s[peak + 1] + half_s


def test_columns_leave_out_the_padding() -> None:
    columns = _columns(np.array([[1.0], [9.0]]), np.array([0.0, 1.0]), np.array([1.0, 2.0]), 1.0)
    np.testing.assert_array_equal(columns, np.ones((N_COLUMNS, 1)))


@pytest.mark.parametrize("n_values", [1, N_COLUMNS, N_COLUMNS + 1, 10 * N_COLUMNS + 7])
def test_long_audio_is_reduced_without_losing_a_peak(n_values: int) -> None:
    values = np.random.default_rng(5).normal(size=n_values)
    reduced = _reduced(values, np.maximum)
    assert len(reduced) == min(n_values, N_COLUMNS)
    assert reduced.max() == values.max()


def test_a_title_is_text_and_no_formula(tmp_path: Path, drawn: list[Any]) -> None:
    prediction, samples = made_up(1.0)
    plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png", title="$x_1$ \\frac 犬\n\x1b.wav")
    assert drawn[0][0].get_title(loc="left") == "$x_1$ \\frac 犬\\n\\x1b.wav"


def test_stereo_and_silence_are_drawn(tmp_path: Path) -> None:
    prediction, samples = made_up(1.0)
    stereo = np.zeros((len(samples), 2), np.int16)
    plot_prediction(prediction, stereo, YAMNET.sample_rate, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_pyplot_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    prediction, samples = made_up(1.0)
    plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_what_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    prediction, samples = made_up(1.0)
    with pytest.raises(UsageError, match=r"cannot be written to .*a\.gif; expected a name with \.png, \.pdf, \.svg"):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.gif")
    with pytest.raises(UsageError, match="n_top is 0; expected one class or more"):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png", n_top=0)
    with pytest.raises(OutputError, match="cannot write"):
        plot_prediction(prediction, samples, YAMNET.sample_rate, "/dev/null/a.png")
    embedding_only = Prediction(**{**vars(prediction), "scores": None})
    with pytest.raises(UsageError, match="it has no scores to plot"):
        plot_prediction(embedding_only, samples, YAMNET.sample_rate, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, samples = made_up(1.0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r'a plot needs the package matplotlib.*"audioset\[plot\]"'):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png")

"""Pictures: they are drawn from any length of audio, and what the axes say is true."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioset.errors import MissingExtraError, OutputError, UsageError
from audioset.frontend import YAMNET, hz_to_mel, n_patches
from audioset.labels import LabelSet
from audioset.plots import MAX_COLUMNS, MAX_TICKS, TICKS_HZ, _panels, _reduced, plot_prediction
from audioset.predict import Prediction

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
    )
    return prediction, samples


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of each figure that is drawn, to look at afterwards."""
    seen: list[Any] = []

    def panels() -> Any:
        figure, axes = _panels()
        seen.append(axes)
        return figure, axes

    monkeypatch.setattr("audioset.plots._panels", panels)
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


def test_frequencies_are_where_the_bands_are(tmp_path: Path, drawn: list[Any]) -> None:
    prediction, samples = made_up(1.0)
    plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png")
    panel = drawn[0][1]
    np.testing.assert_allclose(panel.get_yticks(), hz_to_mel(list(TICKS_HZ)))
    _, _, low, high = panel.images[0].get_extent()
    centres = np.linspace(hz_to_mel(YAMNET.mel_min_hz), hz_to_mel(YAMNET.mel_max_hz), YAMNET.n_mels + 2)[1:-1]
    height = (high - low) / YAMNET.n_mels
    np.testing.assert_allclose(low + height * (np.arange(YAMNET.n_mels) + 0.5), centres)


@pytest.mark.parametrize("n_values", [1, MAX_COLUMNS, MAX_COLUMNS + 1, 10 * MAX_COLUMNS + 7])
def test_long_audio_is_reduced_without_losing_a_peak(n_values: int) -> None:
    values = np.random.default_rng(5).normal(size=(n_values, 2))
    reduced = _reduced(values, np.maximum)
    assert len(reduced) == min(n_values, MAX_COLUMNS)
    np.testing.assert_array_equal(reduced.max(axis=0), values.max(axis=0))


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
    assert (tmp_path / "a.png").exists()


def test_what_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    prediction, samples = made_up(1.0)
    with pytest.raises(UsageError, match=r"cannot be written to .*a\.gif; expected a name with \.png, \.pdf, \.svg"):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.gif")
    with pytest.raises(UsageError, match="n_top is 0; expected one class or more"):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png", n_top=0)
    with pytest.raises(OutputError, match=r"the folder .*none does not exist"):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "none" / "a.png")
    embedding_only = Prediction(**{**vars(prediction), "scores": None})
    with pytest.raises(UsageError, match="it has no scores to plot"):
        plot_prediction(embedding_only, samples, YAMNET.sample_rate, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, samples = made_up(1.0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r'a plot needs the package matplotlib.*"audioset\[plot\]"'):
        plot_prediction(prediction, samples, YAMNET.sample_rate, tmp_path / "a.png")

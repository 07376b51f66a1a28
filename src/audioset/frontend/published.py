"""The frontends of the published models, each field with the line of the original that it comes from."""

from __future__ import annotations

from dataclasses import replace

from audioset.frontend.spec import FrontendSpec

# tensorflow/models, research/audioset/yamnet/params.py and features.py
YAMNET = FrontendSpec(
    name="yamnet",
    sample_rate=16_000,  # params.sample_rate
    window_samples=400,  # stft_window_seconds = 0.025
    hop_samples=160,  # stft_hop_seconds = 0.010
    fft_size=512,  # the next power of two
    n_mels=64,  # mel_bands
    mel_min_hz=125.0,
    mel_max_hz=7500.0,
    log_offset=0.001,
    patch_frames=96,  # patch_window_seconds = 0.96
    patch_hop_frames=48,  # patch_hop_seconds = 0.48
    pad="cover",  # features.py, pad_waveform
)

# tensorflow/models, research/audioset/vggish/vggish_params.py and vggish_input.py
VGGISH = replace(
    YAMNET,  # sample rate, window, hop, transform and mel bands are the same
    name="vggish",
    log_offset=0.01,  # LOG_OFFSET
    patch_hop_frames=96,  # EXAMPLE_HOP_SECONDS = 0.96
    pad="error",  # mel_features.py, frame: whole examples only
)

# fschmid56/EfficientAT, models/preprocess.py (AugmentMelSTFT in evaluation), with the defaults of inference.py
EFFICIENTAT = FrontendSpec(
    name="efficientat",
    sample_rate=32_000,  # sr
    window_samples=800,  # win_length
    hop_samples=320,  # hopsize
    fft_size=1024,  # n_fft
    n_mels=128,
    mel_min_hz=0.0,  # fmin
    mel_max_hz=15_000.0,  # fmax: sr // 2 - fmax_aug_range // 2
    log_offset=1e-5,
    patch_frames=1000,  # 10 s, the clips of AudioSet; windowed_inference.py
    patch_hop_frames=1000,
    pad="cover",
    is_window_periodic=False,
    is_centred=True,  # torch.stft(center=True), which reflects
    preemphasis=0.97,  # preemphasis_coefficient
    power=2,
    mel_formula="kaldi",
    log_mean=-4.5,  # fast normalization
    log_scale=5.0,
)
# The variants that were published with one checkpoint each: another hop, in milliseconds, or number of mel bands.
EFFICIENTAT_VARIANTS = (
    *(
        replace(
            EFFICIENTAT,
            name=f"efficientat_hop_{hop_ms}",
            hop_samples=hop_ms * 32,
            patch_frames=-(-10_000 // hop_ms),
            patch_hop_frames=-(-10_000 // hop_ms),
        )
        for hop_ms in (5, 15, 20, 25)
    ),
    *(replace(EFFICIENTAT, name=f"efficientat_mels_{n_mels}", n_mels=n_mels) for n_mels in (40, 64, 256)),
)
# Our own, for classifiers of short sounds: clips of less than two seconds have silence after them, which the network
# knows better than so few frames; longer recordings are heard in windows of two seconds.
EFFICIENTAT_2S = replace(EFFICIENTAT, name="efficientat_2s", patch_frames=201, patch_hop_frames=100, min_frames=201)

# qiuqiangkong/audioset_tagging_cnn, pytorch/models.py (Cnn14) and torchlibrosa's stft.py, which follows librosa's
# defaults; the numbers are those of its README and runme.sh. Within 2e-5 dB of its formula evaluated in float64, and
# the original itself is up to 4e-3 dB from it.
PANNS = FrontendSpec(
    name="panns",
    sample_rate=32_000,
    window_samples=1024,
    hop_samples=320,
    fft_size=1024,
    n_mels=64,
    mel_min_hz=50.0,
    mel_max_hz=14_000.0,
    log_offset=1e-10,  # amin
    patch_frames=1001,  # 10 s, the clips of AudioSet
    patch_hop_frames=1000,
    pad="cover",
    is_centred=True,  # pad_mode="reflect"
    power=2,
    mel_formula="slaney",
    log="decibel",  # ref=1.0, top_db=None
    min_frames=32,  # five poolings halve them
)
# Cnn14_16k and Cnn14_8k: the same durations at other rates, up to half the rate
PANNS_VARIANTS = tuple(
    replace(
        PANNS,
        name=f"panns_{sample_rate // 1000}k",
        sample_rate=sample_rate,
        window_samples=sample_rate * 32 // 1000,
        hop_samples=sample_rate // 100,
        fft_size=sample_rate * 32 // 1000,
        mel_max_hz=sample_rate / 2,
    )
    for sample_rate in (16_000, 8_000)
)

# Our own: 2.24 s as a picture of the size that photographs have for VGG16, from 0 (-80 dB) to 1 (20 dB). The window is
# long, so that the lowest of so many bands have bins of their own.
VGG16 = FrontendSpec(
    name="vgg16",
    sample_rate=16_000,
    window_samples=1024,
    hop_samples=160,
    fft_size=2048,
    n_mels=224,
    mel_min_hz=20.0,
    mel_max_hz=8_000.0,
    log_offset=1e-8,
    patch_frames=224,
    patch_hop_frames=112,
    pad="cover",
    power=2,
    mel_formula="slaney",
    log="decibel",
    log_mean=-80.0,
    log_scale=100.0,
)

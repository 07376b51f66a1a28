"""Tag a few sounds and draw one of them: what ``make demo`` runs.

The sounds are the clips in the ``audio`` folder of ``AUDIOSET_ASSETS`` if there are any, else a few that
are made here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

FOLDER = Path("demo")
SAMPLE_RATE = 16_000
DURATION_S = 5


def main() -> int:
    """Run two commands as a user would, and show them."""
    FOLDER.mkdir(exist_ok=True)
    clips = real_clips() or made_clips()
    longest = max(clips, key=lambda clip: clip.stat().st_size)
    picture = FOLDER / f"{longest.stem}.png"
    status = audioset("tag", *map(str, clips))
    if status == 0:
        status = audioset("tag", str(longest), "--plot", str(picture))
    if status == 0:
        print(f"\nThe picture is {picture}. Now try: {Path(sys.executable).parent / 'audioset'} tag YOUR_FILE")
    return status


def audioset(*arguments: str) -> int:
    """Run one ``audioset`` command."""
    print(f"\n$ audioset {' '.join(arguments)}\n", flush=True)
    return subprocess.run([sys.executable, "-m", "audioset", *arguments], check=False).returncode


def real_clips() -> list[Path]:
    """Recordings that lie beside the weights."""
    folders = os.environ.get("AUDIOSET_ASSETS", "").split(os.pathsep)
    return [clip for folder in folders if folder for clip in sorted(Path(folder, "audio").glob("*.wav"))]


def made_clips() -> list[Path]:
    """A tone, a siren and noise, made by formula."""
    seconds = np.arange(DURATION_S * SAMPLE_RATE) / SAMPLE_RATE
    siren_hz = 900 + 500 * np.sin(2 * np.pi * 0.5 * seconds)
    sounds = {
        "tone": 0.5 * np.sin(2 * np.pi * 440 * seconds),
        "siren": 0.5 * np.sin(2 * np.pi * np.cumsum(siren_hz) / SAMPLE_RATE),
        "noise": np.random.default_rng(0).uniform(-0.5, 0.5, len(seconds)),
    }
    for name, samples in sounds.items():
        soundfile.write(FOLDER / f"{name}.wav", samples, SAMPLE_RATE)
    return [FOLDER / f"{name}.wav" for name in sounds]


if __name__ == "__main__":
    sys.exit(main())

"""Write ``tables/yamnet_parity.json``: what the original YAMNet computes on two signals made from formulas.

The numbers come from an archive of the original's outputs, ``yamnet_reference.npz``, with the keys
``<case>/log_mel`` and ``<case>/scores``, made with the weight file that is named second:

    python tools/make_parity_table.py yamnet_reference.npz yamnet.h5
"""

import json
import sys
from pathlib import Path

import numpy as np

from audioset.assets import hash_file
from audioset.labels.labels import LabelSet
from audioset.models.prediction import top_indices
from audioset.models.reproduction import PARITY_FRAME, PARITY_TABLE

CASES = {"silence": "zeros_3s", "tone": "sine440_3s"}
N_SCORES = 10


def main(reference: Path, weights: Path) -> None:
    """Write the table into the source tree."""
    arrays = np.load(reference)
    labels = LabelSet.load("yamnet-521")
    signals = {}
    for signal, case in CASES.items():
        scores = arrays[f"{case}/scores"].mean(axis=0, dtype=np.float64)
        signals[signal] = {
            "log_mel": [float(value) for value in arrays[f"{case}/log_mel"][PARITY_FRAME]],
            "scores": {labels.ids[index]: float(scores[index]) for index in top_indices(scores, N_SCORES)},
        }
    table = {"weights_digest": hash_file(weights), "signals": signals}
    path = Path(__file__).parent.parent / "src" / "audioset" / PARITY_TABLE
    path.write_text(json.dumps(table, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

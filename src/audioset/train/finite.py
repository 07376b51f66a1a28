"""A step that would make the weights no numbers: it is refused before it is taken, with the likely cause."""

from __future__ import annotations

import math
from collections.abc import Sequence

from audioset.errors import AudioSetError, DataError, UsageError

N_NAMED = 3  # clips of a batch


def no_number(
    loss: float, gradient_norm: float, place: str, clips: Sequence[str], spoilt_clips: Sequence[str] = ()
) -> AudioSetError:
    """The error of a step whose loss, or the norm of all its gradients, is not finite.

    ``spoilt_clips`` are those whose spectrograms are not finite as the network got them: a DataError. Otherwise the
    training has diverged: a UsageError.
    """
    found = f"the loss is {loss:g} in {place}"
    if math.isfinite(loss):
        found += f", and the norm of its gradient {gradient_norm:g}"
    if spoilt_clips:
        return DataError(
            f"{found}: the log-mels of {named(spoilt_clips)} are not finite after augmentation. Likely cause: a gain, "
            "a filter or noise so strong that energies leave single precision. Next step: smaller gain_db and "
            "equaliser_db, a higher least_snr_db, or leave these clips out"
        )
    return UsageError(
        f"{found}, with {named(clips)}. Likely cause: a learning rate that is too high. "
        "Next step: a lower learning_rate, a warm_up, or clip_norm = 1"
    )


def named(clips: Sequence[str]) -> str:
    """The first few of some clips, and how many others there are."""
    n_others = len(clips) - N_NAMED
    others = f" and {n_others} other{'s' * (n_others > 1)}" if n_others > 0 else ""
    return ", ".join(clips[:N_NAMED]) + others

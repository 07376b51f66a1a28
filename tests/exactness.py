"""How near to a stored original an exact network must be: bounds that arithmetic gives, and no machine.

The originals compute in float32, so they are themselves away from what their formula gives in float64. How far, these
tables say; ``test_executors`` measures it anew. A float32 network of ours adds in an order of its own, which the
processor's instructions decide, and may be as far away again, on the other side. So it must lie within ``FACTOR`` times
the original's own distance: once for the original, twice for ours, whose sums may be longer than the original's.
"""

from __future__ import annotations

FACTOR = 3
# network -> largest distance from float64 over all stored cases: of a score, and of embeddings relative to the largest
ORIGINAL_SCORES = {"yamnet": 2.43e-6, "mn04": 1.97e-6}
ORIGINAL_EMBEDDINGS = {"yamnet": 1.49e-6, "mn04": 3.33e-6, "vggish": 2.02e-6}
SCORES = {network: FACTOR * distance for network, distance in ORIGINAL_SCORES.items()}
EMBEDDINGS = {network: FACTOR * distance for network, distance in ORIGINAL_EMBEDDINGS.items()}

"""Train on top of the published networks, with PyTorch (the extra ``train``)."""

from audioset.train.warm_start import WarmStart as WarmStart
from audioset.train.warm_start import fit as fit

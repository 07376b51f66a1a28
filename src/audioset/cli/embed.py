"""``audioset embed``."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audioset.audio.limits import Limits
from audioset.cli.options import RunOptions, format_option, option, takes
from audioset.errors import UsageError
from audioset.files import is_file
from audioset.formats import EMBED_FORMATS, OWN_EMBEDDINGS, SUFFIXES
from audioset.formats.tfrecord import QUANTISED_ONLY

if TYPE_CHECKING:
    from audioset.models.postprocess import Postprocessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedOptions:
    """What embeddings are made of, and how they are written."""

    quantize: bool = option("PCA, whitening and 8 bits, as the released AudioSet features: VGGish only.")
    pca: Path | None = option("Parameters of your own for --quantize. Default: the published ones.", "FILE")
    format_name: str | None = format_option(EMBED_FORMATS)


@click.command(short_help="Write the embeddings of audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@takes(wanted=EmbedOptions, options=RunOptions, limits=Limits)
def embed(
    inputs: tuple[str, ...],
    wanted: EmbedOptions,
    options: RunOptions,
    limits: Limits,
) -> int:
    """Write one embedding for each patch of INPUTS: files, folders, globs, or - for standard input.

    \b
    Examples:
      audioset embed dog.wav --output dog.npz
      audioset embed recordings/ --hop 0.96 --output embeddings.parquet
      audioset embed dog.wav | head -n 1
      audioset embed --model vggish --quantize recordings/ --output features.tfrecord
    """
    from audioset.cli.inputs import open_inputs
    from audioset.cli.run import Run
    from audioset.runs.rows import embedding_rows

    postprocessor = _find_postprocessor(wanted, options.model, options.output)
    with open_inputs(inputs, is_quiet=options.quiet) as recordings:
        run = Run(recordings, options, limits, wanted.format_name, EMBED_FORMATS, OWN_EMBEDDINGS)
        with closing(embedding_rows(run.parts(), options.model, postprocessor)) as rows:
            n_failed = run.write(rows)
    return 3 if n_failed else 0


def _find_postprocessor(wanted: EmbedOptions, model: str, output: str | None) -> Postprocessor | None:
    """What ``--quantize`` and ``--pca`` ask for; what is wrong with them is said before any work."""
    if wanted.quantize:
        return _load_postprocessor(model, wanted.pca)
    if wanted.pca:
        raise UsageError(
            f"--pca {wanted.pca} is for quantised embeddings. Next step: add --quantize, or leave --pca out"
        )
    if (wanted.format_name or SUFFIXES.get(Path(output or "").suffix.lower())) == "tfrecord":
        raise UsageError(f"{QUANTISED_ONLY}. Next step: --model vggish --quantize, or another --format")
    return None


def _load_postprocessor(name: str, pca: Path | None) -> Postprocessor:
    """The postprocessor of a model's network, with published parameters or with one's own."""
    from audioset.assets import ASSETS, get_asset, is_published
    from audioset.models.postprocess import Postprocessor
    from audioset.models.published import MODELS, find_model
    from audioset.weights.model_folder import CARD_NAME, read_card

    folder = Path(name)
    network = read_card(folder).network if is_file(folder / CARD_NAME) else find_model(name).network
    parameters = {model.network: model.postprocessor for model in MODELS.values() if model.postprocessor}
    if network not in parameters:
        known = ", ".join(parameters)
        raise UsageError(
            f"--quantize with --model {name}: its network {network} has no published quantisation; expected a model "
            f"with the network {known}. Next step: --model {known}, or leave --quantize out"
        )
    if pca is None:
        asset = ASSETS[parameters[network]]
        pca = get_asset(asset.name)
        if not is_published(asset, pca):
            logger.warning("%s is not the published file (its hash differs); it is used as it is", pca)
    return Postprocessor.load(pca)

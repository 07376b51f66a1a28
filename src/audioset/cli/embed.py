"""``audioset embed``."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import format_option, model_options, run_options, take_limits
from audioset.errors import UsageError
from audioset.files import is_file
from audioset.formats import EMBED_FORMATS, OWN_EMBEDDINGS, SUFFIXES, EmbeddingRow
from audioset.formats.tfrecord import QUANTISED_ONLY

if TYPE_CHECKING:
    from audioset.cli.run import Run
    from audioset.models.postprocess import Postprocessor

logger = logging.getLogger(__name__)


@click.command(short_help="Write the embeddings of audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@click.option(
    "--quantize", is_flag=True, help="PCA, whitening and 8 bits, as the released AudioSet features: VGGish only."
)
@click.option(
    "--pca",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Parameters of your own for --quantize. Default: the published ones.",
)
@format_option(EMBED_FORMATS)
@model_options
@run_options
def embed(**options: Any) -> int:
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

    postprocessor = _find_postprocessor(options)
    with open_inputs(options.pop("inputs"), is_quiet=options["quiet"]) as inputs:
        run = Run(inputs, take_limits(options), options, EMBED_FORMATS, OWN_EMBEDDINGS)
        with closing(_rows(run, postprocessor)) as rows:
            n_failed = run.write(rows)
    return 3 if n_failed else 0


def _rows(run: Run, postprocessor: Postprocessor | None) -> Generator[EmbeddingRow, None, None]:
    """One row for each part of a file, so that the longest recording fits in memory."""
    for shown, part in run.parts():
        prediction = part.prediction
        if prediction is not None:
            start_s, end_s, embeddings = prediction.start_s, prediction.end_s, prediction.embeddings
            values = postprocessor(embeddings) if postprocessor else embeddings
            yield EmbeddingRow(shown, start_s, end_s, values, prediction.duration_s, run.name)
        elif part.error:
            yield EmbeddingRow.failed(shown, part.error, run.name)


def _find_postprocessor(options: dict[str, Any]) -> Postprocessor | None:
    """Take ``--quantize`` and ``--pca`` out of the options; what is wrong with them is said before any work."""
    quantize, pca = options.pop("quantize"), options.pop("pca")
    if quantize:
        return _load_postprocessor(options["model"], pca)
    if pca:
        raise UsageError(f"--pca {pca} is for quantised embeddings. Next step: add --quantize, or leave --pca out")
    suffix = Path(options["output"] or "").suffix.lower()
    if (options["format_name"] or SUFFIXES.get(suffix)) == "tfrecord":
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

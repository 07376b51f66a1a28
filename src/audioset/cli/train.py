"""``audioset train``: one module for each command."""

from __future__ import annotations

import click

from audioset.cli.lazy import LazyGroup

# command -> (module, one line for the list of commands)
COMMANDS = {
    "heads": ("train_heads", "Train a head on the released features of AudioSet."),
    "check": ("train_check", "Check your own labelled sounds before they are learned."),
    "classifier": ("train_classifier", "Learn your own sounds on the embeddings of a published model."),
}


@click.command(cls=LazyGroup, table=COMMANDS, short_help="Train classifiers.")
def train() -> None:
    """Train classifiers: of AudioSet's clips on its released features, and of your own sounds."""

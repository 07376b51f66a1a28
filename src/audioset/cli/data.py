"""``audioset data``: one module for each group of commands."""

from __future__ import annotations

import click

from audioset.cli.lazy import LazyGroup

# command -> (module, one line for the list of commands)
COMMANDS = {
    "ontology": ("data_ontology", "Which sound is a kind of which: the 632 classes of AudioSet."),
    "fetch": ("data_fetch", "Fetch the published tables and features."),
    "segments": ("data_segments", "Count, choose and repair the published lists of clips."),
    "strong": ("data_strong", "Count and convert the labels with times."),
    "features": ("data_features", "Read, check and convert the released features."),
    "download": ("data_download", "Fetch the audio of clips, and keep account of each."),
    "adopt": ("data_download", "Take over audio that is on disk already."),
    "status": ("data_download", "Say how far a download is."),
    "retry": ("data_download", "Ask again for clips that failed."),
    "report": ("data_download", "Say what could not be had, and why."),
    "merge": ("data_download", "Join the accounts of several machines."),
    "slurm": ("data_download", "Write a job script for a cluster."),
}


@click.command(cls=LazyGroup, table=COMMANDS, short_help="Work with AudioSet itself.")
def data() -> None:
    """Work with what AudioSet publishes beside its audio."""

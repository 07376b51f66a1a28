"""What commands say: every word goes through here, so that nothing that a file says moves a terminal's cursor."""

from __future__ import annotations

import click

from audioset.errors import plain


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Write text to standard output, or to standard error, and flush it."""
    click.echo(plain(text), err=err, nl=nl)

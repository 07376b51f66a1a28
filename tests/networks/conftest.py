"""Frameworks and folders for the tests of heads."""

from __future__ import annotations

import os

import pytest
from head_oracle import PADDINGS, write_head

from audioset import load_model


@pytest.fixture(scope="module")
def torch():
    """PyTorch in one thread: its pool waits actively, which costs more than it gains on these few clips."""
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def keras(tmp_path_factory, torch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def head_folders(tmp_path_factory):
    """By padding: folders with a head."""
    folder = tmp_path_factory.mktemp("heads")
    return {padding: write_head(folder / padding, padding=padding) for padding in PADDINGS}


@pytest.fixture(scope="module", params=PADDINGS)
def head(request, head_folders):
    return load_model(head_folders[request.param])

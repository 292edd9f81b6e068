"""wandb on this machine, with and without a login."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from ssl_lightning.loggers.wandb import Wandb
from tests.loggers.keeping import KeepingServer, keeping


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb of a user without login, whose requests would go nowhere."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Wandb, "_gone_offline", False)
    wandb.teardown()  # what it has read of the environment before
    yield
    wandb.teardown()


@pytest.fixture
def wandb_server(no_login: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeepingServer]:
    """A login at a server that keeps what it is sent."""
    with keeping() as listening:
        monkeypatch.setenv("WANDB_BASE_URL", listening.address)
        monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield listening
        wandb.teardown()

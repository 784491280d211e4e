"""What the tests with official clients share: clients, homes of servers, one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.clients import Official, Run, official, run_steps

#: Where the model stands below the folder of models: nobody else has it there.
MODEL = "interop-tests/a-model-GGUF"


@pytest.fixture(scope="session")
def home(tmp_path_factory, model_file):
    """The home folder of a server, with the model in it."""
    return make_home(tmp_path_factory.mktemp("home"), model_file)


@pytest.fixture(scope="session")
def clients():
    """Gives clients by their names; environments are made when first asked for."""
    made: dict[str, Official] = {}

    def client(name: str) -> Official:
        if name not in made:
            made[name] = official(name)
        return made[name]

    return client


@pytest.fixture(scope="session", params=["python", "js"])
def client(request, clients) -> Official:
    """Each of the official clients."""
    return clients(request.param)


@pytest.fixture(scope="session")
def run(client, tmp_path_factory, model_file) -> Run:
    """Everything that a client does, against a server that nobody else uses."""
    folder = tmp_path_factory.mktemp(f"home-{client.name}")
    return run_steps(client, make_home(folder, model_file))


def make_home(folder: Path, model_file: Path) -> Path:
    """Put the model into a home folder."""
    place = folder / "models" / MODEL
    place.mkdir(parents=True)
    (place / model_file.name).symlink_to(model_file)
    return folder

"""Downloads and bars, as a type checker sees them."""

from typing import Any

from typing_extensions import assert_type

from lmstudio import Download, DownloadProgress, LMStudioClient, LMStudioError
from lmstudio.repository import ModelDownloadOption


def downloads(client: LMStudioClient, option: ModelDownloadOption) -> None:
    assert_type(client.repository.download("a/b"), str)
    assert_type(client.repository.download("a/b", wait=True), str)
    assert_type(option.download(), str)
    download = client.repository.download("a/b", wait=False, timeout=3)
    assert_type(download, Download)
    assert_type(option.download(wait=False), Download)
    for update in download:
        assert_type(update, DownloadProgress)
        assert_type(update.share, float)
        assert_type(update.seconds_left, float | None)
    assert_type(download.result(), str)
    assert_type(download.exception(), LMStudioError | None)
    assert_type(download.progress, DownloadProgress | None)


def bars(client: LMStudioClient, tqdm: type[Any]) -> None:
    client.llm.load("x", progress=False)
    client.llm.load("x", progress=lambda share: print(share))
    client.llm.load("x", progress=tqdm)
    client.llm.load("x", progress=tqdm(total=3))

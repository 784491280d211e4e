"""Plans of downloads: what would come, what the client chooses of it, then the rest."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import attrs

from ..wire import repository as wire
from .caller import Caller, ChannelHandler, End
from .downloads import Downloads
from .engine import BadRequest
from .failures import Failure
from .hub import HubError
from .hub_options import Option
from .repository import cancelled, downloads_of, fit_of, report

#: Forms of an artifact's owner and name. Source: docs/wire/repository.md.
_OWNER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+([-.][a-z0-9]+)*")
#: Versions beyond it are no whole numbers in every client.
_LAST_VERSION = 2**53 - 1


@attrs.define
class _Choices:
    """What can be had: options, which of them are here, and what is chosen.

    Attributes:
        chosen: Its place among the options, None for the copy that is here.
    """

    options: list[Option]
    held: list[bool]
    chosen: int | None = None

    @property
    def owned(self) -> int | None:
        """The copy that is here: the recommended one, or the largest."""
        held = [number for number, is_held in enumerate(self.held) if is_held]
        best = [number for number in held if self.options[number].recommended]
        found = best or held
        return found[-1] if found else None

    @property
    def recommended(self) -> int | None:
        """The place of the recommended option."""
        found = [n for n, option in enumerate(self.options) if option.recommended]
        return found[0] if found else None

    @property
    def meant(self) -> int:
        """The place of what a commit brings."""
        place = self.owned if self.chosen is None else self.chosen
        assert place is not None  # None is chosen only where a copy is here
        return place

    def begin(self, wishes: list[wire.Preference]) -> None:
        """Choose the first wish that can be met, else what suits best."""
        for wish in wishes:
            for number, option in enumerate(self.options):
                if _fits(option, wish):
                    self.chosen = number
                    return
        if self.owned is None:
            self.chosen = self.recommended or 0


class Plan:
    """A plan of one client. Its methods belong to one event loop.

    Args:
        repo: ``owner/name`` at the hub.
        artifact: Its owner and name, where an artifact was asked for.
        wishes: What the client prefers.
        stop: Ends what serves the plan.

    Attributes:
        version: Of the plan as it is now.
        is_committed: Whether the client wants it to be done.
        problem: What the client did wrong.
        changed: Set when any of that is new.
    """

    def __init__(
        self,
        repo: str,
        artifact: tuple[str, str] | None,
        wishes: list[wire.Preference],
        stop: Callable[[], object],
    ) -> None:
        self.repo = repo
        self.version = 1
        self.is_committed = False
        self.problem: Failure | None = None
        self.changed = asyncio.Event()
        self._artifact = artifact
        self._wishes = wishes
        self._stop = stop
        self._choices: _Choices | None = None

    async def resolve(self, downloads: Downloads) -> None:
        """Ask the hub what there is.

        Raises:
            HubError: There is no such model.
        """
        try:
            options = await downloads.options(self.repo)
        except HubError as exc:
            is_none = exc.code in ("hub.notFound", "hub.noModel")
            if self._artifact is None or not is_none:
                raise
            raise HubError(
                exc.code,
                f"{self.repo} is no model repository of the hub",
                exc.title,
                "This server has no other artifacts: plugins, presets and projects"
                " come with the LM Studio application",
            ) from exc
        choices = _Choices(options, await downloads.held(options))
        choices.begin(self._wishes)
        self._choices = choices
        self.version += 1

    @property
    def option(self) -> Option:
        """What a commit brings."""
        assert self._choices is not None
        return self._choices.options[self._choices.meant]

    def commit(self, _: None = None) -> None:
        """The client wants it."""
        if self._choices is None:
            self._refuse("commit came before planReady", "Wait for planReady")
            return
        self.is_committed = True
        self.changed.set()

    def select(self, packet: wire.SelectOption) -> None:
        """The client chooses another option."""
        choices, place = self._choices, packet.selected_download_option_index
        if choices is None or self.is_committed:
            when = "before planReady" if choices is None else "after the commit"
            self._refuse(f"An option was selected {when}", "Select between them")
            return
        node, count = self._node_index, len(choices.options)
        version = packet.requested_plan_version
        if packet.node_index != node:
            right = f"The model is node {node}"
            self._refuse(f"Node {packet.node_index} of the plan is no model", right)
        elif place is None and choices.owned is None:
            self._refuse("No copy of the model is here", "Select an option")
        elif place is not None and not 0 <= place < count:
            right = f"They are 0 to {count - 1}"
            self._refuse(f"The model has no download option {place}", right)
        elif not 0 <= version < _LAST_VERSION:
            right = f"Versions go from 0 to {_LAST_VERSION - 1}"
            self._refuse(f"A plan can't have the version {version}", right)
        else:
            choices.chosen = place
            self.version = max(self.version + 1, version)
            self.changed.set()

    def packet(self, kind: str, downloads: Downloads) -> dict[str, Any]:
        """The plan as it is now, in a packet of this type."""
        nodes: list[dict[str, Any]] = []
        choices = self._choices
        model: dict[str, Any] = {"type": "model", "dependencyLabel": self.repo}
        model["totalSources"] = 1
        size, action, job = 0, "none", None
        if choices is None:
            model.update(state="fetching", resolvedSources=0)
        else:
            is_here = choices.held[choices.meant]
            if not is_here:
                size, job = self.option.size, downloads.running(self.option)
                action = "attachToExistingDownload" if job else "startNewDownload"
            state = "satisfied" if is_here else "completed"
            model.update(_resolved(choices, downloads), state=state)
        if self._artifact is not None:
            owner, name = self._artifact
            root = {"type": "artifact", "owner": owner, "name": name}
            root["state"] = model["state"]
            if choices is not None:
                root["artifactType"] = "model"
            nodes.append(root | {"sizeBytes": size, "dependencyNodes": [1]})
        nodes.append(model)
        plan = {"nodes": nodes, "downloadSizeBytes": size, "downloadAction": action}
        plan["version"] = self.version
        if job is not None:
            plan["downloadJobIdentifier"] = job.id
        return {"type": kind, "plan": plan}

    @property
    def _node_index(self) -> int:
        """The place of the model among the nodes."""
        return 0 if self._artifact is None else 1

    def _refuse(self, problem: str, right: str) -> None:
        if self.problem is None:
            code = {"code": "repository.badPacket"}
            self.problem = Failure(problem, None, right, data=code)
            self._stop()


def _resolved(choices: _Choices, downloads: Downloads) -> dict[str, Any]:
    """The fields of a model's node once it is known what there is."""
    node: dict[str, Any] = {
        "resolvedSources": 1,
        "downloadOptions": [
            _listed(option, is_held, downloads)
            for option, is_held in zip(choices.options, choices.held, strict=True)
        ],
        "selectedDownloadOptionIndex": choices.chosen,
        "recommendedDownloadOptionIndex": choices.recommended,
    }
    if choices.owned is not None:
        node["alreadyOwned"] = _info(choices.options[choices.owned])
    if choices.chosen is not None:
        node["selected"] = _info(choices.options[choices.chosen])
    return node


def _info(option: Option) -> dict[str, Any]:
    info: dict[str, Any] = {"displayName": option.name, "sizeBytes": option.size}
    if option.quantization is not None:
        info["quantName"] = option.quantization
    return info | {"compatibilityType": "gguf"}


def _listed(option: Option, is_held: bool, downloads: Downloads) -> dict[str, Any]:
    made = _info(option) | {"fitEstimation": fit_of(option)}
    if is_held:
        made["availability"] = "downloaded"
    else:
        job = downloads.running(option)
        made["availability"] = "downloading" if job else "notDownloaded"
    return made | {"recommended": True} if option.recommended else made


def _fits(option: Option, wish: wire.Preference) -> bool:
    """Whether an option is what a client prefers."""
    if isinstance(wish, wire.QuantName):
        names = (option.variant, (option.quantization or "").lower())
        return bool(wish.quant_name) and wish.quant_name.lower() in names
    paths = [file.path for file in option.files]
    return wish.file_name in (*paths, *(path.rpartition("/")[2] for path in paths))


async def _for_artifact(
    caller: Caller, parameter: wire.CreateArtifactPlan, ends: End
) -> None:
    target = wire.ArtifactTarget(
        type="artifact", owner=parameter.owner, name=parameter.name
    )
    await _create(caller, wire.CreatePlan(target=target), ends)


async def _create(caller: Caller, parameter: wire.CreatePlan, ends: End) -> None:
    """Serve a plan, from the question of what there is to the end of the download."""
    task, downloads = asyncio.current_task(), downloads_of(caller)
    assert task is not None
    target, opts = parameter.target, parameter.opts or wire.PlanOptions()
    artifact = None
    if isinstance(target, wire.ArtifactTarget):
        artifact = target.owner, target.name
        if not (_OWNER.fullmatch(target.owner) and _NAME.fullmatch(target.name)):
            raise BadRequest(
                f"No artifact is called {'/'.join(artifact)[:200]!r}",
                "Owner and name have lower-case letters, digits and inner hyphens,"
                " names also dots",
                "Plan the download of a model by its source for other names",
            )
        repo = "/".join(artifact)
    else:
        if target.source.type != "huggingface":
            raise BadRequest(f"source must be huggingface, not {target.source.type!r}")
        repo = f"{target.source.user}/{target.source.repo}"
    if opts.compatibility_types is not None and "gguf" not in opts.compatibility_types:
        raise HubError(
            "hub.noModel", "This server runs models of the format gguf only", None
        )
    plan = Plan(repo, artifact, opts.resolution_preference or [], task.cancel)
    ends.on_packets(commit=plan.commit, setSelectedDownloadOptionIndex=plan.select)
    ends.on_cancel(task.cancel)
    try:
        await _carry_out(plan, downloads, ends)
    except asyncio.CancelledError:
        if plan.problem is not None:
            raise plan.problem from None
        if not ends.is_cancelled:
            raise
        raise cancelled(repo) from None


async def _carry_out(plan: Plan, downloads: Downloads, ends: End) -> None:
    await ends.send(plan.packet("planUpdated", downloads))
    await plan.resolve(downloads)
    sent = plan.version
    await ends.send(plan.packet("planReady", downloads))
    while not plan.is_committed or sent != plan.version:
        if sent != plan.version:
            sent = plan.version
            await ends.send(plan.packet("planUpdated", downloads))
        else:
            await plan.changed.wait()
            plan.changed.clear()
    job = downloads.take_part(plan.option)
    try:
        await report(job, ends)
        await ends.send({"type": "success"})
    finally:
        await downloads.leave(job)


#: Namespace and endpoint -> what serves it.
CHANNELS: dict[tuple[str, str], ChannelHandler] = {
    ("repository", "createArtifactDownloadPlan"): _for_artifact,
    ("repository", "createDownloadPlan"): _create,
}

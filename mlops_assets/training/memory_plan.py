"""How much memory a training will need at its peak, by part, before any weight is loaded.

The accounting of activations follows Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models" (section 4), with the terms of a Llama layer: two
norms, rotary attention that stores no scores, a gated MLP. NF4 with double quantisation holds
a weight in 4.127 bits: Dettmers et al. 2023, "QLoRA" (section 3). AdamW keeps two moments of
each trained weight, in its type.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from pydantic import ValidationError

from mlops_assets.artifacts import LineageError
from mlops_assets.training.device import Device
from mlops_assets.training.model_shape import ModelShape
from mlops_assets.training.spec import LORA_FAMILY, FinetuneSpec
from mlops_assets.training.workload import Workload

NF4_BYTES = 4.127 / 8
"""4 bits, an 8-bit scale for 64 weights, and an fp32 scale for 256 of these."""
CUDA_CONTEXT = 600 * 1024**2
"""Driver, kernels and cuBLAS workspace of one process, bytes; torch's allocator has no part."""
CUDA_SLACK = 0.05
"""Share that the caching allocator loses between blocks."""
WORKING_TENSORS = 3
"""Tensors of the MLP's width that live at once inside one step of the backward pass."""
CHUNK_TOKENS, CHUNK_VOCABULARY = 4096, 32768
"""The tile of logits that TRL 1.16's chunked loss works on."""
PAIRED = ("dpo", "orpo")
"""Methods whose rows come as two sequences, one for each answer."""
RECOMPUTE = {"always": (True,), "never": (False,), "auto": (False, True)}


@dataclass(frozen=True)
class MemoryPlan:
    """A prediction, and whether activations are recomputed to stay within it."""

    parts: Mapping[str, int]
    """Bytes at the peak by part."""
    checkpointing: bool
    available: int
    """Bytes that the device has free."""

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the device has as much free."""
        return self.peak <= self.available


def plan_memory(training: "Training") -> MemoryPlan:
    """The plan of this training; activations are recomputed if its spec or the memory asks.

    Raises LineageError with advice when the training cannot fit.
    """
    plans = [
        MemoryPlan(training.parts(recompute), recompute, training.device.available)
        for recompute in RECOMPUTE[training.spec.gradient_checkpointing]
    ]
    for plan in plans:
        if plan.fits:
            return plan
    raise LineageError(
        f"Training would need {gibibytes(plans[-1].peak)} of memory, and {training.device.name}"
        f" has {gibibytes(training.device.available)} free.",
        _advice(training, plans[-1].peak),
    )


@contextmanager
def translate_out_of_memory(training: "Training", plan: MemoryPlan) -> Iterator[None]:
    """Turn torch's error of a full GPU into a LineageError with advice."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LineageError(
            f"{training.device.name} ran out of memory: {gibibytes(plan.available)} were free, and"
            f" the plan was {gibibytes(plan.peak)}.",
            _advice(training, plan.peak),
        ) from error


def decide_checkpointing(spec: FinetuneSpec, plan: MemoryPlan) -> FinetuneSpec:
    """The spec with `always` or `never` in the place of `auto`, as the plan found."""
    choice = "always" if plan.checkpointing else "never"
    return spec.model_copy(update={"gradient_checkpointing": choice})


def gibibytes(size: int) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1024**3:.1f} GiB" if size > 1024**3 / 10 else f"{size / 1024**2:.1f} MiB"


@dataclass(frozen=True)
class Training:
    """All that decides the peak."""

    shape: ModelShape
    spec: FinetuneSpec
    work: Workload
    device: Device
    bf16: bool
    """Whether products are computed in bf16; in fp32 otherwise."""
    by_row: bool = False
    """Whether attention is computed by row, without a mask over the whole pack."""

    def parts(self, recompute: bool) -> dict[str, int]:
        """Bytes at the peak by part, with the activations recomputed or kept."""
        spec, layer, layers = self.spec, self._layer() * self.tokens, self.shape.layers
        kept = self.shape.hidden * self._compute * self.tokens * layers + layer
        activations = round((kept if recompute else layer * layers) + self._working_set())
        gradients = self.trained * self._trained_bytes
        loss = self._loss()
        parts = {
            "base weights": round(self._base()),
            "adapter weights": 0 if spec.adapter == "full" else gradients,
            # They grow while activations are freed: only what is more than these adds to the
            # peak, or all when an earlier pass has left them.
            "gradients": max(0, gradients - (0 if spec.accumulation > 1 else activations)),
            "optimizer states": 2 * gradients,
            "reference model": self._reference(),
            "activations": activations,
            "logits and loss": loss,
        }
        if self.device.kind == "cuda":
            parts["allocator"] = round(CUDA_SLACK * sum(parts.values()))
            parts["CUDA context"] = CUDA_CONTEXT
        return parts

    @property
    def tokens(self) -> int:
        """Of one forward and backward pass, padding included."""
        spec = self.spec
        if spec.packed:
            return min(spec.pack_tokens * spec.packs_per_step, self.work.tokens)
        return self._sequences * min(spec.row_tokens, self.work.longest)

    @property
    def trained(self) -> int:
        """Numbers that the optimiser changes."""
        spec, shape = self.spec, self.shape
        if spec.adapter == "full":
            return shape.parameters
        if spec.adapter == "prefix":
            return spec.prefix_tokens * 2 * shape.key_value * shape.layers
        magnitudes = shape.linear_ends - shape.linear_inputs if spec.adapter == "dora" else 0
        head = shape.head if spec.train_head else 0
        return shape.lora(spec.rank, embeddings=spec.adapt_embeddings) + magnitudes + head

    @property
    def _sequences(self) -> int:
        return self.spec.rows_per_step * (2 if self.spec.method in PAIRED else 1)

    @property
    def _compute(self) -> int:
        return 2 if self.bf16 else 4

    @property
    def _trained_bytes(self) -> int:
        # TRL casts a QLoRA's weights to bf16; where that cannot be computed they are fp32.
        return 2 if self.spec.quantization == "nf4" and self.bf16 else 4

    def _base(self) -> float:
        shape = self.shape
        if self.spec.quantization == "nf4":
            rest = (shape.parameters - shape.linear) * self._compute
            dequantised = shape.largest_linear * self._compute  # one at a time
            return shape.linear * NF4_BYTES + rest + dequantised
        if self.spec.adapter == "full":  # in fp32; autocast's copies are kept for backward
            return shape.parameters * 4 + (shape.linear * 2 if self.bf16 else 0)
        return shape.parameters * self._compute

    def _reference(self) -> int:
        """What `dpo` and `kto` stay close to; an adapter is switched off instead."""
        if self.spec.adapter != "full" or self.spec.method not in ("dpo", "kto"):
            return 0
        return self.shape.parameters * 4

    def _layer(self) -> float:
        """Bytes that one layer keeps of one token until its backward pass."""
        shape, compute = self.shape, self._compute
        norms = 2 * shape.hidden * (4 + (compute if self.bf16 else 0))  # computed in fp32
        attention = 4 * shape.query * compute + self._mask() * compute
        gated = 3 * shape.mlp * compute
        return norms + attention + gated + self._linear_inputs() / shape.layers

    def _mask(self) -> int:
        """Numbers of the mask's row that sdpa keeps for a token of each layer."""
        if self.by_row:
            return 0
        return self.tokens if self.spec.packed else min(self.spec.row_tokens, self.work.longest)

    def _linear_inputs(self) -> float:
        """Bytes that all linear maps keep of one token for the gradients of what is trained."""
        shape, spec, compute = self.shape, self.spec, self._compute
        shared = (2 * shape.hidden + shape.mlp) * compute * shape.layers
        if spec.adapter == "full":
            return shared + 2 * shape.hidden * compute * shape.layers  # also for the norms' own
        if spec.adapter not in LORA_FAMILY:
            return 0
        ranks = spec.rank * shape.linear_maps * min(compute, self._trained_bytes)
        outputs = shape.linear_ends - shape.linear_inputs
        magnitudes = 2 * outputs * compute if spec.adapter == "dora" else 0
        if spec.dropout:  # each map drops for itself, and keeps which
            inputs = shape.linear_inputs * 2 * compute
        elif self._trained_bytes == compute:
            inputs = shared
        else:  # the adapter is of another type than the layer: each map casts for itself
            inputs = shape.linear_inputs * 2
        return inputs + ranks + magnitudes

    def _working_set(self) -> int:
        widest = max(self.shape.mlp, self.shape.hidden, self.shape.query)
        return WORKING_TENSORS * widest * self._compute * self.tokens

    def _loss(self) -> int:
        """fp32 logits, their log-softmax and its gradient; one more when labels are smoothed.

        TRL's chunked loss holds one tile of logits instead, as wide whatever the vocabulary.
        """
        spec, vocabulary = self.spec, self.shape.vocabulary
        if spec.method == "orpo":
            return self.tokens * vocabulary * 4 * 3
        if spec.method != "sft" or (self.device.kind == "cuda" and not spec.label_smoothing):
            return min(self.tokens, CHUNK_TOKENS) * CHUNK_VOCABULARY * self._compute
        scored = math.ceil(self.tokens * self.work.answers / self.work.tokens)
        return scored * vocabulary * 4 * (4 if spec.label_smoothing else 3)


def _advice(training: Training, peak: int) -> str:
    """Which settings of `lora_adapter` lower the peak, each with the peak that it gives."""
    options = {change: _peak(training, spec) for change, spec in _changes(training.spec)}
    lower = {change: size for change, size in options.items() if size < peak}
    enough = [change for change, size in lower.items() if size <= training.device.available]
    listed = [f"{change} ({gibibytes(lower[change])})" for change in enough or lower]
    if enough:
        return f"Set lora_adapter's {' or '.join(listed)}."
    return f"Combine lora_adapter's {', '.join(listed)}; or take a smaller base model."


def _peak(training: Training, spec: FinetuneSpec) -> int:
    other = replace(training, spec=spec, bf16=training.bf16 or spec.precision == "bf16")
    return sum(other.parts(recompute=RECOMPUTE[spec.gradient_checkpointing][-1]).values())


def _changes(spec: FinetuneSpec) -> Iterator[tuple[str, FinetuneSpec]]:
    """Each setting that could be changed: what to write, and the spec that results."""
    values: dict[str, object] = {"gradient_checkpointing": "always", "precision": "bf16"}
    if spec.adapter == "full":
        values["adapter"] = "lora"
    else:
        values["quantization"] = "nf4"
    if spec.adapter in LORA_FAMILY:
        values |= {"rank": 8, "train_head": False, "adapt_embeddings": False}
    for name in ("packs_per_step", "pack_tokens") if spec.packed else ("rows_per_step",):
        values[name] = getattr(spec, name) // 2
    for name, value in values.items():
        if value != getattr(spec, name):
            with suppress(ValidationError):  # below what the setting allows
                changed = FinetuneSpec(**spec.model_dump() | {name: value})
                yield f"{name}: {str(value).lower()}", changed

"""Floating-point operations of a training, by the field's standard count.

Kaplan et al. 2020 (section 2.1): a weight that is multiplied costs 2 operations a token
forward, 2 for the gradient of its input, 2 for its own gradient: 6 where it is trained, 4
where it is frozen under an adapter. Attention adds 12 a layer, query width and position of the
row for the forward and backward pass: Chowdhery et al. 2022, "PaLM" (appendix B), which also
defines model FLOPs utilisation: these operations, without anything recomputed, over what the
device could have done in the time.
"""

from mlops_assets.training.model_shape import ModelShape
from mlops_assets.training.spec import LORA_FAMILY, FinetuneSpec
from mlops_assets.training.workload import Workload

TRAINED, FROZEN, FORWARD = 6, 4, 2  # operations for each weight and token
ATTENTION = 12


def epoch_flops(shape: ModelShape, spec: FinetuneSpec, work: Workload) -> float:
    """Operations of one pass over the train split; a row attends to itself alone, however packed.

    The output layer counts for the tokens that carry loss. ``dpo`` and ``kto`` add the forward
    pass of the reference.
    """
    full, low_rank = spec.adapter == "full", spec.adapter in LORA_FAMILY
    layers = work.tokens * shape.linear
    head = work.answers * shape.vocabulary * shape.hidden
    attention = shape.layers * shape.query * work.squares
    operations = layers * (TRAINED if full else FROZEN) + attention * ATTENTION
    operations += head * (TRAINED if full or (low_rank and spec.train_head) else FROZEN)
    if low_rank:
        operations += work.tokens * shape.lora(spec.rank, embeddings=False) * TRAINED
    if spec.method in ("dpo", "kto"):
        operations += (layers + head) * FORWARD + attention * ATTENTION // 3
    return float(operations)

"""What a request costs, in money."""

from mlops_assets.serving.accounting.budget_spec import BudgetSpec

MILLION = 1_000_000


def cost(spec: BudgetSpec, model: str, tokens_in: int, tokens_out: int) -> float:
    """Money for these tokens, in ``spec.currency``; ``model`` is the name at the engine."""
    reading = spec.price_input_for.get(model, spec.price_input)
    writing = spec.price_output_for.get(model, spec.price_output)
    return (tokens_in * reading + tokens_out * writing) / MILLION

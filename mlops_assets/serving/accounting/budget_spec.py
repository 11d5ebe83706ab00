"""What may be set about budgets: prices, and what may be used in a day."""

from math import isfinite

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlops_assets.serving.accounting.usage import NANO, SCOPES, Limit

DAILY = "a UTC day"


class BudgetSpec(BaseModel):
    """Hard limits for a UTC day. A limit that is left out is none; a limit of 0 refuses all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    daily_tokens_per_key: int | None = Field(
        None, ge=0, le=10**15, description=f"Most tokens, read and written, of one key in {DAILY}."
    )
    daily_tokens_per_user: int | None = Field(
        None, ge=0, le=10**15, description=f"Most tokens of one user of a key in {DAILY}."
    )
    daily_tokens_per_feature: int | None = Field(
        None, ge=0, le=10**15, description=f"Most tokens of one feature in {DAILY}."
    )
    daily_tokens_per_prompt: int | None = Field(
        None, ge=0, le=10**15, description=f"Most tokens of one system prompt in {DAILY}."
    )
    daily_money_per_key: float | None = Field(
        None, ge=0, le=10**9, description=f"Most money that one key costs in {DAILY} (currency)."
    )
    daily_money_per_user: float | None = Field(
        None, ge=0, le=10**9, description=f"Most money that one user costs in {DAILY} (currency)."
    )
    daily_money_per_feature: float | None = Field(
        None, ge=0, le=10**9, description=f"Most money of one feature in {DAILY} (currency)."
    )
    daily_money_per_prompt: float | None = Field(
        None, ge=0, le=10**9, description=f"Most money of one system prompt in {DAILY} (currency)."
    )
    daily_tokens_for: dict[str, int] = Field(
        default_factory=dict,
        description="Limits of single names in place of those above, such as key/support: 200000;"
        " users and prompts by the digest that `mlops usage` shows (tokens).",
    )
    daily_money_for: dict[str, float] = Field(
        default_factory=dict,
        description="The same for money, such as feature/search: 5 (currency).",
    )
    bytes_per_token: float = Field(
        3.0,
        ge=1,
        le=16,
        description="How many bytes of a request count as one token until the engine has said how"
        " many there were. At 1 the estimate is never too low for a byte-level tokeniser (bytes).",
    )
    currency: str = Field("USD", pattern="^[A-Z]{3}$", description="ISO 4217 code of all money.")
    price_input: float = Field(
        0.0, ge=0, le=10**6, description="Price of a million tokens read (currency)."
    )
    price_output: float = Field(
        0.0, ge=0, le=10**6, description="Price of a million tokens written (currency)."
    )
    price_input_for: dict[str, float] = Field(
        default_factory=dict,
        description="Prices of a million tokens read by models with prices of their own, by the"
        " model's name at its engine (currency).",
    )
    price_output_for: dict[str, float] = Field(
        default_factory=dict, description="The same for tokens written (currency)."
    )

    @field_validator("daily_tokens_for", "daily_money_for")
    @classmethod
    def _names_with_a_scope(cls, limits: dict[str, float]) -> dict[str, float]:
        for entry in limits:
            scope, slash, _ = entry.partition("/")
            if not slash or scope not in SCOPES:
                raise ValueError(f"{entry} must be SCOPE/NAME, with a scope of {', '.join(SCOPES)}")
        return limits

    @field_validator("daily_tokens_for", "daily_money_for", "price_input_for", "price_output_for")
    @classmethod
    def _no_less_than_nothing(cls, amounts: dict[str, float]) -> dict[str, float]:
        for name, amount in amounts.items():
            if not 0 <= amount <= 10**15 or not isfinite(amount):
                raise ValueError(f"{name} = {amount} must be from 0 to 10^15")
        return amounts

    def limits(self, scope: str) -> bool:
        """Whether any name of the scope has a limit."""
        entries = (*self.daily_tokens_for, *self.daily_money_for)
        return bool(self.limit(scope, "")) or any(each.startswith(f"{scope}/") for each in entries)

    def limit(self, scope: str, name: str) -> Limit:
        """What this name may use in a day."""
        entry = f"{scope}/{name}"
        tokens = self.daily_tokens_for.get(entry, getattr(self, f"daily_tokens_per_{scope}"))
        money = self.daily_money_for.get(entry, getattr(self, f"daily_money_per_{scope}"))
        return Limit(tokens, None if money is None else round(money * NANO))

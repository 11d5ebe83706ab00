"""Flags of a GrowthBook server, through its OpenFeature provider (extra `growthbook`)."""

from openfeature.provider import AbstractProvider

from mlops_assets.artifacts import LineageError

RETRY_EVERY = 5.0  # seconds, until the server was reached once


def growthbook_provider(
    url: str, client_key: str, retry_every: float = RETRY_EVERY
) -> AbstractProvider:
    """A provider for the features of an SDK connection.

    Raises LineageError where the extra is not installed or the key is missing.
    """
    try:
        from mlops_assets.serving.traffic.growthbook_provider import Provider
    except ImportError:
        raise LineageError(
            "The flags are to come from GrowthBook, whose OpenFeature provider is not installed.",
            "Install the extra: pip install 'mlops-assets[growthbook]'.",
        ) from None
    if not client_key:
        raise LineageError(
            f"The flags are to come from GrowthBook at {url}, and there is no client key.",
            "Set GROWTHBOOK_CLIENT_KEY to the key of an SDK connection.",
        )

    return Provider(url, client_key, retry_every)

"""What may be set of the drift report: when it speaks of drift, and what may follow from that."""

from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.retrain_policy import RetrainPolicy


class DriftSettings(DriftSpec, RetrainPolicy):
    """Settings of the drift report, and bounds on the retrainings that it may start."""

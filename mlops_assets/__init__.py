"""The life of a self-hosted, fine-tuned language model as software-defined assets.

dataset      raw_dataset -> validated_dataset -> dataset_splits
training     base_model -> lora_adapter
evaluation   eval_report -> gate_verdict
promotion    registered_model -> promotion_decision
monitoring   prediction_log -> sampled_traces, feedback_rows, answer_quality; with drift_reference
             and answer_quality -> drift_report

Each stage is one folder and one name in ``definitions.LINEAGE``. Sensors on the
data and on drift start ``retrain``, which ends in a request for approval.
"""

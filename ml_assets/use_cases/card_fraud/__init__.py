"""Is this payment a fraud? Asked at the moment of the payment; the truth comes a week later, or later still."""

from collections.abc import Mapping
from datetime import timedelta

from ml_assets.sources.mapping import for_own_files
from ml_assets.use_case import (
    AlertsPerDay,
    Gate,
    Investigation,
    Monitoring,
    Range,
    Reported,
    Search,
    Slice,
    Split,
    Training,
    UseCase,
)
from ml_assets.use_cases.card_fraud.features import FEATURES
from ml_assets.use_cases.card_fraud.schema import CHARGEBACKS, SETTLED_AFTER, TIMEZONE, TRANSACTIONS
from ml_assets.use_cases.card_fraud.source import FILES, START

WEDNESDAY = 2


def configure(case: UseCase, settings: Mapping[str, str]) -> UseCase:
    """The case for the days that the reader's own deliveries say they hold."""
    return for_own_files(case, settings, FILES, times={"transactions": "paid_at", "chargebacks": "reported_at"})


CARD_FRAUD = UseCase(
    name="card_fraud",
    title="Fraud with payment cards",
    owner="team:payments",
    timezone=TIMEZONE,
    start=START,
    end="2018-08-09",
    tables=(TRANSACTIONS, CHARGEBACKS),
    events="transactions",
    event_time="paid_at",
    climatology=("hour", "during_weekend"),
    label=Reported(
        table="chargebacks",
        known_at="reported_at",
        entities=("customer_id", "terminal_id"),
        settled_after=SETTLED_AFTER,
        latest_after=timedelta(days=60),
    ),
    features=FEATURES,
    split=Split(weekday=WEDNESDAY, first_go_live="2018-07-04", holdout_days=14, embargo_days=7, minimum_training_days=35),
    investigation=Investigation(metric="card_precision_at_100", entity="customer_id", top=100, known_for=timedelta(days=7)),
    gate=Gate(
        floors={"average_precision": 0.40, "roc_auc": 0.75},
        margin=0.02,
        risk=0.05,
        resamples=1000,
        slices=(
            Slice(column="amount", minimum_rows=2000, edges=(2_000, 5_000, 10_000, 22_000)),
            Slice(column="hour", minimum_rows=2000, edges=(7, 12, 18), required=False),
            Slice(column="payment_span_30d_by_customer_id", minimum_rows=2000, edges=(7, 20, 29), required=False),
            Slice(column="scenario", minimum_rows=2000, required=False, of_positives=True),
        ),
        slice_margin=0.10,
        max_model_megabytes=20,
        max_row_milliseconds=20,
    ),
    training=Training(
        parameters={
            "objective": "binary",
            "learning_rate": 0.04,
            "num_leaves": 31,
            "min_data_in_leaf": 100,
            "feature_fraction": 0.5,
            "lambda_l2": 5.0,
            "max_bin": 127,
        },
        trees=220,
        operating=AlertsPerDay(alerts=100),
        seed=20180401,
        kept_negatives=0.2,
        refit=True,
        search=Search(
            trials=10,
            folds=3,
            fold_days=7,
            gap_days=7,
            lightgbm=(
                Range(name="learning_rate", low=0.03, high=0.15, log=True),
                Range(name="num_leaves", low=8, high=63, log=True, whole=True),
                Range(name="min_data_in_leaf", low=20, high=300, log=True, whole=True),
                Range(name="feature_fraction", low=0.3, high=0.9),
                Range(name="lambda_l2", low=0.1, high=30.0, log=True),
                Range(name="scale_pos_weight", low=1.0, high=20.0, log=True),
            ),
            logistic=(Range(name="inverse_penalty", low=1e-4, high=10.0, log=True),),
        ),
    ),
    # Scores are of the refit, and compared with those of what was judged: up to 0.14 apart on a quiet bank.
    monitoring=Monitoring(max_psi_of_score=0.2),
    configure=configure,
)

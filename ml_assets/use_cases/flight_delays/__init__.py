"""Will this flight from New York arrive 15 minutes late or more, or not at all? Asked two hours before its scheduled departure."""

from datetime import timedelta

from ml_assets.use_case import AlertShare, Gate, Label, Monitoring, Slice, Split, Training, UseCase
from ml_assets.use_cases.flight_delays.features import FEATURES
from ml_assets.use_cases.flight_delays.schema import FLIGHTS, PLANES, TIMEZONE, WEATHER

MONDAY = 0
SLOW = tuple(
    name
    for name in FEATURES.names
    if name.startswith("weather_")
    or name in ("month", "days_to_holiday", "is_holiday")
    or any(window in name for window in ("_24h_", "_7d_", "_28d_"))
)
"""Features that hundreds of flights share, so that a week has only a few values of them: theirs are never those of the weeks before."""

FLIGHT_DELAYS = UseCase(
    name="flight_delays",
    title="Late arrivals of flights from New York",
    owner="team:flights",
    timezone=TIMEZONE,
    start="2013-01-01",
    end="2014-01-01",
    tables=(FLIGHTS, WEATHER, PLANES),
    events="flights",
    event_time="predicted_at",
    climatology=("carrier", "origin", "departure_hour"),
    label=Label(
        column="late",
        known_at="late_known_at",
        entities=("carrier", "origin", "destination", "tail_number"),
        latest_after=timedelta(days=4),
    ),
    features=FEATURES,
    split=Split(weekday=MONDAY, first_go_live="2013-10-28", holdout_days=14, embargo_days=1, minimum_training_days=56),
    gate=Gate(
        floors={"average_precision": 0.30, "roc_auc": 0.62},
        margin=0.01,
        risk=0.05,
        resamples=1000,
        slices=(Slice(column="origin", minimum_rows=500), Slice(column="carrier", minimum_rows=1000)),
        slice_margin=0.05,
        max_model_megabytes=20,
        max_row_milliseconds=20,
    ),
    training=Training(
        parameters={
            "objective": "binary",
            "learning_rate": 0.07,
            "num_leaves": 31,
            "min_data_in_leaf": 200,
            "feature_fraction": 0.3,
            "bagging_fraction": 0.5,
            "bagging_freq": 1,
            "lambda_l2": 10.0,
            "max_bin": 63,
        },
        trees=150,
        operating=AlertShare(share=0.20),
        seed=20130101,
    ),
    # Storms move the score by up to 0.3 for a day or two (27 November 2013); the winter that set in on 9 December moved it by 0.5 to 1.0.
    monitoring=Monitoring(expected_to_drift=SLOW, max_psi_of_score=0.4, max_miscalibration=2.0),
    scores_without_state=True,
)

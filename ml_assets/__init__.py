"""ML on events as Dagster assets, from delivered rows to monitored scores. Start reading at `use_cases`, then `orchestration.pipeline`."""

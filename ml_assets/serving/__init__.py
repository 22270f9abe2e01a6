"""The online scorer: one event in, features from the online store, a score out. It never imports dagster."""

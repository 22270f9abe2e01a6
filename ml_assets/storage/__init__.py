"""WHERE things are kept: tables, models, reports."""

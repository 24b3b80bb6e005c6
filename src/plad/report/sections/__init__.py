"""Parts of the report as data."""

"""Alembic's steps from an empty database to the tables of today.

For a new step, change `registry.tables`, add `versions/NNNN_verb.py` by hand (its `down_revision`
is the step before) and run `tests/registry/test_schema.py`: it names every difference left.
"""

"""The long record: the journal as Parquet files, thinned by age, and how it is queried."""

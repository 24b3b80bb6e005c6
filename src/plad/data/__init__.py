"""Data: rows read and checked, split without leakage, and the files of a run.

A source that can't be used is a DataError, of rows a BadRowsError; a value that can't be is a ValueError, which
`RowReader` turns into a bad row.
"""

"""History in files: read from CSV, Parquet and Excel into the historian, and written from it. Knows no SQL.

Needs the extra ``files`` (pyarrow, openpyxl); :func:`plugin.exchange.terms.needs` says so where it is missing.
"""

"""Batches as transactions of PostgreSQL. Only a destination of this type imports asyncpg.

`statements`   the statements of a transaction
`rows`         the events of a batch as the input of COPY
`failures`     the meaning of an error, by its SQLSTATE
`connections`  connections that later batches reuse
"""

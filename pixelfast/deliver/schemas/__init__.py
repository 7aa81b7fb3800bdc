"""Tables for events in databases, and the statements that create them.

`postgres`    the columns of a PostgreSQL table, and where their values are in an event
`clickhouse`  the columns of a ClickHouse table
"""

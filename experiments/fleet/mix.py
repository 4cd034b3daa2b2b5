# SPDX-License-Identifier: GPL-2.0-only
"""Mixes the events of a fleet: python3 mix.py PLACE OUT.parquet. An example of what an engine is for: DuckDB here, but the
tables are plain Parquet with partitions in the names of folders. pip install duckdb"""

import sys

import duckdb

place, out = sys.argv[1:]
events = f"read_parquet('{place}/events/*/*/*.parquet', hive_partitioning = true)"
if place.startswith("s3://"):
    # Takes AWS_... from the environment, as scx_rl does.
    duckdb.sql("INSTALL httpfs; LOAD httpfs; INSTALL aws; LOAD aws; CREATE SECRET (TYPE s3, PROVIDER credential_chain)")
print(duckdb.sql(f"""
    SELECT machine, count(*) AS events, count(reward_ms) AS usable, round(avg(reward_ms), 3) AS reward_ms,
           round(avg(CAST(action = 1 AS INT)), 3) AS migrated, round(avg(f_move_cost), 1) AS move_cost
    FROM {events} GROUP BY machine ORDER BY machine"""))
duckdb.sql(f"""
    COPY (
        WITH shuffled AS (
            SELECT *, row_number() OVER (PARTITION BY machine ORDER BY hash(machine, date, "row", 1)) AS place
            FROM {events} WHERE reward_ms IS NOT NULL),
        least AS (SELECT min(events) AS events FROM (SELECT count(*) AS events FROM shuffled GROUP BY machine))
        SELECT shuffled.* FROM shuffled, least WHERE place <= least.events ORDER BY place, hash(machine))
    TO '{out}' (FORMAT parquet)""")
print(duckdb.sql(f"SELECT machine, count(*) AS events FROM '{out}' GROUP BY machine ORDER BY machine"))

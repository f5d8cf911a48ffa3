"""DuckDB's answer to one question over an NDJSON file of bids, on one thread: CPU seconds, wall seconds, rows, bids."""

import resource
import sys
import time

import duckdb

file, question = sys.argv[1:]
columns = (
    "{auction: 'BIGINT', bidder: 'BIGINT', price: 'BIGINT', channel: 'VARCHAR', url: 'VARCHAR', "
    "\"dateTime\": 'TIMESTAMP', extra: 'VARCHAR'}"
)
bids = f"read_json('{file}', format = 'newline_delimited', columns = {columns})"
sql = {
    "project": f"SELECT count(*), count(*), sum(auction), sum(price), max(\"dateTime\") FROM {bids}",
    "tumble": (
        "SELECT count(*), sum(bids) FROM (SELECT time_bucket(INTERVAL '10 seconds', \"dateTime\") AS start, auction, count(*) AS bids "
        f"FROM {bids} GROUP BY 1, 2)"
    ),
}[question]
connection = duckdb.connect(config={"threads": 1})


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


began, before = time.monotonic(), cpu()
row = connection.execute(sql).fetchone()
print(cpu() - before, time.monotonic() - began, row[0], row[1])

"""The report of finished runs: it reads their files, and nothing else of them. Others use `run_folders.load_runs(folder)`
and `recorded.read_csv(results.csv)`, which give the same `results.Runs`, and `write.write_report(runs, folder)`, which
writes tables, figures and one HTML page. `comparison` holds the statistics. A challenge set is known here only
as the record that the caller hands in (`utils.data.challenge`).
"""

"""The control plane of jobs: people's own programs, run as supervised services (FloydHub's serve, command and jupyter modes).

`service.Jobs` is the facade that dialects use, `board.Board` what the endpoints look at, `runner.Runner` the one that acts, in the first worker
of the server that owns the data directory. What is desired and what was observed is one record per job in the store (`kept.Kept`).
"""

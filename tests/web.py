"""HTTP for tests that only want an answer: `web.get(url)` and the like, as httpx's own functions, each on a connection of its own.

Those make all that TLS needs anew for every call, which takes a hundred times as long as the call, and give up after 5 s.
"""

import httpx

web = httpx.Client(timeout=60.0, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)

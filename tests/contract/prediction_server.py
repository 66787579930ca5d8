"""A process that runs predictions over a real database, for tests that kill it: it says on standard output what it has done.

    python -m tests.contract.prediction_server STORE DATA_DIR ACCEPT RUNS

accepts that many predictions, starts that many of them, never finishes any, and waits to be killed.
"""

import asyncio
import sys
from pathlib import Path

from tests.stores import SHARED
from tests.unit.predictions.rig import Bench


async def main(case: str, folder: Path, accept: int, runs: int) -> None:
    store = await next(each for each in SHARED if each.name == case).open(folder)
    it = Bench(folder, store)
    keys = list(await asyncio.gather(*(it.submit({"n": n}) for n in range(accept))))
    await it.asked(accept)
    for number in range(runs):
        it.servable.start(number, f"started {number}\n")
    await it.service.beat()
    numbers = [request.inputs.items[0]["n"] for request in it.servable.asked[:runs]]  # type: ignore[index] # rows
    for number, key in enumerate(keys):
        print(key, "running" if number in numbers else "waiting", flush=True)  # what the test reads
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))

"""Measures the plain server, then one and two replicas behind Ray's proxy; run it on an idle machine.

unshare --map-root-user --net sh -c 'ip link set lo up && PYTHONPATH=. .venv/bin/python -m tools.measure.ray'
"""

import subprocess
import sys

import ray
from ray import serve

from service.ray_serve.app import Scaling, app
from tests.support import processes

URL = "http://127.0.0.1:8000"
BENCH = (*processes.PROGRAM, "bench", "http", "--concurrency", "1,16", "--seconds", "10", "--url")


def measure(name: str, url: str) -> None:
    print(f"\n{name}", flush=True)
    subprocess.run([*BENCH, url], check=True, stderr=sys.stdout)


with processes.server() as plain:
    measure("pranet serve", plain.url)
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": 8000})
for replicas in (1, 2):
    serve.run(app(Scaling(min_replicas=replicas, max_replicas=replicas)), name="pranet")
    measure(f"Ray Serve, {replicas} replicas", URL)
ray.shutdown()

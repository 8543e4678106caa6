"""others.py EDGE RUNS: products of arrays in this process by Ray and by Dask, two workers of one thread each."""

import os
import statistics
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # in the workers, too
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import numpy as np

edge, runs = int(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(2)
operations = 2 * edge**3 / 1e9


def report(name, transfer, place, placed):
    """`transfer` takes two arrays to the product, `place` takes them to the workers, `placed` multiplies there."""
    arrays, there = [], []
    for run in range(runs + 1):
        a, b = random.random((edge, edge)), random.random((edge, edge))
        start = time.perf_counter()
        product = transfer(a, b)
        end = time.perf_counter()
        row = edge // 3
        assert np.allclose(product[row], a[row] @ b, rtol=0, atol=1e-9 * edge)
        parts = place(a, b)
        begin = time.perf_counter()
        placed(parts)
        done = time.perf_counter()
        if run > 0:  # the first warms everything up
            arrays.append(operations / (end - start))
            there.append(operations / (done - begin))
    print(
        f"  {name}: from arrays to array {statistics.median(arrays):.1f} GFLOP/s, "
        f"operands placed, result left there {statistics.median(there):.1f} (medians)",
        flush=True,
    )


def by_ray():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             _node_ip_address="127.0.0.1", object_store_memory=4 << 30)

    @ray.remote(num_cpus=1)
    def multiply(rows, b):
        return rows @ b

    half = edge // 2

    def start(parts):
        return [multiply.remote(rows, parts[2]) for rows in parts[:2]]

    def place(a, b):
        return [ray.put(part) for part in (a[:half], a[half:], b)]

    def transfer(a, b):
        return np.vstack(ray.get(start(place(a, b))))

    def placed(parts):
        ray.wait(start(parts), num_returns=2)

    report(f"Ray {ray.__version__}", transfer, place, placed)
    ray.shutdown()


def by_dask():
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    client = Client(cluster)
    half = edge // 2

    def chunked(a, b):
        return da.from_array(a, chunks=(half, edge)), da.from_array(b, chunks=(edge, edge))

    def transfer(a, b):
        x, y = chunked(a, b)
        return (x @ y).compute()

    def place(a, b):
        parts = client.persist(list(chunked(a, b)))
        wait(parts)
        return parts

    def placed(parts):
        wait(client.persist(parts[0] @ parts[1]))

    report(f"Dask {dask.__version__}", transfer, place, placed)
    client.close()
    cluster.close()


if __name__ == "__main__":
    by_ray()
    by_dask()

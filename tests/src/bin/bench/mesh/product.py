"""product.py HOST:PORT EDGE RUNS: products of arrays in this process, by NumPy and by a node."""

import http.client
import json
import statistics
import sys
import time

import numpy as np

address, edge, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
host, port = address.rsplit(":", 1)
connection = http.client.HTTPConnection(host, int(port))
random = np.random.default_rng(1)


def call(method, path, body=None, kind="application/octet-stream"):
    connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
    answer = connection.getresponse()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {answer.read()}")
    return answer


def header(array):
    """What precedes the elements in an .npy file of version 1."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {array.shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def pieces(array):
    yield header(array)
    flat = memoryview(array).cast("B")
    for start in range(0, len(flat), 1 << 20):
        yield flat[start : start + (1 << 20)]


def put(array):
    length = len(header(array)) + array.nbytes
    connection.putrequest("PUT", "/api/matrices")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    for piece in pieces(array):
        connection.send(piece)
    answer = connection.getresponse()
    if answer.status >= 300:
        sys.exit(f"PUT: {answer.status} {answer.read()}")
    return json.load(answer)["id"]


def get(path):
    answer = call("GET", path)
    assert answer.read(8) == b"\x93NUMPY\x01\x00"
    answer.read(int.from_bytes(answer.read(2), "little"))
    result = np.empty((edge, edge))
    view, done = memoryview(result).cast("B"), 0
    while done < len(view):
        read = answer.readinto(view[done:])
        assert read > 0
        done += read
    answer.read()
    return result


def product(a, b):
    body = json.dumps({"a": a, "b": b}).encode()
    return json.load(call("POST", "/api/jobs", body, "application/json"))["job"]


operations = 2 * edge**3 / 1e9
arrays, placed, alone, rates = [], [], [], []
for run in range(runs + 1):
    a, b = random.random((edge, edge)), random.random((edge, edge))
    start = time.perf_counter()
    wanted = a @ b
    numpy = time.perf_counter() - start
    start = time.perf_counter()
    ids = put(a), put(b)
    stored = time.perf_counter()
    job = product(*ids)
    found = get(f"/api/jobs/{job}/result?format=npy&wait=100")
    end = time.perf_counter()
    job = json.load(call("GET", f"/api/jobs/{job}"))
    assert np.allclose(found, wanted, rtol=0, atol=1e-9 * edge)
    if run == 0:
        continue  # warms everything up
    arrays.append(numpy / (end - start))
    rates.append(operations / (end - start))
    placed.append(numpy / job["seconds"])
    alone.append(operations / numpy)
    print(
        f"    NumPy {numpy:.2f} s; storing both {stored - start:.2f} s, job {job['seconds']:.2f} s, "
        f"result and waiting {end - stored - job['seconds']:.2f} s"
    )
print(
    f"    NumPy {statistics.median(alone):.0f} GFLOP/s; from arrays to array {statistics.median(rates):.1f}, "
    f"{statistics.median(arrays):.2f} times as fast; the job alone {statistics.median(placed):.2f} times (medians)"
)

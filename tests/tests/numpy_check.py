"""Compares products with NumPy's, over HTTP and with the command: numpy_check.py URL PROGRAM."""

import io
import json
import subprocess
import sys
import urllib.request

import numpy as np

url, program = sys.argv[1:]
random = np.random.default_rng(20)


def call(method, path, data=None):
    request = urllib.request.Request(url + path, data, method=method)
    return urllib.request.urlopen(request).read()


def put(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return json.loads(call("PUT", "/api/matrices", file.getvalue()))["id"]


def over_http(a, b, **fields):
    body = json.dumps({"a": put(a), "b": put(b), **fields}).encode()
    job = json.loads(call("POST", "/api/jobs", body))["job"]
    return np.load(io.BytesIO(call("GET", f"/api/jobs/{job}/result?format=npy&wait=60")))


def with_the_command(a, b):
    np.save("a.npy", a)
    np.save("b.npy", b)
    subprocess.run([program, "multiply", "a.npy", "b.npy", "-o", "c.npy"], check=True)
    return np.load("c.npy")


def agree(what, got, wanted, scale, tolerance, dtype):
    assert got.dtype == np.dtype(dtype), (what, got.dtype)
    assert got.shape == wanted.shape, (what, got.shape)
    worst = np.max(np.abs(got - wanted) / scale)
    assert worst <= tolerance, (what, worst)
    print(f"{what}: {worst:.1e}")


for rows, inner, cols in [(1, 1, 1), (3, 5, 2), (257, 300, 129), (640, 500, 700)]:
    a = random.uniform(-1, 1, (rows, inner))
    b = random.uniform(-1, 1, (inner, cols))
    wanted, scale = a @ b, np.abs(a) @ np.abs(b)
    shape = f"{rows}x{inner}x{cols}"
    for way in (over_http, with_the_command):
        agree(f"f64 {shape} {way.__name__}", way(a, b), wanted, scale, 1e-12, "f8")
    agree(f"f64 {shape} reproducible", over_http(a, b, reproducible=True), wanted, scale, 1e-12, "f8")
    # The order of the elements and of their bytes is NumPy's business.
    agree(f"f64 {shape} Fortran", over_http(np.asfortranarray(a), b), wanted, scale, 1e-12, "f8")
    agree(f"f64 {shape} big-endian", over_http(a.astype(">f8"), b), wanted, scale, 1e-12, "f8")
    single = [m.astype("f4") for m in (a, b)]
    wanted32 = single[0].astype("f8") @ single[1].astype("f8")
    agree(f"f32 {shape}", over_http(*single), wanted32, scale, 1e-5, "f4")
    whole = [random.integers(-(2**20), 2**20, m.shape) for m in (a, b)]
    for way in (over_http, with_the_command):
        got = way(*whole)
        assert got.dtype == np.dtype("i8") and (got == whole[0] @ whole[1]).all(), (shape, way)

# Files of other versions of the format, and other integers.
a, b = random.uniform(-1, 1, (20, 30)), random.uniform(-1, 1, (30, 10))
for version in [(1, 0), (2, 0), (3, 0)]:
    assert put(a, version=version) == put(a), version
for kind in ["i1", "i2", "i4", "u1", "u2", "u4", ">i4"]:
    whole = [np.abs(random.integers(0, 100, m.shape)).astype(kind) for m in (a, b)]
    got = over_http(*whole)
    assert (got == whole[0].astype("i8") @ whole[1].astype("i8")).all(), kind

print("all agree")

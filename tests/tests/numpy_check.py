"""Compares products with NumPy's, over HTTP and with the command: numpy_check.py URL PROGRAM."""

import io
import json
import subprocess
import sys
import urllib.error
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

# NaN and infinities go where IEEE 754 takes them, whatever the other elements are.
for dtype in ("f8", "f4"):
    for rows, inner, cols in [(2, 3, 2), (70, 65, 90), (300, 40, 280), (1, 3000, 1)]:
        a = random.integers(-3, 4, (rows, inner)).astype(dtype)
        b = random.integers(-3, 4, (inner, cols)).astype(dtype)
        for m in (a, b):
            for special in (np.nan, np.inf, -np.inf, -0.0):
                m[random.integers(0, m.shape[0], 2), random.integers(0, m.shape[1], 2)] = special
        with np.errstate(invalid="ignore"):
            # Term by term: a library may leave out what is multiplied by zero.
            wanted = sum(np.multiply.outer(a[:, k], b[k]) for k in range(inner))
        for fields in ({}, {"reproducible": True}):
            got = over_http(a, b, **fields)
            # Sums of small integers are exact, so nothing is left to rounding.
            assert np.array_equal(got, wanted, equal_nan=True), (dtype, rows, inner, cols, fields)

# The largest and smallest numbers, and those below the normal ones.
for dtype in ("f8", "f4"):
    info = np.finfo(dtype)
    a = np.array([[info.max, info.tiny], [info.smallest_subnormal, -0.0]], dtype)
    b = np.array([[2, -0.5], [1, 0.5]], dtype)
    with np.errstate(over="ignore"):
        wanted = np.multiply.outer(a[:, 0], b[0]) + np.multiply.outer(a[:, 1], b[1])
    got = over_http(a, b)
    assert np.array_equal(got, wanted), (dtype, got, wanted)

# Unsigned integers of 64 bits, and what no element type holds.
whole = np.array([[2**64 - 1, 0], [1, 2**63]], "u8")
got = over_http(whole, np.eye(2, dtype="i8"))
assert got.dtype == np.dtype("u8") and (got == whole).all(), got
for other in [np.eye(2) > 0, np.eye(2, dtype="f2"), np.eye(2, dtype="c16"), np.zeros(3), np.zeros((1, 1, 2, 3)), np.array(5.0)]:
    try:
        put(other)
    except urllib.error.HTTPError as error:
        assert error.code == 422, (other, error.code)
        said = json.load(error)["error"]
        assert all(said[part] for part in ("code", "message", "hint")), said
    else:
        raise AssertionError(other)

print("all agree")

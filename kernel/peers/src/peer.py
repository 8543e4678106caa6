"""Answers the benchmark line by line: prepare a product, then time it by this thread's CPU clock."""

import random
import sys
import time

import numpy

try:
    import flint
except ImportError:
    flint = None

product = None


def prepare(kind, *sizes):
    global product
    product = None
    if kind in ("f64", "f32"):
        m, k, n = map(int, sizes)
        dtype = numpy.float64 if kind == "f64" else numpy.float32
        a = (numpy.random.rand(m, k) - 0.5).astype(dtype)
        b = (numpy.random.rand(k, n) - 0.5).astype(dtype)
        c = numpy.zeros((m, n), dtype)
        product = lambda: numpy.matmul(a, b, out=c)
        return ""
    n, bits = map(int, sizes)
    if kind == "fmpz":
        draw = lambda: random.getrandbits(bits) - (1 << (bits - 1))
        make = lambda: flint.fmpz_mat(n, n, [draw() for _ in range(n * n)])
    else:
        modulus = largest_prime_below(1 << bits)
        make = lambda: flint.nmod_mat(n, n, [random.randrange(modulus) for _ in range(n * n)], modulus)
    a, b = make(), make()
    product = lambda: a * b
    return ""


def largest_prime_below(n):
    n -= 1
    while not flint.fmpz(n).is_prime():
        n -= 1
    return n


def run(times):
    times = int(times)
    start = time.thread_time()
    for _ in range(times):
        product()
    return repr((time.thread_time() - start) / times)


def about():
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    words = ["NumPy", numpy.__version__, "with", blas["name"], blas["version"]]
    if flint:
        words += ["·", "python-flint", flint.__version__, "with FLINT", flint.__FLINT_VERSION__]
    return " ".join(words)


for line in sys.stdin:
    name, *arguments = line.split()
    try:
        answer = "ok " + {"prepare": prepare, "run": run, "about": about}[name](*arguments)
    except Exception as error:
        answer = f"error {type(error).__name__}: {error}"
    print(answer.replace("\n", " "), flush=True)

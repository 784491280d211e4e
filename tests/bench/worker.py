#!/usr/bin/env python3
"""Run one scenario with one Python client adapter; print one JSON object.

Run with the interpreter of the environment that holds the client:
    PYTHON worker.py ADAPTER SCENARIO HOST PARAMS_JSON
"""

import sys
import time

_T0 = time.perf_counter()


def rss_kb() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4


def scenario_import(adapter_name: str) -> dict:
    """Measured before anything else of this harness is imported."""
    import importlib.util
    import os

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    importlib.import_module("adapters.base")
    spec = importlib.util.find_spec("adapters." + adapter_name)
    names = []
    with open(spec.origin) as f:  # without running it
        for line in f:
            if line.startswith("IMPORTS"):
                scope: dict = {}
                exec(line, scope)
                names = scope["IMPORTS"]
    before, rss0, t0, c0 = (
        len(sys.modules),
        rss_kb(),
        time.perf_counter(),
        time.process_time(),
    )
    for name in names:
        importlib.import_module(name)
    return {
        "import_ms": (time.perf_counter() - t0) * 1e3,
        "import_cpu_ms": (time.process_time() - c0) * 1e3,
        "modules": len(sys.modules) - before,
        "rss_mb": rss_kb() / 1024,
        "rss_added_mb": (rss_kb() - rss0) / 1024,
    }


if len(sys.argv) > 2 and sys.argv[2] == "import":
    import json

    print(json.dumps(scenario_import(sys.argv[1])))
    sys.exit(0)

import gc
import importlib
import json
import os
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def pct(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def summary_ns(lat):
    return {
        "p50_us": pct(lat, 0.5) / 1e3,
        "p90_us": pct(lat, 0.9) / 1e3,
        "p99_us": pct(lat, 0.99) / 1e3,
        "max_us": max(lat) / 1e3,
    }


def spread(starts, ends, counts, gaps, wall, cpu):
    rates = [c / max(e - s, 1e-9) for s, e, c in zip(starts, ends, counts, strict=True)]
    total = sum(counts)
    return {
        "fragments": total,
        "per_s": total / wall,
        "cpu_ms_per_1000": cpu * 1e6 / total,
        "slowest_over_fastest": min(rates) / max(rates),
        "max_gap_ms": max(gaps) * 1e3,
        "threads": threading.active_count(),
    }


# -- sync ---------------------------------------------------------------------
class Sync:
    def __init__(self, adapter, host, params):
        self.a, self.host, self.p = adapter, host, params

    def open(self):
        self.a.open(self.host)

    def warm(self):
        self.a.count_tokens("warm up")
        for _ in self.a.stream('{"n":50}'):
            pass

    def connect(self):
        t0 = time.perf_counter()
        self.a.open(self.host)
        t1 = time.perf_counter()
        self.a.count_tokens("x")
        t2 = time.perf_counter()
        return {
            "open_ms": (t1 - t0) * 1e3,
            "first_rpc_ms": (t2 - t0) * 1e3,
            "threads": threading.active_count(),
            "rss_mb": rss_kb() / 1024,
        }

    def rpc(self):
        self.open()
        self.warm()
        n, lat, f = self.p.get("n", 1000), [], self.a.count_tokens
        c0, t0 = time.process_time(), time.perf_counter()
        for _ in range(n):
            s = time.perf_counter_ns()
            f("hello world")
            lat.append(time.perf_counter_ns() - s)
        wall, cpu = time.perf_counter() - t0, time.process_time() - c0
        return {"per_s": n / wall, "cpu_us": cpu / n * 1e6, **summary_ns(lat)}

    def stream(self):
        self.open()
        self.warm()
        n = self.p.get("n", 20000)
        prompt = json.dumps({"n": n, **self.p.get("spec", {})})
        content, got, chars, first = self.a.content, 0, 0, None
        c0, t0 = time.process_time(), time.perf_counter()
        for fragment in self.a.stream(prompt):
            if first is None:
                first = time.perf_counter() - t0
            got += 1
            chars += len(content(fragment))
        wall, cpu = time.perf_counter() - t0, time.process_time() - c0
        assert got == n, (got, n)
        return {
            "per_s": n / wall,
            "cpu_ms_per_1000": cpu / n * 1e6,
            "first_ms": first * 1e3,
        }

    def respond(self):
        self.open()
        self.warm()
        n = self.p.get("n", 20000)
        c0, t0 = time.process_time(), time.perf_counter()
        text = self.a.respond(json.dumps({"n": n}))
        wall, cpu = time.perf_counter() - t0, time.process_time() - c0
        assert len(text) >= n
        return {"per_s": n / wall, "cpu_ms_per_1000": cpu / n * 1e6}

    def paced(self):
        self.open()
        self.warm()
        n, rate = self.p.get("n", 600), self.p.get("rate", 200)
        lat, content, now = [], self.a.content, time.monotonic_ns
        c0 = time.process_time()
        for fragment in self.a.stream(json.dumps({"n": n, "rate": rate, "ts": True})):
            t = now()
            lat.append(t - int(content(fragment)))
        cpu = time.process_time() - c0
        assert len(lat) == n
        return {**summary_ns(lat[5:]), "cpu_ms_per_1000": cpu / n * 1e6}

    def concurrent(self):
        self.open()
        self.warm()
        k, total = self.p["k"], self.p.get("total", 64000)
        n = total // k
        rate = self.p.get("rate")
        spec = {"n": n, "together": k}
        if rate:
            spec = {"n": n, "rate": rate, "ts": True}
        prompt = json.dumps(spec)
        starts, ends, counts, gaps = [0.0] * k, [0.0] * k, [0] * k, [0.0] * k
        lats = [[] for _ in range(k)]
        barrier = threading.Barrier(k + 1)
        errors = []

        def one(i):
            try:
                barrier.wait()
                now, c, gap = time.perf_counter, 0, 0.0
                content, lat, mono = self.a.content, lats[i], time.monotonic_ns
                starts[i] = last = now()
                for fragment in self.a.stream(prompt):
                    if rate:
                        lat.append(mono() - int(content(fragment)))
                    t = now()
                    if t - last > gap and c:
                        gap = t - last
                    last = t
                    c += 1
                ends[i], counts[i], gaps[i] = last, c, gap
            except BaseException as exc:
                errors.append(repr(exc))

        ts = [threading.Thread(target=one, args=(i,)) for i in range(k)]
        for t in ts:
            t.start()
        c0 = time.process_time()
        barrier.wait()
        t0 = time.perf_counter()
        peak = threading.active_count()
        for t in ts:
            t.join()
        wall, cpu = time.perf_counter() - t0, time.process_time() - c0
        assert not errors and counts == [n] * k, (errors[:1], counts[:4])
        out = spread(starts, ends, counts, gaps, wall, cpu)
        out["threads"] = peak - k  # the client's own (and the main one)
        if rate:
            out.update(summary_ns([x for lat in lats for x in lat]))
        return out

    def cancel(self):
        self.open()
        self.warm()
        out = []
        for i in range(self.p.get("times", 20)):
            spec = {
                "n": self.p.get("n", 100000),
                "tag": f"c{i}",
                **self.p.get("spec", {}),
            }
            stream = self.a.stream(json.dumps(spec))
            got, t_cancel, after = 0, None, 0
            for _ in stream:
                got += 1
                if t_cancel is not None:
                    after += 1
                elif got == self.p.get("after", 20):
                    t_cancel = time.monotonic_ns()
                    stream.cancel()
                    t_back = time.monotonic_ns()
            t_end = time.monotonic_ns()
            out.append(
                {
                    "tag": f"c{i}",
                    "t_cancel": t_cancel,
                    "call_us": (t_back - t_cancel) / 1e3,
                    "iterator_end_us": (t_end - t_cancel) / 1e3,
                    "after": after,
                }
            )
        return {"cancels": out}

    def soak(self):
        self.open()
        self.warm()
        count, n = self.p.get("count", 1000), self.p.get("n", 200)
        prompt = json.dumps({"n": n})
        for _ in range(20):
            for _f in self.a.stream(prompt):
                pass
        gc.collect()
        rss0, objs0 = rss_kb(), len(gc.get_objects())
        t0 = time.perf_counter()
        for _ in range(count):
            for _f in self.a.stream(prompt):
                pass
        wall = time.perf_counter() - t0
        rss1 = rss_kb()
        # The first ones also find out how much can be waiting at once. What grows after
        # them is kept for each: as many as there is time for, at most.
        later, over = 0, time.perf_counter() + self.p.get("later_s", 20)
        while later < self.p.get("later", 9000) and time.perf_counter() < over:
            for _f in self.a.stream(prompt):
                pass
            later += 1
        rss2 = rss_kb()
        gc.collect()
        return {
            "rss_start_mb": rss0 / 1024,
            "rss_growth_kb": rss1 - rss0,
            "later": later,
            "rss_later_bytes": (rss2 - rss1) * 1024 / max(1, later),
            "objects_growth": len(gc.get_objects()) - objs0,
            "predictions_per_s": count / wall,
            "threads": threading.active_count(),
        }


def main() -> None:
    adapter_name, scenario, host, params = sys.argv[1:5]
    module = importlib.import_module("adapters." + adapter_name)
    for name in module.IMPORTS:
        importlib.import_module(name)
    adapter, params = module.Adapter(), json.loads(params)
    result = getattr(Sync(adapter, host, params), scenario)()
    print(json.dumps(result), flush=True)
    adapter.close()


if __name__ == "__main__":
    main()

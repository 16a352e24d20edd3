#!/usr/bin/env python3
"""cloakroom side by side with other proxies on this machine: interleaved in one run, minima and ratios.

  run              all of it, but for `growth` (some 10 minutes)
  cpu              CPU per request only (some 3 minutes)
  instructions     user instructions per request, under callgrind (slow, and repeatable to 0.1 %)
  growth           cloakroom alone, as fields, routes, sessions and connections grow
  check            what each peer does, seen from both sides
  streams, memory, rest     parts of `run`

The proxy runs on CPU 0; the load, the backend and Redis on CPU 1. Everything is on 127.0.0.1, bounded, and stopped by
its pid. `ROUNDS` (4) and `SECONDS` (4) say how long to measure, `PEERS` (a list with commas) whom.
"""
import base64, hashlib, json, os, re, resource, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.environ["PEERS_BIN"]
CLOAKROOM = os.environ["CLOAKROOM_BIN"]
ROUNDS = int(os.environ.get("ROUNDS", "4"))
SECONDS = float(os.environ.get("SECONDS", "4"))
RATE = 3000
SESSIONS, TOKENS = 1000, 200
DIR = tempfile.mkdtemp(prefix="compare.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
TOKEN = "bench-" + hashlib.sha256(os.urandom(32)).hexdigest()
ISSUER = "https://issuer.bench.local/"
running = []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


PORTS = {"BACKEND": free_port(), "SSE": free_port(), "REDIS": free_port()}


# ---- processes -------------------------------------------------------------------------------------------------

def spawn(argv, env=None, cpu=None, log="log"):
    def prepare():
        os.setsid()
        resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
    argv = (["taskset", "-c", str(cpu)] if cpu is not None else []) + argv
    with open(f"{DIR}/{log}.log", "ab") as out:
        process = subprocess.Popen(argv, env={**os.environ, "BENCH_TOKEN": TOKEN, **(env or {})}, stdout=out, stderr=out,
                                   stdin=subprocess.DEVNULL, preexec_fn=prepare)
    running.append(process)
    return process


def family(pid):
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children") as f:
                    todo += [int(child) for child in f.read().split()]
        except OSError:
            pass
    return found


def stop(process, sign=signal.SIGTERM):
    pids = family(process.pid)
    try:
        os.kill(process.pid, sign)
        process.wait(10)
    except (OSError, subprocess.TimeoutExpired):
        pass
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    process.wait()
    if process in running:
        running.remove(process)


def cpu_micros(pid):
    """User and system time of a process and its children, to the nanosecond that the scheduler counts."""
    nanos = 0
    for one in family(pid):
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/schedstat") as f:
                    nanos += int(f.read().split()[0])
        except OSError:
            pass
    return nanos / 1000


def memory_kib(pid):
    """Memory that is a process family's own, and its share of what it shares."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            pass
    return total


def wait_for(port, seconds=15):
    until = time.time() + seconds
    while time.time() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 0.3).close()
            return True
        except OSError:
            time.sleep(0.01)
    return False


def fill(source, name, **more):
    with open(f"{HERE}/conf/{source}") as f:
        text = f.read()
    for key, value in {"DIR": DIR, "CONF": f"{HERE}/conf", "NAME": name, "BODY": "x" * 200, **PORTS, **more}.items():
        text = text.replace(f"@{key}@", str(value))
    path = f"{DIR}/{name}{os.path.splitext(source)[1]}"
    with open(path, "w") as f:
        f.write(text)
    return path


def load(port, **options):
    argv = ["taskset", "-c", "1", f"{BIN}/load", "--addr", f"127.0.0.1:{port}"]
    argv += [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150)
    if done.returncode:
        raise SystemExit(f"the load on port {port} failed: {done.stderr[-300:]}")
    return json.loads(done.stdout)


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- sessions and tokens -----------------------------------------------------------------------------------------

def redis(*commands):
    """Sends commands and gives back what came, as bytes."""
    with socket.create_connection(("127.0.0.1", PORTS["REDIS"])) as link:
        for command in commands:
            parts = [part.encode() for part in command]
            link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        link.sendall(b"*1\r\n$4\r\nQUIT\r\n")
        answer = b""
        while got := link.recv(1 << 16):
            answer += got
        return answer


def redis_commands():
    return int(re.search(rb"total_commands_processed:(\d+)", redis(("INFO", "stats")))[1])


def write_lines(name, lines):
    with open(f"{DIR}/{name}.lines", "w") as f:
        f.write("\n".join(lines))
    return f"{DIR}/{name}.lines"


def fields(number, more=0):
    """Ten fields of a session, or so many more or fewer."""
    all_ = {"user_id": f"user-{number:05}", "email": f"user{number:05}@example.org", "tenant": "acme-north",
            "roles": ["reader", "editor", "billing"], "locale": "en-GB", "theme": "dark", "plan": "team",
            "project": f"proj-{number % 97}", "step": number % 7, "note": hashlib.sha256(str(number).encode()).hexdigest()[:32],
            **{f"more_{at}": f"value-{at}-of-{number}" for at in range(more)}}
    return dict(list(all_.items())[:10 + more])


def seed_lua():
    ids, commands = [], []
    for number in range(SESSIONS):
        one = fields(number)
        ids.append(hashlib.sha256(f"bench{number}".encode()).hexdigest()[:32])
        flat = [text for key, value in one.items() if key != "email" for text in (key, str(value))]
        commands += [["HSET", f"session:{ids[-1]}", "ver", "1", "user", one["user_id"], *flat],
                     ["EXPIRE", f"session:{ids[-1]}", "1800"]]
    redis(*commands)
    return write_lines("lua", [f"Cookie: lang=en; sid={one}; consent=yes" for one in ids])


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_key():
    """An ES256 key for tokens, and its public half as a key set."""
    key = f"{DIR}/issuer.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
    der = subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
    x, y = der[-64:-32], der[-32:]
    jwk = {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1", "x": base64url(x), "y": base64url(y)}
    with open(f"{DIR}/jwks.json", "w") as f:
        json.dump({"keys": [jwk]}, f)


def raw_signature(der):
    """The two numbers of a DER signature, 32 bytes each."""
    at, numbers = 2, []
    for _ in range(2):
        size = der[at + 1]
        numbers.append(der[at + 2:at + 2 + size].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + size
    return b"".join(numbers)


def make_token(number):
    now = int(time.time())
    one = fields(number)
    claims = {"iss": ISSUER, "aud": "agents", "sub": one["user_id"], "sid": f"login-{number}", "iat": now, "exp": now + 86400,
              "jti": f"token-{number}", **{key: one[key] for key in ("email", "roles", "tenant", "locale", "plan", "project", "theme")}}
    head = {"alg": "ES256", "typ": "JWT", "kid": "k1"}
    signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", f"{DIR}/issuer.pem"], input=signed.encode(),
                         capture_output=True, check=True).stdout
    return f"{signed}.{base64url(raw_signature(der))}"


# ---- peers -------------------------------------------------------------------------------------------------------

class Peer:
    """A proxy in front of a backend; `lines` are the header lines that requests to it carry."""

    def __init__(self, name, argv, port, env=None, lines=None, wrap=(), status=None, admin=None):
        self.name, self.port, self.lines, self.status, self.admin = name, port, lines, status, admin
        self.process = spawn([*wrap, *argv], env, None if wrap else 0, name)
        if not wait_for(port, 90 if wrap else 15):
            with open(f"{DIR}/{name}.log", errors="replace") as f:
                raise SystemExit(f"{name} did not start: {f.read()[-1500:]}")

    def load(self, **options):
        return load(self.port, **({"lines": self.lines} if self.lines else {}), **options)

    def measured(self, **options):
        """One run of load, and what the proxy spent on it."""
        commands, before = redis_commands(), cpu_micros(self.process.pid)
        result = self.load(**options)
        spent = cpu_micros(self.process.pid) - before
        result["cpu"] = spent / max(result["done"], 1)
        result["redis"] = max(redis_commands() - commands - 2, 0) / max(result["done"], 1)
        return result

    def stop(self, sign=signal.SIGTERM):
        stop(self.process, sign)


def nginx(source, name, lines=None, **more):
    def start(upstream, wrap=()):
        port = free_port()
        conf = fill(source, name, PORT=port, UPSTREAM=upstream, **more)
        single = ["-g", "master_process off;"] if wrap else []
        return Peer(name, ["nginx", "-c", conf, "-p", DIR, *single], port, lines=lines and lines(), wrap=wrap)
    return start


def haproxy(upstream, wrap=()):
    port = free_port()
    return Peer("haproxy", ["haproxy", "-db", "-f", fill("haproxy.cfg", "haproxy", PORT=port, UPSTREAM=upstream)], port, wrap=wrap)


def from_peers(program, name):
    def start(upstream, wrap=()):
        port = free_port()
        env = {"LISTEN": f"127.0.0.1:{port}", "UPSTREAM": f"127.0.0.1:{upstream}"}
        return Peer(name, [f"{BIN}/{program}"], port, env, wrap=wrap)
    return start


def redis_store(mode):
    url = f"redis://127.0.0.1:{PORTS['REDIS']}/0"
    return f"{{ kind: redis, url: \"{url}\", timeout: 5s, cache: {{ mode: {mode} }} }}"


JWT = """  jwt:
    - issuer: {issuer}
      audience: [agents]
      jwks: {{ file: {dir}/jwks.json }}
      algorithms: [ES256]
      claims: {{ user_id: sub, email: email, roles: roles, tenant: tenant, locale: locale, plan: plan, project: project, theme: theme }}"""


def cloakroom(name, store=None, jwt=False, more=0, routes=0, sessions=SESSIONS):
    def start(upstream, wrap=()):
        ports = {key: free_port() for key in ("PORT", "ADMIN", "STATUS")}
        conf = fill("cloakroom.yaml", name, **ports, UPSTREAM=upstream, STORE=store or redis_store("tracking"),
                    JWT=JWT.format(issuer=ISSUER, dir=DIR) if jwt else "",
                    FIELDS="\n".join(f"      more_{at}: {{ type: string, section: task, max: 64B }}" for at in range(more)),
                    ROUTES="\n".join(f"  - {{ name: r{at}, match: {{ path: /other/{at} }}, upstream: \"http://127.0.0.1:{upstream}\", session: none }}"
                                     for at in range(routes)))
        peer = Peer(name, [CLOAKROOM, "run", "--config", conf], ports["PORT"], wrap=wrap, status=ports["STATUS"], admin=ports["ADMIN"])
        until_ready(peer)
        if jwt:
            peer.lines = write_lines(name, [f"Authorization: Bearer {make_token(number)}" for number in range(TOKENS)])
        else:
            peer.lines = write_lines(name, [create(peer, number, more) for number in range(sessions)])
        return peer
    return start


def ask(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body and json.dumps(body).encode(),
                                     headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def until_ready(peer):
    for _ in range(3000):
        try:
            ask(peer.status, "/readyz")
            return
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"{peer.name} does not become ready")


def create(peer, number, more=0):
    made = json.loads(ask(peer.admin, "/v1/sessions", {"fields": fields(number, more)}))
    return f"Cookie: lang=en; session={made['session_id']}; consent=yes"


LUA = lambda: f"{DIR}/lua.lines"
PEERS = {
    "nginx": nginx("nginx.conf", "nginx"),
    "haproxy": haproxy,
    "pingora": from_peers("pingora_plain", "pingora"),
    "hyper": from_peers("hyper_plain", "hyper"),
    "nginx-lua": nginx("nginx_lua.conf", "nginx-lua", LUA, CACHE="false"),
    "nginx-lua, blind cache": nginx("nginx_lua.conf", "nginx-lua-cached", LUA, CACHE="true"),
    "cloakroom": cloakroom("cloakroom"),
    "cloakroom, JWT": cloakroom("cloakroom-jwt", jwt=True),
    "cloakroom, cache off": cloakroom("cloakroom-off", redis_store("off")),
}
WRITERS = ("nginx-lua", "nginx-lua, blind cache", "cloakroom", "cloakroom, cache off")
STREAMERS = ("nginx", "hyper", "cloakroom")


def chosen():
    names = os.environ.get("PEERS")
    return [name.strip() for name in names.split(";")] if names else list(PEERS)


def infrastructure():
    spawn(["redis-server", "--port", str(PORTS["REDIS"]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
           "--dir", DIR], cpu=1, log="redis")
    spawn(["nginx", "-c", fill("backend.conf", "backend"), "-p", DIR], cpu=1, log="backend")
    spawn([f"{BIN}/sse_backend"], {"LISTEN": f"127.0.0.1:{PORTS['SSE']}"}, 1, "sse")
    for name, port in PORTS.items():
        if not wait_for(port):
            raise SystemExit(f"{name} did not start")
    seed_lua()
    make_key()
    subprocess.run([CLOAKROOM, "keys", "generate", "--keyring", f"{DIR}/keyring.json"], check=True, capture_output=True)
    time.sleep(1.1)


# ---- what is measured --------------------------------------------------------------------------------------------

def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def least(runs, key="cpu"):
    return min(run[key] for run in runs) if runs else None


def cell(value, form="{:.1f}"):
    return "" if value is None else form.format(value)


def ratio(value, base):
    return "" if not value or not base else f"{value / base:.2f}"


def cpu():
    """CPU per request of each peer: as fast as answers come, with a change on each request, and at a steady rate."""
    peers = {name: PEERS[name](PORTS["BACKEND"]) for name in chosen()}
    for peer in peers.values():
        peer.load(secs=1, path="/")
    full, write, steady = ({name: [] for name in peers} for _ in range(3))
    order = list(peers)
    for turn in range(2 * ROUNDS):
        # Short slices in a turning order: what disturbs comes in bursts, and only ever adds.
        order = order[1:] + order[:1]
        say(f"slice {turn + 1} of {2 * ROUNDS}")
        for name in order:
            full[name].append(peers[name].measured(secs=SECONDS / 2, path="/"))
        for name in (name for name in order if name in WRITERS):
            write[name].append(peers[name].measured(secs=SECONDS / 4, path="/write"))
            # What was written is read anew by whoever had it at hand; the other columns are of sessions that stand.
            peers[name].load(n=4 * SESSIONS, path="/")
        if turn % 2:
            for name in order:
                steady[name].append(peers[name].measured(secs=SECONDS / 2, path="/", rate=RATE))
    for peer in peers.values():
        peer.stop()
    plain, lua, cached, hyper = (least(full.get(name, [])) for name in ("nginx", "nginx-lua", "nginx-lua, blind cache", "hyper"))
    rows = []
    for name in peers:
        own, slow, change = least(full[name]), least(steady[name]), least(write[name])
        bad = sum(run["errors"] + run["failures"] for runs in (full, write, steady) for run in runs[name])
        rows.append([name, cell(own), ratio(own, plain), ratio(own, lua), ratio(own, cached), ratio(own, least(full.get("pingora", []))),
                     cell(change), ratio(change, least(write.get("nginx-lua", []))), cell(slow), ratio(slow, least(steady.get("hyper", []))),
                     cell(max(run["per_second"] for run in full[name]), "{:.0f}"), cell(least(full[name], "redis"), "{:.2f}"), bad])
    print(f"CPU per request in µs, minima of {2 * ROUNDS} interleaved slices of {SECONDS / 2:g} s\n")
    table(["proxy", "CPU", "× nginx", "× nginx-lua", "× blind cache", "× Pingora", "with a change", "× nginx-lua", f"at {RATE}/s",
           "× hyper", "most per second", "Redis commands", "bad answers"], rows)


def streams():
    rows = []
    direct = load(PORTS["SSE"], mode="sse", n=16, path="/sse")
    rows.append(["none", cell(direct["first_p50"], "{:.0f}"), cell(direct["age_p50"], "{:.0f}"), cell(direct["age_p99"], "{:.0f}"), ""])
    for name in STREAMERS:
        peer = PEERS[name](PORTS["SSE"])
        # Once before, as sessions are warm in all other rows too.
        _, got = (peer.load(mode="sse", n=16, path="/sse") for _ in range(2))
        rows.append([name, cell(got["first_p50"], "{:.0f}"), cell(got["age_p50"], "{:.0f}"), cell(got["age_p99"], "{:.0f}"), got["broken"]])
        peer.stop()
    print("Streams of server-sent events: µs to the first event, and how old events are when they arrive\n")
    table(["proxy", "first event", "age, median", "age, 99 %", "broken"], rows)


def memory():
    rows = []
    for name in ("nginx", "haproxy", "pingora", "hyper", "cloakroom"):
        peer = PEERS[name](PORTS["BACKEND"])
        held = {count: held_memory(peer, count) for count in (1000, 5000)}
        rows.append([name, cell((held[5000] - held[1000]) / 4000)])
        peer.stop()
    print("Memory of a connection that has been idle for seven seconds, from 1,000 to 5,000 of them, in KiB\n")
    table(["proxy", "KiB"], rows)


def held_memory(peer, count):
    argv = [f"{BIN}/load", "--addr", f"127.0.0.1:{peer.port}", "--mode", "idle", "--conns", str(count), "--secs", "9"]
    holder = subprocess.Popen(argv + (["--lines", peer.lines] if peer.lines else []), stdout=subprocess.PIPE, text=True)
    if "held" not in holder.stdout.readline():
        raise SystemExit(f"{peer.name} does not hold {count} connections")
    # A connection rests after a second, and an allocator gives back what that frees some seconds later.
    time.sleep(7)
    memory = memory_kib(peer.process.pid)
    holder.wait(30)
    time.sleep(0.3)
    return memory


def at_rest():
    """How long from the start to readiness with the embedded store, and what the process then holds."""
    times, sizes = [], []
    for turn in range(5):
        ports = {key: free_port() for key in ("PORT", "ADMIN", "STATUS")}
        store = f"{{ kind: embedded, path: {DIR}/rest-{turn}.db }}"
        conf = fill("cloakroom.yaml", "rest", **ports, UPSTREAM=PORTS["BACKEND"], STORE=store, JWT="", FIELDS="", ROUTES="")
        begun = time.perf_counter()
        process = spawn([CLOAKROOM, "run", "--config", conf], cpu=0, log="rest")
        while True:
            try:
                ask(ports["STATUS"], "/readyz")
                break
            except OSError:
                if time.perf_counter() - begun > 15:
                    raise SystemExit("cloakroom does not become ready")
                time.sleep(0.001)
        times.append((time.perf_counter() - begun) * 1000)
        time.sleep(1)
        sizes.append(memory_kib(process.pid) / 1024)
        stop(process)
    print("At rest, embedded store\n")
    table(["from start to ready, ms", "memory, MiB"], [[cell(min(times), "{:.0f}"), cell(min(sizes))]])


COUNTED = 1000


def under_callgrind(start, path):
    """User instructions of one request, once some were answered that are not counted."""
    out = f"{DIR}/callgrind.out"
    peer = start(PORTS["BACKEND"], ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--smc-check=all-non-file",
                                    "--instr-atstart=no"))
    if peer.lines:
        with open(peer.lines) as f:
            peer.lines = write_lines("few", f.read().split("\n")[:100])
    def control(what):
        subprocess.run(["callgrind_control", "-i", what, str(peer.process.pid)], check=True, capture_output=True)
    peer.load(n=500, conns=8, path=path)
    control("on")
    result = peer.load(n=COUNTED, conns=8, path=path)
    control("off")
    peer.stop()
    if result["errors"] + result["failures"]:
        raise SystemExit(f"{peer.name} answered badly under callgrind")
    with open(out, errors="replace") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(("summary:", "totals:"))) / COUNTED


def instructions():
    rows = []
    for name in chosen():
        counts = []
        for path in ("/", "/write")[:1 + (name in WRITERS)]:
            # A process that sleeps does not always hear that it is to count.
            tries = (under_callgrind(PEERS[name], path) for _ in range(4))
            counts.append(next((count for count in tries if count), 0))
        rows.append([name, *(f"{count:,.0f}" if count else "" for count in counts)] + [""] * (2 - len(counts)))
        say(rows[-1])
    print("User instructions per request, warm\n")
    table(["proxy", "instructions", "with a change"], rows)


def fill_store(count):
    """So many sessions more in the store, of which nobody asks for any."""
    key = re.search(rb"bench:sessions:\{ses_[^}]*\}", redis(("SCAN", "0", "MATCH", "bench:sessions:*", "COUNT", "10000")))[0].decode()
    copy = "for i = 1, 10000 do redis.call('COPY', KEYS[1], 'bench:sessions:{ses_' .. ARGV[1] .. '_' .. i .. '}') end"
    for batch in range(count // 10_000):
        redis(("EVAL", copy, "1", key, str(batch)))


def growth():
    rows = []
    def one(label, start, prepare=lambda: None, **options):
        peer = start(PORTS["BACKEND"])
        prepare()
        peer.load(secs=2, path="/")
        runs = [peer.measured(secs=SECONDS / 2, path="/", **options) for _ in range(2 * ROUNDS)]
        rows.append([label, cell(least(runs)), cell(memory_kib(peer.process.pid) / 1024), sum(run["errors"] + run["failures"] for run in runs)])
        say(rows[-1])
        peer.stop()
    for more in (-9, 0, 20):
        one(f"{10 + more} fields", cloakroom(f"fields-{more}", more=more))
    for routes in (0, 99, 999):
        one(f"{routes + 1:,} routes", cloakroom(f"routes-{routes}", routes=routes))
    for conns in (10, 100, 1000, 5000):
        one(f"{conns:,} connections", cloakroom(f"conns-{conns}"), conns=conns)
    for sessions in (10, 1000, 10_000):
        one(f"{sessions:,} sessions in turn", cloakroom(f"sessions-{sessions}", sessions=sessions))
    one("1,000 sessions in turn, 1,000,000 in the store", cloakroom("sessions-many"), prepare=lambda: fill_store(1_000_000))
    print("cloakroom as things grow\n")
    table(["", "CPU per request, µs", "memory, MiB", "bad answers"], rows)


def check():
    for name in chosen():
        peer = PEERS[name](PORTS["BACKEND"])
        line = None
        if peer.lines:
            with open(peer.lines) as f:
                line = f.readline().strip()
        curl = ["curl", "-s", "-m", "5", "-H", "Cloakroom-Context: user_id=\"mallory\"", "-H", "X-Session-User: mallory"]
        with_line = curl + (["-H", line] if line else [])
        url = f"http://127.0.0.1:{peer.port}"
        seen = subprocess.run(with_line + [f"{url}/echo"], capture_output=True, text=True).stdout.strip()
        bare = subprocess.run(curl + ["-o", "/dev/null", "-w", "%{http_code}", f"{url}/echo"], capture_output=True, text=True).stdout
        head = subprocess.run(with_line + ["-D", "-", "-o", "/dev/null", f"{url}/write"], capture_output=True, text=True).stdout
        leaks = [word for word in ("cloakroom-set", "x-session-set") if word in head.lower()]
        print(f"{name}: {head.splitlines()[0] if head else 'no answer'}; without a credential {bare}; write-back headers left: {leaks}\n   {seen}")
        peer.stop()


def run():
    cpu()
    streams()
    memory()
    at_rest()
    instructions()


if __name__ == "__main__":
    what = {"run": run, "cpu": cpu, "instructions": instructions, "growth": growth, "check": check,
            "streams": streams, "memory": memory, "rest": at_rest}.get(sys.argv[1] if len(sys.argv) > 1 else "run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not what:
        raise SystemExit(__doc__)
    try:
        infrastructure()
        what()
    finally:
        for process in list(running):
            stop(process)
        shutil.rmtree(DIR, ignore_errors=True)

"""Caches in object storage, as machines share them: a folder, jobs of a cluster, a web server, S3 (moto); altered, cut, silent, refusing,
killed.

    python tests/remote.py KINSET FOLDER   # the program, built with the feature `remote`, and an empty folder to work in

Python's standard library is enough for all but S3, which needs moto (pip install 'moto[s3]' flask flask-cors). Without them that part is
skipped, with a word; where CI=true it fails.
"""

import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

program, folder = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2]).resolve()
folder.mkdir(parents=True, exist_ok=True)

PIPELINE = """
name = "shared"
device = "cpu"

[data.train]
dataset = "synthetic"
split = "train"
images = {images}
classes = 3
size = {size}

[stage.pixels]
kind = "pixels"
images = "data.train"

[stage.features]
kind = "embed"
images = "data.train"
encoder = "pixels"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5

[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pixels"
clusters = 3
"""
STAGES = ["data.train", "pixels", "features", "neighbors", "kmeans"]
SECRET = "kEy+ThatNobodyMaySee/0123456789"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


def check(what, found, wanted=True):
    if found != wanted:
        sys.exit(f"FAILED {what}\n  found  {found}\n  wanted {wanted}")


class Said:
    """How a command ended, and what it said."""

    def __init__(self, args, code, out, err, seconds):
        self.args, self.code, self.out, self.err, self.seconds = args, code, out, err, seconds

    def ends(self, code=0):
        if self.code != code:
            sys.exit(f"FAILED kinset {' '.join(map(str, self.args))}: exit code {self.code}, not {code}\n{self.out}\n{self.err}")
        return self

    @property
    def json(self):
        return json.loads(self.out)

    def warnings(self):
        return [line for line in self.err.splitlines() if "warning" in line]


class Machine:
    """A folder with the pipeline and a store of its own."""

    count = 0

    def __init__(self, like=None, images=30, size=8):
        Machine.count += 1
        self.folder = folder / f"machine-{Machine.count}"
        if like:
            shutil.copytree(like.folder, self.folder)
        else:
            self.folder.mkdir()
            (self.folder / "p.toml").write_text(PIPELINE.format(images=images, size=size))

    def start(self, *args, env=None):
        own = {name: value for name, value in os.environ.items() if not name.startswith(("KINSET_", "AWS_"))}
        own |= {"HOME": str(self.folder), **CREDENTIALS, **(env or {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([program, *map(str, args)], cwd=self.folder, env=own, text=True, **pipes)

    def kinset(self, *args, env=None):
        began = time.monotonic()
        process = self.start(*args, env=env)
        out, err = process.communicate(timeout=120)
        return Said(args, process.returncode, out, err, time.monotonic() - began)

    def run(self, *args, env=None):
        return self.kinset("run", "p.toml", "--json", "--no-report", *args, env=env)

    def cache(self, command, url, *args, env=None):
        return self.kinset("cache", command, *args, "--url", url, "--json", env=env)

    def sound(self, what, env=None):
        """Whole, and nothing half written is left once a run has looked."""
        self.run(env=env).ends()
        self.kinset("verify").ends()
        check(f"{what}: nothing is left in tmp", [path.name for path in (self.folder / "artifacts/store/tmp").iterdir()], [])

    def records(self):
        """What every stage gave, without what is true of a run alone."""
        found = {}
        for path in (self.folder / "artifacts/store/records").glob("*/*.json"):
            record = json.loads(path.read_text())
            found[record["key"]] = {name: output["content"] for name, output in record["outputs"].items()}
        return found


def states(said):
    return {stage["stage"]: stage["state"] for stage in said.json["stages"]}


def all_pulled(what, said):
    check(what, states(said.ends()), dict.fromkeys(STAGES, "pulled"))


class Server(ThreadingHTTPServer):
    """A web server over a folder, or before another server, that misbehaves on request. It knows no ranges, as the simplest do."""

    daemon_threads = True

    def __init__(self, serves=None, before=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.serves, self.before, self.asked = serves, before, []
        # Called with method, path and number of each request; an answer of its own, or None.
        self.misbehaves = lambda method, path, number: None
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, address):
        """Clients that were killed hang up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.asked.append((self.command, self.path))
        how = server.misbehaves(self.command, self.path, len(server.asked))
        if isinstance(how, int):
            return self.say(how, {}, b"<Error><Code>No</Code><Message>not today</Message></Error>")
        if how == "silent":
            time.sleep(60)
        status, headers, content = self.pass_on(body) if server.before else self.look()
        if how == "cut":
            self.say(status, headers, content, send=len(content) // 2)
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if callable(how):
            self.say(status, headers, content, send=len(content) // 2)
            return how()
        self.say(status, headers, content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def look(self):
        path = self.server.serves / self.path.lstrip("/")
        return (200, {}, path.read_bytes()) if path.is_file() else (404, {}, b"")

    def pass_on(self, body):
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "accept-encoding")}
        # Else urllib calls it a form, and moto reads it as one.
        headers.setdefault("Content-Type", "application/octet-stream")
        request = urllib.request.Request(self.server.before + self.path, data=body or None, headers=headers, method=self.command)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        kept = {name: value for name, value in answer.headers.items() if name.lower() in ("etag", "last-modified", "content-type", "content-range")}
        length = answer.headers.get("Content-Length")
        return answer.status, kept | ({"Content-Length": length} if self.command == "HEAD" and length else {}), answer.read()

    def say(self, status, headers, content, send=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:send])
        self.wfile.flush()


def files(place, kind):
    return sorted(path for path in (place / kind).rglob("*") if path.is_file())


def of_stage(place, stage, source):
    """The record of a stage in a folder that is a cache, and its blobs."""
    key = next(row["key"] for row in source.json["stages"] if row["stage"] == stage)
    record = place / "records" / key[:2] / f"{key}.json"
    outputs = json.loads(record.read_text())["outputs"].values()
    return record, [place / "blobs" / file["blob"][:2] / file["blob"] for output in outputs for file in output["files"]]


def a_folder(source, ran):
    print("a folder: pushed twice, pulled, run", flush=True)
    place = folder / "team with blank"
    url = f"file://{place}"
    pushed = source.cache("push", url, "p.toml").ends().json
    check("all are sent", (pushed["sent"], pushed["there"], pushed["failed"]), (5, 0, []))
    again = source.cache("push", url, "p.toml").ends().json
    check("none is sent twice", (again["sent"], again["objects"], again["there"]), (0, 0, 5))
    check("without pipelines it is all of the store", source.cache("push", url).ends().json["there"], 5)

    other = Machine()
    rows = other.cache("status", url, "p.toml").ends().json["stages"]
    check("status knows what is where", [(row["stage"], row["here"], row["there"]) for row in rows], [(s, False, True) for s in STAGES])
    pulled = other.cache("pull", url, "p.toml").ends().json
    check("all are pulled", (pulled["pulled"], pulled["here"], pulled["absent"]), (5, 0, []))
    check("then there is nothing to do", set(states(other.run().ends()).values()), {"fresh"})
    check("and all is the same", other.records(), source.records())
    other.sound("a machine that pulled")
    check("status counts", other.cache("status", url).ends().json | {"url": ""}, {"url": "", "both": 5, "only_here": 0, "only_there": 0})

    one = Machine()
    check("one stage alone", one.cache("pull", url, "p.toml", "--only", "kmeans").ends().json["pulled"], 1)
    check("it is all that came", len(one.records()), 1)
    check("the rest comes when a run wants it", states(one.run("--cache", url).ends()), dict.fromkeys(STAGES, "pulled") | {"kmeans": "fresh"})
    all_stores = Machine()
    check("all of the cache", all_stores.cache("pull", url).ends().json["pulled"], 5)

    check("what is not here is told", Machine().cache("push", url, "p.toml").ends().json["absent"], STAGES)

    print("a folder: a run reads and writes", flush=True)
    place = folder / "filled by runs"
    url = f"file://{place}"
    first = Machine()
    said = first.run("--cache", url, "--cache-mode", "read-write").ends()
    check("a run sends what it computed", (said.json["cache"]["sent"]["results"], said.json["cache"]["sent"]["failed"]), (5, []))
    all_pulled("the next finds it", Machine().run("--cache", url))
    for how in ({"KINSET_CACHE": url}, {}):
        second = Machine()
        if not how:
            (second.folder / "cluster.toml").write_text(f'[cache]\nurl = "{url}"\n')
        all_pulled("by the environment, or the cluster file", second.run(env=how))
    off = Machine()
    check("off is off", set(states(off.run("--cache-mode", "off", env={"KINSET_CACHE": url}).ends()).values()), {"ran"})
    changed = Machine()
    setting = ["--set", "stage.kmeans.clusters=2"]
    said = changed.run("--cache", url, "--cache-mode", "read-write", *setting)
    check("a changed setting runs what depends on it", states(said), dict.fromkeys(STAGES, "pulled") | {"kmeans": "ran"})
    check("and only that is sent", said.json["cache"]["sent"]["results"], 1)
    said = Machine().run("--executor", "local:2", "--cache", url)
    all_pulled("a run in processes asks before it starts one", said)
    check("no job was needed", said.json["jobs"]["submitted"], 0)
    said = Machine().run("--executor", "local:2", "--cache", f"file://{folder}/of processes", "--cache-mode", "read-write").ends()
    check("and sends what they computed", said.json["cache"]["sent"]["results"], 5)

    print("a folder: damage", flush=True)
    for stage in ["data.train", "neighbors"]:
        for damage in ["blob altered", "blob cut short", "blob gone", "record gone", "record altered"]:
            record, blobs = of_stage(place, stage, ran)
            victim = record if damage.startswith("record") else blobs[0]
            good = victim.read_bytes()
            victim.chmod(0o644)
            if damage.endswith("gone"):
                victim.unlink()
            elif damage.endswith("cut short"):
                victim.write_bytes(good[: len(good) // 2])
            else:
                victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
            reader = Machine()
            said = reader.run("--cache", url)
            check(f"{damage} of {stage}: it alone runs", states(said.ends()), dict.fromkeys(STAGES, "pulled") | {stage: "ran"})
            wanted = 0 if damage == "record gone" else 1
            check(f"{damage} of {stage}: warned", len([line for line in said.warnings() if "damaged" in line and victim.name in line]), wanted)
            check(f"{damage} of {stage}: the same results", reader.records(), source.records())
            reader.sound(damage)
            told = {"record gone": 0}.get(damage, 6)
            check(f"{damage} of {stage}: pull says so", Machine().cache("pull", url, "p.toml", "--only", stage).code, told)
            # A run that may write mends it.
            said = Machine().run("--cache", url, "--cache-mode", "read-write").ends()
            check(f"{damage} of {stage}: mended", said.json["cache"]["sent"]["results"], 1)
            all_pulled(f"{damage} of {stage}: whole again", Machine().run("--cache", url))

    print("a folder: killed while it pushes, again and again", flush=True)
    place = folder / "killed"
    large = Machine(images=3000, size=24)
    large.run().ends()
    for attempt in range(12):
        pusher = large.start("cache", "push", "p.toml", "--url", f"file://{place}")
        time.sleep(random.uniform(0, 0.4))
        pusher.kill()
        pusher.communicate()
        for record in files(place, "records"):
            for output in json.loads(record.read_text())["outputs"].values():
                for file in output["files"]:
                    blob = place / "blobs" / file["blob"][:2] / file["blob"]
                    check("a record never comes before its blobs", blob.is_file() and blob.stat().st_size, file["size"])
    large.cache("push", f"file://{place}", "p.toml").ends()
    all_pulled("then pushed to the end", Machine(images=3000, size=24).run("--cache", f"file://{place}"))


def a_web_server(source):
    print("a web server: read, never written", flush=True)
    place = folder / "served"
    source.cache("push", f"file://{place}", "p.toml").ends()
    server = Server(serves=place)
    reader = Machine()
    all_pulled("a run pulls", reader.run("--cache", server.url))
    check("the same results", reader.records(), source.records())
    check("pull", Machine().cache("pull", server.url, "p.toml").ends().json["pulled"], 5)
    check("it is asked and never told", {method for method, _ in server.asked} <= {"GET", "HEAD"})
    before = len(server.asked)
    check("push", "can only be read" in source.cache("push", server.url, "p.toml").ends(2).err)
    source.cache("gc", server.url, "--older-than", "1d").ends(2)
    check("a run that would write", "can only be read" in Machine().run("--cache", server.url, "--cache-mode", "read-write").ends(2).err)
    check("it has no list", "name the pipelines" in source.cache("status", server.url).ends(2).err)
    check("nobody asked for these", len(server.asked), before)

    print("a web server: errors, silence, cuts", flush=True)
    patient = {"KINSET_CACHE_TIMEOUT": "1"}
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    for what, url, how in [("nobody there", nobody, None), ("errors", server.url, 500), ("refusals", server.url, 403), ("silence", server.url, "silent")]:
        server.misbehaves = lambda method, path, number, how=how: how
        reader = Machine()
        said = reader.run("--cache", url, env=patient).ends()
        check(f"{what}: all runs", set(states(said).values()), {"ran"})
        check(f"{what}: one warning", len(said.warnings()), 1)
        check(f"{what}: soon", said.seconds < 20)
        check(f"{what}: the same results", reader.records(), source.records())
        check(f"{what}: a command fails", reader.cache("pull", url, "p.toml", env=patient).code, 6)
        doctor = reader.kinset("doctor", "--json", "--cache", url, env=patient).ends().json["checks"]
        check(f"{what}: the doctor", next(row["level"] for row in doctor if row["check"] == "cache"), "warning")
    server.misbehaves = lambda method, path, number: "cut" if "/blobs/" in path else None
    reader = Machine()
    said = reader.run("--cache", server.url, env=patient).ends()
    check("cuts: the same results", reader.records(), source.records())
    check("cuts: warned", len(said.warnings()) >= 1)
    reader.sound("cuts")

    print("a web server: killed while it pulls, at every request", flush=True)
    number = 0
    while True:
        number += 1
        reader, pids = Machine(), []
        began = len(server.asked)
        server.misbehaves = lambda m, p, asked, n=number: (lambda: os.kill(pids[0], signal.SIGKILL)) if asked - began == n else None
        process = reader.start("cache", "pull", "p.toml", "--url", server.url)
        pids.append(process.pid)
        process.communicate()
        server.misbehaves = lambda *_: None
        reader.kinset("verify").ends()
        said = reader.run("--cache", server.url).ends()
        check(f"killed at request {number}: nothing runs", "ran" not in states(said).values())
        check(f"killed at request {number}: the same results", reader.records(), source.records())
        reader.sound(f"killed at request {number}")
        if process.returncode == 0:
            break
    check("it was killed at many", number > 10)
    server.shutdown()


def words(source):
    print("what is refused", flush=True)
    said = source.run("--cache", f"https://ada:{SECRET}@host/x").ends(2)
    check("no secret is repeated", SECRET not in said.out + said.err and "user or a password" in said.err)
    source.run("--cache", "ftp://host/x").ends(2)
    source.run("--cache", "/mnt/x").ends(2)
    source.run(env={"KINSET_CACHE": "s3://"}).ends(2)
    source.run(env={"KINSET_CACHE": "file:///x/y", "KINSET_CACHE_MODE": "write"}).ends(2)
    source.kinset("cache", "push", "p.toml").ends(2)
    said = source.kinset("doctor", "--json", "--cache", "ftp://host/x").ends(2)


def collection(source):
    print("collection", flush=True)
    place = folder / "collected"
    url = f"file://{place}"
    source.cache("push", url, "p.toml").ends()
    old = Machine()
    old.run("--set", "stage.kmeans.clusters=2").ends()
    old.cache("push", url, "p.toml", "--set", "stage.kmeans.clusters=2").ends()
    long_ago = time.time() - 100 * 86_400
    for path in files(place, "."):
        os.utime(path, (long_ago, long_ago))
    before = files(place, ".")
    plan = source.cache("gc", url, "p.toml", "--older-than", "90d").ends().json
    check("what a pipeline uses stays", (len(plan["results"]), plan["kept"]), (1, 5))
    check("a plan removes nothing", files(place, "."), before)
    plan = source.cache("gc", url, "p.toml", "--older-than", "90d", "--delete").ends().json
    check("records go, files later", (len(files(place, "records")), plan["files"], plan["later"] > 0), (5, 0, True))
    listed = place / "gc.json"
    seen = json.loads(listed.read_text())
    listed.write_text(json.dumps({"condemned": {blob: since - 25 * 3600 for blob, since in seen["condemned"].items()}}))
    plan = source.cache("gc", url, "p.toml", "--older-than", "90d", "--delete").ends().json
    check("a day later they go", plan["files"], len(seen["condemned"]))
    all_pulled("what stays is whole", Machine().run("--cache", url))


def s3(source):
    try:
        import boto3
        from moto.server import ThreadedMotoServer
    except ImportError as missing:
        if os.environ.get("CI") == "true":
            sys.exit(f"FAILED S3 is not tried: {missing}")
        print(f"SKIPPED: no S3 was tried ({missing}); pip install 'moto[s3]' flask flask-cors")
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    behind = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=behind, aws_access_key_id="x", aws_secret_access_key="y", region_name="us-east-1")
    client.create_bucket(Bucket="kinset")
    server = Server(before=behind)
    env = {"AWS_ENDPOINT_URL": server.url}

    def names(prefix):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="kinset", Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def no_record_without_its_blobs(prefix, what):
        there = names(prefix)
        for name in there:
            if "/records/" in name:
                record = json.loads(client.get_object(Bucket="kinset", Key=name)["Body"].read())
                for output in record["outputs"].values():
                    for file in output["files"]:
                        check(f"{what}: blobs before the record", there.get(f"{prefix}/blobs/{file['blob'][:2]}/{file['blob']}"), file["size"])

    print("S3: pushed twice, pulled, run", flush=True)
    url = "s3://kinset/team"
    check("all are sent", source.cache("push", url, "p.toml", env=env).ends().json["sent"], 5)
    check("none is sent twice", source.cache("push", url, "p.toml", env=env).ends().json["objects"], 0)
    check("the layout is that of the store", {name.split("/")[1] for name in names("team/")}, {"blobs", "records", "manifests"})
    reader = Machine()
    check("all are pulled", reader.cache("pull", url, "p.toml", env=env).ends().json["pulled"], 5)
    check("nothing to do", set(states(reader.run(env=env).ends()).values()), {"fresh"})
    check("the same results", reader.records(), source.records())
    reader.sound("S3")
    check("all of the cache", Machine().cache("pull", url, env=env).ends().json["pulled"], 5)
    check("a plan to collect", source.cache("gc", url, "--older-than", "0s", env=env).ends().json["kept"], 0)
    doctor = reader.kinset("doctor", "--json", "--cache", url, env=env).ends().json["checks"]
    check("the doctor", next(row["level"] for row in doctor if row["check"] == "cache"), "ok")

    print("S3: large files go in parts", flush=True)
    large = Machine(images=2000, size=48)
    large.run().ends()
    large.cache("push", "s3://kinset/large", "p.toml", env=env).ends()
    check("one is larger than a part", max(names("large/").values()) > 16 << 20)
    check("in parts", any(method == "POST" and "uploads" in path for method, path in server.asked))
    all_pulled("and come whole", Machine(images=2000, size=48).run("--cache", "s3://kinset/large", env=env))

    print("S3: damage", flush=True)
    record = next(name for name in names("team/records/"))
    blob = max(names("team/blobs/"), key=names("team/blobs/").get)
    for name in (record, blob):
        good = client.get_object(Bucket="kinset", Key=name)["Body"].read()
        client.put_object(Bucket="kinset", Key=name, Body=good[:-2] + b"??")
        reader = Machine()
        said = reader.run("--cache", url, env=env).ends()
        check("one stage runs", sorted(states(said).values()), ["pulled"] * 4 + ["ran"])
        check("it is named", any(name.split("/")[-1] in line for line in said.warnings()))
        check("the same results", reader.records(), source.records())
        client.put_object(Bucket="kinset", Key=name, Body=good)

    print("S3: refusals and errors while it writes", flush=True)
    for status in (403, 500):
        server.misbehaves = lambda method, path, number, status=status: status if method in ("PUT", "POST") else None
        writer = Machine()
        said = writer.run("--cache", f"s3://kinset/refused-{status}", "--cache-mode", "read-write", env=env).ends()
        check(f"{status}: all that was not sent is told", sorted(said.json["cache"]["sent"]["failed"]), sorted(STAGES))
        check(f"{status}: in words", "not sent to the cache" in said.err and "kinset cache push" in said.err)
        said = writer.cache("push", f"s3://kinset/refused-{status}", "p.toml", env=env).ends(6)
        server.misbehaves = lambda *_: None
        check(f"{status}: nothing is there", names(f"refused-{status}/"), {})
        check(f"{status}: then it is", writer.cache("push", f"s3://kinset/refused-{status}", "p.toml", env=env).ends().json["sent"], 5)

    print("S3: killed while it pushes, at every request that writes", flush=True)
    for before in (True, False):
        number, prefix = 0, f"killed-{before}"
        while True:
            number += 1
            pids, writes = [], []

            def kill(method, path, _, n=number):
                if method in ("PUT", "POST"):
                    writes.append(path)
                    if len(writes) == n:
                        if before:
                            os.kill(pids[0], signal.SIGKILL)
                            return 500
                        return lambda: os.kill(pids[0], signal.SIGKILL)
                return None

            server.misbehaves = kill
            process = source.start("cache", "push", "p.toml", "--url", f"s3://kinset/{prefix}-{number}", env=env)
            pids.append(process.pid)
            process.communicate()
            server.misbehaves = lambda *_: None
            no_record_without_its_blobs(f"{prefix}-{number}", f"killed at write {number}")
            source.cache("push", f"s3://kinset/{prefix}-{number}", "p.toml", env=env).ends()
            all_pulled(f"killed at write {number}, pushed again", Machine().run("--cache", f"s3://kinset/{prefix}-{number}", env=env))
            if process.returncode == 0:
                break
        check("it was killed at many", number > 10)

    print("S3: 16 push the same at once", flush=True)
    other = Machine()
    other.run().ends()
    machines = [Machine(like=source if number % 2 else other) for number in range(16)]
    pushers = [machine.start("cache", "push", "p.toml", "--url", "s3://kinset/race", "--json", env=env) for machine in machines]
    answers = []
    for pusher in pushers:
        out, err = pusher.communicate(timeout=300)
        check(f"each ends well: {err}", pusher.returncode, 0)
        answers.append(json.loads(out))
    check("none is another's", [answer["differ"] for answer in answers], [[]] * 16)
    check("each finds all", {answer["sent"] + answer["there"] for answer in answers}, {5})
    check("one record of each", len(names("race/records/")), 5)
    no_record_without_its_blobs("race", "16 at once")
    all_pulled("and it is whole", Machine().run("--cache", "s3://kinset/race", env=env))

    print("S3: no secret is written down", flush=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 22:
            check(f"{path} holds a secret", SECRET.encode() in path.read_bytes(), False)
    check("nor sent as it is", not any(SECRET in path for _, path in server.asked))
    server.shutdown()
    moto.stop()


def jobs(source, ran):
    print("jobs of a cluster read and fill it, whoever watches", flush=True)
    bin = folder / "bin"
    bin.mkdir()
    slurm = Path(__file__).resolve().parent / "it/cluster/slurm.sh"
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
        (bin / name).symlink_to(slurm)

    def machine():
        made = Machine()
        quick = 'poll = "200ms"\nsubmit_every = "1ms"\nsettle = "1s"\n'
        (made.folder / "cluster.toml").write_text(f'executor = "slurm"\n\n[default]\ncpus = 1\n\n[limits]\n{quick}')
        own = made.folder / "slurm"
        own.mkdir()
        return made, own, {"PATH": f"{bin}:{os.environ['PATH']}", "FAKE_SLURM": str(own)}

    place = folder / "of jobs"
    url = f"file://{place}"
    first, own, env = machine()
    told = {"KINSET_CACHE": url, "KINSET_CACHE_MODE": "read-write"}
    check("submitted", set(states(first.run("--detach", env=env | told).ends()).values()), {"submitted"})
    done = lambda: sum(path.read_text() == "COMPLETED" for path in own.glob("*/*.state"))
    for _ in range(600):
        if done() == len(STAGES):
            break
        time.sleep(0.1)
    check("all jobs are done", done(), len(STAGES))
    check("jobs have sent what they computed, while nobody watched", len(files(place, "records")), len(STAGES))
    check("and it is the same", first.records(), source.records())
    all_pulled("whoever asks before there is a job needs none", Machine().run("--cache", url))

    # Those above are not there, so that nobody can know the keys of the last two before jobs have run.
    for stage in STAGES[:3]:
        of_stage(place, stage, ran)[0].unlink()
    second, own, env = machine()
    said = second.run("--cache", url, env=env)
    check("a job takes what the cache has by then", states(said.ends()), dict.fromkeys(STAGES[:3], "ran") | dict.fromkeys(STAGES[3:], "pulled"))
    check("of jobs that ran or did not", second.records(), source.records())
    check("a cache that is only read stays as it is", len(files(place, "records")), 2)
    check("who watches sends nothing either", said.json["cache"]["sent"], None)
    second.sound("after jobs", env)
    third, own, env = machine()
    said = third.run("--cache", url, "--cache-mode", "read-write", env=env).ends()
    check("what is sent twice is there once", (said.json["cache"]["sent"]["results"], len(files(place, "records"))), (3, 5))

    gone = f"file://{folder}/not mounted/team"
    fourth, own, env = machine()
    said = fourth.run("--cache", gone, env=env).ends()
    check("a cache that is not there costs no job", set(states(said).values()), {"ran"})


source = Machine()
ran = source.run().ends()
words(source)
a_folder(source, ran)
jobs(source, ran)
a_web_server(source)
collection(source)
s3(source)
print(f"caches are shared by {Machine.count} machines, and none believed what was not so")

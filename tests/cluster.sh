#!/bin/bash
# A real Slurm on this machine, and a pipeline on it: cluster.sh KINSET
#
# Starts two nodes on loopback as the user who calls it (root: munge and slurmd want that), runs a pipeline of 4 seeds by jobs, kills the
# watching process on the way, queues a training again by hand, preempts another, cancels one, lets one run out of memory, takes a
# node from another, and compares all results with those of one process, byte for byte. Then a sweep of 20 values with 3 seeds each, whose watching process dies twice. Needs slurmctld, slurmd, munge and sbatch (Debian: slurmctld slurmd slurm-client munge).
set -euo pipefail
kinset=$(readlink -f "$1")
for program in slurmctld slurmd sbatch munged munge; do
    command -v $program > /dev/null || { echo "missing: $program" >&2; exit 2; }
done
D=$(mktemp -d -t kinset-cluster.XXXXXX); chmod 755 "$D"
export SLURM_CONF=$D/slurm.conf

down() {
    for file in "$D"/slurmd-*.pid "$D"/slurmctld.pid "$D"/munged.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file"); kill "$pid" 2> /dev/null || continue
        for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    done
}
trap 'code=$?; down; [ $code = 0 ] && rm -rf "$D" || echo "left for you: $D" >&2; exit $code' EXIT

wait_for() { # seconds command...
    local end=$((SECONDS + $1)); shift
    until "$@" > /dev/null 2>&1; do [ $SECONDS -lt $end ] || { echo "too late: $*" >&2; return 1; }; sleep 0.3; done
}

mkdir -p "$D"/{state,log,munge,work}; chmod 700 "$D/munge"
dd if=/dev/urandom of="$D/munge/key" bs=1024 count=1 status=none; chmod 400 "$D/munge/key"
munged --key-file="$D/munge/key" --socket="$D/munge.socket" --pid-file="$D/munged.pid" --log-file="$D/munge/log" --seed-file="$D/munge/seed" --num-threads=1
wait_for 10 munge -S "$D/munge.socket" -n
host=$(hostname -s)
cat > "$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=36817
SlurmdPort=36818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool-%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
JobRequeue=1
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_min_interval=100000,bf_interval=2
MinJobAge=600
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=36829 CPUs=1 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=36830 CPUs=1 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=01:00:00 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=n1,n2 MaxTime=01:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
CONF
slurmctld
for node in n1 n2; do mkdir -p "$D/spool-$node"; slurmd -N $node; done
all_idle() { [ "$(sinfo -h -N -o %T | sort -u)" = idle ]; }
wait_for 60 all_idle
echo "ok: $(sinfo --version) with two nodes"

cd "$D/work"
cat > p.toml <<'PIPELINE'
name = "cluster"
device = "cpu"

[data.train]
dataset = "synthetic"
images = 96
classes = 3
size = 16

[stage.pretext]
kind = "simclr"
images = "data.train"
epochs = 600
batch = 16
network = { backbone = "resnet_tiny", width = 8 }

[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5

[stage.cluster]
kind = "scan"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
clusters = 3
heads = 2
epochs = 5
batch = 16

[stage.scores]
kind = "evaluate"
classifiers = ["cluster"]
images = "data.train"
labels = "data.train.labels"

[repeat]
from = "cluster"
seeds = 4
PIPELINE
cat > cluster.toml <<'CLUSTER'
[default]
cpus = 1
memory = "500MiB"
time = "20min"

[[rule]]
stage = "pretext"
partition = "scavenge"

[limits]
poll = "2s"
submit_every = "10ms"
settle = "5s"
CLUSTER
digests() { python3 -c 'import json, sys
for stage in json.load(open(sys.argv[1]))["stages"]: print(stage["stage"], json.dumps(stage.get("outputs"), sort_keys=True))' "$1"; }
run() { "$kinset" run p.toml --no-report --json --checkpoint-every 1 "$@"; }

run --artifacts alone --threads 1 > alone.json 2> alone.err
digests alone.json > alone.txt

run --executor slurm > first.json 2> first.err & watcher=$!
wait_for 60 grep -q "runs  pretext" first.err
kill -9 $watcher
jobs=$(squeue -h | wc -l)
echo "ok: the watching process is dead, $jobs jobs are in the queue"
pretext=$(squeue -h -o '%A %j' | awk '$2 == "cluster/pretext" { print $1 }')

# Preemption: two jobs of the better partition take both nodes for some seconds.
for _ in 1 2; do sbatch -p main --output=/dev/null --wrap 'sleep 20' > /dev/null; done
restarted() { scontrol show job "$pretext" | grep -qE 'Restarts=1|Reason=BeginTime'; }
wait_for 60 restarted
echo "ok: pretext was preempted, and waits"
run --executor slurm > second.json 2> second.err
digests second.json > second.txt
cmp alone.txt second.txt
jobs=$(python3 -c 'import json; print(json.load(open("second.json"))["jobs"])')
[ "$jobs" = "{'attached': 5, 'submitted': 0}" ] || { echo "it says $jobs" >&2; exit 1; }
cat artifacts/cluster/runs/*/jobs/*pretext-0.log | grep "resuming at epoch"
echo "ok: the second found its jobs, submitted none, and every result equals that of one process"

# The warning before the end of a job's time, by hand; and a cancelled job.
run --executor slurm --artifacts third --set seed=2 --until pretext > third.json 2> third.err & watcher=$!
wait_for 60 grep -q "runs  pretext" third.err; sleep 3
pretext=$(squeue -h -o '%A %j %T' | awk '$2 == "cluster/pretext" && $3 == "RUNNING" { print $1 }')
scancel --batch --signal=USR2 "$pretext"
wait_for 30 restarted
echo "ok: warned of its end, pretext saved its progress and queued itself again"
"$kinset" jobs p.toml --artifacts third --set seed=2 --cancel
code=0; wait $watcher || code=$?
[ $code = 5 ] && grep -q "its job was cancelled" third.err
echo "ok: cancelled, and told so"
[ -z "$(squeue -h)" ]

# A job that gets too little memory, and one whose node is gone.
{ echo 'setup = ["ulimit -v 500000"]'; cat cluster.toml; } > small.toml
code=0; run --executor slurm --cluster small.toml --artifacts third --set seed=2 --set stage.pretext.network.width=1024 --until pretext > small.json 2> small.err || code=$?
[ $code = 7 ] && grep -q "its job ran out of memory" small.err && grep -q 'pretext-0.log' small.err
echo "ok: a job that ran out of memory says so"
run --artifacts alone --threads 1 --set seed=3 --until pretext > node-alone.json 2> node-alone.err
run --executor slurm --artifacts fourth --set seed=3 --until pretext > node.json 2> node.err & watcher=$!
wait_for 60 grep -q "runs  pretext" node.err; sleep 3
read -r pretext node <<< "$(squeue -h -o '%A %j %N' | awk '$2 == "cluster/pretext" { print $1, $3 }')"
step=$(pgrep -f "^slurmstepd: \\[$pretext\\.")
# The daemon of the node, the one of the job, and what that has started: nobody is left to tell of it.
kill -9 "$(cat "$D/slurmd-$node.pid")" $step $(for one in $step; do cat "/proc/$one/task/$one/children"; done)
wait_for 120 restarted
slurmd -N "$node"
wait $watcher
digests node-alone.json > node-alone.txt
digests node.json > node.txt
cmp node-alone.txt node.txt
[ "$(python3 -c 'import json; print(json.load(open("node.json"))["jobs"]["submitted"])')" = 2 ]
cat fourth/cluster/runs/*/jobs/*pretext-0.log | grep "resuming at epoch"
echo "ok: the node of pretext was gone, Slurm queued it again, and it ended with the same bytes"
wait_for 60 all_idle

{ sed -e 's/^name = .*/name = "sweep"/' -e 's/^epochs = 600/epochs = 20/' -e 's/^seeds = 4/seeds = 3/' p.toml
    echo "[vary]"
    echo "stage.cluster.entropy_weight = [$(seq -s ', ' 0.5 0.25 5.25)]"; } > sweep.toml
sweep() { "$kinset" run sweep.toml --json "$@"; }
queued() { squeue -h -r | wc -l; }
fewer() { [ "$(queued)" -lt "$1" ]; }
sweep --artifacts alone --threads 1 > sweep-alone.json 2> sweep-alone.err
digests sweep-alone.json > sweep-alone.txt
started=$SECONDS
sweep --executor slurm > sweep-1.json 2> sweep-1.err & watcher=$!
more() { [ "$(queued)" -gt 100 ]; }
wait_for 60 more
kill -9 $watcher
sweep --executor slurm > sweep-2.json 2> sweep-2.err & watcher=$!
wait_for 600 fewer 80
kill -9 $watcher
echo "ok: the watching process of the sweep died twice, $(queued) jobs are in the queue"
sweep --executor slurm > sweep-3.json 2> sweep-3.err
digests sweep-3.json > sweep-3.txt
cmp sweep-alone.txt sweep-3.txt
jobs=$(python3 -c 'import json; print(json.load(open("sweep-3.json"))["jobs"]["submitted"])')
[ "$jobs" = 0 ] || { echo "the third watching process submitted $jobs" >&2; exit 1; }
[ "$(tail -n +2 artifacts/sweep/scores.csv | wc -l)" = 60 ]
"$kinset" report sweep.toml --json | python3 -c 'import json, sys
[sweep] = json.load(sys.stdin)["varied"]
assert len(sweep["rows"]) == 20 and all(row["seeds"] == [1, 2, 3] for row in sweep["rows"]), sweep'
[ -s artifacts/sweep/report.html ]
echo "ok: 20 values with 3 seeds each in $((SECONDS - started)) s, one report, and every result equals that of one process"

"$kinset" verify > /dev/null
echo "all is well"

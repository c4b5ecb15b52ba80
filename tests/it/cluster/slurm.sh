#!/bin/bash
# A Slurm for tests, in one folder ($FAKE_SLURM) and by the name it is called: sbatch, squeue, scancel, scontrol, sacct. It knows
# arrays, dependencies, restarts and cancellation, has two processors, and no accounting. The file `busy` there says how often sbatch is
# to be too busy; the partition `nowhere` does not exist.
set -u
D=${FAKE_SLURM:?}
me=$(readlink -f "$0")

put() { printf '%s' "$2" > "$1.new" && mv "$1.new" "$1"; }
tasks() { seq 0 "$(cat "$D/$1/last")"; }
state() { cat "$D/$1/$2.state"; }

# all COMPLETED -> 0; one that never will be -> 2; else 1
held() { # job task
  local part id all=0 of
  for part in $(tr ',' ' ' < "$D/$1/after"); do
    for id in $(cut -d: -f2- <<< "$part" | tr ':' ' '); do
      case $part in
        aftercorr:*) of=$2 ;;
        *) of=$(tasks "${id%_*}"); [ "$id" = "${id%_*}" ] || of=${id#*_} ;;
      esac
      for of in $of; do
        case $(state "${id%_*}" "$of") in
          COMPLETED) ;;
          FAILED|CANCELLED) return 2 ;;
          *) all=1 ;;
        esac
      done
    done
  done
  return $all
}

work() { # job task
  local job=$1 task=$2 own slot='' restarts=0 log code id=$1
  own=$D/$job/$task
  log=$(sed -n 's/^#SBATCH --output=//p' "$D/$job/script"); log=${log//%a/$task}
  [ -e "$D/$job/array" ] && export SLURM_ARRAY_TASK_ID=$task && id=${job}_$task
  while :; do
    put "$own.state" PENDING
    while :; do
      [ -e "$own.cancel" ] && { put "$own.state" CANCELLED; return; }
      held "$job" "$task"; case $? in
        2) put "$own.state" CANCELLED; return ;;
        0) mkdir "$D/slot-1" 2>/dev/null && { slot=1; break; }; mkdir "$D/slot-2" 2>/dev/null && { slot=2; break; } ;;
      esac
      sleep 0.05
    done
    put "$own.state" RUNNING
    SLURM_JOB_ID=$id SLURM_RESTART_COUNT=$restarts bash "$D/$job/script" >> "$log" 2>&1 < /dev/null &
    put "$own.pid" $!
    wait $!; code=$?
    rmdir "$D/slot-$slot"
    if [ -e "$own.cancel" ]; then put "$own.state" CANCELLED; return; fi
    if [ -e "$own.requeue" ]; then rm "$own.requeue"; restarts=$((restarts + 1)); continue; fi
    if [ $code = 0 ]; then put "$own.state" COMPLETED; else put "$own.state" FAILED; fi
    return
  done
}

cancel() { # job task
  touch "$D/$1/$2.cancel"
  [ "$(state "$1" "$2")" = RUNNING ] && kill "$(cat "$D/$1/$2.pid")"
  return 0
}

case ${1-} in __work) work "$2" "$3"; exit ;; esac
echo "${0##*/} $*" >> "$D/calls"
case ${0##*/} in
  sbatch)
    busy=$(cat "$D/busy" 2>/dev/null || echo 0)
    if [ "$busy" -gt 0 ]; then
      put "$D/busy" $((busy - 1))
      echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1
    fi
    # What stands on the command line is said in the script as well, here.
    file=/dev/stdin; options=''
    for arg; do case $arg in *.sbatch) file=$arg ;; --dependency=*) options+="#SBATCH $arg"$'\n' ;; esac; done
    script=$(printf '#!/bin/bash\n%s' "$options"; tail -n +2 "$file")
    if grep -q -- '--partition=nowhere' <<< "$script"; then
      echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1
    fi
    job=$(($(cat "$D/number" 2>/dev/null || echo 100) + 1)); put "$D/number" $job
    mkdir "$D/$job"
    said() { sed -n "s/^#SBATCH --$1=//p" <<< "$script"; }
    printf '%s\n' "$script" > "$D/$job/script"
    said dependency > "$D/$job/after"; said comment > "$D/$job/comment"
    array=$(said array); array=${array%%\%*}; echo "${array#0-}" > "$D/$job/last"
    if [ -n "$array" ]; then touch "$D/$job/array"; else echo 0 > "$D/$job/last"; fi
    for task in $(tasks $job); do put "$D/$job/$task.state" PENDING; done
    for task in $(tasks $job); do
      # As `--export=NONE` does: next to nothing of who submits.
      env -i PATH="$PATH" FAKE_SLURM="$D" setsid bash "$me" __work "$job" "$task" > /dev/null 2>&1 < /dev/null &
    done
    echo "$job" ;;
  squeue)
    for job in "$D"/[0-9]*/; do
      job=$(basename "$job"); [ -e "$D/$job/last" ] || continue
      for task in $(tasks "$job"); do
        number='N/A'; [ -e "$D/$job/array" ] && number=$task
        state=$(state "$job" "$task"); node=''; [ "$state" = RUNNING ] && node=n1
        echo "$job|$number|$state|None|$node|N/A|$(cat "$D/$job/comment")"
      done
    done ;;
  scancel)
    for id in "$@"; do
      case $id in
        *_*) cancel "${id%_*}" "${id#*_}" ;;
        *) for task in $(tasks "$id"); do cancel "$id" "$task"; done ;;
      esac
    done ;;
  scontrol)
    id=$2; task=0; case $id in *_*) task=${id#*_} ;; esac
    touch "$D/${id%_*}/$task.requeue" ;;
  sacct) echo "Slurm accounting storage is disabled" >&2; exit 1 ;;
esac

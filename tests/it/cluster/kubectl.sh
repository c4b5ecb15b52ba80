#!/bin/bash
# A kubectl for tests, in one folder ($FAKE_KUBERNETES): get job, apply -f, delete job. A pod is a process. An index is tried again, as often
# as its Job says, unless it ended with a code that fails it.
set -u
D=${FAKE_KUBERNETES:?}
me=$(readlink -f "$0")

put() { printf '%s' "$2" > "$1.new" && mv "$1.new" "$1"; }

pod() { # job index limit
  local tries=0 code
  while :; do
    JOB_COMPLETION_INDEX=$2 /bin/sh -c "$(cat "$D/$1.command")" >> "$D/$1-$2.log" 2>&1 < /dev/null
    code=$?
    case $code in 0) return 0 ;; 2|3|4|5|6|70) return 1 ;; esac
    tries=$((tries + 1)); [ $tries -le "$3" ] || return 1
  done
}

work() { # job indexes limit
  local pods=() index state=Complete
  for index in $(seq 0 $(($2 - 1))); do pod "$1" "$index" "$3" & pods+=($!); done
  for index in "${pods[@]}"; do wait "$index" || state=Failed; done
  put "$D/$1.state" $state
}

case ${1-} in __work) work "$2" "$3" "$4"; exit ;; esac
echo "kubectl $*" >> "$D/calls"
[ "$1" = --namespace ] && shift 2
case $1 in
  get) cat "$D/$3.state" 2> /dev/null || true ;;
  delete) rm "$D/$3.state" ;;
  apply)
    said() { sed -n "s/^  $1: \"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" "$3" | head -n 1; }
    job=$(said name . "$3"); indexes=$(said completions . "$3"); limit=$(said backoffLimitPerIndex . "$3")
    [ -e "$D/$job.state" ] && { echo "job.batch/$job unchanged"; exit; }
    # The lines of the block, and what Kubernetes makes of `$$`.
    sed -n '/- |-$/,/^ *\(envFrom\|image\):/p' "$3" | sed -e '1d;$d' -e 's/^ *//' -e 's/\$\$/$/g' > "$D/$job.command"
    put "$D/$job.state" ''
    env -i PATH="$PATH" FAKE_KUBERNETES="$D" setsid bash "$me" __work "$job" "$indexes" "$limit" > /dev/null 2>&1 < /dev/null &
    echo "job.batch/$job created" ;;
esac

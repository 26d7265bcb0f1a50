# smoke.sh EXECUTABLE: a frozen node serves, takes a reading, gives it back and stops when it is told to; a command ends by Ctrl-C.
program=$1
data=$(mktemp -d)
"$program" version
"$program" serve --name smoke --data "$data/node" >"$data/log" 2>&1 &
node=$!
for attempt in {1..100}; do
  if "$program" write smoke temperature 21.5 --timeout 60s >/dev/null 2>&1; then break; fi
  kill -0 $node 2>/dev/null || { cat "$data/log"; exit 1; }
  sleep 0.2
done
"$program" latest --timeout 60s || { cat "$data/log"; exit 1; }
"$program" query smoke temperature --aggregate mean --step 1h --timeout 60s >/dev/null
python3 "$(dirname "$0")/terminal.py" "$program" 127.0.0.1:7440 || { cat "$data/log"; exit 1; }
kill -TERM $node
wait $node || { cat "$data/log"; exit 1; }
rm -r "$data"
if compgen -G "/dev/shm/_MEI*" >/dev/null; then echo "smoke: left an unpacked folder behind"; exit 1; fi

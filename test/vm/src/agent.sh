# Runs in the guest: takes commands from the line to the host and answers them, several at a time.
#
# A request is `NUMBER SECONDS LENGTH` and a script of that length; an answer is `NUMBER STATUS OUT ERR` and the bytes
# of standard output and standard error. When the host goes away, so does the machine.
modprobe virtio_pci
modprobe virtio_console
for module in overlay loop; do modprobe $module; done
until [ -c /dev/vport0p1 ]; do sleep 0.05; done
export PATH=/berth/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export BERTH_BIN=/berth/bin BERTH_SHIM=/berth/bin/berth-shim BERTH_PEERS=/berth/peers CI=true
work=/run/agent
mkdir -p $work /tmp
exec 3<>/dev/vport0p1
echo "0 0 0 0" >&3
while read -r number seconds length <&3; do
  head -c "$length" <&3 >"$work/$number"
  (
    cd /root; echo 0 >/proc/$BASHPID/oom_score_adj
    timeout -k 5 "$seconds" bash "$work/$number" >"$work/$number.out" 2>"$work/$number.err" </dev/null 3>&-
    status=$?
    exec 9>"$work/lock"
    flock 9
    printf '%s %s %s %s\n' "$number" "$status" "$(stat -c %s "$work/$number.out")" "$(stat -c %s "$work/$number.err")" >&3
    cat "$work/$number.out" "$work/$number.err" >&3
    rm -f "$work/$number" "$work/$number.out" "$work/$number.err"
  ) &
done
poweroff -f

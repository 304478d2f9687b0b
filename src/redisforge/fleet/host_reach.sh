# Which ports of other hosts can be reached from a host without python3: the same lines as host_reach.py, with the
# redirection of bash. Run as `bash -c PROGRAM bash SECONDS HOST ADDRESS PORT …`: the window, then three words per port.
# It cannot listen itself, and it does not measure. The fields of an answer are parted by tabs.
attempt() {
until [ "$SECONDS" -ge "$4" ]
do
why=$(timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>&1)
case $? in
0) printf 'reach\t%s\t%s\t%s\t\t\n' "$1" "$2" "$3"
return ;;
124) why='no answer within 2 s' ;;
*) why=${why##*: } ;;
esac
sleep 0.2
done
printf 'reach\t%s\t%s\t%s\t\t%s\n' "$1" "$2" "$3" "${why:-not tried}"
}
printf 'began\t%s\n' "$(date +%s.%N)"
window=$1
shift
while [ "$#" -ge 3 ]
do
attempt "$1" "$2" "$3" "$((window - 2))" &
shift 3
done
wait
printf 'ended\t%s\n' "$(date +%s.%N)"

# The health check of an Envoy's container: is it ready to serve? bash alone, for the image has no curl.
#
#     bash health.sh [ENVOY_YAML]      without a file: the one that PID 1's command line names
#
# Exit status 0: healthy. 1: not, with the reason.
set -eu
config=${1:-}
if [ -z "$config" ]; then
  previous=
  while IFS= read -r -d '' word; do
    case $previous in --config-path | -c) config=$word ;; esac
    previous=$word
  done </proc/1/cmdline
fi
[ -r "$config" ] || { echo "no configuration to read: '$config'"; exit 1; }

# The admin API's port: the first port_value below the line `admin:`.
port= below=
while IFS= read -r line; do
  case $line in
    admin:*) below=yes ;;
    [!\ #]*) below= ;;
  esac
  if [ -n "$below" ] && [[ $line =~ port_value:\ *([0-9]+) ]]; then
    port=${BASH_REMATCH[1]}
    break
  fi
done <"$config"
[ -n "$port" ] || { echo "no admin port in $config"; exit 1; }

exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
IFS= read -r -t 3 -u 3 status || { echo "the admin API gives no answer"; exit 1; }
case $status in
  *' 200 '*) echo healthy ;;
  *) echo "not ready: ${status%$'\r'}"; exit 1 ;;
esac

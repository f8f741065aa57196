#!/bin/bash
# A process that registers itself, with nothing but curl: register.sh NAME PORT
# It says what it is once, sends heartbeats, and takes itself out at the end.
# If it is killed, the server takes it out when the TTL has passed.
#
# TOKEN: a service account's token (see README.md). API: the server's URL.
set -euo pipefail

name=${1:?usage: register.sh NAME PORT} port=${2:?usage: register.sh NAME PORT}
api=${API:-https://127.0.0.1:6443}/apis/fingerpost.dev/v1alpha1/namespaces/${NAMESPACE:-default}/instances
id=$name-$port ttl=5

call() { # METHOD URL [BODY]
	curl -sS -o /dev/null -w '%{http_code}' --cacert "${CACERT:?the file with the CA of the server}" \
		-H "Authorization: Bearer ${TOKEN:?a token}" -H 'Content-Type: application/json' -X "$1" "$2" ${3:+-d "$3"}
}

register() {
	call POST "$api" "{
	  \"apiVersion\": \"fingerpost.dev/v1alpha1\", \"kind\": \"Instance\",
	  \"metadata\": {\"name\": \"$id\"},
	  \"spec\": {
	    \"service\": \"$name\", \"address\": \"127.0.0.1\", \"nodeName\": \"$(uname -n | tr '[:upper:]' '[:lower:]')\",
	    \"ports\": [{\"name\": \"http\", \"port\": $port}],
	    \"claims\": [{\"door\": \"http\", \"id\": \"$id\", \"ttl\": \"${ttl}s\"}]
	  }
	}"
}

trap 'call DELETE "$api/$id" >/dev/null; exit 0' INT TERM
while :; do
	case $(call PUT "$api/$id/renew" || true) in
	200) ;;
	404) register >/dev/null || true ;; # new, or forgotten: say it again
	esac
	sleep $((ttl / 3)) &
	wait $!
done

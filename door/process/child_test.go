package process

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The test binary plays the processes that the tests supervise: with this
// variable set it does what the variable says.
const playVariable = "FINGERPOST_TEST_PLAY"

func TestMain(m *testing.M) {
	if what := os.Getenv(playVariable); what != "" {
		os.Exit(play(what))
	}
	os.Exit(m.Run())
}

// play is the program under supervision:
//
//	serve      an HTTP server on $PORT; GET /fail makes /healthz fail, /heal
//	           mends it, /crash kills it; SIGTERM ends it
//	stubborn   serve, but SIGTERM is ignored
//	family     serve, with a child of its own that holds a connection to
//	           $TEST_PEER and ignores SIGTERM
//	exit N     ends at once
//	show       prints its arguments and what it was told, and ends
func play(what string) int {
	verb, arg, _ := strings.Cut(what, " ")
	switch verb {
	case "exit":
		n, _ := strconv.Atoi(arg)
		return n
	case "show":
		fmt.Println(strings.Join(os.Args[1:], " "))
		for _, k := range []string{"PORT", "PORT_HTTP", "FINGERPOST_SERVICE", "FINGERPOST_NAMESPACE", "FINGERPOST_REPLICA", "WEB_SERVICE_HOST", "MINE"} {
			fmt.Println(k + "=" + os.Getenv(k))
		}
		fmt.Fprint(os.Stderr, "no end of line")
		return 0
	case "hold":
		signal.Ignore(syscall.SIGTERM)
		c, err := net.Dial("tcp", os.Getenv("TEST_PEER"))
		if err != nil {
			return 1
		}
		_, _ = c.Write([]byte{1})
		_, _ = io.Copy(io.Discard, c)
		return 0
	case "family":
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), playVariable+"=hold")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			return 1
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	failing := make(chan bool, 1)
	failing <- false
	set := func(v bool) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) { <-failing; failing <- v }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/fail", set(true))
	mux.HandleFunc("/heal", set(false))
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		v := <-failing
		failing <- v
		if v {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1
}
